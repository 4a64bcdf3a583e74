"""The text that a peer has: which blobs of the corpus lie here, which may be served, which to train on.

How blobs travel is `protocols/shards.py`'s; what is in them is `peer/corpus/data.py`'s.
"""

import asyncio
import hashlib
import heapq
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor

from configs.content import content_id_of, content_id_of_pieces
from configs.corpus import DomainInfo, ShardInfo, TaskFormat
from configs.errors import DataError, NetworkError, ShoalError, StateError
from configs.files import discard, make_folder, read_bytes, write_file
from configs.run import RunSpec
from dht.leases import choose_shards
from dht.records import MAX_SCORED
from peer.block.room import Room
from peer.corpus.data import BLOBS, TOKENIZER_FILE, Corpus, Source, token_dtype
from peer.corpus.packing import packed_examples
from peer.corpus.remote import RemoteCorpus
from peer.corpus.tokenizer import open_tokenizer
from peer.member.stream import Stream
from peer.train.adapters import base_bytes, map_base
from peer.train.partition import COMMON, Strategy
from protocols.shards import OnBytes, download
from protocols.state import keep_seconds

log = logging.getLogger(__name__)

RETRY_S = 3600.0  # at most, until what could not be had is asked for again
MAX_DOUBLINGS = 10  # of the time until then: `RETRY_S` is reached before
NO_ROOM_S = 60.0  # until it is looked again whether the disk's limit lets more text come
FIRST_TRIES = 8  # shards that are asked for one after the other where one is enough to begin
MAX_LOCAL_SHARDS = 32  # of one domain that one peer fetches
PIECE_BYTES = 1 << 20  # of a file that is read through
HELD_OUT = "held-out"  # folder of examples as tokens
SPARE_SHARDS = 32  # of other domains, so that whoever brought them may leave


class Library:
    """The blobs of a run's corpus on this machine.

    `corpus` is this user's own prepared corpus, if it brought one; what is fetched from the swarm lies in `folder`.
    """

    def __init__(
        self,
        folder: Path,
        spec: RunSpec,
        domains: Sequence[DomainInfo],
        shards_stub: Callable[[str], Any],
        corpus: Corpus | None,
    ) -> None:
        self.folder = folder
        self.spec = spec
        self.domains = list(domains)
        self.corpus = corpus
        self._shards_stub = shards_stub
        self.on_bytes: OnBytes | None = None  # of what is fetched
        self.down_mbit: Callable[[], float | None] = lambda: None  # the cap behind which it is fetched
        self.room = Room()  # for text beyond what this peer needs to begin
        self.leased: Callable[[], Mapping[str, int]] = dict  # content id → other peers that train on that shard
        # What adapters are trained on; every peer has it.
        self.base = (
            ShardInfo(content_id=spec.initial_id, tokens=0, size_bytes=base_bytes(spec.model))
            if spec.model.adapter is not None and spec.initial_id is not None
            else None
        )
        self._tokenizer_id = ""
        self._fetching: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # one download for one file
        self._verified: set[str] = set()  # content ids of blobs that were read, and are what they should be
        self._damaged: set[Path] = set()  # files that are not
        self._background = 0  # how often fetching in the background has been begun: only the last goes on
        make_folder(folder / BLOBS)
        # What brings the shards of a corpus at a URL, when they are needed.
        self.stream = Stream(corpus, spec, folder) if isinstance(corpus, RemoteCorpus) else None

    @property
    def tokenizer_json(self) -> bytes:
        """The run's tokenizer. Raises StateError if it is not here any more."""
        path = self.folder / TOKENIZER_FILE
        data = read_bytes(path)
        if data is None:
            raise StateError(f"{path} is missing; start again while another peer of the run is there, to fetch it")
        return bytes(data)

    @property
    def has_tokenizer(self) -> bool:
        """Whether the run's tokenizer lies here. (That of another run may, which was never entered.)"""
        path = self.folder / TOKENIZER_FILE
        return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == self.spec.tokenizer_sha256

    def set_tokenizer(self, data: bytes) -> None:
        """Keep the tokenizer. Raises DataError if it is not the run's."""
        if hashlib.sha256(data).hexdigest() != self.spec.tokenizer_sha256:
            raise DataError("the tokenizer is not the one of this run; prepare the data with the run's tokenizer.json")
        write_file(self.folder / TOKENIZER_FILE, data)
        self._tokenizer_id = content_id_of(data)

    def keep_counts(self) -> None:
        """Copy the domains' unigram counts here, so that the run can be fused when the corpus has been moved away."""
        for domain in self.domains:
            path = self.path(domain.counts)
            if path is not None:
                write_file(self.folder / BLOBS / domain.counts.content_id, path.read_bytes())

    @property
    def tokenizer_id(self) -> str:
        """The content id of the tokenizer."""
        return self._tokenizer_id or content_id_of(self.tokenizer_json)

    def path(self, blob: ShardInfo) -> Path | None:
        """Return where a blob lies on this machine, or None if it does not: one that is damaged is fetched again."""
        places = [self.folder / BLOBS / blob.content_id]
        if self.corpus is not None:
            places.append(self.corpus.blob(blob.content_id))
        whole = (place for place in places if place.is_file() and place.stat().st_size == blob.size_bytes)
        return next((place for place in whole if place not in self._damaged), None)

    def lookup(self, content_id: str) -> Path | None:
        """Return the file of a blob that may leave this machine: private text never does."""
        if content_id == self._tokenizer_id:
            return self.folder / TOKENIZER_FILE
        if self.base is not None and content_id == self.base.content_id:
            return self.path(self.base)
        for domain in self.domains:
            public = (*domain.shards, domain.heldout) if domain.is_public else ()
            for blob in (domain.counts, *public):
                if blob.content_id == content_id:
                    return self.path(blob)
        return None

    def domain_name(self, index: int | None) -> str:
        """Return the name of a domain by its index; that of None is the name of all of them together."""
        return "all" if index is None else self.domains[index].name

    def trains(self, strategy: Strategy, sub_model: str) -> list[DomainInfo]:
        """Return the domains that a sub-model is trained on."""
        index = strategy.domain(sub_model)
        return self.domains if index is None else [self.domains[index]]

    def can_train(self, strategy: Strategy, sub_model: str) -> bool:
        """Return whether this peer has, or may fetch, text for `sub_model`."""
        domains = self.trains(strategy, sub_model)
        return any(d.is_public or self._is_streamed(d) or any(map(self.path, d.shards)) for d in domains)

    def _is_streamed(self, domain: DomainInfo) -> bool:
        """Return whether the shards of a domain come from this peer's own store."""
        return self.stream is not None and self.stream.has(domain)

    def sources(self, strategy: Strategy, sub_model: str) -> list[Source]:
        """Return the token files for `sub_model` that lie here, or come in time; every domain weighs the same.

        Raises DataError: there is too little room for those that come.
        """
        domains = self.trains(strategy, sub_model)
        streamed = list(filter(self._is_streamed, domains))
        sources = [] if self.stream is None else self.stream.sources(streamed)
        for domain in domains:
            if domain in streamed:
                continue
            here = [(shard, path) for shard in domain.shards if (path := self.path(shard)) is not None]
            here = [(shard, path) for shard, path in here if shard.tokens > self.spec.model.context_length]
            total = sum(shard.tokens for shard, _ in here)
            size, is_task = self.spec.model.vocab_size, domain.task is not None
            sources += [Source(str(path), size, shard.tokens / total, is_task) for shard, path in here]
        return sources

    def heldout_sources(self, strategy: Strategy, sub_model: str) -> dict[str, Source]:
        """Return the token files of the held-out part of each domain of `sub_model` that lies here, by its name.

        Examples are encoded the first time. Raises DataError if they are damaged, StateError on a full disk.
        """
        sources, model = {}, self.spec.model
        for domain in self.trains(strategy, sub_model)[:MAX_SCORED]:
            path = self.path(domain.heldout)
            if path is not None and domain.task is not None:
                path = self._encoded(domain.task.format, path)
            is_task, size = domain.task is not None, model.vocab_size
            least = model.context_length * token_dtype(size, is_task).itemsize
            if path is not None and path.stat().st_size > least:
                sources[domain.name] = Source(str(path), size, is_task=is_task)
        return sources

    def _encoded(self, form: TaskFormat, lines: Path) -> Path:
        """Return the token file of held-out examples, made if it is not here."""
        path = self.folder / HELD_OUT / f"{lines.name}.tokens"
        if not path.is_file():
            tokenizer, size = open_tokenizer(self.tokenizer_json), self.spec.model.vocab_size
            write_file(path, packed_examples(lines, form, tokenizer, size, self.spec.end_of_text))
        return path

    def leases(self, strategy: Strategy, sub_model: str) -> list[str]:
        """Return the content ids of the shards here that `sub_model` is trained on, as many as a record takes."""
        held = (s for domain in self.trains(strategy, sub_model) for s in domain.shards if self.path(s) is not None)
        return [shard.content_id for shard in itertools.islice(held, MAX_LOCAL_SHARDS)]

    def wanted(self, strategy: Strategy, sub_model: str, me: str) -> list[ShardInfo]:
        """Return the shards to fetch for `sub_model`, one of each domain first.

        Those that the fewest others train on come first, so that coverage of a large domain stays even.
        """
        queues, leased = [], self.leased()
        for domain in self.trains(strategy, sub_model):
            may_fetch = domain.is_public and not self._is_streamed(domain)
            shards = [s for s in domain.shards if s.tokens > self.spec.model.context_length] if may_fetch else []
            queues.append(choose_shards(shards, leased, MAX_LOCAL_SHARDS, f"{me}/{domain.name}"))
        longest = max(map(len, queues), default=0)
        mixed = [queue[at] for at in range(longest) for queue in queues if at < len(queue)]
        return [shard for shard in mixed if self.path(shard) is None]

    async def fetch(self, blobs: Sequence[ShardInfo], peers: Sequence[str]) -> None:
        """Fetch blobs from whoever has them, each as long as its size needs.

        Raises NetworkError if one cannot be had, StateError on a full disk.
        """
        for blob in blobs:
            lock = self._fetching.setdefault(blob.content_id, asyncio.Lock())
            async with lock:
                if self.path(blob) is None:
                    await download(
                        self._shards_stub,
                        peers,
                        blob.content_id,
                        blob.size_bytes,
                        self.folder / BLOBS / blob.content_id,
                        deadline_s=keep_seconds(blob.size_bytes, self.down_mbit()),
                        on_bytes=self.on_bytes,
                    )

    def frozen(self) -> Tensor | None:
        """Map the frozen model of a run of adapters, flat; its file may be deleted meanwhile. None: it is not here."""
        path = None if self.base is None else self.path(self.base)
        return None if path is None else map_base(path, self.spec.model)

    async def obtain_base(self, circles: Sequence[Sequence[str]]) -> Path | None:
        """Return the file of the frozen model, fetched if it is not here; None if the run has none.

        It is asked of each of the widening circles of peers in turn: what lies in the same house need not come through
        somebody's uplink. Raises NetworkError, StateError as `fetch`.
        """
        if self.base is None:
            return None
        for index, peers in enumerate(circles or [[]]):
            if self.path(self.base) is not None:
                break
            log.info("fetching the frozen model, %.1f MB", self.base.size_bytes / 1e6)
            try:
                await self.fetch([self.base], peers)
            except NetworkError as error:
                if index + 1 >= len(circles):
                    raise
                log.info("nobody near has the frozen model: %s", error)
        return self.path(self.base)

    async def fetch_in_background(
        self,
        strategy: Strategy,
        sub_model: str,
        me: str,
        peers: Callable[[], Sequence[str]],
        arrived: Callable[[], Awaitable[None]],
    ) -> None:
        """Fetch the rest of the shards for `sub_model`, then what keeps the text of the others in the swarm.

        What nobody among `peers` has now delays nothing else: it is tried again later, less and less often, until all
        is here or this is begun anew, for another sub-model. `arrived` is called after each shard of `sub_model`.
        Raises StateError on a full disk.
        """
        self._background += 1
        begun = self._background
        if await asyncio.to_thread(self._verify, strategy, sub_model):
            await arrived()
        mine = self.wanted(strategy, sub_model, me)
        spare = [shard for shard in self.wanted(strategy, COMMON, me) if shard not in mine][:SPARE_SHARDS]
        held_out = [d.heldout for d in self.trains(strategy, sub_model) if d.is_public and not self.path(d.heldout)]
        blobs = [*mine, *(domain.counts for domain in self.domains), *held_out, *spare]
        queue = [(0.0, index, 0) for index in range(len(blobs))]  # when it is tried, which, how often it was tried
        while queue:
            due_s, index, tries = heapq.heappop(queue)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            if begun != self._background:
                return
            blob = blobs[index]
            if not self.room.takes(blob.size_bytes):
                heapq.heappush(queue, (time.monotonic() + NO_ROOM_S, index, tries))
                continue
            try:
                await self.fetch([blob], peers())
            except StateError:
                raise
            except (ShoalError, TimeoutError) as error:
                delay_s = retry_seconds(blob.size_bytes, tries)
                heapq.heappush(queue, (time.monotonic() + delay_s, index, tries + 1))
                level = logging.DEBUG if tries else logging.INFO
                log.log(level, "a part of the corpus could not be fetched, again in %.0f s: %s", delay_s, error)
            else:
                if index < len(mine):
                    await arrived()

    def _verify(self, strategy: Strategy, sub_model: str) -> bool:
        """Read, once, what `sub_model` is trained on; return whether some of it was damaged, and is used no more."""
        domains = self.trains(strategy, sub_model)
        shards = [shard for domain in domains if not self._is_streamed(domain) for shard in domain.shards]
        blobs = [*shards, *(domain.counts for domain in domains)]
        found = False
        for blob in blobs:
            path = None if blob.content_id in self._verified else self.path(blob)
            if path is None:
                continue
            with path.open("rb") as file:
                is_whole = content_id_of_pieces(iter(lambda: file.read(PIECE_BYTES), b"")) == blob.content_id
            if is_whole:
                self._verified.add(blob.content_id)
                continue
            found = True
            log.warning("%s is damaged, and not used: if the swarm has it, it is fetched again", path)
            if path.parent == self.folder / BLOBS:
                discard(path)
            else:  # the user's own: prepared again, it will do
                self._damaged.add(path)
        return found

    async def fetch_first(self, strategy: Strategy, sub_model: str, me: str, peers: Sequence[str]) -> None:
        """Fetch just enough to begin: one shard. Raises NetworkError if `sub_model` has no text that can be had.

        From a store of this peer's own: what the next step needs. Then raises as `Stream.begin`.
        """
        sources = self.sources(strategy, sub_model)
        if self.stream is not None:
            await self.stream.begin(sources)
        if sources or self.spec.model.module is not None:  # which reads what it likes
            return
        wanted = self.wanted(strategy, sub_model, me)
        if not wanted:
            names = ", ".join(domain.name for domain in self.trains(strategy, sub_model))
            raise NetworkError(f"no text for {sub_model}: domain {names} is private; bring your own with --data DIR")
        first, leased = sorted(wanted[: len(self.domains)], key=lambda shard: shard.size_bytes), self.leased()
        tried = [*first, *wanted[len(self.domains) :]]
        # Of a corpus in somebody's store only those lie at a peer that are trained on now.
        present = [s for domain in self.trains(strategy, sub_model) for s in domain.shards if s.content_id in leased]
        *others, last = [*tried[: FIRST_TRIES - 1], *[*present, *tried[FIRST_TRIES - 1 :], tried[-1]][:1]]
        for shard in others:
            try:
                await self.fetch([shard], peers)
            except NetworkError as error:
                log.info("another part of the corpus will do to begin: %s", error)
            else:
                return
        await self.fetch([last], peers)


def retry_seconds(size_bytes: int, tries: int) -> float:
    """Return after how long a blob that nobody had is asked for again: as long as it may take, then twice that, …"""
    return min(RETRY_S, keep_seconds(size_bytes, None) * 2.0 ** min(tries, MAX_DOUBLINGS))


async def tokenizer_from(
    shards_stub: Callable[[str], Any], peer: str, content_id: str, size_bytes: int, folder: Path
) -> bytes:
    """Download the run's tokenizer from the peer that described the run."""
    target = folder / f"{content_id}.part.json"
    await download(shards_stub, [peer], content_id, size_bytes, target, deadline_s=keep_seconds(size_bytes, None))
    data = await asyncio.to_thread(target.read_bytes)
    target.unlink()
    return data
