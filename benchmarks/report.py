"""What every benchmark has in common: its arguments, its bars, and how the outcome is printed and written.

    def main(args):
        bars = [at_most("id", "what", measured, bar, baseline)]
        return finish(args, bars, {"seeds": [0], "raw": …})

    if __name__ == "__main__":
        run(main, "what it measures")

What is measured, and how, stands in the benchmark itself.
"""

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from configs.errors import ShoalError
from peer import __version__

_STARTED = time.monotonic()

T = TypeVar("T")


@dataclass(frozen=True)
class Bar:
    """A figure that was measured, and what it must be; `baseline` is the other system's, from the same run."""

    id: str
    what: str
    value: float
    bar: float
    holds: bool
    baseline: float | None


def at_most(id: str, what: str, value: float, bar: float, baseline: float | None = None) -> Bar:
    return Bar(id, what, value, bar, value <= bar, baseline)


def at_least(id: str, what: str, value: float, bar: float, baseline: float | None = None) -> Bar:
    return Bar(id, what, value, bar, value >= bar, baseline)


def between(id: str, what: str, value: float, low: float, high: float, baseline: float | None = None) -> Bar:
    """Return a bar with two ends; the lower one stands in its text."""
    return Bar(id, f"{what} (at least {low:g})", value, high, low <= value <= high, baseline)


def parser() -> argparse.ArgumentParser:
    """Return the arguments that all benchmarks have; one with more of its own takes it as a parent."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quick", action="store_true", help="a reduced form, in under two minutes")
    common.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    return common


def arguments(description: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line: `.quick` and `.json`."""
    return argparse.ArgumentParser(description=description, parents=[parser()]).parse_args(argv)


def run(main: Callable[[argparse.Namespace], int], description: str) -> NoReturn:
    """Read the command line, run `main` and exit with what it returns; with one line where it cannot be run here."""
    exit_with(lambda: main(arguments(description)))


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Exit with what `main`, which reads the command line itself, returns; with one line where it cannot run here."""
    try:
        sys.exit(main())
    except ShoalError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def finish(
    args: argparse.Namespace,
    bars: Sequence[Bar],
    figures: Mapping[str, Any],
    not_measured: Sequence[str] = (),
    table: RenderableType | None = None,
) -> int:
    """Print the `table` and the bars, write the JSON, and return the exit code: 1 when a bar does not hold.

    `figures` are the raw ones, with the `seeds`; `not_measured` says what this run leaves open, and why.
    """
    console = Console(width=None if sys.stdout.isatty() else 140)
    if table is not None:
        console.print(table)
    console.print(_table_of(bars))
    for line in not_measured:
        console.print(f"not measured: {line}", markup=False, highlight=False)
    if args.json is not None:
        content = {
            "quick": bool(args.quick),
            "seconds": round(time.monotonic() - _STARTED, 3),
            "versions": versions(),
            "machine": machine(),
            **figures,
            "bars": [asdict(bar) for bar in bars],
            "not_measured": list(not_measured),
        }
        args.json.write_text(json.dumps(content, indent=1, allow_nan=False, default=float) + "\n")
    return 0 if all(bar.holds for bar in bars) else 1


def baseline(measure: Callable[[], T], what: str, not_measured: list[str]) -> T | None:
    """Return what the baseline came to. If it fails, None: `not_measured` says so, and ours counts all the same."""
    try:
        return measure()
    except ShoalError as error:
        print(f"the baseline of {what} failed: {error}", file=sys.stderr, flush=True)
        lines = str(error).splitlines()
        not_measured.append(f"the baseline of {what}, which failed: {' … '.join(dict.fromkeys((lines[0], lines[-1])))}")
        return None


def versions() -> dict[str, str]:
    """Return the versions that figures depend on."""
    packages = {name: version(name) for name in ("torch", "hivemind", "numpy")}
    return {"shoal": __version__, "python": platform.python_version(), **packages}


def machine() -> dict[str, Any]:
    """Return what the figures were measured on: cores, the processor's model, memory."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_gib": round(memory_bytes / 2**30, 1),
    }


def _table_of(bars: Sequence[Bar]) -> Table:
    table = Table("bar", "what")
    for column in ("measured", "bar", "baseline", "holds"):
        table.add_column(column, justify="right")
    for bar in bars:
        baseline = "-" if bar.baseline is None else _short(bar.baseline)
        holds = "[green]yes[/]" if bar.holds else "[bold red]no[/]"
        table.add_row(bar.id, escape(bar.what), _short(bar.value), _short(bar.bar), baseline, holds)
    return table


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e5 and math.isfinite(value) else f"{value:.4g}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
