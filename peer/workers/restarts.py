"""Decides what to do when workers have died: start them again, with less memory if that was the reason, or give up."""

from dataclasses import dataclass
from typing import Literal

from configs.errors import DeviceError

MAX_DEATHS = 3  # deaths one after the other, without a step between them, after which workers are given up


@dataclass(frozen=True)
class Death:
    """Why a generation of workers ended."""

    reason: str
    kind: Literal["memory", "device", "other"] = "other"  # what helps: a smaller micro-batch, nothing here, a restart


class Restarts:
    """Counts the deaths of workers, and remembers the micro-batch that they are started with the next time."""

    def __init__(self, micro_batch: int) -> None:
        self.micro_batch = micro_batch  # the most sequences in one forward pass; 0: the worker finds it
        self._deaths = 0  # since the last step

    def after(self, death: Death, *, has_stepped: bool, micro_batch: int) -> str:
        """Return why the workers are started again, in words. `micro_batch`: what the dead ones had.

        Raises DeviceError, with the reason and the remedy, when starting them again is pointless.
        """
        self._deaths = 1 if has_stepped else self._deaths + 1
        reason, is_memory = death.reason, death.kind == "memory"
        if is_memory and micro_batch > 1:
            self.micro_batch = micro_batch // 2
            return f"{reason}; now with a micro-batch of {self.micro_batch}"
        if death.kind == "device":
            raise DeviceError(reason)
        if self._deaths >= MAX_DEATHS:
            if is_memory:
                reason += " even with one sequence at a time"
            remedy = "give more memory or another device" if is_memory else "see the log for the first error"
            raise DeviceError(
                f"training ended {self._deaths} times before a step: {reason}; {remedy}, then start again"
            )
        return reason
