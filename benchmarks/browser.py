"""A real Chromium on the page: what it asks for, what it complains of, and what other sites can do to a daemon with it.

Nothing but loopback can be reached: every other name resolves to nothing, so that a page which needs one is seen to.
"""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright

from benchmarks.patience import until_async
from configs.errors import ConfigError
from peer.http.page_files import FOLDER

OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
REBOUND = "shoal-rebound.test"  # a foreign name that has come to mean this machine
WIDTHS = (360, 900, 1440)
SCHEMES = ("light", "dark")
# What newer browsers do by themselves against such attacks, older ones do not: the daemon must do without.
UNGUARDED = "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests"
MAP = "#swarm svg[role=img] .core"
PATIENCE_MS = 60_000.0


def why_not() -> str:
    """Say why the page cannot be drawn here; nothing: it can."""
    if chromium_path() is None:
        return "there is no Chromium; install it (on Debian: apt-get install chromium)"
    if not (FOLDER / "index.html").exists():
        return "the page was not built; run: make install"
    return ""


def chromium_path() -> str | None:
    """Return where Chromium is."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@asynccontextmanager
async def open_browser(*options: str) -> AsyncIterator[Browser]:
    """Start Chromium, and end it. Raises ConfigError: it is missing, or there is no page."""
    if reason := why_not():
        raise ConfigError(reason)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium_path(), args=["--no-sandbox", *(options or [OFFLINE])]
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def made_up_swarm(peers: int, *options: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Serve `page_swarm` in a process of its own; yields its URL and the process, which is ended afterwards."""
    command = ["-m", "benchmarks.page_swarm", "--peers", str(peers), "--port", "0", *options]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parent.parent
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip(), process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass
class Seen:
    """What a page asked other hosts for, and what the browser complained of."""

    host: str
    foreign: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        """Note it from now on."""
        page.on("request", self._request)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.netloc != self.host:
            self.foreign.append(request.url)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


@asynccontextmanager
async def open_page(
    browser: Browser, url: str, width: int = 1440, scheme: str = "light"
) -> AsyncIterator[tuple[Page, Seen]]:
    """Open the page in a fresh profile, and wait until its map and its rounds are drawn."""
    context = await browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE_MS)
    try:
        page, seen = await context.new_page(), Seen(urlsplit(url).netloc)
        seen.watch(page)
        await page.goto(url, wait_until="commit")
        await page.wait_for_selector(MAP)
        yield page, seen
    finally:
        await context.close()


async def drawn_after_s(browser: Browser, url: str) -> float:
    """Return how long the page took from its opening to the frame in which its map was drawn."""
    async with open_page(browser, url) as (page, _):
        # Not `wait_for_function`: it asks again by evaluating a string in the page, whose policy forbids that.
        drawn = "performance.getEntriesByName('map').length"
        await until_async(lambda: page.evaluate(drawn), bool, "the map to be drawn")
        return float(await page.evaluate("performance.getEntriesByName('map')[0].startTime")) / 1000


async def violations(page: Page) -> list[str]:
    """Return what axe finds against accessibility: the rule, and where."""
    found = await Axe().run(page)
    return [
        f"{rule['id']}: {', '.join(' '.join(node['target']) for node in rule['nodes'][:4])}"
        for rule in found.response["violations"]
    ]


# What a page of another site on this machine tries; each returns what came of it, and must not be "passed".
ATTACKS = {
    "POST as a form sends it": "fetch(T + '/pause', {method: 'POST', mode: 'no-cors', body: '{}'})",
    "POST as JSON": "fetch(T + '/pause', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: '{}'})",
    "POST by beacon": "Promise.resolve(navigator.sendBeacon(T + '/pause', new Blob(['{}'], {type: 'text/plain'})))",
    "asking": "fetch(T + '/ask', {method: 'POST', mode: 'no-cors', body: '{\"prompt\": \"a\"}'})",
}
READS = {
    "reading the status": "fetch(T + '/status').then((r) => r.text())",
    "reading the view": "fetch(T + '/view').then((r) => r.text())",
    "reading the stream": "new Promise((yes, no) => { const s = new EventSource(T + '/stream'); "
    "s.onmessage = s.onopen = yes; s.onerror = () => { s.close(); no(); } })",
}


async def attacks_that_pass(url: str) -> tuple[int, list[str]]:
    """Try to steer and to read a daemon from other sites; return how many were tried, and which passed."""
    passed: list[str] = []
    rules = f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1"
    async with open_browser(rules, UNGUARDED) as browser, _other_site() as other:
        page = await browser.new_page()
        await page.goto(other)
        answers: list[int] = []
        page.on("response", lambda response: answers.append(response.status) if response.url.startswith(url) else None)
        for name, script in READS.items():
            if await page.evaluate(f"T => {script}.then(() => true, () => false)", url):
                passed.append(name)
        for script in ATTACKS.values():
            await page.evaluate(f"T => {script}.then(() => true, () => false)", url)
        await page.evaluate(_FRAME, url)
        if any(frame.url.startswith(url) for frame in page.frames):
            passed.append("a frame around the page")
        async with asyncio.timeout(PATIENCE_MS / 1000):
            while not answers:  # what was sent has arrived
                await asyncio.sleep(0.05)
        # The attacker's page came before its name meant this machine; all else that it asks for comes to the daemon.
        lair = url.replace("127.0.0.1", REBOUND)
        await page.route(f"{lair}/lair", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
        await page.goto(f"{lair}/lair")
        ask = "{method: 'POST', headers: {'Content-Type': 'application/json'}, body: '{}'}"
        for name, request in {"reading": "'/view'", "a POST": f"'/pause', {ask}"}.items():
            if await page.evaluate(f"() => fetch({request}).then((r) => r.ok)"):
                passed.append(f"{name} after DNS rebinding")
        view = await page.goto(f"{url}/view")
        state = (await view.json())["headline"]["state"] if view else "unknown"
        if state != "training":
            passed.append("a POST from another site")
    return len(READS) + len(ATTACKS) + 3, passed


_FRAME = """T => new Promise((done) => {
  const frame = document.createElement('iframe');
  frame.onload = frame.onerror = () => done();
  frame.src = T;
  document.body.append(frame);
})"""


@asynccontextmanager
async def _other_site() -> AsyncIterator[str]:
    """Serve an empty page at another port of this machine: another site, as browsers have it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\r\n<!doctype html>")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
