"""How a token file is named; `data.py` reads it. Nothing is imported here, so that messages to a worker may have it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A token file to sample from, and how often compared with the others."""

    path: str
    vocab_size: int
    weight: float = 1.0
    is_task: bool = False
