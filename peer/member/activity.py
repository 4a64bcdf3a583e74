"""What this peer is doing: one state machine, with every transition that there is.

    starting → downloading → training ⇄ paused
    training, paused, serving → changing → training, paused or serving
    anything → leaving

A pause is the user's word and holds until it is taken back: whatever begins meanwhile begins paused. A rule that the
owner of the machine has set (hours, battery, …) pauses as well, and takes back its own pause alone.
"""

import asyncio
from enum import StrEnum

from configs.errors import UsageError
from peer.member.watch import Watch

BY_OWNER = "paused by the owner of this machine"


class State(StrEnum):
    """The states, with the names that status and the member record show."""

    STARTING = "starting"
    DOWNLOADING = "downloading"
    TRAINING = "training"
    PAUSED = "paused"
    CHANGING = "changing"  # from one sub-model to another: the old one's rounds are over, the new one's have not begun
    SERVING = "serving"  # all tokens are trained: what is stored here stays available
    LEAVING = "leaving"


FROM: dict[State, set[State]] = {
    State.DOWNLOADING: {State.STARTING},
    State.TRAINING: {State.DOWNLOADING, State.CHANGING, State.PAUSED},
    State.PAUSED: {State.DOWNLOADING, State.CHANGING, State.TRAINING},
    State.CHANGING: {State.TRAINING, State.PAUSED, State.SERVING},
    State.SERVING: {State.DOWNLOADING, State.CHANGING},
    State.LEAVING: {state for state in State if state is not State.LEAVING},
}


class Activity:
    """The state of one peer. Every method but the questions is a transition; an illegal one is a defect of ours."""

    def __init__(self, leaving: asyncio.Event) -> None:
        self.state = State.STARTING
        self.told = ""  # why training rests until somebody says otherwise
        self.rule = ""  # why it rests for as long as a rule wants it
        self.leaving = leaving  # set as soon as somebody asks this peer to leave
        self.watch = Watch()  # of what is under way

    @property
    def is_paused(self) -> bool:
        """Whether training rests, or would if it had begun."""
        return bool(self.told or self.rule)

    def why_paused(self) -> str:
        """Say in one line why training rests and when it goes on; nothing if it does not."""
        if self.state in (State.SERVING, State.LEAVING):
            return ""
        if self.told:
            return f"{self.told}; goes on with `shoal resume`"
        return f"paused by itself: {self.rule}, or with `shoal resume`" if self.rule else ""

    def download(self) -> None:
        """Begin to fetch what the first sub-model needs."""
        self._enter(State.DOWNLOADING)

    def train(self) -> None:
        """Begin to train a sub-model, or to wait with it until a pause is over."""
        self._enter(State.PAUSED if self.is_paused else State.TRAINING)

    def serve(self) -> None:
        """Train nothing any more: all tokens are trained."""
        self._enter(State.SERVING)

    def change(self) -> None:
        """Put the present sub-model away, for another or for none."""
        self._enter(State.CHANGING)

    def pause(self, why: str = BY_OWNER) -> None:
        """Stop training until `resume`. Raises UsageError if this peer leaves."""
        self._refuse_if_leaving("pause")
        self.told = why
        self._rest_or_train()

    def resume(self) -> None:
        """Take every pause back, a rule's too. Raises UsageError if this peer leaves."""
        self._refuse_if_leaving("resume")
        self.told = self.rule = ""
        self._rest_or_train()

    def rest(self, rule: str) -> None:
        """Stop training as long as a rule wants it, for this reason; without a reason it wants nothing any more."""
        self.rule = rule
        self._rest_or_train()

    def leave(self) -> None:
        """Begin to leave; `leaving` asks for it, and what is under way may end before."""
        self._enter(State.LEAVING)

    def takes_part(self) -> bool:
        """Whether this peer takes part in the rounds of what it trains."""
        return self.state is State.TRAINING

    def declines(self) -> str:
        """Say why this peer answers no prompts now; nothing if it does."""
        if self.leaving.is_set():
            return "it is leaving"
        return "it is paused" if self.is_paused else ""

    def _rest_or_train(self) -> None:
        if self.is_paused and self.state is State.TRAINING:
            self._enter(State.PAUSED)
        elif not self.is_paused and self.state is State.PAUSED:
            self._enter(State.TRAINING)

    def _refuse_if_leaving(self, what: str) -> None:
        if self.leaving.is_set():
            raise UsageError(f"this peer is leaving: there is nothing to {what} any more; start it again first")

    def _enter(self, state: State) -> None:
        if self.state not in FROM[state]:
            raise RuntimeError(f"a peer that is {self.state} cannot become {state}")
        self.state = state
