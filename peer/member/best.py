"""The state of each sub-model that foretold held-out text best so far: kept on disk beside the newest, for `fuse`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from configs.files import disk_errors, read_model, write_file, write_json
from configs.names import Count
from peer.block.saved import facts_of
from peer.train.outer import OuterState

FOLDER = "best"  # in a state directory; in it one for each sub-model, with its blocks as in `blocks`
LOOK = "look.json"
REMEDY = "delete it: the next look takes its place"


class Look(BaseModel):
    """What was seen of the state that is kept."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    tokens: Count  # age of the sub-model
    losses: Annotated[dict[str, float], Field(min_length=1)]  # domain → nats a token

    @property
    def loss(self) -> float:
        """The mean over the domains."""
        return fmean(self.losses.values())


def keep_best(folder: Path, sub_model: str, losses: Mapping[str, float], states: Sequence[OuterState]) -> bool:
    """Keep the states of a sub-model's blocks in `folder` if no better ones lie there; return whether they are kept.

    What is better is told by the mean over the domains; where they are others than last time, nothing was better.
    Raises StateError.
    """
    place = folder / sub_model
    known = read_model(place / LOOK, Look, REMEDY)
    is_comparable = known is not None and known.losses.keys() == losses.keys()
    if known is not None and is_comparable and known.loss <= fmean(losses.values()):
        return False
    with disk_errors(place / LOOK):
        (place / LOOK).unlink(missing_ok=True)  # until all is there, nothing is
    for state in states:
        write_file(place / f"{state.block}.safetensors", state.blob)
        write_json(place / f"{state.block}.json", facts_of(state).model_dump())
    write_json(place / LOOK, Look(tokens=max(state.age for state in states), losses=dict(losses)).model_dump())
    return True


def best_looks(state_dirs: Sequence[Path]) -> dict[str, tuple[Look, Path]]:
    """Return the best of what is kept in state directories: sub-model → what was seen, and the folder of its blocks.

    Raises StateError: a damaged one.
    """
    found: dict[str, tuple[Look, Path]] = {}
    for path in (path for folder in state_dirs for path in sorted((folder / FOLDER).glob(f"*/{LOOK}"))):
        look = read_model(path, Look, REMEDY)
        if look is not None and (path.parent.name not in found or look.loss < found[path.parent.name][0].loss):
            found[path.parent.name] = look, path.parent
    return found
