"""What `shoal prepare` prints: what a corpus holds, what was left out and why, and what a look before has found."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.text import Text

from configs.text import printable
from peer.corpus.data import open_corpus
from peer.prepare.domains import typical_words
from peer.prepare.engine import Prepared
from peer.prepare.look import Look
from peer.prepare.plan import Plan
from peer.sources.skips import Skips

SHOWN_CHARACTERS = 400  # of a sample
UNITS = {"line": "a line", "paragraph": "a paragraph or some short ones", "file": "the whole file"}
BY = {
    "split": "by its splits",
    "documents": "whole documents",
    "pieces": "passages of documents, which are few or long",
}


def show_corpus(prepared: Prepared, out: Path, plan: Plan) -> None:
    """Print what each domain holds, and what tells it from the others if it was found in the text."""
    words = {} if plan.domains is None else typical_words(open_corpus(out))
    for domain in prepared.info.domains:
        size = f"{domain.tokens:,} tokens in {len(domain.shards)} shard{'s' if len(domain.shards) > 1 else ''}"
        held_out = f"{domain.heldout.tokens:,}"
        if domain.task is not None:
            size, held_out = f"{domain.task.examples:,} examples, {size}", f"{held_out} examples"
        typical = f"; typical: {', '.join(words[domain.name])}" if words.get(domain.name) else ""
        print(f"{domain.name}: {size}, {held_out} held out ({BY[prepared.held_out_by[domain.name]]}){typical}")
        if domain.task is not None and domain.task.cut + domain.task.left_out:
            end = "end" if plan.keep == "start" else "beginning"
            print(
                f"{domain.name}: {domain.task.cut:,} inputs lost their {end} "
                f"({prepared.lost[domain.name].tokens:,} tokens) and {domain.task.left_out:,} examples were left out, "
                f"to fit into {plan.context_length} tokens; --context-length takes longer ones"
            )
    show_skips(prepared.skips)


def show_skips(skips: Skips) -> None:
    """Print what was left out, and why."""
    for reason, skipped in skips.by_reason.items():
        places = "; ".join(printable(place) for place in skipped.places)
        more = ", …" if skipped.count > len(skipped.places) else ""
        print(f"left out: {skipped.count:,} ({_size(skipped.size_bytes)}) that {reason.words}: {places}{more}")


def show_look(look: Look) -> None:
    """Print what a look before the work has found."""
    print(f"{_count(look.files, 'file')}, {_size(look.file_bytes)}; a token is about {look.bytes_of_token:.1f} bytes")
    for layout in look.layouts:
        told = [f"{UNITS[unit]} in {_count(files, 'file')} of text" for unit, files in layout.units.items()]
        if told:
            print(f"{layout.domain}: one document is {', '.join(told)}")
        if layout.encodings:
            print(f"{layout.domain}: not UTF-8: {', '.join(_in_encodings(layout.encodings))}")
    for domain in look.domains:
        documents = _count(domain.documents, "example" if domain.is_task else "document")
        print(
            f"{domain.name}: {documents}, {_size(domain.size_bytes)}, about {_count(domain.tokens, 'token')}; "
            f"held out: {_size(domain.heldout_bytes)}, {BY[domain.held_out_by]}"
        )
    print(f"duplicates: {look.duplicates:,}")
    for size_bytes, place in look.longest:
        print(f"long: {_size(size_bytes)} in {printable(place)}")
    show_skips(look.skips)
    console = Console(highlight=False)
    for sample in look.samples:
        shown, left = Text(), SHOWN_CHARACTERS
        for text, is_learnt in sample.parts:
            if left > 0:
                piece = printable(text[:left]) + ("…" if len(text) > left else "")
                shown.append(
                    piece if console.is_terminal or is_learnt else f"[{piece}]", "bold" if is_learnt else "dim"
                )
                left -= len(text)
        console.print(
            Text(f"sample of {sample.domain}: learnt is what is bright, and not in [brackets]", "bright_black")
        )
        console.print(shown)


def _in_encodings(encodings: Mapping[str, int]) -> Iterator[str]:
    for encoding, files in encodings.items():
        yield f"{_count(files, 'file')} in {encoding}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _size(size_bytes: int) -> str:
    """Return a size as people say it."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return _count(size_bytes, "byte")
