"""One exchange of one block in a random group, where it has more holders than one group.

The lists and the seal are those of a complete group (`exchange.py`), the step is `train/mixing.py`'s. Replicas differ,
so there is no history to follow: each member steps with the sealed offers that it has, and owes what others lacked.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from configs.errors import PeerError
from peer.block.exchange import (
    RESTARTED,
    UNFETCHED,
    Outcome,
    Swarm,
    Work,
    choose_codec,
    make_offer,
    named_in,
    open_group,
)
from peer.block.replica import Replica, read_values
from peer.block.threads import unbroken
from peer.train.mixing import FRAGMENT_CODEC, Mixed, span
from protocols.codecs import decode, encode, encoded_size
from protocols.gossip import Stand, Timing, close, gather
from protocols.grouping import counted_share, fragment_of
from protocols.parcels import Offer
from protocols.sealing import quorum


async def run_round_among(
    swarm: Swarm, replica: Replica, round_: int, group: Sequence[str], work: Work, timing: Timing, holders: float
) -> Outcome:
    """Exchange `replica`'s block at tick `round_` with its `group`, of about `holders` peers that hold it.

    Afterwards the replica has taken its step, or is what it was. Cancellation before the step drops the round.
    """
    fragments = replica.spec.rounds.fragments
    fragment = fragment_of(round_, fragments)
    at = span(replica.size, fragments, fragment)
    mixed: dict[str, Mixed] = {}  # offer id → what it holds

    def read(offer: Offer) -> None:
        mixed[offer.offer_id] = _read(offer, replica.size, fragment, at)

    is_new = round_ > replica.offered_round  # else this peer was restarted in mid-round: it listens

    async def make() -> None:
        await asyncio.to_thread(read, await _offer(swarm, replica, round_, work, fragment, at))

    members = open_group(swarm, replica, round_, group, read)
    stand = Stand(list(replica.marks), len(replica.state.blob))
    # Nobody has a voice by its history: replicas differ, and each member takes what it can.
    deciding = quorum(group, (), round_, timing.silent_ticks, replica.hearing.silence)
    lists = await gather(members, swarm.offers, stand, timing, make() if is_new else None, deciding)
    replica.hearing.ended(round_, group, named_in(lists), ())
    heard = await close(members, swarm.offers, lists, timing.fetch_s, deciding.voting)
    have = [mixed[offer.offer_id] for offer in heard.offers.values() if offer.offer_id in mixed]
    if not is_new or heard.seal.is_skipped or not have:
        replica.skip(round_)
        cause = heard.seal.cause or UNFETCHED if is_new else RESTARTED
        text = heard.seal.reason if is_new else "skipped: an offer was made before the restart"
        return Outcome(text, False, cause)
    share = counted_share(replica.me, heard.seal.offers, heard.lists)
    own = swarm.offers.held(replica.block, round_)[replica.me]
    await unbroken(replica.mix, round_, mixed[own.offer_id].fragment, have, share, at, holders)
    change = choose_codec(replica, heard)
    lacking = f", {len(heard.missing)} not fetched" if heard.missing else ""
    outcome = f"{heard.seal.reason}{lacking}, of about {holders:.0f} holders"
    return Outcome(f"{outcome}; {change}" if change else outcome, True, is_shared=True)


async def _offer(swarm: Swarm, replica: Replica, round_: int, work: Work, fragment: int, at: slice) -> Offer:
    """Offer what was learnt and, behind it, a fragment of the anchor."""
    anchor = await asyncio.to_thread(encode, FRAGMENT_CODEC, replica.state.phi[at])
    fresh = max(0, max(work.tokens, replica.tokens) - replica.state.ages.get(replica.me, 0))
    told = {"fragment": fragment, "fresh_tokens": fresh, "age": replica.state.age}
    return await make_offer(swarm, replica, round_, work, anchor, told)


def _read(offer: Offer, size: int, fragment: int, at: slice) -> Mixed:
    """Decode a checked offer. Raises PeerError if it is not one for this round of random groups."""
    header = offer.header
    if header.fragment != fragment:
        raise PeerError(f"offer of {header.peer} for {header.block}: fragment {header.fragment}, not {fragment}")
    boundary = encoded_size(header.codec, size)
    payload = memoryview(offer.payload)
    contribution = read_values(header, payload[:boundary], size)
    anchor = decode(FRAGMENT_CODEC, payload[boundary:], at.stop - at.start)
    return Mixed(replace(contribution, tokens=header.fresh_tokens), anchor, header.age)
