"""Who exchanges with whom in a swarm larger than one group: pure functions of hashes and counts.

The group of a tick is a *bucket*: the holders whose draw for that tick begins with the same bits. A draw is a hash,
so nobody chooses it, it is another one at every tick, and a peer more or less changes no other peer's bucket. The
DHT key of the own bucket is the only one that a peer reads and writes, so its cost does not depend on the size of
the swarm.

    draw → its first `Census.bits` bits → a DHT key, where a peer writes its record and reads the others'
    what was found there → `group` (who exchanges), `sought` (where else to look), and `revised` (how many holders
    there may be, and so how many bits)

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
GAIN = 1 / 16  # weight of one bucket's count in the estimate
FAST_GAIN = 1 / 4  # weight in the estimate of a count that contradicts it, see THIN
# A bucket with under 1/4 or over 5/2 of its expected members: the swarm has shrunk or grown suddenly, and the count is
# trusted more.
THIN, CROWDED = 1 / 4, 5 / 2
ALONE = 2  # rounds without anybody, after which a peer looks under every number of bits
FAR = 64  # times what the buckets show, up to which others' word for the number of holders is taken
MAX_SOUGHT = 16  # numbers of bits that are looked under: enough for half a million holders


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
    alone: int = 0  # rounds in a row in which nobody was found, wherever this peer looked

    @property
    def expected(self) -> float:
        """How many members the own bucket should have."""
        return self.agreed / 2.0**self.bits

    def is_thin(self, others: int) -> bool:
        """Whether the own bucket held so few others that they may have gone over to another number of bits."""
        return others < THIN * self.expected


Found = Mapping[int, Sequence[float]]  # number of bits → what the others say that were found in the bucket of so many


def begin(holders: float, group_size: int) -> Census:
    """Return the census of a newcomer that was told a number of holders."""
    return Census(holders, holders, bits_for(holders, group_size))


def bits_for(holders: float, group_size: int) -> int:
    """Return how many bits make buckets of group_size, within factors of 9/16 and 9/8; none if one group holds all."""
    return max(0, math.ceil(math.log2(holders / (FULL * group_size)))) if holders > 0 else 0


def sought(census: Census, found: Found) -> list[int]:
    """Return under which other numbers of bits to look for the others; none when what was found will do.

    Under one bit less and one more if the own bucket is thin: peers in two places would each take what they see for
    the whole swarm. Everywhere, by a peer that has been alone for `ALONE` rounds: they are where it would never come.
    """
    if not census.is_thin(len(found[census.bits])):
        return []
    near = {max(0, census.bits - 1), census.bits + 1}
    if near - found.keys():
        return sorted(near - found.keys())
    is_lost = census.alone >= ALONE and not any(found.values())
    return sorted(set(range(MAX_SOUGHT)) - found.keys()) if is_lost else []


def revised(census: Census, found: Found, told: Sequence[float], group_size: int) -> Census:
    """Return the census after a round in which nothing more is `sought`.

    `told` is what the members of the group take the number of holders to be, this one too. It is believed as far as
    buckets so full may be: in a small group one stranger is half of the median.
    """
    most = max(found, key=lambda bits: (len(found[bits]), bits == census.bits))
    if len(found[most]) > len(found[census.bits]):
        holders = min(median(found[most]), FAR * _shown(most, found))
        return Census(holders, holders, most)  # it had strayed from the others
    counted = {bits: len(others) for bits, others in found.items()}
    count = 1 + sum(others * 2.0**bits for bits, others in counted.items())  # unbiased: each stands for 2^bits holders
    agreed = min(median(told), FAR * max(_shown(bits, found) for bits in found))
    if census.bits == 0:
        gain = 1.0  # everybody was seen
    elif census.is_thin(counted[census.bits]) or counted[census.bits] > CROWDED * census.expected:
        gain = FAST_GAIN
    else:
        gain = GAIN
    holders = agreed + gain * (count - agreed)
    decisive = holders if census.bits == 0 else agreed
    full = FULL * group_size * 2.0**census.bits
    stays = decisive <= full * STICKY and (census.bits == 0 or decisive > full / 2 / STICKY)
    bits = census.bits if stays else bits_for(decisive, group_size)
    return Census(holders, decisive, bits, 0 if any(counted.values()) else census.alone + 1)


def _shown(bits: int, found: Found) -> float:
    """Return how many holders there are if all buckets of so many bits are as full as the one that was read."""
    return (1 + len(found[bits])) * 2.0**bits


def counted_share(me: str, sealed: Mapping[str, str], lists: Mapping[str, Mapping[str, str]]) -> float:
    """Return how much of the own offer the group has taken, 1 when it fared as the `sealed` offers did on average.

    Each member takes the mean of what it holds, so an offer that fewer hold counts less, and all others more: what
    counts is by how many members it is named, over the mean of the offers. Nothing if it was not sealed.
    """
    named = {peer: sum(held.get(peer) == offer for held in lists.values()) for peer, offer in sealed.items()}
    return named[me] * len(named) / sum(named.values()) if me in named else 0.0
