"""A look at a run by somebody who is no member of it: what it is, who is there, and what is needed to read its text.

For commands that take something from a live swarm and go again. Nothing of it stays on this machine.
"""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.corpus import DomainInfo
from configs.errors import NetworkError, UsageError
from configs.run import RunSpec, check_is_of_text
from dht.addresses import addresses_of
from dht.identity import Identity
from dht.network import Network, open_network
from peer.block.store import BlockStore
from peer.corpus.data import read_counts
from peer.member.entry import read_domains, shards_stub
from peer.member.invited import Home, open_visitor
from peer.member.library import Library, tokenizer_from
from peer.train.partition import Strategy
from protocols.describe import Describe, describe
from protocols.state import State

log = logging.getLogger(__name__)

DIAL_S = 5.0  # for a member that the first peer told of

Counts = NDArray[np.uint64]


@dataclass(frozen=True)
class Visit:
    """A run as it is seen from outside."""

    network: Network
    spec: RunSpec
    domains: Sequence[DomainInfo]
    strategy: Strategy
    library: Library  # with the tokenizer
    counts: Mapping[str, Counts]  # domain → unigram counts (V,), in the order of the domains
    peers: Sequence[str]  # that can be reached, those that were named first
    store: BlockStore  # empty; asks the peers for theirs


@asynccontextmanager
async def open_visit(
    addresses: Sequence[str], run_id: str | None = None, home: Home | None = None
) -> AsyncIterator[Visit]:
    """Reach a run by the addresses of any of its peers; it is left, with all that was fetched, when the block ends.

    `home` has the invitation to a closed run.
    Raises UsageError (another run than `run_id`; no address), NetworkError (nobody answers), PeerError, DataError.
    """
    with tempfile.TemporaryDirectory(prefix="shoal-visit-") as folder:
        key = Path(folder) / "identity.key"
        admission = None if home is None else open_visitor(home, Identity.load_or_create(key))
        async with open_network(key, admission=admission) as network:
            reached = await network.connect(addresses)
            description = await describe(network.stub(Describe, reached[0]), expected_run_id=run_id)
            check_is_of_text(description.spec)
            await _meet(network, description.members)
            spec, peers = description.spec, [*reached, *sorted(await network.connected() - set(reached))]
            domains = read_domains(description.domains, spec)
            stub = shards_stub(network, spec)
            library = Library(Path(folder) / "corpus", spec, domains, stub, None)
            library.set_tokenizer(
                await tokenizer_from(
                    stub, reached[0], description.tokenizer_id, description.tokenizer_bytes, library.folder
                )
            )
            await library.fetch([domain.counts for domain in domains], peers)
            counts = {
                domain.name: read_counts(path, spec.model.vocab_size)
                for domain in domains
                if (path := library.path(domain.counts)) is not None
            }
            strategy = Strategy.of(spec.strategy, len(domains))
            blocks = Path(folder) / "blocks"
            store = BlockStore(blocks, spec, strategy, lambda p: network.stub(State, p, spec.run_id), stub)
            yield Visit(network, spec, domains, strategy, library, counts, peers, store)


async def _meet(network: Network, members: Mapping[str, Sequence[str]]) -> None:
    """Dial the members that the first peer told of, all at once; those that cannot be reached are left out."""

    async def dial(peer: str, addresses: Sequence[str]) -> None:
        try:
            await network.connect(addresses_of(peer, addresses), timeout_s=DIAL_S)
        except (NetworkError, UsageError) as error:
            log.info("without peer %s: %s", peer, error)

    async with asyncio.TaskGroup() as group:
        for peer, addresses in members.items():
            group.create_task(dial(peer, addresses))
