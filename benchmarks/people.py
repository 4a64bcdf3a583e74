"""What people see: what the page costs the daemon, how soon it is drawn, that it keeps to itself, and what it names.

    python -m benchmarks.people [--row NAME …] [--quick] [--json FILE]

The swarm is made up (`page_swarm`: 300 peers, a tick each second, every frame new); the server, the page and the
browser are the real ones. `diagnosis` makes real swarms ill, one after the other (`diagnosis.py`): some 20 minutes.
`first_five` begins with a clean clone (`newcomer.py`); `readme_runs` plays the commands of the documentation, some ten
minutes. What the Python API costs a training loop is measured by `outer.py`.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import psutil
from rich.table import Table

from benchmarks.browser import (
    SCHEMES,
    WIDTHS,
    attacks_that_pass,
    drawn_after_s,
    made_up_swarm,
    open_browser,
    open_page,
    violations,
)
from benchmarks.diagnosis import CONTROL, table_of, treat
from benchmarks.newcomer import ROOT, seconds_to_a_map
from benchmarks.report import Bar, at_least, at_most, exit_with, finish, parser

PEERS, READERS = 300, 20
WARM_S = 5.0


@dataclass(frozen=True)
class Row:
    """One figure, with what it was made from."""

    bar: Bar
    raw: dict[str, Any]
    table: Table | None = None


async def dashboard_cpu(is_quick: bool) -> Row:
    """Read the stream as twenty pages would; the daemon's CPU time over the wall-clock time, of one core."""
    length_s = 15.0 if is_quick else 60.0
    async with made_up_swarm(PEERS) as (url, process), asyncio.TaskGroup() as tasks:
        counts = [0] * READERS
        readers = [tasks.create_task(_read(url, counts, k)) for k in range(READERS)]
        await asyncio.sleep(WARM_S)
        daemon, counts[:] = psutil.Process(process.pid), [0] * READERS
        began_s, before = time.monotonic(), daemon.cpu_times()
        await asyncio.sleep(length_s)
        after, took_s = daemon.cpu_times(), time.monotonic() - began_s
        for reader in readers:
            reader.cancel()
    cpu_s = after.user + after.system - before.user - before.system
    raw = {"cpu_s": cpu_s, "wall_s": took_s, "bytes": sum(counts), "least_read_bytes": min(counts)}
    what = f"daemon's CPU of one core, {PEERS} peers, {READERS} readers of the stream, over {took_s:.0f} s"
    return Row(at_most("dashboard_cpu", what, cpu_s / took_s, 0.03), raw)


async def dashboard_ready(is_quick: bool) -> Row:
    """Open the page in fresh profiles; seconds from its opening to a drawn map, the worst of them."""
    times = []
    async with made_up_swarm(PEERS) as (url, _), open_browser() as browser:
        for _ in range(3 if is_quick else 10):
            times.append(await drawn_after_s(browser, url))
    what = f"s from opening to a drawn map of {PEERS} peers, worst of {len(times)}"
    raw = {"seconds": times, "median_s": statistics.median(times), "worst_s": max(times)}
    print(f"dashboard_ready: median {raw['median_s']:.3f} s, worst {raw['worst_s']:.3f} s")
    return Row(at_most("dashboard_ready", what, max(times), 1.0), raw)


async def dashboard_foreign(is_quick: bool) -> Row:
    """Count requests to other hosts, complaints of the browser and of axe, and attacks that pass."""
    foreign: list[str] = []
    complaints: list[str] = []
    unfit: list[str] = []
    async with made_up_swarm(PEERS) as (url, _):
        async with open_browser() as browser:
            for scheme in SCHEMES:
                for width in WIDTHS[:1] if is_quick else WIDTHS:
                    async with open_page(browser, url, width, scheme) as (page, seen):
                        await page.wait_for_selector(".fall")
                        unfit += [f"{scheme}, {width} px: {each}" for each in await violations(page)]
                    foreign += seen.foreign
                    complaints += seen.complaints
        tried, passed = await attacks_that_pass(url)
    what = f"requests to other hosts, console errors, accessibility violations, attacks that pass (of {tried})"
    raw = {"foreign": foreign, "complaints": complaints, "violations": unfit, "passed": passed, "attacks": tried}
    return Row(at_most("dashboard_foreign", what, len(foreign) + len(complaints) + len(unfit) + len(passed), 0), raw)


async def diagnosis(is_quick: bool) -> Row:
    """Make swarms ill; count those whose ailment and cure were named, and that got well by that cure."""
    courses = await treat(is_quick=is_quick)
    ailing = [course for course in courses if course.name != CONTROL]
    is_silent = all(course.holds for course in courses if course.name == CONTROL)
    count = sum(course.holds for course in ailing) if is_silent else 0
    what = f"ailing swarms, of {len(ailing)}, whose cause and cure were named, and that the cure helped; 0: false alarm"
    raw = {"courses": [asdict(course) for course in courses]}
    return Row(at_least("diagnosis", what, count, len(ailing)), raw, table_of(courses))


async def first_five(is_quick: bool) -> Row:
    """From a clean clone to a drawn map of one's own swarm of two, by README's commands; what installs is left out."""
    seconds = await seconds_to_a_map()
    what = "s from a clean clone to a drawn map of two peers, install time aside"
    return Row(at_most("first_five", what, seconds["drawn_s"], 120.0), seconds)


async def readme_runs(is_quick: bool) -> Row:
    """Play the commands of README and docs; the share of the blocks that ran, of those that could run anywhere here."""
    sys.path.insert(0, str(ROOT / "tests" / "docs"))
    from blocks import blocks, pages  # type: ignore[import-not-found]

    could = [block for page in pages() for block in blocks(page) if not block.cannot_run]
    run = [block for block in could if block.is_run or block.test is not None]
    marks = "not long" if is_quick else "long or not long"
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-m", marks, str(ROOT / "tests" / "docs")]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    failed = [line for line in said.decode().splitlines() if line.startswith(("FAILED", "ERROR"))]
    share = len(run) / len(could) if process.returncode == 0 else 0.0
    raw = {"blocks": len(could), "run": len(run), "failed": failed}
    return Row(at_least("readme_runs", f"of {len(could)} blocks of commands, that run as tests", share, 1.0), raw)


async def errors_documented(is_quick: bool) -> Row:
    """Count the errors of the source that name a remedy and stand on the page of errors, of all."""
    from docs.generate import errors

    page, found = errors.page(), errors.raised()
    told = [each for each in found if each.has_remedy and f"({each.anchor})=" in page and each.message in page]
    what = f"of {len(found)} errors, that have a remedy and a page"
    return Row(at_least("errors_documented", what, len(told) / len(found), 1.0), {"errors": len(found)})


async def _read(url: str, counts: list[int], index: int) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(f"GET /stream HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        while chunk := await reader.read(1 << 18):
            counts[index] += len(chunk)
    finally:
        writer.close()


ROWS: dict[str, Callable[[bool], Awaitable[Row]]] = {
    "dashboard_cpu": dashboard_cpu,
    "dashboard_ready": dashboard_ready,
    "dashboard_foreign": dashboard_foreign,
    "diagnosis": diagnosis,
    "first_five": first_five,
    "readme_runs": readme_runs,
    "errors_documented": errors_documented,
}


def main() -> int:
    """Measure the rows that are asked for; return the exit code."""
    options = argparse.ArgumentParser(description="what people see of a swarm", parents=[parser()])
    options.add_argument("--row", action="append", choices=list(ROWS), help="only this one; may be repeated")
    args = options.parse_args()
    names = args.row or list(ROWS)

    async def measure() -> list[Row]:
        return [await ROWS[name](args.quick) for name in names]

    rows = asyncio.run(measure())
    figures = {"seeds": [PEERS], "raw": dict(zip(names, (row.raw for row in rows), strict=True))}
    table = next((row.table for row in rows if row.table is not None), None)
    return finish(args, [row.bar for row in rows], figures, table=table)


if __name__ == "__main__":
    exit_with(main)
