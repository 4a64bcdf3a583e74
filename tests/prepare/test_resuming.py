"""A preparation that is killed goes on where it was, and comes to the same bytes."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.patience import until
from configs.errors import DataError, StateError
from peer.prepare.engine import prepare
from peer.prepare.kept import Here, Kept
from peer.prepare.plan import Plan

PLAN = Plan(vocab_size=400, context_length=16)
PROGRAM = "import sys; from pathlib import Path; from peer.prepare.engine import prepare; \
from peer.prepare.plan import Plan; prepare([sys.argv[1]], Path(sys.argv[2]), Plan(vocab_size=400, context_length=16))"


class Counting:
    """Works here, and ends all after so many items."""

    def __init__(self, most: int) -> None:
        self.most, self.done = most, 0

    def run(self, step: Callable[[Any], bytes], items: Sequence[Any]) -> Iterator[bytes]:
        for raw in Here().run(step, items):
            if self.done == self.most:
                raise KeyboardInterrupt
            self.done += 1
            yield raw


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for at in range(4):
        lines = [
            f"Fish {n} of shoal {at} swims past stone {n * 7 % 13} and weed {n * 5 % 11}. " * 14 for n in range(500)
        ]
        (folder / f"part-{at}.txt").write_text("\n\n".join(lines))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("most", [0, 1, 3, 5, 9, 17])
def test_it_goes_on_where_it_was(texts: Path, tmp_path: Path, most: int) -> None:
    prepare([texts], tmp_path / "whole", PLAN)
    first, second = Counting(most), Counting(10_000)
    with pytest.raises(KeyboardInterrupt):
        prepare([texts], tmp_path / "cut", PLAN, workers=first)
    prepare([texts], tmp_path / "cut", PLAN, workers=second)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    straight = Counting(10_000)
    prepare([texts], tmp_path / "again", PLAN, workers=straight)
    trained = sum(each.name.startswith("part") for each in texts.iterdir()) * 3  # the sample is read again if cut
    assert first.done + second.done <= straight.done + 1 + trained
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "cut", "texts", "whole"]


def test_a_process_that_is_killed(texts: Path, tmp_path: Path) -> None:
    out, kept = tmp_path / "corpus", tmp_path / ".corpus.unfinished"
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(texts), str(out)])
    try:
        until(lambda: (kept / "tokens.1").exists() or process.poll() is not None, bool, "two parts in tokens")
    finally:
        process.kill()
        process.wait()
    assert not out.exists() and (kept / "survey.0").exists()
    before = (kept / "survey.0").stat().st_mtime_ns, (kept / "tokenizer").stat().st_mtime_ns
    seen: list[tuple[int, int]] = []

    def look(stage: str, done: int, total: int) -> None:
        if stage == "tokenizing" and not seen:
            seen.append(((kept / "survey.0").stat().st_mtime_ns, (kept / "tokenizer").stat().st_mtime_ns))

    prepare([texts], out, PLAN, progress=look)
    assert seen == [before]
    prepare([texts], tmp_path / "whole", PLAN)
    assert contents(out) == contents(tmp_path / "whole")


def test_other_text_or_options_begin_anew(texts: Path, tmp_path: Path) -> None:
    for change in (lambda: (texts / "part-0.txt").open("a").write("\n\nand more of it"), lambda: None):
        with pytest.raises(KeyboardInterrupt):
            prepare([texts], tmp_path / "cut", PLAN, workers=Counting(9))
        change()
        plan = Plan(vocab_size=300, context_length=16)
        prepare([texts], tmp_path / "cut", plan)
        prepare([texts], tmp_path / "whole", plan)
        assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
        for name in ("cut", "whole"):
            for path in sorted((tmp_path / name).rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()


def test_text_that_is_at_fault_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("only one document")
    with pytest.raises(DataError):
        prepare([tmp_path / "a.txt"], tmp_path / "corpus", PLAN)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_two_at_one_place_are_told(tmp_path: Path) -> None:
    one, other = (Kept(tmp_path / ".corpus.unfinished", "same") for _ in range(2))
    with (
        one.opened(),
        pytest.raises(StateError, match="another process prepares corpus at this moment"),
        other.opened(),
    ):
        pass
    with other.opened():
        pass
