"""How many tokens the demo trains with on this machine: a pure decision, from the time that one step takes here.

A clock only chooses how many tokens there are, before anything is trained. What is compared then gets all of them.
"""

from dataclasses import dataclass

TARGET_S = 330.0  # how long the whole demo should take
LEAST_TOKENS = 160_000  # with few, the founder has trained most before others join; a slow machine takes longer
MOST_TOKENS = 4_000_000  # what `tiny` itself is planned for
STEP_TOKENS = 1_024  # of one inner step of `tiny`

# What the stages cost beside training, roughly. It is counted in steps, since a slow machine is slow at everything.
START_STEPS = 350  # four daemons of the swarm, one of them twice, and the founder's text: 5 to 8 s of a core each
BASELINE_START_STEPS = 120  # two more daemons, and their models written
FUSE_STEPS = 50  # torch is imported, then the model is written
SCORE_STEPS = 65  # four models read the held-out text
WAIT_S = 15.0  # for ticks, for the killed peer and for those who leave, however fast the machine is

DAEMONS_SHARE = 0.3  # what rounds, records and this program's looks cost beside a step of the swarm
SWARM_CORES = 3.0  # that the swarm keeps busy: one peer comes late, one is away for a while, one leaves
ALONE_SHARE = 1 / 3.5  # of the tokens that the busiest peer trains


@dataclass(frozen=True)
class Durations:
    """How long each stage should take, in seconds."""

    swarm_s: float
    fuse_s: float
    baselines_s: float
    score_s: float

    @property
    def total_s(self) -> float:
        """The whole demo."""
        return self.swarm_s + self.fuse_s + self.baselines_s + self.score_s


def durations(tokens: float, step_s: float, cores: float) -> Durations:
    """Return how long the stages take with this many tokens, when a step of one thread takes `step_s` seconds.

    The two baselines train at the same time with one thread each, so the dense one sets their time where there are
    two cores.
    """
    cores = max(1.0, cores)  # where there is less than one, the step was measured with that
    trained_s = tokens / STEP_TOKENS * step_s  # of one core, for as many tokens as the swarm has
    return Durations(
        swarm_s=WAIT_S
        + START_STEPS * step_s / min(cores, 2.0)
        + trained_s * (1 + DAEMONS_SHARE) / min(cores, SWARM_CORES),
        fuse_s=FUSE_STEPS * step_s,
        baselines_s=BASELINE_START_STEPS * step_s / min(cores, 2.0) + trained_s * max(1.0, (1 + ALONE_SHARE) / cores),
        score_s=SCORE_STEPS * step_s / min(cores, 2.0),
    )


def tokens_for(step_s: float, cores: float) -> int:
    """Return the tokens of the whole swarm with which the demo takes TARGET_S, within its bounds; whole steps.

    `step_s`: seconds that one inner step of `tiny` takes with one thread. `cores`: that may be used. The time grows
    evenly with the tokens, so two points of it give the answer.
    """
    fixed_s = durations(0, step_s, cores).total_s
    step_total_s = durations(STEP_TOKENS, step_s, cores).total_s - fixed_s
    steps = int((TARGET_S - fixed_s) / step_total_s) if fixed_s < TARGET_S else 0
    return max(LEAST_TOKENS, min(MOST_TOKENS // STEP_TOKENS, steps) * STEP_TOKENS)
