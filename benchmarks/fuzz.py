"""Inputs by the million for everything that reads bytes from others, found by coverage (atheris, libFuzzer).

    pip install atheris
    python -m benchmarks.fuzz [--inputs N] [--decoder NAME …] [--corpora DIR] [--quick] [--json FILE]

Each decoder of `benchmarks/decoders.py` runs in a process of its own, from what is kept of it in `tests/fuzz/` and from
its examples. Half of the inputs are changed byte by byte, half part by part. What is neither taken nor refused by one
of our own errors, what takes longer than ten seconds or more than 2 GB, ends the process: the input is shown and kept
in the folder `--corpora`, where what reached new code is gathered too.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

from rich.table import Table

from benchmarks.report import at_least, at_most, exit_with, finish, parser

INPUTS, QUICK_INPUTS = 1_200_000, 60_000
KEPT = Path("tests/fuzz")
MAX_INPUT_BYTES = 1 << 17
TIMEOUT_S, MEMORY_MB = 10, 2048  # of one input, of one process
OWN = ("configs", "dht", "protocols", "peer")  # whose coverage is looked at


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    own.add_argument("--inputs", type=int, help="of all decoders together")
    own.add_argument("--decoder", action="append", help="only this one; may be repeated")
    own.add_argument("--corpora", type=Path, metavar="DIR", help="what is found is gathered there, and begun with")
    own.add_argument("--one", nargs=2, metavar=("NAME", "N"), help=argparse.SUPPRESS)
    args, rest = own.parse_known_args(argv)
    if find_spec("atheris") is None:
        print("inputs are made by the package atheris; say `pip install atheris`", file=sys.stderr)
        return 2
    if args.one:
        _fuzz(args.one[0], int(args.one[1]), args.corpora, rest)
        return 0
    from benchmarks.decoders import decoders

    known = decoders()
    if strange := [name for name in args.decoder or () if name not in known]:
        print(f"there is no decoder '{strange[0]}'; there are {', '.join(known)}", file=sys.stderr)
        return 2
    names = args.decoder or list(known)
    inputs = args.inputs or (QUICK_INPUTS if args.quick else INPUTS)
    each = inputs / sum(known[name].share for name in names)
    with tempfile.TemporaryDirectory(prefix="shoal-fuzz-") as scratch:
        corpora = (args.corpora or Path(scratch)).resolve()
        with ThreadPoolExecutor(os.cpu_count()) as beside:
            done = beside.map(lambda name: _run(name, round(each * known[name].share), corpora), names)
            rows = dict(zip(names, done, strict=True))
    table = Table("decoder", "inputs", "a second", "MB", "ended by", title="inputs that others may send")
    for name, row in rows.items():
        table.add_row(name, f"{row['inputs']:,}", f"{row['per_s']:,.0f}", f"{row['mb']}", row["ended"] or "")
    tried = sum(row["inputs"] for row in rows.values())
    failed = sum(bool(row["ended"]) for row in rows.values())
    bars = [
        at_most("fuzz_inputs", "decoders that an input crashed, hung, or let take too much memory", failed, 0),
        at_least("fuzz_inputs", "inputs", tried, inputs * 0.99),
    ]
    return finish(args, bars, {"rows": rows}, [], table)


def _run(name: str, count: int, corpora: Path) -> dict[str, Any]:
    """Fuzz one decoder in a process; return what came of it."""
    place = corpora / re.sub(r"\W+", "-", name)
    place.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.fuzz", "--one", name, str(count), "--corpora", str(place)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    seconds = time.monotonic() - began
    runs = [int(number) for number in re.findall(r"^#(\d+)", done.stderr, re.MULTILINE)]
    peak = [int(number) for number in re.findall(r"rss: (\d+)Mb", done.stderr)]
    ended = ""
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "ERROR" in line or "Exception" in line or "Error" in line]
        ended = (said[-1] if said else f"exit code {done.returncode}")[:200]
        print(f"{name}: {ended}; the input is in {place}", file=sys.stderr)
    else:
        print(f"{name}: {count:,} inputs in {seconds:.0f} s", file=sys.stderr)
    inputs = count if not done.returncode else max(runs, default=0)
    return {"inputs": inputs, "per_s": inputs / seconds, "mb": max(peak, default=0), "ended": ended}


def _fuzz(name: str, count: int, corpus: Path, options: Sequence[str]) -> None:
    """Be the process of one decoder; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=list(OWN)):
        from benchmarks.decoders import HOSTILE, changed, decoders
    decoder = decoders()[name]
    for at, seed in enumerate((*decoder.seeds, *kept(name))):
        (corpus / f"seed-{at}").write_bytes(seed)

    def one(data: bytes) -> None:
        with suppress(decoder.raises):
            decoder.read(data)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        if decoder.form and random.random() < 0.5:
            found = changed(data, decoder.form, random.randrange(1 << 16), random.choice(HOSTILE))
            if found != data:
                return found[:max_size]
        return bytes(atheris.Mutate(data, len(data) or 1))[:max_size]

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    flags = [f"-runs={count}", f"-max_len={MAX_INPUT_BYTES}", f"-timeout={TIMEOUT_S}", f"-rss_limit_mb={MEMORY_MB}"]
    flags += ["-seed=1", f"-artifact_prefix={corpus}/", "-verbosity=1"]
    atheris.Setup([sys.argv[0], *flags, *options, str(corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()


def kept(name: str) -> list[bytes]:
    """Return the inputs of a decoder that are kept with the tests: each has once shown something."""
    return [path.read_bytes() for path in sorted((KEPT / re.sub(r"\W+", "-", name)).glob("*"))]


if __name__ == "__main__":
    exit_with(main)
