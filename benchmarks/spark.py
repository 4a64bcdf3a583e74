"""Is a corpus that Spark prepares that of one machine, byte for byte, and what does a second worker win?

    python -m benchmarks.spark [--quick] [--json FILE]

`benchmarks/prepare.py` calls `spark_same` and `spark_scale`. Times are of the preparation alone, with Spark started.
"""

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec

from benchmarks.hdfs import is_there, open_hdfs
from benchmarks.report import Bar, arguments, at_least, at_most, finish
from peer.prepare.engine import prepare
from peer.prepare.plan import Plan
from peer.prepare.spark import open_cluster

PLAN = Plan(vocab_size=4096, context_length=256)
SAME_BYTES, SCALE_BYTES, QUICK_BYTES = 20 << 20, 200 << 20, 3 << 20
SCALE = 0.62  # the bar
WORDS = 20_000
FILES = 8  # in each domain


def texts(folder: Path, size_bytes: int) -> Path:
    """Write about so much text, the same each time: two domains of text files and one of JSON lines."""
    for domain in ("sea", "land", "air"):
        (folder / domain).mkdir(parents=True)
        for number in range(FILES):
            lines, done = _paragraphs(f"{domain}.{number}"), 0
            is_json = domain == "air"
            with (folder / domain / f"{number}.{'jsonl' if is_json else 'txt'}").open("w", encoding="utf-8") as file:
                while done < size_bytes / 3 / FILES:
                    line = next(lines)
                    done += file.write(json.dumps({"text": line}) + "\n" if is_json else line + "\n\n")
    return folder


def _paragraphs(name: str) -> Iterator[str]:
    """Yield paragraphs of words by a law like Zipf's."""
    import numpy as np

    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    letters = np.random.default_rng(0)
    words = ["".join(chr(97 + letter) for letter in letters.integers(0, 26, 2 + rank % 9)) for rank in range(WORDS)]
    while True:
        places = (WORDS ** draw.random(150)).astype(int) % WORDS
        yield " ".join([words[place] for place in places])


def digest(folder: Path) -> dict[str, str]:
    """Return the hash of each file in a corpus."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def share_of_same(one: dict[str, str], other: dict[str, str]) -> float:
    """Return the share of files that both have, and that are equal."""
    return sum(one.get(name) == other.get(name) for name in one | other) / len(one | other)


def spark_same(scratch: Path, is_quick: bool) -> tuple[Bar, dict[str, float], list[str]]:
    """Compare corpora of two and four workers, and of text in HDFS, with that of one machine."""
    source = texts(scratch / "texts", QUICK_BYTES if is_quick else SAME_BYTES)
    prepare([source], scratch / "one", PLAN)
    expected, found, left = digest(scratch / "one"), {}, []
    for count in (2, 4):
        with open_cluster(f"local-cluster[{count},1,1024]") as workers:
            prepare([source], scratch / f"of {count}", PLAN, workers=workers)
        found[f"{count} workers"] = share_of_same(expected, digest(scratch / f"of {count}"))
    if is_there():
        (scratch / "hdfs").mkdir()
        with open_hdfs(scratch / "hdfs") as hdfs:
            system, path = fsspec.core.url_to_fs(f"{hdfs.url}/texts")
            for file in sorted(each for each in source.rglob("*") if each.is_file()):
                place = f"{path}/{file.relative_to(source)}"
                system.makedirs(place.rpartition("/")[0], exist_ok=True)
                with system.open(place, "wb") as target:
                    target.write(file.read_bytes())
            with open_cluster("local-cluster[2,1,1024]") as workers:
                prepare([f"{hdfs.url}/texts"], scratch / "of hdfs", PLAN, workers=workers)
        found["2 workers, from HDFS"] = share_of_same(expected, digest(scratch / "of hdfs"))
    else:
        left.append("text in HDFS: `python -m benchmarks.hdfs` fetches one")
    what = f"share of files that are those of the single machine, byte for byte, at worst of {', '.join(found)}"
    return at_least("spark_same", what, min(found.values()), 1.0), found, left


def spark_scale(scratch: Path, is_quick: bool) -> tuple[Bar, dict[str, float]]:
    """Time two workers of one core over one."""
    source = texts(scratch / "texts", QUICK_BYTES if is_quick else SCALE_BYTES)
    seconds = {}
    for count in (1, 2):
        with open_cluster(f"local-cluster[{count},1,1024]", folder=str(scratch)) as workers:
            began = time.monotonic()
            prepare([source], scratch / f"of {count}", PLAN, workers=workers)
            seconds[f"{count} workers, s"] = time.monotonic() - began
    ratio = seconds["2 workers, s"] / seconds["1 workers, s"]
    return at_most("spark_scale", "time of two workers of one core over one", ratio, SCALE), seconds


def main() -> int:
    args = arguments(__doc__.splitlines()[0])
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as one, tempfile.TemporaryDirectory() as other:
        same, shares, left = spark_same(Path(one), args.quick)
        scale, seconds = spark_scale(Path(other), args.quick)
    return finish(args, [same, scale], {"seeds": [0], "same": shares, "seconds": seconds}, left)


if __name__ == "__main__":
    sys.exit(main())
