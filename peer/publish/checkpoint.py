"""Pushes a peer's state: what `fuse` needs of a state directory, and what goes on with the run when its swarm has died.

No text, no key, and nothing that a peer owes the others. Files are cut into parts that are named by their content, so
what lies there already is not sent again, whoever was killed meanwhile.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.content import Buffer, content_id_of, content_id_of_pieces
from configs.errors import StateError, UsageError
from configs.run import RunSpec
from dht.identity import Identity
from peer.block.saved import Facts
from peer.block.store import BlockStore
from peer.corpus.data import BLOBS, TOKENIZER_FILE
from peer.member.entry import DOMAINS_FILE, HINTS_FILE, RUN_FILE, read_domains, saved_records, saved_spec
from peer.member.invited import IDENTITY_FILE
from peer.member.library import Library
from peer.member.own_text import built_in
from peer.publish.manifest import CHECKPOINT, MAX_MANIFEST_BYTES, PART_BYTES, PARTS, Checkpoint, CheckpointFile, Part
from peer.publish.manifest import read_checkpoint as read
from peer.publish.places import Place, copy_file
from peer.train.origin import FOLDER as ORIGIN
from peer.train.partition import Strategy

SCRATCH = ".publish-"  # begins the name of a folder with a copy of what changes


@dataclass(frozen=True)
class Item:
    """A file of a checkpoint."""

    path: str
    source: Path | Buffer
    content_id: str = ""  # that it must have, if that is known
    version: int = 0
    may_change: bool = False  # while it is read: a copy is


@dataclass(frozen=True)
class Snapshot:
    """A peer's state at a moment."""

    spec: RunSpec
    peer_id: str
    age: int  # tokens
    items: Sequence[Item]


@dataclass(frozen=True)
class Pushed:
    """What became of a push."""

    sent_bytes: int
    total_bytes: int
    sent_parts: int
    is_new: bool  # else the same lay there


def snapshot_of(state_dir: Path, peer_id: str, library: Library, store: BlockStore) -> Snapshot:
    """Return what is pushed of a peer, as it is now; blocks in training as they lie in memory, where they stay so."""
    found = [Item(name, state_dir / name) for name in (DOMAINS_FILE, HINTS_FILE) if (state_dir / name).is_file()]
    found.append(Item(f"corpus/{TOKENIZER_FILE}", library.tokenizer_json))
    blobs = [domain.counts for domain in library.domains] + ([library.base] if library.base else [])
    for blob in blobs:
        if (path := library.path(blob)) is not None:
            found.append(Item(f"corpus/{BLOBS}/{blob.content_id}", path, blob.content_id))
    found += [Item(f"{ORIGIN}/{path.name}", path) for path in sorted((state_dir / ORIGIN).glob("[!.]*"))]
    for state in store.block_states():
        source = store.lookup(state.content_id)
        if source is None:
            continue
        facts = Facts(
            block=state.block, version=state.version, round=state.round, age=state.age, digest=state.content_id
        )
        name, is_file = f"blocks/{state.block}", isinstance(source, Path)
        found.append(Item(f"{name}.json", facts.model_dump_json(indent=1).encode(), version=state.version))
        found.append(Item(f"{name}.safetensors", source, state.content_id, state.version, is_file))
    found.append(Item(RUN_FILE, state_dir / RUN_FILE))
    return Snapshot(library.spec, peer_id, max(store.ages().values(), default=0), found)


def push_checkpoint(
    place: Place, snapshot: Snapshot, now: float, scratch: Path, part_bytes: int = PART_BYTES
) -> Pushed:
    """Push a snapshot and then its manifest; parts of neither this nor the last checkpoint are removed.

    In the folder `scratch` there is room for one block. Raises StateError if a file changes while it is read, and what
    the place raises.
    """
    data = place.read(CHECKPOINT, MAX_MANIFEST_BYTES)
    before = None if data is None else read(data, CHECKPOINT)
    there = place.sizes(PARTS)
    files, sent_bytes, sent_parts = [], 0, 0

    def send(pieces: Iterator[memoryview], parts: list[Part]) -> Iterator[memoryview]:
        nonlocal sent_bytes, sent_parts
        for piece in pieces:
            part = Part(content_id=content_id_of(piece), size_bytes=len(piece))
            if there.get(part.name) != len(piece):
                place.put(part.name, piece)
                there[part.name] = len(piece)
                sent_bytes, sent_parts = sent_bytes + len(piece), sent_parts + 1
            parts.append(part)
            yield piece

    for item in snapshot.items:
        parts: list[Part] = []
        whole = content_id_of_pieces(send(_pieces(item, scratch, part_bytes), parts))
        if item.content_id not in ("", whole):
            raise StateError(f"{item.path} has changed while it was read; it is pushed the next time")
        size = sum(part.size_bytes for part in parts)
        files.append(
            CheckpointFile(path=item.path, content_id=whole, size_bytes=size, parts=tuple(parts), version=item.version)
        )
    total = sum(file.size_bytes for file in files)
    if before is not None and before.files == tuple(files):
        return Pushed(sent_bytes, total, sent_parts, is_new=False)
    manifest = Checkpoint(
        run_id=snapshot.spec.run_id,
        run_name=snapshot.spec.name,
        peer_id=snapshot.peer_id,
        age=snapshot.age,
        published_at=now,
        files=tuple(files),
    )
    kept = {part.name for each in (manifest, before) if each is not None for part in each.parts()}
    place.commit(CHECKPOINT, manifest.model_dump_json().encode(), [name for name in there if name not in kept])
    return Pushed(sent_bytes, total, sent_parts, is_new=True)


def _pieces(item: Item, scratch: Path, part_bytes: int) -> Iterator[memoryview]:
    """Yield an item's bytes, cut into parts; at most one of them is read from disk at a time."""
    if not isinstance(item.source, Path):
        view = memoryview(item.source).cast("B")
        yield from (view[at : at + part_bytes] for at in range(0, len(view), part_bytes))
        return
    path = item.source
    with tempfile.TemporaryDirectory(dir=scratch, prefix=SCRATCH) as folder:
        if item.may_change:
            path = Path(folder) / "block"
            copy_file(item.source, path)
        with path.open("rb") as file:
            while piece := file.read(part_bytes):
                yield memoryview(piece)


def open_state_dir(folder: Path) -> Snapshot:
    """Return what is pushed of a peer that need not run, from its state directory.

    Raises StateError if it is damaged, UsageError if no run has been there.
    """
    spec = saved_spec(folder)
    if spec is None or not (folder / IDENTITY_FILE).is_file():
        raise UsageError(f"{folder}: no run has been here; give a peer's state directory, or a fused model")
    domains = read_domains(saved_records(folder), spec)
    store = BlockStore(folder / "blocks", spec, Strategy.of(spec.strategy, len(domains)), _nobody, _nobody)
    library = Library(folder / "corpus", spec, domains, _nobody, built_in(folder, spec))
    return snapshot_of(folder, Identity.load_or_create(folder / IDENTITY_FILE).peer_id, library, store)


def _nobody(peer_id: str) -> None:
    raise StateError(f"no network here to ask {peer_id}")
