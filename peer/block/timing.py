"""What happens at a tick: pure decisions, with the tick as an argument."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from configs.run import RunSpec
from dht.membership import ACT_TICKS, HOLD_TICKS
from peer.train.partition import part_of

LIST_SHARE = 0.2  # of a round, after the cut, in which the members' lists are heard
SILENT_ROUNDS = 8  # without a sealed one, after which those decide who are heard; 3 of a group of a large stride,
SLOW_ROUNDS = 3
SILENT_TICKS = HOLD_TICKS + ACT_TICKS  # at least: the record of a peer that is gone has then ended, too
CLOSE_SHARE = 0.95  # of a round, when it should be over, with all that was missing


@dataclass(frozen=True)
class BlockRounds:
    """When the rounds of one block end, at its present age."""

    length: int  # of a round, in ticks
    turn: int = 0  # a tick at which one ends

    def is_due(self, tick: int, stride: int = 1) -> bool:
        """Return whether a round ends at `tick` of who takes part in every stride-th of them."""
        return (tick - self.turn) % (stride * self.length) == 0


def due(spec: RunSpec, ages: Mapping[str, int], tick: int) -> list[str]:
    """Return the blocks that exchange at `tick`: those whose round length, at their age, divides it.

    The parts of a replica take turns, so that each has the links for itself. Whatever the length, a block's ticks are
    among those of any shorter one: peers that believe it older or younger still meet.
    """
    return [block for block, age in ages.items() if rounds_of(spec, block, age).is_due(tick)]


def rounds_of(spec: RunSpec, block: str, age: int) -> BlockRounds:
    """Return when the rounds of a block of this age end."""
    return BlockRounds(spec.rounds.length(age), turn(spec, block))


def group_stride(strides: Mapping[str, int]) -> int:
    """Return how many rounds lie between two in which at least two of the holders take part.

    `strides` maps each holder to the number of rounds that make one of its own. What one does alone is no round, as
    long as there are others.
    """
    return sorted(strides.values())[1] if len(strides) > 1 else 1


def turn(spec: RunSpec, block: str) -> int:
    """Return the tick of a longest round at which `block` exchanges.

    Of parts, an odd number of ticks apart: so their turns differ, as far as may be, in rounds of every length.
    """
    between = spec.rounds.last_ticks // spec.strategy.parts | 1
    return (part_of(block) or 0) * between % spec.rounds.last_ticks


@dataclass(frozen=True)
class Meeting:
    """A round of a block: when it ends, and who takes part."""

    tick: int
    group: tuple[str, ...]
    stride: int  # of the group: so many of the block's rounds lie between two of its own


def meeting(
    rule: BlockRounds, me: str, tick: int, begun: int, strides_at: Callable[[int], Mapping[str, int]]
) -> Meeting | None:
    """Return the round of a block that `me` begins at `tick`; None if there is none.

    `begun` is the tick of its last one, and `strides_at` gives the holders' strides at a tick. Who is slower than the
    group begins `ACT_TICKS` early, as soon as it is known who takes part: the cut will not wait for it.
    """
    for at in range(tick, tick + ACT_TICKS + 1):
        strides = strides_at(at)
        if at > begun and me in strides:
            of_group = group_stride(strides)
            is_mine = rule.is_due(at, max(strides[me], of_group))
            if is_mine and (at == tick or strides[me] > of_group):
                group = tuple(peer for peer, stride in strides.items() if rule.is_due(at, stride))
                return Meeting(at, group, of_group)
    return None


def round_seconds(spec: RunSpec, age: int, stride: int = 1) -> float:
    """Return how long a round of a block of this age takes, in a group of this stride."""
    return stride * spec.rounds.length(age) * spec.rounds.tick_seconds


def round_timing(spec: RunSpec, age: int, late_s: float, stride: int = 1) -> tuple[float, float, float]:
    """Return the seconds until the cut and until the end of the lists, for a member that begins `late_s` late.

    The third is how long a missing offer may take after that.
    """
    length = round_seconds(spec, age, stride)
    cut = spec.rounds.cut_share * length
    end = (spec.rounds.cut_share + LIST_SHARE) * length
    return max(0.0, cut - late_s), max(0.0, end - late_s), CLOSE_SHARE * length - end


def silent_ticks(spec: RunSpec, age: int, stride: int = 1) -> int:
    """Return after how many ticks without a sealed round a block of this age goes on without a majority."""
    return max(SILENT_TICKS, spec.rounds.length(age) * max(SILENT_ROUNDS, SLOW_ROUNDS * stride))
