"""A member that takes part in all and lies in one thing: `python -m benchmarks.hostile_daemon KIND join …`.

It is the product's daemon, with its own identity and an invitation, but for what it offers, signs or says.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import peer.block.exchange as exchange
from configs.content import chunk_hashes, chunk_of, content_id_of
from dht.identity import Identity
from peer.block.replica import Replica
from peer.block.store import BlockStore
from peer.commands.main import main
from peer.train.outer import Contribution, new_state
from protocols.codecs import roundtrip
from protocols.offers import COUNT_BYTES, Offers
from protocols.parcels import Offer, OfferHeader, packed, sign_offer
from protocols.sealing import MARKS, Mark
from protocols.wire import Frame, end_of_stream


def change_values(kind: str) -> None:
    """Offer the opposite of what was learnt, or, knowing the others' last offers, a little less than their mean."""
    honest_offer, honest_advance = Replica.offer, Replica.advance
    last: dict[str, list[Tensor]] = {}

    def advance(self: Replica, round_: int, contributions: Sequence[Contribution], sealed: Any) -> None:
        last[self.block] = [each.values.clone() for each in contributions if each.peer_id != self.me]
        honest_advance(self, round_, contributions, sealed)

    def offer(self: Replica, round_: int, theta: Tensor, tokens: int) -> tuple[bytes, float]:
        payload, norm = honest_offer(self, round_, theta, tokens)
        assert self.pending is not None
        values = -self.pending.produced
        if kind == "alie":
            others = last.get(self.block, [])
            if len(others) < 2:
                return payload, norm
            known = torch.stack(others)
            values = known.mean(dim=0) - 1.5 * known.std(dim=0)
        payload, decoded = roundtrip(self.pending.codec, values)
        self.pending = replace(self.pending, decoded=decoded, payload=payload)
        return payload, float(torch.linalg.vector_norm(decoded))

    Replica.advance, Replica.offer = advance, offer  # type: ignore[method-assign]


def show_two_faces() -> None:
    """Sign two offers for each round, and show the second to every other peer."""
    second: dict[tuple[str, int], Offer] = {}
    honest_rpc = Offers.rpc_offer

    def sign(identity: Identity, header: OfferHeader, payload: Any, hashes: Sequence[bytes]) -> Offer:
        other = bytes(payload)[:-1] + bytes([bytes(payload)[-1] ^ 1])  # one value of a scale: its norm still holds
        changed = header.model_copy(update={"content_id": content_id_of(other)})
        second[header.block, header.round] = sign_offer(identity, changed, other, chunk_hashes(other))
        return sign_offer(identity, header, payload, hashes)

    async def rpc_offer(self: Offers, request: Any, context: Any) -> Any:
        other = second.get((request.block, request.round))
        if other is not None and request.peer == other.header.peer and ord(str(context.remote_id)[-1]) % 2:
            count = len(other.hashes)
            yield Frame(other.envelope)
            yield Frame(count.to_bytes(COUNT_BYTES, "big") + b"".join(other.hashes) + packed(range(count), count))
            for index in range(count):
                yield Frame(chunk_of(other.payload, index))
            async for frame in end_of_stream():
                yield frame
            return
        async for frame in honest_rpc(self, request, context):
            yield frame

    exchange.sign_offer = sign  # type: ignore[attr-defined]
    rpc_offer.__annotations__ = honest_rpc.__annotations__  # Hivemind reads its types
    Offers.rpc_offer = rpc_offer  # type: ignore[method-assign,assignment]


def claim_another_history() -> None:
    """Say in every list that the block's state is another one, so that everybody replays or downloads."""
    honest = Offers.publish

    async def publish(
        self: Offers, block: str, round_: int, marks: Sequence[Mark], state_bytes: int, named: Any = None
    ) -> Any:
        false = [Mark(mark.version, f"{round_:064x}") for mark in marks]
        return await honest(self, block, round_, false, state_bytes, named)

    Offers.publish = publish  # type: ignore[method-assign]


def claim_a_state() -> None:
    """Say that the block has gone on from where all stand to a state that nobody made, and serve that."""
    served: dict[str, memoryview] = {}
    stores: list[BlockStore] = []
    opened, lookup, honest = BlockStore.__init__, BlockStore.lookup, Offers.publish

    def note(self: BlockStore, *arguments: Any, **options: Any) -> None:
        opened(self, *arguments, **options)
        stores.append(self)

    async def publish(
        self: Offers, block: str, round_: int, marks: Sequence[Mark], state_bytes: int, named: Any = None
    ) -> Any:
        state = next(store.replicas[block].state for store in stores if block in store.replicas)
        facts = {"version": state.version + 1, "round_": round_, "ages": dict(state.ages), "is_final": False}
        claimed = new_state(block, 9 * torch.ones_like(state.phi), None, **facts)
        served[claimed.digest] = memoryview(claimed.blob)
        marks = [*marks, Mark(claimed.version, claimed.digest)][-MARKS:]
        return await honest(self, block, round_, marks, len(claimed.blob), named)

    BlockStore.__init__ = note  # type: ignore[method-assign]
    BlockStore.lookup = lambda self, digest: served.get(digest) or lookup(self, digest)  # type: ignore[method-assign]
    Offers.publish = publish  # type: ignore[method-assign]


KINDS = {
    "sign_flip": lambda: change_values("sign_flip"),
    "alie": lambda: change_values("alie"),
    "equivocation": show_two_faces,
    "false_digests": claim_another_history,
    "false_states": claim_a_state,
}

if __name__ == "__main__":
    KINDS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
