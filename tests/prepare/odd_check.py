"""Runs the real command on an odd input, follows the remedy of what it says, and compares the corpus with the texts."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from odd_entries import Odd, Remedy, chatted, size
from tokenizers import Tokenizer

from peer.commands.main import main
from peer.corpus.data import open_corpus, open_tokens, unmarked

OUT = "out"
SIZES = ("--vocab-size", "300")
# What a process took at most is asked of the kernel's own file: `getrusage` counts what its parent took, too.
MEASURED = """
import sys
from peer.commands.main import main
code = main(sys.argv[1:])
print(next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if "VmHWM" in line), file=sys.stderr)
sys.exit(code)
"""


@dataclass
class Outcome:
    """What came of an odd input."""

    wrong: list[str] = field(default_factory=list)  # what is not as it must be
    put_in: int = 0  # bytes of text
    found: int = 0  # bytes of text in the corpus, and bytes that were reported as skipped
    skipped: dict[str, int] = field(default_factory=dict)  # reason → bytes
    peak_bytes: int | None = None

    def expect(self, holds: bool, what: str) -> None:
        """Note what does not hold."""
        if not holds:
            self.wrong.append(what)


@dataclass(frozen=True)
class _Ran:
    code: int
    out: str
    err: str


@dataclass
class _Domain:
    trained: list[str]
    heldout: list[str]


def check(odd: Odd, place: Path) -> Outcome:
    """Do all of it in a new folder in `place`. Restores the current folder."""
    outcome = Outcome()
    place = place / "place"
    place.mkdir()
    with contextlib.chdir(place):
        odd.write(place)
        sources, options = [each.format(place=place) for each in odd.sources], odd.options
        if odd.refused:
            before = _listed(place)
            ran = _run(odd, sources, options)
            assert odd.remedy is not None
            _check_refusal(ran, odd, odd.remedy, outcome)
            outcome.expect(_listed(place) == before, f"left behind: {_listed(place) ^ before}")
            if odd.remedy.mend is not None:
                odd.remedy.mend(place)
            options = odd.remedy.options if odd.remedy.is_instead else options + odd.remedy.options
            sources = list(odd.remedy.sources or sources)
        before = _listed(place)
        ran = _measured(odd, sources, options, outcome) if odd.most_bytes else _run(odd, sources, options)
        outcome.expect(ran.code == 0, f"exit code {ran.code}: {ran.err.strip()[-2000:]}")
        if ran.code == 0:
            said = json.loads(ran.out)
            new = {name for name in _listed(place) - before if name.partition("/")[0] != OUT}
            outcome.expect(not new, f"left behind: {new}")
            _check_skips(said["skipped"], odd, place, outcome)
            _check_corpus(_read(place / OUT), odd, outcome)
    return outcome


def _run(odd: Odd, sources: Sequence[str], options: Sequence[str]) -> _Ran:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(_command(odd, sources, options))
    return _Ran(code, out.getvalue(), err.getvalue())


def _measured(odd: Odd, sources: Sequence[str], options: Sequence[str], outcome: Outcome) -> _Ran:
    command = [sys.executable, "-c", MEASURED, *_command(odd, sources, options)]
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    peak = int(ran.stderr.split()[-1]) if ran.returncode == 0 else 0
    outcome.peak_bytes = peak
    outcome.expect(peak <= (odd.most_bytes or 0), f"took {peak / 1e6:.0f} MB of memory")
    return _Ran(ran.returncode, ran.stdout, ran.stderr)


def _command(odd: Odd, sources: Sequence[str], options: Sequence[str]) -> list[str]:
    sizes = () if "--tokenizer" in options else SIZES
    return ["prepare", *sources, "--out", OUT, *sizes, "--context-length", str(odd.context), "--json", *options]


def _check_refusal(ran: _Ran, odd: Odd, remedy: Remedy, outcome: Outcome) -> None:
    outcome.expect(ran.code == 2, f"exit code {ran.code} instead of a refusal: {ran.err}{ran.out}")
    lines = ran.err.splitlines()
    outcome.expect(len(lines) == 1 and not ran.out, f"{len(lines)} lines: {ran.err}{ran.out}")
    outcome.expect(odd.refused in ran.err, f"says: {ran.err}")
    outcome.expect(remedy.words in ran.err, f"does not say {remedy.words!r}: {ran.err}")
    if remedy.options:  # a name of an option that the message does not have is nothing that it says
        outcome.expect(remedy.options[0] in remedy.words, f"{remedy.options[0]} is not what it says")


def _check_skips(said: dict[str, Any], odd: Odd, place: Path, outcome: Outcome) -> None:
    """Compare what is reported with what must be skipped."""
    due = {
        reason: (count, size_of if isinstance(size_of, int) else _size_of_files(place, size_of))
        for reason, (count, size_of) in odd.skipped.items()
    }
    found = {reason: (each["count"], each["bytes"]) for reason, each in said.items()}
    outcome.expect(found == due, f"skipped {found} instead of {due}: {said}")
    outcome.expect(all(each["places"] for each in said.values()), "a skip without a place")
    outcome.skipped = {reason: each["bytes"] for reason, each in said.items()}
    outcome.put_in += sum(size_bytes for _, size_bytes in due.values())
    outcome.found += sum(outcome.skipped.values())


def _size_of_files(place: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in place.glob(pattern) if path.is_file())


def _check_corpus(corpus: dict[str, _Domain], odd: Odd, outcome: Outcome) -> None:
    if odd.clusters:
        outcome.expect(len(corpus) == odd.clusters, f"{len(corpus)} domains instead of {odd.clusters}")
        found = [each for domain in corpus.values() for each in (domain.trained, domain.heldout)]
        together = _Domain([*chain(*found[::2])], [*chain(*found[1::2])])
        corpus = dict.fromkeys(odd.texts, together)
    names = sorted(corpus)
    outcome.expect(names == sorted(odd.texts), f"domains {names} instead of {sorted(odd.texts)}")
    for name in sorted({*corpus} | {*odd.texts}):
        domain = corpus.get(name, _Domain([], []))
        texts = [*domain.trained, *domain.heldout]
        _compare(texts, odd.texts.get(name, ()), odd.is_whole, f"domain {name}", outcome)
        outcome.put_in += _size(odd.texts.get(name, ()), odd.is_whole)
        outcome.found += _size(texts, odd.is_whole)
        both = {each.strip() for each in domain.trained} & {each.strip() for each in domain.heldout}
        outcome.expect(not both, f"held out and trained on: {list(both)[:3]}")
        if odd.heldout is not None and name in odd.heldout:
            _compare(domain.heldout, odd.heldout[name], odd.is_whole, f"held out of {name}", outcome)
        else:
            _check_share(domain, name, odd.share, outcome)


def _check_share(domain: _Domain, name: str, share: float, outcome: Outcome) -> None:
    """See that as much is held out as was asked for, as near as whole documents come to it."""
    total, held = size([*domain.trained, *domain.heldout]), size(domain.heldout)
    longest = max((len(each.encode()) for each in [*domain.trained, *domain.heldout]), default=0)
    is_near = abs(held - share * total) <= max(0.2 * share * total, longest)
    outcome.expect(is_near, f"{held / max(1, total):.1%} of {name} is held out, instead of {share:.0%}")


def _compare(found: Sequence[str], due: Sequence[str], is_whole: bool, what: str, outcome: Outcome) -> None:
    have, want = (Counter(_units(texts, is_whole)) for texts in (found, due))
    missing, surplus = list((want - have).elements()), list((have - want).elements())
    if missing or surplus:
        outcome.wrong.append(
            f"{what}: {len(missing)} of {want.total()} missing, such as {str(missing[:2])[:400]}; "
            f"{len(surplus)} too many, such as {str(surplus[:2])[:400]}"
        )


def _units(texts: Iterable[str], is_whole: bool) -> Iterator[str]:
    for text in texts:
        yield from [text.strip()] if is_whole else text.split()


def _size(texts: Iterable[str], is_whole: bool) -> int:
    """Return the bytes of texts, without white space at their edges, or, where documents are cut, anywhere."""
    return size(texts) if is_whole else sum(len("".join(text.split()).encode()) for text in texts)


def _listed(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*")}


def _read(folder: Path) -> dict[str, _Domain]:
    """Return the documents of a corpus, from its tokens."""
    corpus = open_corpus(folder)
    tokenizer = Tokenizer.from_buffer(corpus.tokenizer_json())
    end, found = corpus.info.end_of_text, {}
    for domain in corpus.info.domains:
        shards = [
            open_tokens(corpus.blob(shard.content_id), corpus.info.vocab_size, domain.task is not None)
            for shard in domain.shards
        ]
        if domain.task is None:
            trained = [text for shard in shards for text in _split(shard, end, tokenizer)]
            heldout = list(_split(corpus.heldout(domain), end, tokenizer))
        else:
            parts = [part for shard in shards for part in _split(unmarked(shard[shard != ~end]), end, tokenizer)]
            trained = _joined(parts)
            lines = corpus.blob(domain.heldout.content_id).read_text().splitlines()
            heldout = [_example(json.loads(line), domain.task.format.chat is not None) for line in lines]
        found[domain.name] = _Domain(trained, heldout)
    return found


def _split(tokens: Any, end: int, tokenizer: Tokenizer) -> Iterator[str]:
    for part in np.split(tokens, np.flatnonzero(tokens == end) + 1):
        if len(part):
            yield tokenizer.decode(part[part != end].tolist())


def _joined(parts: Sequence[str]) -> list[str]:
    """Return examples: what an assistant says before its last turn ends with the same token as the whole."""
    examples: list[str] = []
    for part in parts:
        if part.startswith("\nUser:") and examples:
            examples[-1] += part
        else:
            examples.append(part)
    return examples


def _example(said: dict[str, Any], is_chat: bool) -> str:
    """Return a held-out example as training would read it."""
    turns = [text for role, text in said.get("before", ()) if role != "system"]
    if is_chat:
        system = "".join(f"System:\n{text}\n" for role, text in said.get("before", ()) if role == "system")
        return system + chatted(*turns, said["input"], said["target"])
    return f"{said['input']}\n\n###\n{said['target']}"


def spelled(name: str) -> str:
    """Return the name of an entry as a test may be called."""
    return re.sub(r"\W+", "_", name)
