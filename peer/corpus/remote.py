"""A corpus that lies in a store: what is small of it is copied here at once, its shards when they are needed.

What was copied stands for the store when that is away.
"""

import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from configs.corpus import DomainInfo, ShardInfo
from configs.errors import DataError, NetworkError, UsageError
from configs.files import read_bytes, write_file
from configs.limits import GB
from configs.outlets import is_url
from peer.corpus.blob_cache import BlobCache
from peer.corpus.data import BLOBS, CORPUS_FILE, TOKENIZER_FILE, Corpus, open_corpus
from peer.corpus.source import Part, Source
from peer.corpus.stores import OnPiece, Store

log = logging.getLogger(__name__)

MOST_INFO_BYTES, MOST_TOKENIZER_BYTES = 1 << 24, 1 << 27
MOST_COPIED_BYTES = 1 << 62  # of a corpus that is copied for a while: as many as it has
MOST_ACTIVE = 8  # shards of a domain that are drawn from at a time, however much fits


@dataclass(frozen=True)
class RemoteCorpus(Corpus):
    """A corpus in a store. `path` is where its copy grows: `blob` says where a shard lies while it lies here."""

    store: Store
    most_bytes: int  # of shards that lie here at a time

    @property
    def name(self) -> str:
        """The store's URL."""
        return self.store.url

    @property
    def shards(self) -> dict[str, ShardInfo]:
        """The shards, by their content ids."""
        return {shard.content_id: shard for domain in self.info.domains for shard in domain.shards}

    def cache(self) -> BlobCache:
        """Return the cache of its shards."""
        return BlobCache(self.path / BLOBS, self.most_bytes, self.shards)

    def fetch(self, blob: ShardInfo, path: Path, on_piece: OnPiece = lambda size: None) -> None:
        """Write a blob of the store to a file. Raises as `Store.fetch`."""
        self.store.fetch(f"{BLOBS}/{blob.content_id}", path, on_piece)

    def streams(self, domains: list[DomainInfo], context_length: int) -> list[Source]:
        """Return one source for each of these domains, in parts; together they weigh the same.

        Raises DataError: the cache is too small for them.
        """
        usable = [[shard for shard in d.shards if shard.tokens > context_length] for d in domains]
        active = most_active([[shard.size_bytes for shard in each] for each in usable], self.most_bytes)
        return [
            Source(
                f"{self.name} ({domain.name})",
                self.info.vocab_size,
                is_task=domain.task is not None,
                parts=tuple(Part(str(self.blob(shard.content_id)), shard.tokens) for shard in shards),
                active=active,
            )
            for domain, shards in zip(domains, usable, strict=True)
            if shards
        ]


def most_active(sizes: list[list[int]], most_bytes: int) -> int:
    """Return of how many shards of each domain at a time there is room for these and one more, at most MOST_ACTIVE.

    `sizes` are bytes, of the shards of each domain. More room than MOST_ACTIVE needs changes nothing of the order.
    Raises DataError where there is no room for two shards of each.
    """

    def needed_bytes(active: int) -> int:
        return sum(sum(sorted(each, reverse=True)[: active + 1]) for each in sizes)

    fitting = [active for active in range(1, MOST_ACTIVE + 1) if needed_bytes(active) <= most_bytes]
    if not fitting:
        raise DataError(
            f"{most_bytes / GB:.3g} GB of text may lie here, and two shards of each domain that is trained need "
            f"{needed_bytes(1) / GB:.3g} GB: raise cache_gb (--cache-gb), or prepare the corpus with smaller shards"
        )
    return max(fitting)


def copy_place(folder: Path, url: str) -> Path:
    """Return where below `folder` the copy of a store's corpus lies."""
    return folder / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


def open_remote(url: str, folder: Path, most_bytes: int) -> RemoteCorpus:
    """Copy what is small of the corpus at `url` below `folder`, as far as it is not there, and open it.

    Raises DataError: no corpus, or a damaged one. UsageError: no key for it. NetworkError: the store does not answer,
    and there is no copy of earlier. ConfigError: no such kind of store.
    """
    store, place = Store(url), copy_place(folder, url)
    _copy(store, CORPUS_FILE, place, MOST_INFO_BYTES)
    _copy(store, TOKENIZER_FILE, place, MOST_TOKENIZER_BYTES)
    info = open_corpus(place, has_blobs=False, name=store.url).info
    corpus = RemoteCorpus(place, info, store, most_bytes)
    small = [blob for domain in info.domains for blob in (domain.heldout, domain.counts)]
    cache = BlobCache(place / BLOBS, most_bytes, ())
    for blob in small:
        cache.obtain(blob, _fetcher(corpus, blob))
    cache.close()
    return corpus


@contextmanager
def opened_corpus(place: str, *, has_shards: bool = False) -> Iterator[Corpus]:
    """Open the corpus in a folder or at a URL, of which a copy lies here for as long as this lasts.

    The copy has what is held out and the counts; `has_shards`: all of it. Raises as `open_corpus` and `open_remote`.
    """
    if not is_url(place):
        yield open_corpus(Path(place))
        return
    with tempfile.TemporaryDirectory(prefix="shoal-corpus-") as folder:
        corpus = open_remote(place, Path(folder), MOST_COPIED_BYTES)
        cache = corpus.cache()
        for shard in corpus.shards.values() if has_shards else ():
            cache.obtain(shard, _fetcher(corpus, shard))
        cache.close()
        yield corpus


def _fetcher(corpus: RemoteCorpus, blob: ShardInfo) -> Callable[[Path], None]:
    return lambda path: corpus.fetch(blob, path)


def _copy(store: Store, name: str, place: Path, most_bytes: int) -> None:
    """Write a file of the store below `place`; one that is there will do while the store is away."""
    here = read_bytes(place / name)
    try:
        data = store.read(name, most_bytes)
    except (NetworkError, UsageError) as error:
        if here is None or isinstance(error, DataError):
            raise
        log.warning("going on with the copy of last time: %s", error)
        return
    if here is None or data != bytes(here):
        write_file(place / name, data)
