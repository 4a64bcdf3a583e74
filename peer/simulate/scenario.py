"""What is simulated, and what comes of a round. No torch: a mistake in the scenario is said at once."""

from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import Field, ValidationError, field_validator

from configs.errors import UsageError
from configs.load import describe
from configs.names import MAX_COUNT, Count, Positive, Share
from configs.run import Frozen, OuterSpec, RoundSpec, RunSpec
from protocols.grouping import bits_for

CHUNKS = {"int8": 1024, "sparse": 4096}  # values that share scales
LEAST_VALUES = 128  # one chunk of int4
MAX_PEERS = 100_000
TICK_SECONDS = 2.0  # a round is a tick
TOKENS = 1000  # that a peer learns from in a round


class Scenario(Frozen):
    """A swarm and its troubles."""

    peers: Annotated[int, Field(ge=2, le=MAX_PEERS)] = 64
    rounds: Positive = 20
    group_size: Annotated[int, Field(ge=2, le=64)] = 8
    fragments: Annotated[int, Field(ge=1, le=LEAST_VALUES)] = RoundSpec.model_fields[
        "fragments"
    ].default  # power of two
    pull_clip: Annotated[float, Field(gt=0, le=1e6)] = 8.0
    churn: Share = 0.0  # share of the peers that leave in each round, without a word, and are replaced
    loss: Share = 0.0  # share of the offers, and of the lists, that never arrive
    delay_ms: Annotated[float, Field(ge=0, le=1e6)] = 0.0  # mean time of a message; it may be late for the cut
    seed: Count = 0
    codec: str = "int4"

    @field_validator("fragments")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("must be a power of two")
        return value

    @field_validator("codec")
    @classmethod
    def _known(cls, value: str) -> str:
        known = get_args(OuterSpec.model_fields["codec"].annotation)
        if value not in known:
            raise ValueError(f"must be one of {', '.join(known)}")
        return value

    @property
    def is_one_group(self) -> bool:
        """Whether all peers fit in one group."""
        return bits_for(self.peers, self.group_size) == 0

    @property
    def values(self) -> int:
        """Values of the simulated block: one chunk of the codec."""
        return CHUNKS.get(self.codec, LEAST_VALUES)

    def spec(self) -> RunSpec:
        """Return the run that the peers take part in."""
        model = {"vocab_size": 258, "hidden_size": 8, "num_layers": 1, "num_heads": 1, "num_kv_heads": 1, "mlp_size": 8}
        rounds = {"group_size": self.group_size, "fragments": self.fragments, "pull_clip": self.pull_clip}
        return RunSpec.model_validate(
            {
                "name": f"simulated-{self.seed}",
                "total_tokens": MAX_COUNT - 1,
                "model": {**model, "context_length": 8},
                "strategy": {"kind": "replicas"},
                "inner": {"learning_rate": 1e-3, "batch_tokens": 8},
                "outer": {"codec": self.codec},
                "rounds": {"tick_seconds": TICK_SECONDS, "double_tokens": MAX_COUNT - 1, **rounds},
                "genesis": 0.0,
                "tokenizer_sha256": "0" * 64,
                "end_of_text": 0,
            }
        )


def read_scenario(**given: Any) -> Scenario:
    """Return the scenario that was asked for; None means not given. Raises UsageError: names what is not allowed."""
    try:
        return Scenario.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise UsageError(describe(error, "simulate")) from None


@dataclass(frozen=True)
class Gossip:
    """What the peers did in a round; means per peer unless said otherwise."""

    groups: int
    largest: int  # members of the largest group
    offers: float  # fetched
    lists: float  # heard
    entries: float  # in these lists
    reads: float  # of keys in the DHT
    skipped: float  # share of the peers that took no step
    holders: float  # estimate of the number of peers
    age: float  # mean of the replicas' ages, in tokens


@dataclass(frozen=True)
class Figures:
    """A round, as it is printed; means per peer where it is not said otherwise."""

    round: int
    spread: float  # between replicas, times the pseudo-gradient's size
    theory: float  # the same, by theory, without loss, delay and churn
    groups: int
    largest: int  # members of the largest group
    holders: float  # estimate of the number of peers
    skipped: float  # share of the peers that took no step
    mbytes: float  # received, of a block of a million parameters
    lookups: float  # in the DHT: the own record stored, and keys read
    lookup_rpcs: float  # that these took
    work: float  # share of what was learnt on average that is in the replicas or owed; more than 1: some of it twice
    lost: float  # share of all tokens that went with a peer that left before its offer counted
    age_error: float  # of the replicas' ages, relative to the tokens that were trained on
