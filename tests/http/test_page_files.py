import logging
from pathlib import Path

import httpx
import pytest
from page_server import with_page

from benchmarks.page_swarm import PageSwarm
from peer.http import status_page
from peer.http.page_files import FOREVER, POLICY, load_page

HTML = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Serve a page from here."""
    monkeypatch.setattr(status_page, "load_page", lambda: load_page(tmp_path))
    return tmp_path


def test_a_page_is_served_under_a_strict_policy(folder: Path) -> None:
    (folder / "assets").mkdir()
    (folder / "index.html").write_text("<!doctype html><title>it</title>")
    (folder / "assets" / "index-Ab12_-xy.js").write_text("1")
    (folder / "theme.js").write_text("2")
    (folder / "built-from").write_text("secret")

    async def check(client: httpx.AsyncClient, swarm: PageSwarm) -> None:
        page = await client.get("/", headers=HTML)
        assert "<title>it</title>" in page.text
        assert page.headers.get_list("content-security-policy") == [POLICY]
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["cross-origin-resource-policy"] == "same-origin"
        script = await client.get("/assets/index-Ab12_-xy.js")
        assert script.headers["cache-control"] == FOREVER
        assert script.headers["content-type"].startswith("text/javascript")
        assert script.headers["content-security-policy"] == POLICY  # a worker has the policy of its own file
        assert (await client.get("/theme.js")).headers["cache-control"] == "no-store"
        for path in ("/built-from", "/%2e%2e/server.py", "/assets/%2e%2e/%2e%2e/server.py", "/assets/", "/index.html"):
            assert (await client.get(path)).status_code == 404
        assert "unsafe" not in POLICY
        status = await client.get("/", follow_redirects=True)  # who is no browser gets the figures
        assert status.json()["run_name"] == "tiny"

    with_page(check)


def test_a_page_that_was_not_built_is_no_error(folder: Path) -> None:
    async def check(client: httpx.AsyncClient, swarm: PageSwarm) -> None:
        page = await client.get("/", headers=HTML)
        assert page.status_code == 200
        assert "its page was not built" in page.text
        for path in ("/status", "/view", "/rounds", "/paths", "/metrics"):
            assert f'href="{path}"' in page.text
            assert (await client.get(path)).status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]

    with_page(check)


def test_a_page_that_cannot_be_read_is_no_error_either(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "index.html").write_text("<!doctype html>")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with caplog.at_level(logging.WARNING):
        assert load_page(folder) == {}
    assert "cannot be read (Permission denied); install Shoal again" in caplog.text
