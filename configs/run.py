"""What a run is: the same for every peer, and never changed. `run_id` is the hash of it.

A preset holds a `RunPlan`; founding a run adds what only the founder knows (genesis, the tokenizer's hash) and
makes it a `RunSpec`.
"""

import hashlib
import json
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from configs.errors import UsageError
from configs.names import Count, Digest, Positive, Share, WallSeconds
from configs.protocol import PROTOCOL_VERSION, Protocol, check_need

MAX_CONFIG_CHARS, MAX_DEPTH = 16_384, 6  # of a model's own configuration


class Frozen(BaseModel):
    """A section of a configuration: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Dtype = Literal["float32", "float16", "bfloat16"]


class AdapterSpec(Frozen):
    """LoRA (2106.09685) on every matrix of every layer: W + alpha / rank · B·A, of which only A and B are trained."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16  # columns of B and rows of A
    alpha: Annotated[int, Field(ge=1, le=65_536)] = 32  # what B·A is multiplied with, times rank
    # In what the frozen model is kept and sent: the founder's own. Left out when it is float32, as `initial_id` below.
    base_dtype: Annotated[Dtype, Field(exclude_if=lambda value: value == "float32")] = "float32"

    @property
    def scale(self) -> float:
        """What B·A is multiplied with."""
        return self.alpha / self.rank


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


class ModuleSpec(Frozen):
    """A module of somebody's own program in the place of a language model: nothing is known of it but its parameters.

    Their names, shapes and order stand in a list of which the run's `tokenizer_sha256` is the hash: it has no tokens.
    """

    values: Positive  # numbers in all parameters together
    parameters: Positive  # tensors that are trained


class ModelSpec(Frozen):
    """One sub-model: a Hugging Face Llama, or another causal LM of Transformers by its own `config`."""

    vocab_size: Annotated[int, Field(ge=258, le=262_144)]  # tokens that the model knows; as the corpus was prepared
    hidden_size: Annotated[int, Field(ge=8, le=16_384)]  # width; a multiple of num_heads
    num_layers: Annotated[int, Field(ge=1, le=256)]  # of attention and MLP
    num_heads: Annotated[int, Field(ge=1, le=256)]  # of attention; a multiple of num_kv_heads
    num_kv_heads: Annotated[int, Field(ge=1, le=256)]  # heads of keys and values, each for several of the others
    mlp_size: Annotated[int, Field(ge=8, le=65_536)]  # width inside of an MLP
    context_length: Annotated[int, Field(ge=8, le=131_072)]  # tokens in a training window
    rope_theta: Annotated[float, Field(gt=1)] = 10_000.0  # base of the rotary positions
    rms_norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-5  # keeps a norm from dividing by nothing
    tie_embeddings: bool = True  # the head is the embedding
    # What is trained of it; None: all. Left out when None, as `initial_id` below.
    adapter: Annotated[AdapterSpec | None, Field(exclude_if=lambda value: value is None)] = None
    # Of anything but a plain Llama: its own config.json, canonical (peer/train/family.py). Left out when None, too.
    config: Annotated[str | None, Field(max_length=MAX_CONFIG_CHARS, exclude_if=lambda value: value is None)] = None
    # Of no language model at all: then the keys above mean nothing. Left out when None, too.
    module: Annotated[ModuleSpec | None, Field(exclude_if=lambda value: value is None)] = None

    @classmethod
    def of_module(cls, values: int, parameters: int) -> Self:
        """Return the spec of a module with so many values in so many parameters."""
        least = {"hidden_size": 8, "num_layers": 1, "num_heads": 1, "num_kv_heads": 1, "mlp_size": 8}
        module = ModuleSpec(values=values, parameters=parameters)
        return cls(vocab_size=258, context_length=8, module=module, **least)

    @field_validator("config")
    @classmethod
    def _is_table(cls, text: str | None) -> str | None:
        """Nothing of it is believed before `family.py` has read it, but it must be readable."""
        if text is None:
            return None
        try:
            table = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("a model's configuration must be JSON") from None
        if not isinstance(table, dict) or not isinstance(table.get("model_type"), str) or _depth(table) > MAX_DEPTH:
            raise ValueError("a model's configuration must be a flat table with its model_type")
        return text

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.config is not None:  # it says by itself how its heads are made
            return self
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of num_heads {self.num_heads}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} must be a multiple of num_kv_heads {self.num_kv_heads}")
        return self


class StrategySpec(Frozen):
    """Which blocks make up which sub-model."""

    kind: Literal["replicas", "experts", "branches", "adapters"]  # docs/guide/strategies.md says which to choose
    common_tokens: Count = 0  # age at which the common phase ends and sub-models part
    # Of replicas: blocks whose rounds take turns, after the common phase. One is left out of what is written.
    parts: Annotated[int, Field(ge=1, le=8, exclude_if=lambda value: value == 1)] = 1

    @model_validator(mode="after")
    def _parts_are_of_replicas(self) -> Self:
        if self.parts > 1 and self.kind != "replicas":
            raise ValueError(f"parts is only for kind replicas, not for {self.kind}")
        return self

    @property
    def has_parting(self) -> bool:
        """Whether a time comes when nobody trains the common block any more."""
        return self.kind != "replicas" or self.parts > 1


class InnerSpec(Frozen):
    """The inner optimizer and its schedule, which follows a block's age.

    `muon` orthogonalises the momentum of the layers' matrices (Jordan et al., 2024); everything else takes AdamW's
    steps. Its updates have the size of AdamW's (2502.16982, 2.2), so one rate serves both.
    """

    optimizer: Literal["adamw", "muon"] = "adamw"  # muon for the layers' matrices of a model from random values
    learning_rate: Annotated[float, Field(gt=0, le=1)]  # the highest, after the warm-up
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.1  # times the rate, of every matrix in each step
    betas: tuple[Share, Share] = (0.9, 0.95)  # of AdamW's two running means
    grad_clip: Annotated[float, Field(gt=0)] = 1.0  # the largest norm of a gradient
    batch_tokens: Positive  # tokens in one inner step of one peer
    warmup_tokens: Count = 0  # of a block's age, in which the rate rises from nothing
    min_rate_share: Share = 0.1  # of learning_rate, at the end of the schedule


# α, μ by codec. What is sparse has its momentum in the residual: SparseLoCo (2508.15706, 3) steps without another.
OUTER_CONSTANTS = {
    "float32": (0.7, 0.5),
    "bfloat16": (0.7, 0.5),
    "int8": (0.7, 0.5),
    "int4": (0.7, 0.5),
    "sparse": (1.0, 0.0),
}
OF_THE_CODEC: Any = None  # only in what is read: a spec holds numbers


class OuterSpec(Frozen):
    """The outer step: Nesterov on averaged pseudo-gradients (DiLoCo, 2311.08105), and how offers are encoded.

    Without `alpha` or `mu` the codec's own are taken and become a part of the spec.
    """

    codec: Literal["float32", "bfloat16", "int8", "int4", "sparse"] = "int4"  # how offers are compressed
    alpha: Annotated[float, Field(gt=0, le=2, validate_default=True)] = OF_THE_CODEC  # outer rate; None: the codec's
    mu: Annotated[float, Field(ge=0, lt=1, validate_default=True)] = OF_THE_CODEC  # outer momentum; None: the codec's
    # Of complete groups of five or more: the weighted mean of the offers, or one that a hostile fifth does not turn
    # (peer/train/robust.py). Left out of what is written when it is the mean, so that older runs keep their ids.
    combine: Annotated[Literal["mean", "robust"], Field(exclude_if=lambda value: value == "mean")] = "mean"

    @field_validator("alpha", "mu", mode="before")
    @classmethod
    def _of_the_codec(cls, value: object, info: ValidationInfo) -> object:
        if value is not None:
            return value
        alpha, mu = OUTER_CONSTANTS.get(info.data.get("codec", ""), (1.0, 0.0))  # an unknown codec is said already
        return alpha if info.field_name == "alpha" else mu


TickSeconds = Annotated[float, Field(ge=0.2, le=86_400)]


class RoundPlan(Frozen):
    """The clock: how long a round is at which age, and when its cut falls."""

    tick_seconds: TickSeconds | None = None  # None: what `tick_steps` take where the run is founded
    first_ticks: Positive = 1  # h(0), a power of two
    last_ticks: Positive = 8  # the longest round, a power of two
    double_tokens: Positive  # h doubles when the age reaches 1, 3, 7, … times this
    cut_share: Annotated[float, Field(gt=0, le=0.5)] = 0.2  # of a round, after which gathering ends
    group_size: Annotated[int, Field(ge=2, le=64)] = 8  # holders that exchange; of more, random groups of this size
    # In random groups: the anchor is sent in so many fragments, in turn (a power of two), and one peer's anchor pulls
    # by at most pull_clip times the pseudo-gradient.
    fragments: Annotated[int, Field(ge=1, le=1024)] = 32
    pull_clip: Annotated[float, Field(gt=0, le=1e6)] = 8.0  # see fragments
    max_tokens: Positive = 2**32  # cap on what one offer may add to a block's age
    tick_steps: Annotated[float, Field(gt=0, le=1e6)] = 4.0  # inner steps of the founder in a tick

    @model_validator(mode="after")
    def _powers_of_two(self) -> Self:
        for name in ("first_ticks", "last_ticks", "fragments"):
            value = getattr(self, name)
            if value & (value - 1):
                raise ValueError(f"{name} {value} must be a power of two")
        if self.first_ticks > self.last_ticks:
            raise ValueError(f"first_ticks {self.first_ticks} must not exceed last_ticks {self.last_ticks}")
        return self

    def length(self, age: int) -> int:
        """Return h(age), the length in ticks of a round of a block that has absorbed `age` tokens."""
        doublings = (1 + age // self.double_tokens).bit_length() - 1
        return min(self.last_ticks, self.first_ticks << doublings)


class RoundSpec(RoundPlan):
    """The clock of a run: the founder has measured what a tick is."""

    tick_seconds: TickSeconds
    tick_steps: ClassVar[None] = None  # type: ignore[misc]  # not a key of a spec


class RunPlan(Frozen):
    """What a preset says of a run."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")] = "shoal"  # shown, no more
    seed: Count = 0  # of the first parameters and of what is drawn
    total_tokens: Positive  # of the whole swarm, after which peers stop training and go on serving
    model: ModelSpec
    strategy: StrategySpec
    inner: InnerSpec
    outer: OuterSpec = OuterSpec()
    rounds: RoundPlan

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.inner.batch_tokens < self.model.context_length:
            raise ValueError(
                f"inner.batch_tokens {self.inner.batch_tokens} must hold at least one window of "
                f"model.context_length {self.model.context_length}"
            )
        if self.strategy.common_tokens > self.total_tokens:
            raise ValueError(
                f"strategy.common_tokens {self.strategy.common_tokens} exceeds total_tokens {self.total_tokens}"
            )
        if self.strategy.kind == "adapters" and self.inner.optimizer == "muon":
            raise ValueError("inner.optimizer muon is for whole matrices, not for the factors of adapters; take adamw")
        if self.model.adapter is not None and self.strategy.kind != "adapters":
            raise ValueError(f"model.adapter is only for strategy.kind adapters, not for {self.strategy.kind}")
        return self

    def founded(self, tick_seconds: float, **facts: Any) -> "RunSpec":
        """Return the run that is founded by this plan: with a tick of so many seconds, and the `facts` of a spec.

        Replicas with an admission key combine offers robustly, unless the plan says how: what that costs honest members
        was measured of them, and where nobody is admitted whoever likes may bring more identities than all others.
        """
        values = self.model_dump(exclude={"rounds": {"tick_steps"}})
        is_guarded = facts.get("admission") is not None and self.strategy.kind == "replicas"
        if is_guarded and "combine" not in self.outer.model_fields_set:
            values["outer"]["combine"] = "robust"
        return RunSpec.model_validate({**values, "rounds": {**values["rounds"], "tick_seconds": tick_seconds}, **facts})


class OriginSpec(Frozen):
    """What a pretrained model says of itself that a run does not change; it stands again in what is fused."""

    name: Annotated[str, Field(max_length=128, pattern=r"^[\w./-]*$")] = ""
    licence: Annotated[str, Field(max_length=64, pattern=r"^[\w.+-]*$")] = ""
    dtype: Dtype = "float32"  # of its weights
    context_length: Annotated[int, Field(ge=8, le=2**24)]  # tokens that it reads, though a run trains on fewer
    begin: Count | None = None  # the token with which a text begins
    ends: Annotated[tuple[Count, ...], Field(max_length=16)] = ()  # tokens at which it stops writing
    pad: Count | None = None


class RunSpec(RunPlan):
    """What every peer of a run agrees on. Peers compare `run_id`; nobody edits a spec."""

    rounds: RoundSpec
    protocol: Protocol = PROTOCOL_VERSION  # that it was founded in: who speaks only earlier ones cannot take part
    genesis: WallSeconds  # at tick 0
    tokenizer_sha256: Digest
    end_of_text: Count  # the token after each document
    # Content id (configs/content.py) of the parameters of a pretrained model: block `model` begins with them, as
    # float32, or adapters are trained on them, in their `base_dtype`. None: the parameters follow from the seed. A spec
    # without one is written as it was before there were any, so that its run keeps its id.
    initial_id: Annotated[Digest | None, Field(exclude_if=lambda value: value is None)] = None
    origin: Annotated[OriginSpec | None, Field(exclude_if=lambda value: value is None)] = None  # that model's own words
    # The public half of the key that signs invitations, of a closed run. Left out when there is none, too.
    admission: Annotated[Digest | None, Field(exclude_if=lambda value: value is None)] = None

    @model_validator(mode="before")
    @classmethod
    def _is_of_a_known_protocol(cls, values: Any) -> Any:
        """Look at the protocol first: one that is too new explains whatever else is not known here."""
        needed = values.get("protocol") if isinstance(values, dict) else None
        if type(needed) is int:
            check_need(needed, "the run")
        return values

    @model_validator(mode="after")
    def _has_what_is_adapted(self) -> Self:
        if self.strategy.kind == "adapters" and (self.initial_id is None or self.model.adapter is None):
            raise ValueError(
                "strategy.kind adapters needs initial_id and model.adapter: a pretrained model, and a rank"
            )
        return self

    @property
    def is_seeded(self) -> bool:
        """Whether what is trained begins with values that follow from the seed: with adapters on a model it does."""
        return self.initial_id is None or self.model.adapter is not None

    @property
    def run_id(self) -> str:
        """The run's name in the swarm: the first 128 bits of the spec's SHA-256, in hex."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:32]


def check_is_of_text(spec: RunSpec) -> None:
    """Raise UsageError for a run of no language model: commands can neither train nor read somebody's own module."""
    if spec.model.module is not None:
        raise UsageError(
            f"run {spec.run_id} ({spec.name}) trains a module of somebody's own program, not a language model; only "
            "such a program takes part, with shoal.Outer and the same module"
        )
