"""Stand-in."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peer.prepare.skips import Reason


@dataclass(frozen=True)
class Cleaning:
    """What is left out."""


@dataclass(frozen=True)
class Filter:
    """Decides."""

    cleaning: Cleaning
    is_idle: bool = True
    has_signatures: bool = False

    def verdict(self, text: str) -> Reason | None:
        """Say."""
        return None

    def is_of_length(self, characters: int, is_last: bool) -> bool:
        """Say."""
        return True


class Signature:
    """Stand-in."""

    @staticmethod
    def of(text: str) -> NDArray[np.uint32]:
        """Return."""
        return np.zeros(1, dtype=np.uint32)
