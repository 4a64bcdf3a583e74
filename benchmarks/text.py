"""The text that models are trained on where their quality is measured."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from configs.run import ModelSpec
from peer.corpus.data import CORPUS_FILE, Corpus, open_corpus
from peer.prepare.builtin import built_in_corpus
from peer.prepare.engine import prepare
from peer.prepare.plan import Plan

DATA = Path("../shared/data/lm")
DOMAINS = ("wiki", "novel", "science", "tech_pep", "law_en", "dialogue")  # of that folder: those in English


def corpus_for(data: Path | None, cache: Path, model: ModelSpec) -> Corpus:
    """Prepare `data`, or the default text, or the built-in corpus where there is none; it stays in `cache`."""
    vocab_size, length = model.vocab_size, model.context_length
    if data is None and not DATA.is_dir():
        return built_in_corpus(cache, vocab_size, length)
    folder = (data or DATA).resolve()
    out = cache / f"corpus-{hashlib.sha256(f'{folder} {vocab_size}'.encode()).hexdigest()[:8]}"
    known = [folder / domain / "train.txt" for domain in DOMAINS]
    sources = known if all(path.is_file() for path in known) else [folder]
    return prepared(sources, out, Plan(vocab_size=vocab_size, context_length=length))


def prepared(sources: Sequence[Path], out: Path, plan: Plan) -> Corpus:
    """Return the corpus `out`, made of `sources` by `plan` unless it is there already."""
    if not (out / CORPUS_FILE).exists():
        prepare(sources, out, plan)
    return open_corpus(out)
