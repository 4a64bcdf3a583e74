"""What this peer is doing: one state machine, with every transition that there is.

    starting → downloading → training ⇄ paused
    training, paused, serving → changing → training, paused or serving
    anything → leaving

A pause is the user's word and holds until it is taken back: whatever begins meanwhile begins paused.
"""

import asyncio
from enum import StrEnum

from configs.errors import UsageError
from peer.member.watch import Watch


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
        self.is_paused = False  # by the user
        self.leaving = leaving  # set as soon as somebody asks this peer to leave
        self.watch = Watch()  # of what is under way

    def download(self) -> None:
        """Begin to fetch what the first sub-model needs."""
        self._enter(State.DOWNLOADING)

    def train(self) -> None:
        """Begin to train a sub-model, or to wait with it until the user's pause is over."""
        self._enter(State.PAUSED if self.is_paused else State.TRAINING)

    def serve(self) -> None:
        """Train nothing any more: all tokens are trained."""
        self._enter(State.SERVING)

    def change(self) -> None:
        """Put the present sub-model away, for another or for none."""
        self._enter(State.CHANGING)

    def pause(self) -> None:
        """Stop training by the user's wish. Raises UsageError if this peer leaves."""
        self._refuse_if_leaving("pause")
        self.is_paused = True
        if self.state is State.TRAINING:
            self._enter(State.PAUSED)

    def resume(self) -> None:
        """Take the user's pause back. Raises UsageError if this peer leaves."""
        self._refuse_if_leaving("resume")
        self.is_paused = False
        if self.state is State.PAUSED:
            self._enter(State.TRAINING)

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

    def _refuse_if_leaving(self, what: str) -> None:
        if self.leaving.is_set():
            raise UsageError(f"this peer is leaving: there is nothing to {what} any more; start it again first")

    def _enter(self, state: State) -> None:
        if self.state not in FROM[state]:
            raise RuntimeError(f"a peer that is {self.state} cannot become {state}")
        self.state = state
