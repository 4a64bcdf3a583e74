"""Turns text into a corpus: trains or takes a tokenizer, tokenizes, holds a part back, and cuts shards.

Documents are read three times (survey, tokenizer, encoding), never kept: memory does not grow with the corpus.
The same text and options give the same bytes on every machine. `documents.py` reads the files, `domains.py` finds
domains where none are named (and reads all text twice more), `packing.py` fills and cuts token files.
"""

import hashlib
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from configs.content import content_id_of
from configs.corpus import (
    MAX_DOMAINS,
    CorpusInfo,
    DomainInfo,
    ShardInfo,
    TaskInfo,
)
from configs.errors import DataError
from configs.files import disk_errors
from peer.corpus.data import BLOBS, CORPUS_FILE, TOKENIZER_FILE, Tokens, open_tokens, token_dtype
from peer.corpus.examples import Example
from peer.corpus.packing import TaskWriter, cut_documents, cut_windows, examples_only
from peer.corpus.tokenizer import Vocabulary, read_tokenizer, train_tokenizer
from peer.prepare.domains import WINDOWS, Search, find_domains, pool, sort_into
from peer.prepare.old_documents import (
    Columns,
    Document,
    Documents,
    Progress,
    batches,
    domain_name,
    find_files,
    position_of,
    read_documents,
    text_of,
)
from peer.prepare.plan import DEFAULT_VOCABULARY, Plan

PARTS = ("train", "heldout")


COUNTED_TOKENS = 1024  # of one document, where counts are to tell nothing of a single one


@dataclass
class _Extent:
    """What the survey found of a domain."""

    documents: int = 0
    characters: int = 0
    lowest: float = 1.0  # the lowest position of a document: that one is always held out
    is_task: bool = False

    def holds_out(self, position: float, share: float) -> bool:
        """Say whether the document at `position` is held out."""
        return position < share or position == self.lowest


def prepare(
    sources: Sequence[Path],
    out: Path,
    plan: Plan | None = None,
    columns: Columns | None = None,
    progress: Progress | None = None,
) -> CorpusInfo:
    """Prepare text files, JSON lines, Parquet files or folders of them as the corpus `out`.

    The domains are those of `documents.find_files`, or what the domain column names, or those that the plan finds or
    knows, in the text of all sources together. `out` appears when it is complete.
    Raises DataError (what to mend in the text or the options) or StateError (the disk is full or read-only).
    """
    plan, columns = plan or Plan(), columns or Columns()
    if plan.is_pooled and columns.domain is not None:
        raise DataError("--domains and --like find domains and --domain-column names them; leave one of them out")
    files = find_files(sources, may_share_names=plan.is_pooled)

    def documents() -> Iterator[tuple[str, Document]]:
        for name, path in files:
            for domain, document in read_documents(path, columns):
                yield domain or name, document

    return _prepare(documents, out, plan, progress or _silent)


def prepare_texts(
    domains: Mapping[str, Collection[Document]], out: Path, plan: Plan | None = None, progress: Progress | None = None
) -> CorpusInfo:
    """Prepare documents that are in memory: domain → documents, each iterated several times. Raises as `prepare`."""
    if not domains:
        raise DataError("no text was given; name at least one domain")
    for domain, texts in domains.items():
        if not any(text_of(text).strip() for text in texts):
            raise DataError(f"domain '{domain}' holds no text; fill it or leave it out")

    def documents() -> Iterator[tuple[str, Document]]:
        for domain, texts in domains.items():
            for document in texts:
                if text_of(document).strip():
                    yield domain_name(domain), document

    return _prepare(documents, out, plan or Plan(), progress or _silent)


def _prepare(documents: Documents, out: Path, plan: Plan, progress: Progress) -> CorpusInfo:
    plan.check()
    with disk_errors(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError(f"{out} exists and is not empty; choose another place or delete it")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            whole = Path(scratch, "corpus")  # a folder inside: the scratch folder itself is for its owner's eyes only
            (whole / BLOBS).mkdir(parents=True)
            if plan.is_pooled:
                documents = pool(documents, plan.context_length)
            extents = _survey(documents, progress)
            vocabulary = _vocabulary(documents, extents, plan, progress)
            if plan.is_pooled:
                characters = sum(extent.characters for extent in extents.values())
                if plan.known is not None:
                    documents = sort_into(documents, plan.known, plan.context_length, characters, vocabulary, progress)
                elif plan.domains is not None:
                    enough = WINDOWS * plan.context_length
                    search = Search(plan.domains, plan.seed, characters, plan.heldout_share, plan.together, enough)
                    documents = find_domains(documents, search, vocabulary, progress)
                extents = _survey(documents, progress)
                if plan.domains is not None:  # cluster.2 before cluster.10, everywhere
                    extents = dict(sorted(extents.items(), key=lambda each: (len(each[0]), each[0])))
            (whole / TOKENIZER_FILE).write_bytes(vocabulary.json)
            tasks = _encode(documents, extents, plan, vocabulary, Path(scratch), progress)
            info = CorpusInfo(
                tokenizer_sha256=hashlib.sha256(vocabulary.json).hexdigest(),
                vocab_size=vocabulary.size,
                end_of_text=vocabulary.end,
                domains=tuple(
                    _cut_domain(domain, plan, vocabulary, Path(scratch), whole / BLOBS, tasks.get(domain))
                    for domain in extents
                ),
            )
            (whole / CORPUS_FILE).write_text(
                info.model_dump_json(indent=2, exclude_defaults=True) + "\n", encoding="utf-8"
            )
            whole.rename(out)
    return info


def _survey(documents: Documents, progress: Progress) -> dict[str, _Extent]:
    extents: dict[str, _Extent] = {}
    characters = 0
    for domain, document in documents():
        text, is_task = text_of(document), isinstance(document, Example)
        extent = extents.setdefault(domain, _Extent(is_task=is_task))
        if extent.is_task != is_task:
            raise DataError(f"domain '{domain}' has both text and examples; make them two domains")
        if len(extents) > MAX_DOMAINS:
            raise DataError(f"there are more than {MAX_DOMAINS} domains; name a coarser domain column or fewer sources")
        extent.documents += 1
        extent.characters += len(text)
        extent.lowest = min(extent.lowest, position_of(document))
        characters += len(text)
        progress("reading", characters, 0)
    for domain, extent in extents.items():
        if extent.documents < 2:
            raise DataError(
                f"domain '{domain}' has only one document, but one is held out and one is trained on; "
                f"give it more text, or separate its documents (by blank lines in text files)"
            )
    return extents


def _vocabulary(documents: Documents, extents: Mapping[str, _Extent], plan: Plan, progress: Progress) -> Vocabulary:
    """Read the given tokenizer, or train one on an equal part of each domain, none of it held out."""
    if plan.tokenizer is not None:
        return read_tokenizer(plan.tokenizer, plan.vocab_size)
    budget = plan.tokenizer_characters / len(extents)
    shares = {domain: budget / extent.characters for domain, extent in extents.items()}
    expected = int(sum(min(budget, extent.characters) for extent in extents.values()))

    def sample() -> Iterator[str]:
        characters = 0
        for domain, document in documents():
            text, position = text_of(document), position_of(document)
            if 1 - position <= shares[domain] and not extents[domain].holds_out(position, plan.heldout_share):
                characters += len(text)
                progress("training the tokenizer", min(characters, expected), expected)
                yield text

    return train_tokenizer(sample(), plan.vocab_size or DEFAULT_VOCABULARY)


def _encode(
    documents: Documents,
    extents: Mapping[str, _Extent],
    plan: Plan,
    vocabulary: Vocabulary,
    scratch: Path,
    progress: Progress,
) -> dict[str, TaskInfo]:
    """Write each domain to two files in `scratch`, DOMAIN.train and DOMAIN.heldout; return what became of the tasks."""
    total = sum(extent.characters for extent in extents.values())
    done = 0
    with ExitStack() as stack:
        files: dict[tuple[str, str], IO[bytes]] = {}
        for domain in extents:
            for part in PARTS:
                files[domain, part] = stack.enter_context((scratch / f"{domain}.{part}").open("wb"))
        tasks = {
            domain: TaskWriter(plan.format(), vocabulary, files[domain, "train"], files[domain, "heldout"])
            for domain, extent in extents.items()
            if extent.is_task
        }
        for batch in batches(documents()):
            texts = [(domain, document) for domain, document in batch if isinstance(document, str)]
            for (domain, text), tokens in zip(texts, vocabulary.encode([text for _, text in texts]), strict=True):
                part = "heldout" if extents[domain].holds_out(position_of(text), plan.heldout_share) else "train"
                files[domain, part].write(tokens.tobytes())
            for domain, writer in tasks.items():
                examples = [document for name, document in batch if name == domain and isinstance(document, Example)]
                extent = extents[domain]
                writer.write(examples, [extent.holds_out(position_of(each), plan.heldout_share) for each in examples])
            done += sum(len(text_of(document)) for _, document in batch)
            progress("tokenizing", done, total)
        return {domain: writer.finish(domain) for domain, writer in tasks.items()}


def _cut_domain(
    domain: str, plan: Plan, vocabulary: Vocabulary, scratch: Path, blobs: Path, task: TaskInfo | None
) -> DomainInfo:
    """Move what `_encode` wrote of `domain` from `scratch` into blobs."""
    train, heldout = (scratch / f"{domain}.{part}" for part in PARTS)
    found = train.stat().st_size // token_dtype(vocabulary.size).itemsize
    if task is None and found <= plan.context_length:
        raise DataError(
            f"domain '{domain}' has {found} tokens to train on, fewer than one window of {plan.context_length} "
            f"and the token after it; give it more text or a smaller context length"
        )
    counts = np.zeros(vocabulary.size, dtype="<u8")
    most = None if plan.counts_noise is None else COUNTED_TOKENS
    shards = []
    tokens = open_tokens(train, vocabulary.size, task is not None)
    if task is None:
        held = open_tokens(heldout, vocabulary.size)
        pieces, num_held = cut_documents(tokens, plan.shard_tokens, vocabulary.end), held.size
    else:
        held = np.fromfile(heldout, dtype=np.uint8)
        pieces = cut_windows(tokens, plan.context_length, plan.shard_tokens, vocabulary.end)
        num_held = int((held == ord("\n")).sum())
    for shard in pieces:
        counted = shard if task is None else examples_only(shard, vocabulary.end)
        counts += counted_tokens(counted, vocabulary, most)
        shards.append(_store(blobs, shard, shard.size))
    if plan.counts_noise is not None:
        counts = noised(counts, plan.counts_noise)
    return DomainInfo(
        name=domain,
        shards=tuple(shards),
        heldout=_store(blobs, held, num_held),
        counts=_store(blobs, counts, int(counts.sum())),
        is_public=not plan.is_private,
        task=task,
    )


def counted_tokens(tokens: Tokens, vocabulary: Vocabulary, most: int | None) -> NDArray[np.uint64]:
    """Return how often each token occurs, (V,); of a document only its first `most` tokens count."""
    if most is not None:
        ends = np.flatnonzero(tokens == vocabulary.end)
        begins = np.concatenate([[0], ends + 1])
        document = np.searchsorted(ends, np.arange(tokens.size), side="left")
        tokens = tokens[np.arange(tokens.size) - begins[document] < most]
    return np.bincount(tokens, minlength=vocabulary.size).astype("<u8")


def noised(counts: NDArray[np.uint64], noise: float) -> NDArray[np.uint64]:
    """Return counts that may leave: with Gaussian noise of so many times what one document can add."""
    noisy = counts + np.random.default_rng().normal(0.0, noise * COUNTED_TOKENS, counts.size)
    return np.maximum(0.0, np.rint(noisy)).astype("<u8")


def _store(blobs: Path, values: Tokens | NDArray[np.uint8 | np.uint64], tokens: int) -> ShardInfo:
    data = values.data.cast("B")
    name = content_id_of(data)
    (blobs / name).write_bytes(data)
    return ShardInfo(content_id=name, tokens=tokens, size_bytes=data.nbytes)


def _silent(stage: str, done: int, total: int) -> None:
    """Show no progress."""
