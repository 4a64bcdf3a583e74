"""The command line's options that several commands take.

None means: not given, so that what the preset says counts, or what the state directory keeps.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from configs.errors import DataError

if TYPE_CHECKING:
    from peer.member.invited import Home

STATE_DIR_VARIABLE = "SHOAL_PEER__STATE_DIR"  # the same as the preset's, so that `status` finds what `start` began

StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        envvar=STATE_DIR_VARIABLE,
        show_envvar=False,
        help="Where a peer keeps everything.",
        metavar="DIR",
    ),
]
Config = Annotated[str | None, typer.Option("--config", help="A TOML preset, by path or name.", metavar="FILE")]
Port = Annotated[int | None, typer.Option("--port", help="Port for other peers; 0: any.", min=0, max=65_535)]
Host = Annotated[str | None, typer.Option("--host", help="Address to listen on for other peers.", metavar="IP")]
Announce = Annotated[
    list[str] | None, typer.Option("--announce", help="Address that others can reach, if another.", metavar="ADDR")
]
StatusPort = Annotated[int | None, typer.Option("--status-port", help="Port of the status page.", min=0, max=65_535)]
StatusHost = Annotated[str | None, typer.Option("--status-host", help="Address of the status page.", metavar="IP")]
UpMbit = Annotated[
    float | None, typer.Option("--up-mbit", help="Send no faster than this, in Mbit/s.", min=0.01, metavar="N")
]
DownMbit = Annotated[
    float | None, typer.Option("--down-mbit", help="Fetch no faster than this, in Mbit/s.", min=0.01, metavar="N")
]
DiskGb = Annotated[
    float | None,
    typer.Option("--disk-gb", help="Let the state directory take no more than this.", min=0.001, metavar="N"),
]
MemoryGb = Annotated[
    float | None, typer.Option("--memory-gb", help="Let a worker take no more memory.", min=0.001, metavar="N")
]
Hours = Annotated[
    str | None, typer.Option("--hours", help="Train only then, such as 22:00-07:00,12:00-13:00.", metavar="SPANS")
]
PauseOnBattery = Annotated[
    bool | None, typer.Option("--pause-on-battery/--no-pause-on-battery", help="Train only on mains power.")
]
PauseOnGpuUse = Annotated[
    bool | None,
    typer.Option("--pause-on-gpu-use/--no-pause-on-gpu-use", help="Rest while another program uses the GPU."),
]
PauseAboveCpu = Annotated[
    float | None,
    typer.Option(
        "--pause-above-cpu",
        help="Rest while others use more of all cores, such as 0.5.",
        min=0.01,
        max=0.99,
        metavar="X",
    ),
]
Data = Annotated[
    str | None, typer.Option("--data", help="A corpus made by `shoal prepare`: a folder, or a URL.", metavar="DIR|URL")
]
CacheGb = Annotated[
    float | None,
    typer.Option("--cache-gb", help="Of a corpus at a URL, let no more lie here at a time.", min=0.001, metavar="N"),
]
InitFrom = Annotated[
    Path | None, typer.Option("--init-from", help="Found the run with this Hugging Face model.", metavar="DIR")
]
Base = Annotated[
    Path | None, typer.Option("--base", help="A copy of the run's pretrained model, not to download it.", metavar="DIR")
]
Invitation = Annotated[
    str | None, typer.Option("--invitation", help="To a closed run, as `shoal invite` prints it.", metavar="WORD")
]
Private = Annotated[bool | None, typer.Option("--private/--no-private", help="Never let this data leave the machine.")]
Devices = Annotated[
    list[str] | None, typer.Option("--device", help="Such as cuda:0 or cpu; may be repeated.", metavar="NAME")
]
Threads = Annotated[int | None, typer.Option("--threads", help="CPU threads; 0: torch's choice.", min=0, max=1024)]
MicroBatch = Annotated[int | None, typer.Option("--micro-batch", help="Sequences at once; 0: found by itself.", min=0)]
SubModel = Annotated[str | None, typer.Option("--sub-model", help="Train this one, such as expert.2.", metavar="NAME")]
Tensorboard = Annotated[Path | None, typer.Option("--tensorboard", help="Write curves here.", metavar="DIR")]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        help="Send curves to tensorboard:DIR, wandb:PROJECT, mlflow:URI or otel:ENDPOINT; may be repeated.",
        metavar="KIND:PLACE",
    ),
]
Publish = Annotated[
    str | None,
    typer.Option(
        "--publish", help="Push checkpoints to a folder, s3://BUCKET/PREFIX or hf://USER/REPO.", metavar="TARGET"
    ),
]
PublishEvery = Annotated[
    str | None, typer.Option("--publish-every", help="Such as '20 rounds'; default '30 minutes'.", metavar="INTERVAL")
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"] | None, typer.Option("--log-level", help="How much to log.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Device = Annotated[str, typer.Option("--device", help="Such as cuda:0.", metavar="NAME")]
ModelDir = Annotated[
    Path, typer.Argument(help="What `shoal fuse` wrote, or a Hugging Face directory.", metavar="MODEL")
]

MODEL = "Data and models"  # where `--help` lists the commands that work without a daemon

# What the owner may also change while the daemon runs (configs/limits.py), in the order in which `--help` shows them.
LIMIT_OPTIONS: dict[str, Any] = {
    "up_mbit": UpMbit,
    "down_mbit": DownMbit,
    "disk_gb": DiskGb,
    "memory_gb": MemoryGb,
    "hours": Hours,
    "pause_on_battery": PauseOnBattery,
    "pause_on_gpu_use": PauseOnGpuUse,
    "pause_above_cpu": PauseAboveCpu,
}

# Those of a daemon, by the setting of `PeerConfig` that each gives, in the order in which `--help` shows them.
PEER_OPTIONS: dict[str, Any] = {
    "data": Data,
    "cache_gb": CacheGb,
    "private": Private,
    "state_dir": StateDir,
    "host": Host,
    "port": Port,
    "announce": Announce,
    "status_host": StatusHost,
    "status_port": StatusPort,
    **LIMIT_OPTIONS,
    "devices": Devices,
    "threads": Threads,
    "micro_batch": MicroBatch,
    "sub_model": SubModel,
    "tensorboard": Tensorboard,
    "track": Track,
    "publish": Publish,
    "publish_every": PublishEvery,
    "log_level": LogLevel,
}


def takes_peer_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let typer see `PEER_OPTIONS` where `command` has its `**settings`, and give them to it there."""
    return takes(PEER_OPTIONS, command)


def takes(options: Mapping[str, Any], command: Callable[..., None]) -> Callable[..., None]:
    """Let typer see these options, by their names, where `command` has its keyword arguments."""
    signature = inspect.signature(command)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in options.items()
    ]
    command.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    return command


def check_model(model: Path) -> None:
    """Raise DataError where there is no model."""
    if not model.is_dir():
        raise DataError(f"no model directory at {model}; `shoal fuse` writes one")
    if not (model / "shoal.json").exists() and not (model / "config.json").exists():
        raise DataError(
            f"{model} holds no model: there is neither shoal.json nor config.json; name what `shoal fuse` wrote"
        )


def place_of(state_dir: Path | None) -> Path:
    """Return the state directory that is meant."""
    from configs.machine import default_state_dir

    return state_dir or default_state_dir()


def home_of(state_dir: Path | None, invitation: str | None) -> "Home":
    """Return whose invitation a command shows to a closed run."""
    from peer.member.invited import Home

    return Home(place_of(state_dir), invitation)
