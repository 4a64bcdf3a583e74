"""What one peer is told about its own machine. Nothing here has to agree with another peer."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from configs.errors import UsageError
from configs.limits import Limits
from configs.names import Positive
from configs.outlets import SECRET, Outlet, is_url, read_every, read_outlet, read_target
from configs.run import Frozen

Port = Annotated[int, Field(ge=0, le=65_535)]
Precision = Literal["auto", "float32", "bfloat16"]
BasePrecision = Literal["own", "nf4"]


def _data_place(value: Any) -> Any:
    """Return a folder as a Path, and a URL as it is: a path has no two slashes.

    Raises ValueError: neither, or a URL with a password in it.
    """
    if not isinstance(value, str | Path | None):
        raise ValueError("it must be a folder or a URL")
    if not isinstance(value, str) or not is_url(value):
        return Path(value) if isinstance(value, str) else value
    if SECRET.search(value):
        raise ValueError("keys and passwords have no place in a URL, which is kept and logged; use the environment")
    return value


DataPlace = Annotated[Path | str, BeforeValidator(_data_place)]


def default_state_dir() -> Path:
    """Return the XDG state directory of Shoal."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "shoal"


class PeerConfig(Limits):
    """One daemon on one machine; the limits of what it may take are `configs/limits.py`'s."""

    state_dir: Path = Field(default_factory=default_state_dir)  # $XDG_STATE_HOME/shoal, or ~/.local/state/shoal
    initial_peers: tuple[str, ...] = ()  # multiaddrs of peers to join by; empty founds a run
    run_id: str | None = None  # refuse any other run; None trusts the first peer
    host: str = "0.0.0.0"  # the address that libp2p listens on
    port: Port = 0  # 0: any free port
    announce: tuple[str, ...] = ()  # multiaddrs that others can reach, when they differ from the listening ones
    closed: bool = False  # found a run that only those join who are invited
    invitation: str | None = None  # to a closed run, as `shoal invite` prints it
    use_relay: bool = True  # be reached through a relay when behind a NAT
    status_host: str = "127.0.0.1"  # where the status page listens
    status_port: Port = 0  # of the status page; 0: any free port
    # Who brings it as a bearer may also act from another machine, or from a container's host; empty: nobody may.
    status_token: Annotated[str, Field(max_length=256, pattern=r"^([!-~]{16,})?$")] = ""
    allowed_hosts: tuple[str, ...] = ()  # names, beside localhost and IP addresses, under which the status page answers
    devices: tuple[str, ...] = ()  # such as "cuda:0"; empty: all GPUs, or the CPU
    precision: Precision = "auto"  # auto: bfloat16 autocast on GPUs
    base_precision: BasePrecision = "own"  # of the frozen model under adapters; nf4: four bits, by bitsandbytes
    threads: Annotated[int, Field(ge=0, le=1024)] = 0  # of one CPU worker; 0: torch's own choice
    micro_batch: Annotated[int, Field(ge=0)] = 0  # sequences; 0: found by itself
    data: DataPlace | None = None  # a prepared corpus: a folder, or a URL; None founds on the built-in one
    cache_gb: Annotated[float, Field(gt=0)] = 20.0  # of the shards of a corpus at a URL that lie here at a time
    cache_dir: Path | None = None  # where they lie; several peers may share it. None: in the state directory
    init_from: Path | None = None  # a Hugging Face directory to found a run with; None: from the seed
    base: Path | None = None  # a copy of what a run was founded with, so that its frozen model need not be downloaded
    private: bool = False  # keep this peer's data here
    # What this peer has learnt in a round is scaled down to this norm before it leaves, with noise of so many times the
    # norm in each value; None: as it is.
    clip_norm: Annotated[float | None, Field(gt=0)] = None
    noise: Annotated[float, Field(ge=0, le=1e6)] = 0.0  # in each value, in clip_norm
    sub_model: str | None = None  # take this one instead of the one with the fewest holders
    # Asked of the swarm every five minutes, to see how its answers change; none: beginnings of held-out text.
    prompts: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=500)], ...], Field(max_length=4)] = ()
    answers: bool = True  # let others ask the sub-models that lie here (shoal ask)
    copies: Annotated[int, Field(ge=1, le=32)] = 3  # peers that store each block
    keep_ticks: Positive = 8  # between two refreshes of what a keeper stores
    tensorboard: Path | None = None  # write curves here: the same as track = ["tensorboard:DIR"]
    track: tuple[str, ...] = ()  # send curves there: tensorboard:DIR, wandb:PROJECT, mlflow:URI, otel:ENDPOINT
    publish: str | None = None  # push checkpoints there: a folder, s3://BUCKET/PREFIX, hf://USER/REPO
    publish_every: str = "30 minutes"  # or as in "20 rounds"
    log_level: Literal["debug", "info", "warning", "error"] = "info"  # and what is worse

    @property
    def limits(self) -> Limits:
        """What this machine's peer may take, as it was told at the start."""
        return Limits(**{key: getattr(self, key) for key in Limits.model_fields})

    @model_validator(mode="after")
    def _noise_has_a_norm(self) -> Self:
        if self.noise and self.clip_norm is None:
            raise ValueError("noise is a multiple of clip_norm: give both, or neither")
        return self

    @model_validator(mode="after")  # of the whole: what is wrong of one field is shown, and there may be a password
    def _outlets_are_known(self) -> Self:
        try:
            known = tuple(str(read_outlet(text)) for text in self.track)
            target = None if self.publish is None else str(read_target(self.publish))
            read_every(self.publish_every)
        except UsageError as error:
            raise ValueError(str(error)) from None
        if len(set(known)) < len(known):
            raise ValueError("track names one place twice")
        for key, value in (("track", known), ("publish", target)):
            if getattr(self, key) != value:  # folders absolute: the next start may be from elsewhere
                object.__setattr__(self, key, value)
        return self

    @property
    def outlets(self) -> tuple[Outlet, ...]:
        """Where curves are sent."""
        curves = () if self.tensorboard is None else (Outlet("tensorboard", str(self.tensorboard.absolute())),)
        return (*curves, *map(read_outlet, self.track))


def _is_none(value: object) -> bool:
    return value is None


class Hints(Frozen):
    """What a run's founder suggests to the machines of others: it counts where nobody gave them anything else.

    They come from strangers: so the bounds are narrow, and they say nothing of files, addresses or devices. What is
    None is left out of what is written; a hint of a later version is passed over.
    """

    model_config = ConfigDict(extra="ignore", strict=True)

    threads: Annotated[int | None, Field(ge=0, le=64, exclude_if=_is_none)] = None
    precision: Annotated[Precision | None, Field(exclude_if=_is_none)] = None
    copies: Annotated[int | None, Field(ge=1, le=32, exclude_if=_is_none)] = None
    keep_ticks: Annotated[int | None, Field(ge=1, le=1024, exclude_if=_is_none)] = None

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Self:
        """Return what a preset's `[peer]` table says for every peer; what is out of bounds stays with the founder."""
        values: dict[str, Any] = {}
        for key in cls.model_fields.keys() & table.keys():
            with suppress(ValidationError):
                values |= cls.model_validate({key: table[key]}).model_dump()
        return cls(**values)

    def new_to(self, peer: PeerConfig) -> dict[str, Any]:
        """Return the settings of `peer` that nobody gave and that these hints change."""
        free = {key: value for key, value in self.model_dump().items() if key not in peer.model_fields_set}
        return {key: value for key, value in free.items() if value != getattr(peer, key)}


NO_HINTS = Hints()
