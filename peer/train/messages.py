"""What the daemon and a worker say to each other, a class for each message; `channel.py` carries them.

The daemon asks and each rank answers. A worker tells the rest unasked: rank 0 for all ranks, and any rank whose end it
is (`Failed`). The two large buffers, anchor and snapshot, are shared memory and never in a message.

Nothing heavy is imported: the daemon starts its workers' fork server before it imports torch or numpy.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from configs.errors import ConfigError, DataError, DeviceError, ShoalError, StateError, UsageError
from peer.corpus.source import Source


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TakeSnapshot(_Message):
    """Write θ into the snapshot, at once, whatever a step is at."""

    type: Literal["snapshot"] = "snapshot"


class Apply(_Message):
    """θ ← θ + anchor − snapshot for these blocks, at once; the daemon may have written another base into the snapshot.

    If θ went back to an anchor since `epoch`: θ ← anchor.
    """

    type: Literal["apply"] = "apply"
    ages: dict[str, int]
    epoch: int


class Place(_Message):
    """Where training begins: at the anchor, and after the data that was already taken."""

    ages: dict[str, int]  # of the blocks of the sub-model, as the anchor has them
    epoch: int
    position: int  # inner steps of the data
    tokens: int  # in the anchor, since the sub-model was loaded
    snapshot_tokens: int  # in the last snapshot


class Load(_Message):
    """θ ← anchor, as this sub-model, trained from these sources; between two steps."""

    type: Literal["load"] = "load"
    sub_model: str
    num_domains: int
    sources: tuple[Source, ...]
    place: Place


class SetSources(_Message):
    """Sample from these token files from the next step on."""

    type: Literal["sources"] = "sources"
    sources: tuple[Source, ...]


class Pause(_Message):
    """Train no more after the step that is under way."""

    type: Literal["pause"] = "pause"


class Resume(_Message):
    """Go on training."""

    type: Literal["resume"] = "resume"


class Measure(_Message):
    """Say how long a step takes; between two steps. The next request must be `Load`."""

    type: Literal["measure"] = "measure"


class Score(_Message):
    """Say how well θ predicts windows of each of these token files, the same ones each time; between two steps."""

    type: Literal["score"] = "score"
    sources: tuple[Source, ...]
    windows: int  # of each file


Request = TakeSnapshot | Apply | Load | SetSources | Pause | Resume | Measure | Score


class Done(_Message):
    """It is done, and there is nothing to say about it."""

    type: Literal["done"] = "done"


class Snapshot(_Message):
    """What a snapshot of θ contains."""

    type: Literal["snapshot_taken"] = "snapshot_taken"
    tokens: int  # since `Load`, dropped ones excluded
    steps: int  # since the snapshot before
    loss: float | None  # nats per token, the mean of these steps
    position: int  # inner steps of the data, dropped ones included


class Measured(_Message):
    """How long an inner step takes."""

    type: Literal["measured"] = "measured"
    step_s: float


class Scored(_Message):
    """The loss on each of the token files, in nats per token that counts."""

    type: Literal["scored"] = "scored"
    losses: tuple[float, ...]


class Refused(_Message):
    """It cannot be done, for a reason that a person can act on."""

    type: Literal["refused"] = "refused"
    kind: Literal["config", "data", "device", "state", "usage", "other"]
    message: str

    @classmethod
    def of(cls, error: ShoalError) -> Self:
        """Return the answer that `error`, raised in the worker, becomes."""
        kind = next((kind for kind, raised in REFUSALS.items() if raised is type(error)), "other")
        return cls.model_validate({"kind": kind, "message": str(error)})

    def error(self) -> ShoalError:
        """Return the error, to be raised in the daemon."""
        return REFUSALS[self.kind](self.message)


REFUSALS: Mapping[str, type[ShoalError]] = {
    "config": ConfigError,
    "data": DataError,
    "device": DeviceError,
    "state": StateError,
    "usage": UsageError,
    "other": ShoalError,
}

Answer = Done | Snapshot | Measured | Scored | Refused


class Asked(_Message):
    """A request, with the number that its answer will have."""

    type: Literal["asked"] = "asked"
    id: int
    request: Annotated[Request, Field(discriminator="type")]


class Answered(_Message):
    """The answer to the request with this number."""

    type: Literal["answered"] = "answered"
    id: int
    answer: Annotated[Answer, Field(discriminator="type")]


class Ready(_Message):
    """A worker listens from now on."""

    type: Literal["ready"] = "ready"
    micro_batch: int  # sequences in one forward pass, as found


class Stepped(_Message):
    """How far training is."""

    type: Literal["stepped"] = "stepped"
    position: int  # inner steps of the data, dropped ones included
    loss: float  # nats per token, of the last step
    tokens: int  # since `Load`, dropped ones excluded
    tokens_per_s: float | None  # None: not known yet
    step_s: float | None  # the last inner step
    learning_rate: float = 0.0  # of that step: the highest of the blocks
    gradient_norm: float = 0.0  # before clipping


class Diverged(_Message):
    """θ went back to the anchor: what was learnt since is dropped, and a new epoch has begun."""

    type: Literal["diverged"] = "diverged"
    loss: float
    position: int
    epoch: int


class Stalled(_Message):
    """Training waits for another anchor, other sources or another sub-model."""

    type: Literal["stalled"] = "stalled"
    reason: str


class Failed(_Message):
    """The worker ends now."""

    type: Literal["failed"] = "failed"
    kind: Literal["memory", "device", "other"]  # what helps: a smaller micro-batch, nothing here, a restart
    reason: str
    detail: str = ""  # a traceback, for the log


Told = Ready | Stepped | Diverged | Stalled | Failed
Message = Asked | Answered | Told
