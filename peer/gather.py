"""Brings together what a fused model needs: blocks from live peers, keepers or state directories, and no text.

Nothing is trained here and no daemon is needed; the gathering peer is nobody's member.
"""

import asyncio
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray
from torch import Tensor

from configs.corpus import DomainInfo, common_format
from configs.errors import DataError, NetworkError, UsageError
from configs.run import RunSpec
from dht.network import Network, open_network
from peer.blocks import BlockStore
from peer.entry import built_in, read_domains, saved_records, saved_spec, shards_stub
from peer.library import Library, tokenizer_from
from peer.train.adapters import map_base
from peer.train.data import Corpus, read_counts
from peer.train.fuse import Format, Parts, fuse
from peer.train.outer import OuterState
from peer.train.partition import Strategy
from peer.train.tune import Tuning
from protocols.describe import Describe, describe
from protocols.state import BlockState, State

log = logging.getLogger(__name__)

Counts = NDArray[np.uint64]


def fuse_from(
    sources: Sequence[str], out: Path, format: Format, corpus: Corpus | None = None, tune_tokens: int = 0
) -> None:
    """Gather the blocks of a run from `sources` (addresses or state directories) and fuse them into `out`.

    `tune_tokens` of the `corpus`, which has the run's tokenizer, tune a Mixtral.
    Raises UsageError, NetworkError, DataError, StateError: one line each.
    """
    parts = gather(sources)
    if corpus is not None and corpus.info.tokenizer_sha256 != parts.spec.tokenizer_sha256:
        raise DataError(f"{corpus.path} was prepared with another tokenizer than the run's; prepare it with the run's")
    fuse(parts, out, format, tuning=None if corpus is None else Tuning.on(corpus, tune_tokens))


def gather(sources: Sequence[str]) -> Parts:
    """Return the newest blocks of a run, with its tokenizer and unigram counts.

    `sources` are addresses of live peers, or state directories of peers that need not be running.
    """
    folders = [Path(source) for source in sources if not source.startswith("/ip") and Path(source).is_dir()]
    addresses = [source for source in sources if Path(source) not in folders]
    if folders and addresses:
        raise UsageError("give either addresses or state directories, not both")
    if folders:
        return _from_folders(folders)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_from_peers(addresses))


def _from_folders(folders: Sequence[Path]) -> Parts:
    specs = {folder: saved_spec(folder) for folder in folders}
    if strange := [str(folder) for folder, spec in specs.items() if spec is None]:
        raise UsageError(f"{', '.join(strange)}: no run has been here; give a peer's --state-dir or its address")
    spec = next(spec for spec in specs.values() if spec is not None)
    if len({s.run_id for s in specs.values() if s is not None}) > 1:
        raise UsageError("these state directories belong to different runs")
    newest: dict[str, OuterState] = {}
    for folder in folders:
        domains = read_domains(saved_records(folder), spec)
        store = BlockStore(folder / "blocks", spec, Strategy(spec.strategy.kind, len(domains)), _nobody, _nobody)
        for block, version in store.versions().items():
            state = store.load(block)
            if state is not None and (block not in newest or version > newest[block].version):
                newest[block] = state
    libraries = [Library(folder / "corpus", spec, domains, _nobody, built_in(folder, spec)) for folder in folders]
    counts: dict[str, Counts] = {}
    for domain in domains:
        paths = (library.path(domain.counts) for library in libraries)
        path = next((path for path in paths if path is not None), None)
        if path is None:
            raise DataError(f"the token counts of domain {domain.name} are in none of these directories")
        counts[domain.name] = read_counts(path, spec.model.vocab_size)
    return replace(_parts(spec, newest, counts, libraries[0].tokenizer_json, domains), base=_base(libraries))


async def _from_peers(addresses: Sequence[str]) -> Parts:
    with tempfile.TemporaryDirectory(prefix="shoal-gather-") as folder:
        async with open_network(Path(folder) / "identity.key") as network:
            reached = await network.connect(addresses)
            description = await describe(network.stub(Describe, reached[0]))
            await _meet(network, description.members)
            spec, peers = description.spec, [*reached, *sorted(await network.connected() - set(reached))]
            domains = read_domains(description.domains, spec)
            stub = shards_stub(network, spec)
            library = Library(Path(folder) / "corpus", spec, domains, stub, None)
            tokenizer = await tokenizer_from(
                stub, reached[0], description.tokenizer_id, description.tokenizer_bytes, library.folder
            )
            library.set_tokenizer(tokenizer)
            strategy = Strategy(spec.strategy.kind, len(domains))
            store = BlockStore(
                Path(folder) / "blocks", spec, strategy, lambda p: network.stub(State, p, spec.run_id), stub
            )
            await library.fetch([domain.counts for domain in domains], peers)
            await library.obtain_base(peers)
            blocks = await _newest(store, peers)
            counts = {
                domain.name: read_counts(path, spec.model.vocab_size)
                for domain in domains
                if (path := library.path(domain.counts)) is not None
            }
            return replace(_parts(spec, blocks, counts, tokenizer, domains), base=_base([library]))


async def _meet(network: Network, members: Mapping[str, Sequence[str]]) -> None:
    """Dial the members that the first peer told of; those that cannot be reached are left out."""
    for peer, addresses in members.items():
        try:
            await network.connect([a for a in addresses if a.endswith(peer)], timeout_s=5.0)
        except (NetworkError, UsageError) as error:
            log.info("without peer %s: %s", peer, error)


async def _newest(store: BlockStore, peers: Sequence[str]) -> dict[str, OuterState]:
    """Download the newest state of every block that any of `peers` stores."""
    answers = await store.ask(peers)
    best: dict[str, tuple[BlockState, list[str]]] = {}
    for peer, states in answers.items():
        for state in states:
            known = best.get(state.block)
            if known is None or state.version > known[0].version:
                best[state.block] = (state, [peer])
            elif state.content_id == known[0].content_id:
                known[1].append(peer)
    return {block: await store.obtain(block, sources) for block, (_, sources) in best.items()}


def _base(libraries: Sequence[Library]) -> Tensor | None:
    """Return the frozen model of a run of adapters; its file may be deleted meanwhile. None if the run has none."""
    for library in libraries:
        path = None if library.base is None else library.path(library.base)
        if path is not None:
            return map_base(path, library.spec.model)
    if libraries[0].base is not None:
        raise DataError("the model that the adapters are trained on is in none of these directories")
    return None


def _parts(
    spec: RunSpec,
    states: Mapping[str, OuterState],
    counts: Mapping[str, Counts],
    tokenizer: bytes,
    domains: Sequence[DomainInfo],
) -> Parts:
    if not states:
        raise DataError("no block was found: nothing has been trained there yet")
    blocks: dict[str, Tensor] = {block: state.phi for block, state in states.items()}
    for block, state in sorted(states.items()):
        log.info("%s: version %d, age %d", block, state.version, state.age)
    return Parts(spec, blocks, counts, tokenizer, common_format(domains))


def _nobody(peer_id: str) -> Any:
    raise NetworkError(f"no network here to ask {peer_id}")
