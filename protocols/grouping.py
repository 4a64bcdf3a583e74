"""Who exchanges with whom in a swarm larger than one group: pure functions of hashes and counts.

The group of a tick is a *bucket*: the holders whose draw for that tick begins with the same bits. A draw is a hash,
so nobody chooses it, it is another one at every tick, and a peer more or less changes no other peer's bucket. The
DHT key of the own bucket is the only one that a peer reads and writes, so its cost does not depend on the size of
the swarm.

    draw → its first `Census.bits` bits → a DHT key, where a peer writes its record and reads the others'
    what was found there → `group` (who exchanges) and `revised` (how many holders there may be, and so how many bits)

Prefixes nest: one bit more halves a bucket, one less unites it with its sibling. Nothing here knows a clock, a network
or a tensor; the simulator and the daemon call the same code.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

DRAWN_BITS = 64
FULL = 9 / 8  # times group_size: buckets have at most so many members on average, and at least half of it
STICKY = 1.1  # the number of bits stays while the holders are within this factor of its range
GAIN = 1 / 16  # of one bucket's count in the estimate
FAST_GAIN = 1 / 4  # of a count that contradicts the estimate: the swarm has shrunk or grown at once
THIN, CROWDED = 1 / 4, 5 / 2  # a count contradicts an estimate that is beyond these factors


def draw(run_id: str, block: str, tick: int, peer: str, nonce: str = "") -> str:
    """Return what a holder has drawn for a tick, as 64 characters 0 and 1.

    `nonce` is the one of its admission to a closed run, so that nobody tries out identities; empty in an open run.
    """
    said = "\0".join((run_id, block, str(tick), peer, nonce))
    return f"{int.from_bytes(hashlib.sha256(said.encode()).digest()[: DRAWN_BITS // 8]):0{DRAWN_BITS}b}"


def group(me: str, draws: Mapping[str, str], bits: int, group_size: int) -> tuple[str, ...]:
    """Return the members of the group of `me`, sorted, `me` among them.

    `draws` are those of the peers that were found in the bucket, computed here and not believed; who does not belong
    into the bucket is left out. A bucket of more than twice the group's size is parted by further bits: its members
    have all read the same list and so part alike.
    """
    members = list(draws)
    while True:
        members = [peer for peer in members if draws[peer].startswith(draws[me][:bits])]
        if len(members) <= 2 * group_size or bits >= DRAWN_BITS:
            return tuple(sorted(members))
        bits += 1


def fragment_of(tick: int, fragments: int) -> int:
    """Return which of the `fragments` (a power of two) of the anchor is sent at `tick`: each in its turn.

    The sum of the tick's digits, so that turns are even for rounds of any length that is a power of two; and no
    round's length is needed, about which members of different age may differ.
    """
    digits = 0
    while tick and fragments > 1:
        tick, digit = divmod(tick, fragments)
        digits += digit
    return digits % fragments


@dataclass(frozen=True)
class Census:
    """What a peer takes the number of a block's holders to be; every record in a bucket tells `holders`.

    `agreed` is the median of what the last group told. It differs less between peers than their own estimates do, so
    the number of bits follows it, and nearly all change over at the same tick.
    """

    holders: float
    agreed: float
    bits: int

    @property
    def expected(self) -> float:
        """How many members the own bucket should have."""
        return self.agreed / 2.0**self.bits


def begin(holders: float, group_size: int) -> Census:
    """Return the census of a newcomer that was told a number of holders."""
    return Census(holders, holders, bits_for(holders, group_size))


def bits_for(holders: float, group_size: int) -> int:
    """Return how many bits make buckets of group_size, within factors of 9/16 and 9/8; none if one group holds all."""
    return max(0, math.ceil(math.log2(holders / (FULL * group_size)))) if holders > 0 else 0


def is_thin(census: Census, others: int) -> bool:
    """Whether the own bucket held so few others that the buckets with one bit less and one bit more must be read too.

    The others may have changed over to those: peers in two places would each take what they see for the whole swarm.
    """
    return others < THIN * census.expected


def revised(census: Census, others: Mapping[int, int], told: Sequence[float], group_size: int) -> Census:
    """Return the census after a round.

    `others` maps a number of bits to how many others the bucket of so many bits held: `census.bits`, and both
    neighbours if that was thin. `told` is what the members of the group take the number of holders to be, this one too.
    """
    count = 1 + sum(found * 2.0**bits for bits, found in others.items())  # unbiased: each stands for 2^bits holders
    agreed = median(told)
    if census.bits == 0:
        gain = 1.0  # everybody was seen
    elif is_thin(census, others[census.bits]) or others[census.bits] > CROWDED * census.expected:
        gain = FAST_GAIN
    else:
        gain = GAIN
    holders = agreed + gain * (count - agreed)
    decisive = holders if census.bits == 0 else agreed
    full = FULL * group_size * 2.0**census.bits
    stays = decisive <= full * STICKY and (census.bits == 0 or decisive > full / 2 / STICKY)
    return Census(holders, decisive, census.bits if stays else bits_for(decisive, group_size))


def named_share(me: str, offer: str, view: Sequence[str], lists: Mapping[str, Mapping[str, str]]) -> float:
    """Return the share of the members of the `view` whose lists name `offer`, this peer's own."""
    return sum(1 for member in view if lists.get(member, {}).get(me) == offer) / len(view)
