"""How a token file is named; `data.py` reads it. Nothing is imported here, so that messages to a worker may have it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One token file of many, which lies there only while it is read, and shortly before."""

    path: str
    tokens: int


@dataclass(frozen=True)
class Source:
    """A token file to sample from, and how often compared with the others.

    With `parts`, `path` only names it: the tokens are theirs, and at most `active` of them are read at a time, in the
    order of `working_set.py`.
    """

    path: str
    vocab_size: int
    weight: float = 1.0
    is_task: bool = False
    parts: tuple[Part, ...] = ()
    active: int = 0
