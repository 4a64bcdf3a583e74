"""Where figures and models go beyond the swarm: trackers and targets, as a user names them. Nothing is opened here."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from configs.errors import UsageError

Tracking = Literal["tensorboard", "wandb", "mlflow", "otel"]
TRACKERS: tuple[Tracking, ...] = ("tensorboard", "wandb", "mlflow", "otel")
Kind = Literal["folder", "s3", "hub"]
SCHEMES: dict[str, Kind] = {"s3": "s3", "hf": "hub", "file": "folder"}
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
SECRET = re.compile(r"(?<=//)[^/@\s]*:[^/@\s]*@")  # name and password in a URL
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
EVERY = re.compile(r"([1-9]\d{0,5}) (rounds|minutes)")


@dataclass(frozen=True)
class Outlet:
    """One tracker, and where its figures go; an empty place is the one that its library has in its environment."""

    kind: Tracking
    place: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}" if self.place else self.kind


@dataclass(frozen=True)
class Target:
    """A place for checkpoints and models: a folder, a bucket, or a repository of the Hugging Face hub."""

    kind: Kind
    root: str  # the path, the name of the bucket, or USER/REPO
    prefix: str = ""  # below it, without slashes at the ends

    def __str__(self) -> str:
        scheme = {"folder": "", "s3": "s3://", "hub": "hf://"}[self.kind]
        return f"{scheme}{self.root}{'/' if self.prefix else ''}{self.prefix}"

    def below(self, *names: str) -> "Target":
        """Return the target below this one."""
        return replace(self, prefix="/".join(filter(None, (self.prefix, *names))))


@dataclass(frozen=True)
class Every:
    """How often something is done."""

    count: int
    unit: Literal["rounds", "minutes"]


def read_outlet(text: str) -> Outlet:
    """Read `KIND:PLACE`. A relative folder counts from here, also when it comes back at a later start.

    Raises UsageError.
    """
    kind, _, place = text.partition(":")
    if kind not in TRACKERS:
        raise UsageError(f"'{redacted(kind)}' is no tracker; there are tensorboard:DIR, wandb:PROJECT, mlflow:URI, "
                         "otel:ENDPOINT")  # fmt: skip
    if SECRET.search(place):
        raise UsageError(f"a password has no place in a setting, which is kept and logged: {_OWN_WAYS[kind]}")
    if kind == "tensorboard":
        if not place:
            raise UsageError("tensorboard needs a folder: tensorboard:DIR")
        place = str(Path(place).expanduser().absolute())
    return Outlet(kind, place)


def read_target(text: str) -> Target:
    """Read `s3://BUCKET/PREFIX`, `hf://USER/REPO/PREFIX`, or a folder. Raises UsageError."""
    scheme, found, rest = text.partition("://")
    kind = SCHEMES.get(scheme) if found else "folder"
    if kind is None:
        raise UsageError(f"'{redacted(text)}' is no target; there are a folder, s3://BUCKET/PREFIX, hf://USER/REPO")
    if kind == "folder":
        return Target("folder", str(Path(rest if found else text).expanduser().absolute()))
    if "@" in rest:
        raise UsageError(f"keys have no place in a target, which is kept and logged: {_OWN_WAYS[kind]}")
    pieces = [piece for piece in rest.split("/") if piece]
    if any(piece in (".", "..") for piece in pieces):
        raise UsageError(f"'{text}' is no target: leave out '.' and '..'")
    depth = 1 if kind == "s3" else 2
    root, prefix = "/".join(pieces[:depth]), "/".join(pieces[depth:])
    if not (BUCKET if kind == "s3" else REPOSITORY).fullmatch(root):
        wanted = "s3://BUCKET/PREFIX" if kind == "s3" else "hf://USER/REPO"
        raise UsageError(f"'{text}' is no target of the form {wanted}")
    return Target(kind, root, prefix)


def is_url(text: str) -> bool:
    """Whether this is a URL, of whatever kind, and no path."""
    return URL.match(text) is not None


def is_remote(text: str) -> bool:
    """Whether this names a target by its scheme, and no path."""
    return text.partition("://")[0] in SCHEMES and "://" in text


def read_every(text: str) -> Every:
    """Read `20 rounds` or `30 minutes`. Raises UsageError."""
    found = EVERY.fullmatch(text)
    if found is None:
        raise UsageError(f"'{text}' is no interval; say it as in '20 rounds' or '30 minutes'")
    return Every(int(found[1]), "rounds" if found[2] == "rounds" else "minutes")


def redacted(text: str) -> str:
    """Return `text` without the passwords that stand in its URLs."""
    return SECRET.sub("…@", text)


_OWN_WAYS = {
    "tensorboard": "name a folder",
    "wandb": "log in with `wandb login`, or set WANDB_API_KEY",
    "mlflow": "say just mlflow, and set MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "otel": "set OTEL_EXPORTER_OTLP_HEADERS",
    "s3": "use AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role",
    "hub": "use `hf auth login`, or set HF_TOKEN",
}
