"""Brings together what a fused model needs: blocks from live peers, keepers or state directories, and no text.

Nothing is trained here and no daemon is needed; the gathering peer is nobody's member.
"""

import asyncio
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvloop
from torch import Tensor

from configs.corpus import DomainInfo, common_format
from configs.errors import DataError, NetworkError, StateError, UsageError
from configs.outlets import is_remote, read_target
from configs.run import RunSpec, check_is_of_text
from peer.block.store import BlockStore
from peer.corpus.data import BLOBS, Corpus, read_counts
from peer.fused.card import Format
from peer.fused.fuse import fuse
from peer.fused.parts import Parts
from peer.fused.tune import Tuning
from peer.member.best import best_looks
from peer.member.entry import RUN_FILE, read_domains, saved_records, saved_spec
from peer.member.invited import Home
from peer.member.library import Library
from peer.member.own_text import built_in
from peer.publish.restore import holds_checkpoint, restore
from peer.train.origin import FOLDER, read_files
from peer.train.outer import OuterState
from peer.train.partition import Strategy
from peer.train.pretrained import copy_base
from peer.visit.visit import Counts, open_visit

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """Where the blocks of a run are taken from, and what goes with them."""

    places: Sequence[str]  # addresses of live peers, or state directories of peers that need not be running
    base: Path | None = None  # a copy of the model that the run began with: it need not be downloaded
    best: bool = False  # the states whose held-out loss was best, which only state directories have
    home: Home | None = None  # has the invitation to a closed run


def fuse_from(
    sources: Sources,
    out: Path,
    format: Format,
    sub_model: str | None = None,
    tune_on: tuple[Corpus, int] | None = None,
) -> Parts:
    """Gather the blocks of a run and fuse them into `out`; return them.

    `sub_model` is the only one that is taken; a Mixtral is tuned on so many tokens of a corpus, which has the run's
    tokenizer.
    Raises UsageError, NetworkError, DataError, StateError: one line each.
    """
    parts = gather(sources)
    if tune_on is not None and tune_on[0].info.tokenizer_sha256 != parts.spec.tokenizer_sha256:
        name = tune_on[0].name
        raise DataError(f"{name} was prepared with another tokenizer than the run's; prepare it with the run's")
    fuse(parts, out, format, sub_model, tuning=None if tune_on is None else Tuning.on(*tune_on))
    return parts


def gather(sources: Sources) -> Parts:
    """Return the newest blocks of a run, or the best, with its tokenizer and unigram counts."""
    with tempfile.TemporaryDirectory(prefix="shoal-fuse-") as scratch:
        return _gather(replace(sources, places=_restored(sources.places, Path(scratch))))


def _restored(places: Sequence[str], scratch: Path) -> list[str]:
    """Return the places with state directories where checkpoints were published."""
    found = []
    for index, place in enumerate(places):
        is_folder = Path(place).is_dir() and not (Path(place) / RUN_FILE).exists()
        if is_remote(place) or (is_folder and holds_checkpoint(read_target(place))):
            found.append(str(scratch / str(index)))
            checkpoint = restore(read_target(place), Path(found[-1]))
            log.info("%s: run %s, published with %d tokens", place, checkpoint.run_id, checkpoint.age)
        else:
            found.append(place)
    return found


def _gather(sources: Sources) -> Parts:
    places, base, best = sources.places, sources.base, sources.best
    folders = [Path(source) for source in places if not source.startswith("/ip") and Path(source).is_dir()]
    addresses = [source for source in places if Path(source) not in folders]
    if folders and addresses:
        raise UsageError("give either addresses or state directories, not both")
    if best and not folders:
        raise UsageError("the best states lie on disk: give state directories, or leave out --best for the newest")
    if folders:
        parts = _from_folders(folders, base, best)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            parts = runner.run(_from_peers(addresses, base, sources.home))
    if parts.spec.origin is not None and not parts.files:
        log.warning(
            "the chat template and the other small files of %s are not here: name a copy of it with --base DIR",
            parts.spec.origin.name or "the pretrained model",
        )
    return parts


def _from_folders(folders: Sequence[Path], base: Path | None, best: bool) -> Parts:
    specs = {folder: saved_spec(folder) for folder in folders}
    if strange := [str(folder) for folder, spec in specs.items() if spec is None]:
        raise UsageError(f"{', '.join(strange)}: no run has been here; give a peer's --state-dir or its address")
    spec = next(spec for spec in specs.values() if spec is not None)
    if len({s.run_id for s in specs.values() if s is not None}) > 1:
        raise UsageError("these state directories belong to different runs; name those of one")
    check_is_of_text(spec)
    newest: dict[str, OuterState] = {}
    damaged: dict[str, StateError] = {}
    for folder in folders:
        domains = read_domains(saved_records(folder), spec)
        store = BlockStore(folder / "blocks", spec, Strategy.of(spec.strategy, len(domains)), _nobody, _nobody)
        for block, version in store.versions().items():
            try:
                state = store.load(block)
            except StateError as error:  # another folder may have it
                log.warning("%s", error)
                damaged[block] = error
                continue
            if state is not None and (block not in newest or version > newest[block].version):
                newest[block] = state
    for block in damaged.keys() - newest.keys():
        raise damaged[block]
    if best:
        newest |= _best(folders, spec, Strategy.of(spec.strategy, len(domains)))
    libraries = [Library(folder / "corpus", spec, domains, _nobody, built_in(folder, spec)) for folder in folders]
    counts: dict[str, Counts] = {}
    for domain in domains:
        paths = (library.path(domain.counts) for library in libraries)
        path = next((path for path in paths if path is not None), None)
        if path is None:
            raise DataError(
                f"the token counts of domain {domain.name} are in none of these directories; fuse from a running peer"
            )
        counts[domain.name] = read_counts(path, spec.model.vocab_size)
    kept = next((files for folder in folders if (files := read_files(folder / FOLDER))), {})
    if base is not None:
        kept = _take_base(base, libraries[0])
    return replace(_parts(spec, newest, counts, libraries, domains), files=kept)


async def _from_peers(addresses: Sequence[str], base: Path | None, home: Home | None) -> Parts:
    async with open_visit(addresses, home=home) as run:
        files = {} if base is None else await asyncio.to_thread(_take_base, base, run.library)
        await run.library.obtain_base([run.peers])
        blocks = await _newest(run.store, run.peers)
        return replace(_parts(run.spec, blocks, run.counts, [run.library], run.domains), files=files)


def _best(folders: Sequence[Path], spec: RunSpec, strategy: Strategy) -> dict[str, OuterState]:
    """Return the best states that are kept, of each sub-model those with the least held-out loss.

    Raises UsageError: there are none, or none that fit together.
    """
    if spec.strategy.kind == "experts":
        raise UsageError("experts share a trunk, of which no moment is best for all of them; leave out --best")
    looks = best_looks(folders)
    if not looks:
        raise UsageError(
            f"{', '.join(map(str, folders))}: no best state is kept there; held-out text is looked at every few "
            "minutes while a peer trains. Leave out --best for the newest"
        )
    found: dict[str, OuterState] = {}
    for sub_model, (look, place) in looks.items():
        store = BlockStore(place, spec, strategy, _nobody, _nobody)
        states = {block: store.load(block) for block in store.versions()}
        found |= {block: state for block, state in states.items() if state is not None}
        log.info("%s of %s tokens, whose held-out loss was %.3f", sub_model, f"{look.tokens:,}", look.loss)
    return found


def _take_base(base: Path, library: Library) -> dict[str, bytes]:
    """Take from a copy of a run's pretrained model what is not here; return its small files. Raises DataError."""
    copy_base(base, library.spec, library.folder / BLOBS)
    return read_files(base)


async def _newest(store: BlockStore, peers: Sequence[str]) -> dict[str, OuterState]:
    """Download the newest state of every block that any of `peers` stores."""
    sources: dict[str, list[str]] = {}
    for peer, states in (await store.ask(peers)).items():
        for state in states:
            sources.setdefault(state.block, []).append(peer)
    return {block: await store.obtain(block, having) for block, having in sources.items()}


def _base(libraries: Sequence[Library]) -> Tensor | None:
    """Return the frozen model of a run of adapters; its file may be deleted meanwhile. None if the run has none."""
    for library in libraries:
        if (base := library.frozen()) is not None:
            return base
    if libraries[0].base is not None:
        raise DataError(
            "the model that the adapters are trained on is in none of these directories; name it: --base DIR"
        )
    return None


def _parts(
    spec: RunSpec,
    states: Mapping[str, OuterState],
    counts: Mapping[str, Counts],
    libraries: Sequence[Library],
    domains: Sequence[DomainInfo],
) -> Parts:
    if not states:
        raise DataError("no block was found: nothing has been trained there yet; wait for its first round")
    blocks: dict[str, Tensor] = {block: state.phi for block, state in states.items()}
    for block, state in sorted(states.items()):
        log.info("%s: version %d, age %d", block, state.version, state.age)
    tokenizer = libraries[0].tokenizer_json
    ages = {block: state.ages for block, state in states.items()}
    return Parts(spec, blocks, counts, tokenizer, common_format(domains), _base(libraries), ages)


def _nobody(peer_id: str) -> Any:
    raise NetworkError(f"no network here to ask {peer_id}")
