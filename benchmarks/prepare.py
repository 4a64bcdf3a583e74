"""How fast, how small and how safe is `shoal prepare`? Beside the tokenizer library's own batch call, in the same run.

    python -m benchmarks.prepare [--row ROW …] [--quick] [--json FILE]

`odd_files` measures `nothing_lost`, too. Text is the shared domains, said over again in another order until there is
enough of it. CPU seconds are those of a process of its own, its threads included, from the first byte read to the last
byte written; imports do not count.
"""

import argparse
import gzip
import hashlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers

from benchmarks import duplicates, odd, spark, together
from benchmarks.report import Bar, at_least, at_most, exit_with, finish, parser
from benchmarks.text import DATA
from configs.errors import DataError
from peer.corpus.data import open_corpus, open_tokens
from peer.corpus.tokenizer import read_tokenizer

ROWS = (
    "odd_files",
    "heldout_clean",
    "prepare_speed",
    "prepare_memory",
    "resume",
    "dedup",
    "spark_same",
    "spark_scale",
    "swarm_domains",
)
VOCABULARY = 8192

Measured = tuple[list[Bar], dict[str, Any], list[str]]  # bars, figures, what was not measured

SPEEDS = (("4 files", 0.85), ("20,000 files", 0.80), ("gzipped", 0.75))
MOST_GB, KILLS = 1.5, 10

PREPARE = """
import json, resource, sys, time
from pathlib import Path
from peer.prepare.engine import prepare
from peer.sources.listing import Listing
from peer.prepare.plan import Plan

def cpu():
    return sum(each.ru_utime + each.ru_stime for each in map(resource.getrusage, (0, -1)))

if len(sys.argv) > 5:  # where each step writes down that it begins, and what it took
    from peer.prepare import engine
    from peer.prepare.job import Job

    within = [0.0]  # what the steps inside a step took: text is tokenized while it is assembled

    def told(name, step):
        def do(*given):
            with open(sys.argv[5], "a") as log:
                began = cpu()
                within.append(0.0)
                print(name, "begun", file=log, flush=True)
                made = step(*given)
                took = cpu() - began
                print(name, took - within.pop(), file=log, flush=True)
                within[-1] += took
            return made

        return do

    Job.survey, Job.encode = told("survey", Job.survey), told("encode", Job.encode)
    engine.assemble = told("assemble", engine.assemble)

began = cpu()
unit = sys.argv[4] if len(sys.argv) > 4 else None
prepare([sys.argv[1]], Path(sys.argv[2]), Plan(tokenizer=Path(sys.argv[3])), listing=Listing(unit=unit))
with open("/proc/self/status") as status:  # getrusage counts what the parent took
    peak = next(int(line.split()[1]) for line in status if "VmHWM" in line)
print(json.dumps({"cpu_s": cpu() - began, "start_cpu_s": began, "peak_bytes": peak * 1024}))
"""

BATCHES = """
import json, resource, sys, time
from pathlib import Path
from tokenizers import Tokenizer

def cpu():
    found = resource.getrusage(resource.RUSAGE_SELF)
    return found.ru_utime + found.ru_stime

tokenizer = Tokenizer.from_file(sys.argv[2] + "/tokenizer.json")
documents = Path(sys.argv[1]).read_text().split("\\n\\n")
tokenizer.encode_batch(documents[:10])
began, batch, size = cpu(), [], 0
for document in documents:
    batch.append(document)
    size += len(document)
    if size > 1 << 20:
        tokenizer.encode_batch(batch, add_special_tokens=False)
        batch, size = [], 0
tokenizer.encode_batch(batch, add_special_tokens=False)
print(json.dumps({"cpu_s": cpu() - began}))
"""


def main() -> int:
    """Measure the rows that are asked for."""
    asked = argparse.ArgumentParser(
        description=__doc__, parents=[parser()], formatter_class=argparse.RawTextHelpFormatter
    )
    asked.add_argument("--row", choices=ROWS, action="append")
    args = asked.parse_args()
    bars: list[Bar] = []
    raw: dict[str, Any] = {}
    left: list[str] = []
    with tempfile.TemporaryDirectory(prefix="shoal-prepare-") as folder:
        place = Path(folder)
        tokenizer = _tokenizer(place)
        for row in args.row or ROWS:
            own = place / row
            own.mkdir()
            measured, raw[row], missing = MEASURES[row](own, tokenizer, args.quick)
            bars += measured
            left += missing
            shutil.rmtree(own)
    return finish(args, bars, {"seeds": [0], "raw": raw}, left)


def _documents() -> list[str]:
    """Return the shared text, as documents."""
    if not DATA.is_dir():
        raise DataError(f"the shared text is not at {DATA}; see benchmarks/README.md")
    return [
        each.strip("\n")
        for path in sorted(DATA.glob("*/train.txt"))
        for each in _joined(path.read_text().split("\n\n"))
        if each.strip()
    ]


def _joined(paragraphs: Sequence[str]) -> Iterator[str]:
    """Yield documents of a thousand characters and more, without blank lines."""
    document: list[str] = []
    for paragraph in paragraphs:
        document.append(paragraph.strip("\n"))
        if sum(map(len, document)) >= 1000:
            yield "\n".join(document)
            document = []
    yield "\n".join(document)


def _texts(size_bytes: int) -> Iterator[str]:
    """Yield documents until there are so many bytes, each time round in another order."""
    documents, draw, done = _documents(), random.Random(0), 0
    while True:
        draw.shuffle(documents)
        for document in documents:
            yield document
            done += len(document.encode()) + 2
            if done >= size_bytes:
                return


def _tokenizer(place: Path) -> Path:
    from peer.prepare.engine import prepare_texts
    from peer.prepare.plan import Plan

    prepare_texts({"text": list(_texts(8_000_000))}, place / "trained", Plan(vocab_size=VOCABULARY))
    return place / "trained"


def _write(folder: Path, documents: Sequence[str], files: int, is_gzipped: bool = False) -> None:
    folder.mkdir()
    for at in range(files):
        own = documents[at * len(documents) // files : (at + 1) * len(documents) // files]
        text = "\n\n".join(own).encode() + b"\n"
        name = folder / f"part-{at:05}.txt"
        if is_gzipped:
            (folder / f"{name.name}.gz").write_bytes(gzip.compress(text, 6))
        else:
            name.write_bytes(text)


def _run(program: str, *told: str | Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", program, *map(str, told)], capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"a measurement failed: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _speed(place: Path, tokenizer: Path, is_quick: bool) -> Measured:
    size_bytes = 10_000_000 if is_quick else 100_000_000
    documents = list(_texts(size_bytes))
    (place / "all.txt").write_text("\n\n".join(documents))
    megabytes = (place / "all.txt").stat().st_size / 1e6
    bars, raw = [], {}
    for (name, bar), files in zip(SPEEDS, (4, 2000 if is_quick else 20_000, 4), strict=True):
        source = place / name.replace(" ", "").replace(",", "")
        _write(source, documents, files, is_gzipped=name == "gzipped")
        theirs = _run(BATCHES, place / "all.txt", tokenizer)["cpu_s"]
        ours = _run(PREPARE, source, place / "out", tokenizer, "paragraph")["cpu_s"]
        shutil.rmtree(place / "out")
        shutil.rmtree(source)
        raw[name] = {"ours_mb_per_cpu_s": megabytes / ours, "theirs_mb_per_cpu_s": megabytes / theirs}
        what = f"MB per CPU second over the batch call's, {megabytes:.0f} MB in {name}: {megabytes / ours:.2f}"
        bars.append(at_least("prepare_speed", what, theirs / ours, bar, megabytes / theirs))
    return bars, raw, []


def _words(place: Path) -> Path:
    """Write a tokenizer of whole words, which is several times as fast: what is measured is what `prepare` holds."""
    counted = Counter(word for text in _texts(2_000_000) for word in text.split())
    names = ["<|endoftext|>", "[UNK]", *(word for word, _ in counted.most_common(VOCABULARY - 2))]
    words = Tokenizer(models.WordLevel({name: at for at, name in enumerate(names)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(place / "tokenizer.json"))
    return place


def _memory(place: Path, tokenizer: Path, is_quick: bool) -> Measured:
    one, many = (100_000_000, 200_000_000) if is_quick else (1_000_000_000, 4_000_000_000)
    peaks, tokenizer = {}, _words(place)
    for name in ("one text", "one JSON line", "many"):
        source = place / "big"
        source.mkdir()
        with (source / ("a.jsonl" if "JSON" in name else "a.txt")).open("w") as file:
            file.write('{"text": "' if "JSON" in name else "")
            for document in _texts(many if name == "many" else one):
                if name == "many":
                    file.write(document + "\n\n")
                else:
                    text = document.replace("\n\n", "\n") + "\n"
                    file.write(json.dumps(text, ensure_ascii=False)[1:-1] if "JSON" in name else text)
            file.write('"}\n{"text": "and a short one"}\n' if "JSON" in name else "")
        unit = "file" if name == "one text" else "paragraph"
        peaks[name] = _run(PREPARE, source, place / "out", tokenizer, unit)["peak_bytes"] / 1e9
        shutil.rmtree(source)
        shutil.rmtree(place / "out")
    sizes = {"one text": one, "one JSON line": one, "many": many}
    bars = [
        at_most("prepare_memory", f"peak GB: {name}, {sizes[name] / 1e9:g} GB of text", peak, MOST_GB)
        for name, peak in peaks.items()
    ]
    return bars, {"peak_gb": peaks}, []


def _resume(place: Path, tokenizer: Path, is_quick: bool) -> Measured:
    """Kill a preparation at random moments; what was under way then is done twice, and counts as done whole."""
    source, straight_log, killed_log = place / "text", place / "straight.log", place / "killed.log"
    _write(source, list(_texts(20_000_000 if is_quick else 100_000_000)), 4)
    began = time.monotonic()
    straight = _run(PREPARE, source, place / "straight", tokenizer, "paragraph", straight_log)
    took_s = time.monotonic() - began
    moments = sorted(random.Random(0).uniform(0.0, took_s) for _ in range(KILLS))
    waits = [after - before for before, after in zip([0.0, *moments], moments, strict=False)]
    kills = 0
    command = [sys.executable, "-c", PREPARE, source, place / "killed", tokenizer, "paragraph", killed_log]
    for attempt in range(3 * KILLS):
        process = subprocess.Popen([str(each) for each in command], stdout=subprocess.DEVNULL)
        if attempt < KILLS:
            try:
                process.wait(straight["start_cpu_s"] + waits[attempt])
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
        if process.wait() == 0:
            break
    steps = [line.split() for line in killed_log.read_text().splitlines()]
    cost = _mean_costs(straight_log)
    lost_s = sum(cost[name] if said == "begun" else -cost[name] for name, said in steps)
    twice = lost_s / straight["cpu_s"]
    is_same = _digest(place / "killed") == _digest(place / "straight")
    bars = [
        at_least("resume", f"killed at {kills} random moments: the same bytes as without", float(is_same), 1),
        at_most("resume", "work done twice, of all, by CPU time", twice, 0.10),
    ]
    return bars, {"kills": kills, "lost_cpu_s": lost_s, "straight_cpu_s": straight["cpu_s"]}, []


def _mean_costs(log: Path) -> dict[str, float]:
    """Return the CPU seconds that each kind of step takes."""
    told = [line.split() for line in log.read_text().splitlines()]
    names = {name for name, _ in told}
    return {name: statistics.fmean(float(said) for n, said in told if n == name and said != "begun") for name in names}


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def _heldout(place: Path, tokenizer: Path, is_quick: bool) -> Measured:
    """Copy held-out documents of each domain into the text of others, and look for them in what is trained on."""
    source = place / "leaky"
    shutil.copytree(DATA, source)
    folders = sorted(path for path in source.iterdir() if path.is_dir())
    for folder, other in zip(folders, folders[1:] + folders[:1], strict=True):
        with (other / "train.txt").open("a") as file:
            file.write("\n\n" + (folder / "valid.txt").read_text()[:20_000])
    _run(PREPARE, source, place / "clean", tokenizer)
    corpus = open_corpus(place / "clean")
    vocabulary = read_tokenizer(corpus.path, corpus.info.vocab_size)
    ends, held, leaked, documents = vocabulary.end, set(), 0, 0
    for domain in corpus.info.domains:
        held |= set(_split(corpus.heldout(domain).tolist(), ends))
    for domain in corpus.info.domains:
        for shard in domain.shards:
            for each in _split(open_tokens(corpus.blob(shard.content_id), corpus.info.vocab_size).tolist(), ends):
                documents += 1
                leaked += each in held
    what = f"held-out documents among the {documents:,} that are trained on"
    return [at_most("heldout_clean", what, leaked, 0)], {"held_out": len(held), "trained": documents}, []


def _split(tokens: list[int], end: int) -> Iterator[bytes]:
    """Yield the documents of a stream of tokens."""
    start = 0
    for at, token in enumerate(tokens):
        if token == end:
            yield repr(tokens[start:at]).encode()
            start = at + 1


def _odd_files(place: Path, tokenizer: Path, is_quick: bool) -> Measured:
    bars, figures = odd.measure(place, is_quick)
    return bars, figures, []


def _dedup(place: Path, tokenizer: Path, is_quick: bool) -> Measured:
    bars, figures = duplicates.dedup(DATA, is_quick)
    return bars, figures, []


def _spark_same(place: Path, tokenizer: Path, is_quick: bool) -> Measured:
    bar, figures, left = spark.spark_same(place, is_quick)
    return [bar], figures, left


def _spark_scale(place: Path, tokenizer: Path, is_quick: bool) -> Measured:
    bar, figures = spark.spark_scale(place, is_quick)
    return [bar], figures, []


def _swarm_domains(place: Path, tokenizer: Path, is_quick: bool) -> Measured:
    return together.together(DATA, is_quick)


MEASURES: dict[str, Callable[[Path, Path, bool], Measured]] = {
    "odd_files": _odd_files,
    "dedup": _dedup,
    "spark_same": _spark_same,
    "spark_scale": _spark_scale,
    "swarm_domains": _swarm_domains,
    "prepare_speed": _speed,
    "prepare_memory": _memory,
    "resume": _resume,
    "heldout_clean": _heldout,
}

if __name__ == "__main__":
    exit_with(main)
