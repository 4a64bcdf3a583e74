"""Domains that three parties find together, each in text that stays with it, against those found in one place.

    python -m benchmarks.together [--data DIR] [--quick] [--json FILE]

Each party has passages of all sources, in unlike shares, and runs `shoal prepare`; one place has all the text, and the
same tokenizer. The same is done over links of 100 Mbit/s with 50 ms each way, where this machine has such. Without
`--data` (a folder with a train.txt for each source) the text is six English ones of `text.py`, or the built-in one.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.boxes import SHOAL, shoal
from benchmarks.patience import HANG_S, until
from benchmarks.report import Bar, at_least, exit_with, finish, parser
from benchmarks.text import DATA, DOMAINS
from configs.errors import ShoalError
from peer.chaos.links import Link, Peer, forbidden, lacking, open_links
from peer.corpus.data import open_corpus
from peer.corpus.tokenizer import read_tokenizer
from peer.prepare.builtin import built_in_texts
from peer.sources.documents import Reading, SourceFile, cut_text, text_of
from peer.sources.reading import read
from peer.sources.skips import Skips

PARTIES = 3
SHARES = (0.6, 0.3, 0.1)  # of each source; which party has most of it changes from source to source
PASSAGE = 4000  # characters: shorter than `prepare` would cut
QUICK_BYTES, FULL_BYTES = 400_000, 2_200_000  # of each source
LINE = Link(up_mbit=100, down_mbit=100, delay_ms=50)
VOCABULARY = 2048
SAME = 0.999


@dataclass(frozen=True)
class Found:
    """What a preparation came to."""

    domain_of: Mapping[str, str]  # digest of a passage → domain
    seconds: float  # from the first one's start to the last one's end
    wire_bytes: int = 0  # that left the parties


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    own.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="a folder with one for each source")
    args = own.parse_args(argv)
    bars, figures, left = together(args.data, args.quick)
    return finish(args, bars, figures, left, _table(figures["rows"]))


def together(data: Path, is_quick: bool) -> tuple[list[Bar], dict[str, Any], list[str]]:
    """Let three parties find domains together, near and far from each other, and compare with one place."""
    left: list[str] = []
    sources = texts_of(data, QUICK_BYTES if is_quick else FULL_BYTES)
    with tempfile.TemporaryDirectory(prefix="shoal-together-") as name:
        folder = Path(name)
        parts = dealt(sources)
        near = find_together(folder / "near", parts, len(sources))
        one = find_in_one_place(folder / "one", parts, len(sources), folder / "near" / "0")
        rows = {"one place": one, "three parties": near}
        if problem := forbidden() or lacking():
            left.append(f"links with a delay: {problem}")
        else:
            with open_links([LINE] * PARTIES) as links:
                rows["three parties, 50 ms each way"] = find_together(folder / "far", parts, len(sources), links.peers)
    found = {name: row.domain_of for name, row in rows.items() if row is not one}
    bars = [swarm_domains(name, each, one.domain_of) for name, each in found.items()]
    figures = {
        "seeds": [0],
        "sources": {name: len(texts) for name, texts in sources.items()},
        "passages_of_each": [len(part) for part in parts],
        "rows": {
            name: {
                "seconds": row.seconds,
                "wire_bytes": row.wire_bytes,
                "same": same(row.domain_of, one.domain_of),
                "as_they_were": purity(row.domain_of, sources),
            }
            for name, row in rows.items()
        },
    }
    return bars, figures, left


def swarm_domains(name: str, found: Mapping[str, str], one: Mapping[str, str]) -> Bar:
    """Return the bar: passages that have the same domain, of the same name, as in one place."""
    return at_least(
        "swarm_domains", f"{name}: the same domain as in one place, of {len(one):,}", same(found, one), SAME
    )


def texts_of(data: Path, most_bytes: int) -> dict[str, list[str]]:
    """Return passages of each source, none of them twice."""
    paths = {name: data / name / "train.txt" for name in DOMAINS}
    if all(path.is_file() for path in paths.values()):
        found: dict[str, list[str]] = {}
        for name, path in paths.items():
            file = SourceFile(str(path), path.stat().st_size, "text", "text")
            documents = (text_of(piece.content) for piece in read(file, Reading(), Skips()))
            found[name] = list(_first(documents, most_bytes))
    else:
        found = {name: list(_first(iter(texts), most_bytes)) for name, texts in built_in_texts(most_bytes).items()}
    counted = Counter(text for texts in found.values() for text in texts)
    return {name: [text for text in texts if counted[text] == 1] for name, texts in found.items()}


def dealt(sources: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Deal the passages of each source to the parties, by SHARES that turn from source to source."""
    parts: list[list[str]] = [[] for _ in range(PARTIES)]
    bounds = np.cumsum(SHARES)
    for turn, texts in enumerate(sources.values()):
        for text in texts:
            place = int.from_bytes(bytes.fromhex(digest(text)[:8]), "big") / 2**32
            party = min(int(np.searchsorted(bounds, place, side="right")), PARTIES - 1)
            parts[(party + turn) % PARTIES].append(text)
    return parts


def find_together(
    folder: Path, parts: Sequence[Sequence[str]], domains: int, places: Sequence[Peer] | None = None
) -> Found:
    """Let each part's party prepare it with the others, each in its place, into folder/0, folder/1, …"""
    folder.mkdir()
    began = time.monotonic()
    sent = sum(place.wire_bytes()[1] for place in places or ())
    with ExitStack() as running:

        def start(index: int, *own: str) -> "subprocess.Popen[bytes]":
            host = places[index].address if places else "127.0.0.1"
            options = ["--out", str(folder / str(index)), "--host", host, *own]
            command = [*SHOAL, "prepare", str(_written(folder, index, parts[index])), *options]
            place = places[index] if places else None
            return running.enter_context(_process(folder / f"{index}.log", command, place))

        sizes = ["--domains", str(domains), "--vocab-size", str(VOCABULARY)]
        processes = [start(0, "--together", str(len(parts)), *sizes)]
        target = target_of(folder / "0.log", processes[0])
        processes += [start(index, "--together-with", target) for index in range(1, len(parts))]
        if failed := [index for index, process in enumerate(processes) if process.wait(HANG_S)]:
            said = [f"party {index} failed: {(folder / f'{index}.log').read_text()[-600:]}" for index in failed]
            raise ShoalError("\n".join(said))
    found: dict[str, str] = {}
    for index in range(len(parts)):
        found |= domains_of(folder / str(index))
    seconds = time.monotonic() - began
    return Found(found, seconds, sum(place.wire_bytes()[1] for place in places or ()) - sent)


def find_in_one_place(folder: Path, parts: Sequence[Sequence[str]], domains: int, tokenizer: Path) -> Found:
    """Prepare all the text in one place, with the tokenizer of a corpus."""
    folder.mkdir()
    source = _written(folder, 0, [text for part in parts for text in part])
    began = time.monotonic()
    own = ["--domains", str(domains), "--tokenizer", str(tokenizer), "--vocab-size", str(VOCABULARY)]
    shoal("prepare", str(source), "--out", str(folder / "corpus"), *own)
    seconds = time.monotonic() - began
    return Found(domains_of(folder / "corpus"), seconds)


def target_of(log: Path, process: "subprocess.Popen[bytes]") -> str:
    """Return what the first party prints for --together-with."""

    def look() -> str:
        said = re.search(r"--together-with '(\S+)'", log.read_text(encoding="utf-8"))
        if said is None and process.poll() is not None:
            raise ShoalError(f"the first party ended: {log.read_text(encoding='utf-8')[-500:]}")
        return said[1] if said else ""

    return until(look, bool, "the first party to say how others take part")


def domains_of(path: Path) -> dict[str, str]:
    """Return the domain of each passage of a corpus, those that are held out too, by the passage's digest."""
    corpus = open_corpus(path)
    tokenizer = read_tokenizer(path, corpus.info.vocab_size).tokenizer
    found = {}
    for domain in corpus.info.domains:
        for blob in (*domain.shards, domain.heldout):
            tokens = np.fromfile(corpus.blob(blob.content_id), dtype="<u2")
            ends = np.flatnonzero(tokens == corpus.info.end_of_text)
            for passage in np.split(tokens, ends + 1)[:-1]:
                found[digest(tokenizer.decode(passage[:-1].tolist()))] = domain.name
    return found


def same(found: Mapping[str, str], one: Mapping[str, str]) -> float:
    """Return the share of passages with the same domain; one that is missing has none."""
    return float(np.mean([found.get(passage) == domain for passage, domain in one.items()]))


def purity(found: Mapping[str, str], sources: Mapping[str, Sequence[str]]) -> float:
    """Return the share of the passages that lie in the domain in which most of their source lie."""
    kinds = [Counter(found.get(digest(text)) for text in texts) for texts in sources.values()]
    return sum(max(kind.values()) for kind in kinds) / sum(kind.total() for kind in kinds)


def digest(text: str) -> str:
    """Return a name for a passage, however white space at its ends was read."""
    return hashlib.sha256(text.strip().encode()).hexdigest()


def _first(documents: Iterator[str], most_bytes: int) -> Iterator[str]:
    left = most_bytes
    for document in documents:
        for passage in cut_text(document, PASSAGE):
            left -= len(passage.encode())
            if left < 0:
                return
            yield passage.strip()


def _written(folder: Path, index: int, texts: Sequence[str]) -> Path:
    path = folder / f"text{index}.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@contextlib.contextmanager
def _process(log: Path, command: Sequence[str], place: Peer | None) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a command, in its place, that writes into `log`; it is gone when the block ends."""
    with log.open("wb") as file:
        line = place.command(*command) if place else list(command)
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            process.wait(HANG_S)


def _table(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("text", title="domains found in text that stays where it is")
    for column in ("seconds", "MB sent", "same as one place", "as they were"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        cells = (f"{row['seconds']:.0f}", f"{row['wire_bytes'] / 1e6:.1f}", f"{row['same']:.4%}")
        table.add_row(name, *cells, f"{row['as_they_were']:.2%}")
    return table


if __name__ == "__main__":
    exit_with(main)
