"""The page's files: built from `peer/web` by `hatch_build.py`, kept in memory, and served under a strict policy.

The browser may load from this daemon alone, and no other site may frame it. A page that was not built stops nothing:
a short one says so, and where the figures are.
"""

import html
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.responses import Response

from peer.http.paths import PATHS

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
MEDIA_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HASHED = re.compile(r"assets/.+-[\w-]{8}\.\w+")  # as Vite names a file by what is in it
FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class PageFile:
    """One file of the page, ready to send."""

    body: bytes
    media_type: str
    is_hashed: bool  # its name changes with its content

    def response(self) -> Response:
        """Return the answer that has it."""
        headers = {"content-security-policy": POLICY} | ({"cache-control": FOREVER} if self.is_hashed else {})
        return Response(self.body, media_type=self.media_type, headers=headers)


def load_page(folder: Path = FOLDER) -> dict[str, PageFile]:
    """Return the files of the page by their paths below the root; none if it was not built, or cannot be read."""
    try:
        names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.suffix in MEDIA_TYPES}
        files = {
            name: PageFile(path.read_bytes(), MEDIA_TYPES[path.suffix], HASHED.fullmatch(name) is not None)
            for name, path in names.items()
        }
    except OSError as error:
        log.warning("the page in %s cannot be read (%s); install Shoal again to have it", folder, error.strerror)
        return {}
    return files if INDEX in files else {}


def index(files: Mapping[str, PageFile]) -> Response:
    """Return the page; where there is none, a short one that says so and links to the figures."""
    if INDEX in files:
        return files[INDEX].response()
    links = (row for row in PATHS if row.method == "GET" and "{" not in row.path and row.path not in ("/", "/stream"))
    items = "\n".join(f'<li><a href="{row.path}">{row.path}</a>: {html.escape(row.gives)}</li>' for row in links)
    body = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Shoal</title>
<h1>Shoal runs; its page was not built</h1>
<p>Install Shoal again on a machine with Node.js 20 or newer (<code>make install</code>) to have it. Until then,
<code>shoal status --watch</code> draws the swarm in a terminal, and these paths have everything as JSON or text:</p>
<ul>
{items}
</ul>
</html>"""
    return Response(body, media_type="text/html")
