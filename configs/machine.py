"""What one peer is told about its own machine. Nothing here has to agree with another peer."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from configs.run import Frozen, Positive

Port = Annotated[int, Field(ge=0, le=65_535)]


def default_state_dir() -> Path:
    """Return the XDG state directory of Shoal."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "shoal"


class PeerConfig(Frozen):
    """One daemon on one machine."""

    state_dir: Path = Field(default_factory=default_state_dir)
    initial_peers: tuple[str, ...] = ()  # multiaddrs of peers to join by; empty founds a run
    run_id: str | None = None  # refuse any other run; None trusts the first peer
    host: str = "0.0.0.0"  # the address that libp2p listens on
    port: Port = 0  # 0: any free port
    announce: tuple[str, ...] = ()  # multiaddrs that others can reach, when they differ from the listening ones
    use_relay: bool = True  # be reached through a relay when behind a NAT
    status_host: str = "127.0.0.1"
    status_port: Port = 0
    allowed_hosts: tuple[str, ...] = ()  # names, beside localhost and IP addresses, under which the status page answers
    up_mbit: Annotated[float | None, Field(gt=0)] = None  # cap on what this peer sends, in Mbit/s; None: no cap
    down_mbit: Annotated[float | None, Field(gt=0)] = None  # and on what it fetches
    devices: tuple[str, ...] = ()  # such as "cuda:0"; empty: all GPUs, or the CPU
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 autocast on GPUs
    threads: Annotated[int, Field(ge=0, le=1024)] = 0  # of one CPU worker; 0: torch's own choice
    micro_batch: Annotated[int, Field(ge=0)] = 0  # sequences; 0: found by itself
    data: Path | None = None  # a prepared corpus; None founds on the built-in one
    init_from: Path | None = None  # a Hugging Face directory of a Llama to found a run with; None: from the seed
    private: bool = False  # keep this peer's data here
    sub_model: str | None = None  # take this one instead of the one with the fewest holders
    answers: bool = True  # let others ask the sub-models that lie here (shoal ask)
    copies: Annotated[int, Field(ge=1, le=32)] = 3  # peers that store each block
    keep_ticks: Positive = 8  # between two refreshes of what a keeper stores
    tensorboard: Path | None = None  # write curves here
    log_level: Literal["debug", "info", "warning", "error"] = "info"
