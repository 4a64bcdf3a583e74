"""What a daemon remembers of its run, as its documented paths give it: rounds, curves, answers, what it gave."""

from typing import Literal

from pydantic import BaseModel

Fate = Literal["sealed", "late", "absent", "left out"]


class Part(BaseModel):
    """One member of a round, and what became of its offer."""

    peer: str
    fate: Fate
    offer_s: float | None = None  # after the tick, until its offer was here
    list_s: float | None = None  # until its list was heard
    size_bytes: int = 0
    tokens: int = 0  # that the offer says are in it, since the member first trained the block
    why: str = ""  # it was late, absent or left out, as far as that is known


class RoundRecord(BaseModel):
    """What happened in one round of one block on this peer."""

    block: str
    tick: int
    at: float  # wall-clock seconds at which the tick began
    length_s: float  # until the block's next round
    cut_s: float  # after the tick, until which offers were gathered
    outcome: str  # in words
    cause: str = ""  # of a round that came to nothing
    is_step: bool = False
    version: int = 0  # of the block, afterwards
    age: int = 0
    digest: str = ""
    phases: dict[str, float] = {}  # snapshot, offer, gathered, sealed, stepped, applied → seconds after the tick
    parts: list[Part] = []
    bytes_in: int = 0
    bytes_out: int = 0


class Rounds(BaseModel):
    """Rounds, the newest first. `older` is the tick to ask before for more; None: there are no older ones."""

    rounds: list[RoundRecord]
    older: int | None = None


class Point(BaseModel):
    """A place of a curve."""

    tokens: int  # of the sub-model's age, or, in this peer's own curves, those that it has trained
    at: float  # wall-clock seconds
    value: float


class Curves(BaseModel):
    """How the training goes, thinned to some hundred points each."""

    held_out: dict[str, dict[str, list[Point]]] = {}  # sub-model → domain → nats per token
    run: dict[str, list[Point]] = {}  # domain → by the sub-model that knows it best, over the run's age
    training: list[Point] = []  # this peer's loss in training
    learning_rate: list[Point] = []
    gradient_norm: list[Point] = []


class Piece(BaseModel):
    """A part of an answer, and which sub-model wrote it."""

    text: str
    sub_model: str


class Answered(BaseModel):
    """What the swarm made of a prompt at one moment."""

    at: float
    tick: int
    age: int  # of the swarm, in tokens
    pieces: list[Piece]


class PromptHistory(BaseModel):
    """A fixed prompt, and how its answers have changed, the oldest first."""

    prompt: str
    domain: str  # from whose held-out text it comes; empty: the owner's own
    answers: list[Answered] = []


class AnswersHistory(BaseModel):
    """All fixed prompts."""

    prompts: list[PromptHistory] = []


class Device(BaseModel):
    """What trains."""

    name: str
    memory_used_bytes: int | None = None  # None: not known
    memory_total_bytes: int | None = None


class Share(BaseModel):
    """What this machine gives and takes."""

    tokens: int  # trained since it first joined
    rounds: int
    share_of_tokens: float  # of all that the run has absorbed
    bytes_in: dict[str, int]  # cause → bytes: offers, states, text, help, dht
    bytes_out: dict[str, int]
    up_mbit: float | None  # caps; None: none
    down_mbit: float | None
    memory_bytes: int  # of the daemon and its workers
    memory_free_bytes: int | None
    disk_bytes: int  # of the state directory
    disk_free_bytes: int
    devices: list[Device] = []
    step_s: float | None = None
    advice: list[str] = []  # what would help
