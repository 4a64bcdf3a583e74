"""`shoal prepare --together`: three real processes find domains in text that stays with each, as one place would."""

import json
import re
import shlex
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from mistake import mistake

from benchmarks.boxes import SHOAL
from benchmarks.patience import HANG_S, until
from benchmarks.together import (
    DATA,
    _process,
    _written,
    dealt,
    find_in_one_place,
    find_together,
    same,
    target_of,
    texts_of,
)
from peer.corpus.data import open_corpus

BYTES = 300_000  # of each source: some seconds, and passages enough
SOURCES = texts_of(DATA, BYTES)
PAGE = Path(__file__).parents[2] / "docs" / "guide" / "your-own-data.md"  # whose lines are typed here

pytestmark = [pytest.mark.swarm, pytest.mark.timeout(600)]


def test_three_parties_find_what_one_place_finds(tmp_path: Path) -> None:
    parts = dealt(SOURCES)
    together = find_together(tmp_path / "together", parts, len(SOURCES))
    one = find_in_one_place(tmp_path / "one", parts, len(SOURCES), tmp_path / "together" / "0")
    assert len(one.domain_of) > 200
    assert same(together.domain_of, one.domain_of) >= 0.999
    corpora = [open_corpus(tmp_path / "together" / str(index)) for index in range(3)]
    assert len({corpus.info.tokenizer_sha256 for corpus in corpora}) == 1
    names = [[domain.name for domain in corpus.info.domains] for corpus in corpora]
    assert names == [[f"cluster.{number}" for number in range(len(SOURCES))]] * 3
    said = (tmp_path / "together" / "1.log").read_text()
    assert "no text moves" in said and "all of you use each token" in said


def test_who_leaves_ends_it_for_all_by_name_and_nothing_is_written(tmp_path: Path) -> None:
    parts = dealt(SOURCES)
    with ExitStack() as running:

        def start(index: int, line: str) -> "subprocess.Popen[bytes]":
            places = {"mine/": str(_written(tmp_path, index, parts[index])), "own": str(tmp_path / str(index))}
            words = [places.get(word, word) for word in shlex.split(line)[1:]]
            command = [*SHOAL, *words, "--host", "127.0.0.1"]
            return running.enter_context(_process(tmp_path / f"{index}.log", command, None))

        first, other = re.findall(r"^shoal prepare .*--together.*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
        processes = [start(0, first)]
        target = target_of(tmp_path / "0.log", processes[0])
        processes.append(start(1, other.replace("ADDR#WORD", target)))
        until(
            lambda: (tmp_path / "0.log").read_text(), lambda said: "2 of 3 participants" in said, "a seat to be taken"
        )
        processes[0].send_signal(signal.SIGKILL)
        assert processes[1].wait(HANG_S) == 1
    (line,) = [line for line in (tmp_path / "1.log").read_text().splitlines() if line.startswith("shoal: ")]
    assert "the first participant is gone" in line and "begin again" in line
    assert not (tmp_path / "0").exists() and not (tmp_path / "1").exists()


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": f"fish {n} " * 90}) for n in range(40)))
    prepare = ["prepare", str(tmp_path / "text.jsonl"), "--out", str(tmp_path / "out")]
    address = "/ip4/127.0.0.1/tcp/9/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
    assert "say how many with --domains" in mistake(*prepare, "--together", "3")
    assert "choose from 2 to 16" in mistake(*prepare, "--together", "17", "--domains", "2")
    assert "lacks the word after #" in mistake(*prepare, "--together-with", address)
    assert "nobody listens there" in mistake(*prepare, "--together-with", f"{address}#12")
    assert "leave out --vocab-size" in mistake(*prepare, "--together-with", f"{address}#12", "--domains", "2")
    assert "choose one" in mistake(*prepare, "--together-with", f"{address}#12", "--together", "2")
    assert not (tmp_path / "out").exists()
