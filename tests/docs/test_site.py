"""The site, built as `make docs` builds it: without a warning, and without a request to any other machine."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from docs.generate import errors, log_lines

ROOT = Path(__file__).parents[2]
BUILD_S = 300.0
# What a browser fetches by itself; a link is followed by a person.
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data", "link": "href"}


class Page(HTMLParser):
    """Collects what a page makes a browser fetch, the anchors that it has, and what it links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if name := given.get("id"):
            self.anchors.add(name)
        if (where := FETCHED.get(tag)) and (url := given.get(where)):
            self.fetched.append(url)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(out / "trees")]
    done = subprocess.run(
        [*command, "docs", str(out / "html")], cwd=ROOT, capture_output=True, text=True, check=False, timeout=BUILD_S
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


def test_a_page_fetches_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    foreign = [
        f"{page.name}: {url}"
        for page in pages
        for url in Page(page.read_text(encoding="utf-8")).fetched
        if re.match(r"(https?:)?//", url)
    ]
    assert not foreign
    styles = [*site.rglob("*.css"), *site.rglob("*.svg")]
    assert styles
    pattern = r"(?:@import|url\()\s*[\"']?(?:https?:)?//"
    assert not [path.name for path in styles if re.search(pattern, path.read_text(encoding="utf-8"))]


def test_a_script_of_the_site_calls_nobody(site: Path) -> None:
    calls = r"(?:fetch|importScripts|open)\(\s*[\"'`](?:https?:)?//|(?:src|href)\s*=\s*[\"'`](?:https?:)?//"
    assert not [path.name for path in site.rglob("*.js") if re.search(calls, path.read_text(encoding="utf-8"))]


def test_each_error_can_be_linked_to(site: Path) -> None:
    anchors = Page((site / "generated" / "errors.html").read_text(encoding="utf-8")).anchors
    assert {each.anchor for each in errors.raised()} <= anchors


def test_the_lines_of_the_log_are_there(site: Path) -> None:
    text = (site / "generated" / "log-lines.html").read_text(encoding="utf-8")
    assert text.count("<tr") == len(log_lines.lines()) + 1


def test_what_an_agent_reads_is_there_and_leads_somewhere(site: Path) -> None:
    text = (ROOT / "llms.txt").read_text(encoding="utf-8")
    assert (site / "llms.txt").read_text(encoding="utf-8") == text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links and not [link for link in links if not (ROOT / link).exists()]
    pages = re.findall(r"generated/[\w-]+\.html", text)
    assert pages and not [page for page in pages if not (site / page).exists()]


def test_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (ROOT / link).exists()]
