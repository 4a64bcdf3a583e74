"""Makes the pictures in README and docs from one real run: `make picture`.

Three daemons of the preset `tiny` train on this machine until their sub-models have parted and they have sealed rounds.
What `shoal status` shows of the last one is docs/status.svg; its page, in a real browser, is docs/dashboard.png and, as
on a phone, docs/dashboard-phone.png, once there are curves and answers to be seen. It takes about a quarter of an hour.
"""

import asyncio
import contextlib
import tempfile
import time
import urllib.request
from pathlib import Path

from benchmarks.browser import open_browser, open_page
from configs.errors import NetworkError
from peer.commands.page import draw, to_svg
from peer.commands.processes import POLL_S, Process, founder, joiner, open_processes
from peer.http.history import AnswersHistory, Curves
from peer.http.status import Status
from peer.http.view import view

HERE = Path(__file__).parent
COMMON_TOKENS = 150_000  # a shorter common phase than the preset's, so that experts are to be seen
PEERS = 3
ROUNDS = 40  # of the peer that is shown
TOTAL_TOKENS = 12_000_000  # more than the preset's, so that a fast machine is not done before there are curves
LOOKS, ANSWERS = 4, 2  # at held-out text, every three minutes; of a prompt, every five
COLUMNS = 108
PAGES = {"dashboard.png": (1440, 1640), "dashboard-phone.png": (390, 1640)}  # width and height in pixels
PATIENCE_S = 1800.0


async def watch(folder: Path) -> Status:
    """Run the daemons, take pictures of the last one's page, and return its status at a moment when all is well."""
    async with open_processes() as processes:
        sizes = {"STRATEGY__COMMON_TOKENS": COMMON_TOKENS, "TOTAL_TOKENS": TOTAL_TOKENS}
        environment = {f"SHOAL_RUN__{key}": str(value) for key, value in sizes.items()}
        processes.append(founder(folder, "founder", "tiny", **environment))
        await processes[0].start()
        for number in range(1, PEERS):
            processes.append(joiner(folder, f"joiner{number}", processes[0].address))
            await processes[number].start()
        shown = processes[-1]
        async with asyncio.timeout(PATIENCE_S):
            while (status := await look(shown)) is None:
                await asyncio.sleep(POLL_S)
        await take(shown)
        for process in reversed(processes):
            await process.leave()
        return status


async def look(shown: Process) -> Status | None:
    """Return the status if it is worth a picture; a machine that is too busy to answer is looked at again."""
    with contextlib.suppress(NetworkError, OSError):
        status = await shown.status()
        if is_well(status) and await has_grown(shown):
            return status
    return None


def is_well(status: Status) -> bool:
    """Say whether there is enough to see, and the trunk's last round was sealed by all."""
    trunk = next((block for block in status.blocks if block.block == "trunk"), None)
    speeds = [peer.tokens_per_s for peer in status.peers]
    is_training = len(speeds) == PEERS and min(speeds) > max(speeds) / 2  # nobody is slow for a moment
    is_sealed = trunk is not None and trunk.outcome == f"sealed {PEERS} of {PEERS}"
    return is_sealed and is_training and not status.warnings and status.peers[0].rounds >= ROUNDS


async def has_grown(shown: Process) -> bool:
    """Say whether the page has curves to draw, and answers that changed."""
    curves = Curves.model_validate_json(await asyncio.to_thread(_read, f"{shown.url}/curves"))
    answers = AnswersHistory.model_validate_json(await asyncio.to_thread(_read, f"{shown.url}/answers"))
    is_answered = any(len(prompt.answers) >= ANSWERS for prompt in answers.prompts)
    return is_answered and any(len(points) >= LOOKS for points in curves.run.values())


async def take(shown: Process) -> None:
    """Write what a browser shows of a daemon's page, from its top."""
    async with open_browser() as browser:
        for name, (width, height) in PAGES.items():
            async with open_page(browser, shown.url, width) as (page, _):
                await page.set_viewport_size({"width": width, "height": height})  # what is out of sight is not drawn
                await page.wait_for_selector("#learning .uplot")
                await page.wait_for_selector(".fall")
                await page.screenshot(path=HERE / name)


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory(prefix="shoal-picture-") as folder:
        status = asyncio.run(watch(Path(folder)))
    svg = to_svg(draw(view(status, time.time()), width=COLUMNS), "shoal status --watch", width=COLUMNS)
    (HERE / "status.svg").write_text(svg, encoding="utf-8")
    print(f"wrote status.svg, {', '.join(PAGES)} in {HERE}: {status.peers[0].rounds} rounds, tick {status.tick}")


if __name__ == "__main__":
    main()
