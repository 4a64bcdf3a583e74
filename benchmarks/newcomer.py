"""How long somebody new waits for the map of a swarm of his own: a clean clone, README's commands, a real browser.

What installs is left out: the clone uses the environment in which this runs, and the page that was built there.
"""

import asyncio
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.browser import open_browser, open_page
from configs.errors import ShoalError
from peer.http.page_files import FOLDER

ROOT = Path(__file__).parent.parent
READY_S, LEAVE_S = 600.0, 90.0
DOTS = "#swarm svg g[transform^=translate]"  # a peer each
# As README and `docs/guide/first-five-minutes.md` have it, but for the port, which is a free one.
START = ["start", "--config", "tiny", "--status-port", "0"]


async def seconds_to_a_map() -> dict[str, float]:
    """Return after how many seconds the founder was ready, the second peer was, and the map of both was drawn."""
    with tempfile.TemporaryDirectory(prefix="shoal-new-") as name:
        folder = Path(name)
        clone = folder / "shoal"
        await _run("git", "clone", "--quiet", str(ROOT), str(clone))
        shutil.copytree(FOLDER, clone / "peer" / "http" / "page")
        async with open_browser() as browser:
            began = time.monotonic()
            async with _peer(clone, folder / "one", START) as one:
                founded_s = time.monotonic() - began
                join = [*one["join with"].removeprefix("shoal ").split(), "--status-port", "0"]
                async with _peer(clone, folder / "two", join) as two:
                    joined_s = time.monotonic() - began
                    async with open_page(browser, two["status"]) as (page, _):
                        await page.locator(DOTS).nth(1).wait_for(state="attached")
                        return {"founded_s": founded_s, "joined_s": joined_s, "drawn_s": time.monotonic() - began}


@asynccontextmanager
async def _peer(clone: Path, state_dir: Path, command: list[str]) -> AsyncIterator[dict[str, str]]:
    """Run a peer until the block ends; yields what it said before it was ready, by the beginnings of its lines."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "peer", *command, "--state-dir", str(state_dir), "--host", "127.0.0.1",
        cwd=clone, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(clone)}, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said: dict[str, str] = {}
        async with asyncio.timeout(READY_S):
            while (line := (await process.stdout.readline()).decode().strip()) != "ready":
                if not line and process.stdout.at_eof():
                    raise ShoalError(f"shoal {' '.join(command)} ended with {await process.wait()}")
                if found := re.match(r"(status|join with): ?(.*)|status (.*)", line):
                    said[(found[1] or "status")] = found[2] or found[3]
        yield said
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(LEAVE_S):
                    await process.wait()
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    if code := await process.wait():
        raise ShoalError(f"{' '.join(command)} ended with {code}")
