"""Looks at this machine, and changes nothing: each probe returns what it found, or why it could not."""

import os
import resource
from pathlib import Path

from configs.errors import DeviceError, ShoalError, StateError
from configs.machine import PeerConfig
from configs.run import RunSpec
from dht.p2pd import check_port
from peer.doctor.facts import Daemon, Descriptors, Devices, Disk, Measured, Memory, Unknown
from peer.http.local import fetch_status, holds
from peer.member.arrival import listening_port
from peer.member.entry import saved_spec

DRIVERS = {"/proc/driver/nvidia/version": "an NVIDIA", "/dev/kfd": "an AMD"}  # files that a GPU's driver makes


def look_at_daemon(config: PeerConfig) -> Measured[Daemon]:
    """Ask the daemon of the state directory how it is."""
    try:
        if not holds(config.state_dir):
            return Unknown(f"no daemon runs in {config.state_dir}")
        status = fetch_status(config.state_dir)
    except ShoalError as error:
        return Unknown(str(error), is_fault=True)
    unseen = [f"peer {peer.peer_id} is not seen: {peer.why}" for peer in status.peers[1:] if peer.why]
    port = listening_port(status.addresses) or config.port
    return Daemon(status.state, status.run_id, port, status.warnings, unseen)


def look_at_run(config: PeerConfig) -> Measured[RunSpec]:
    """Return the run that the state directory belongs to."""
    try:
        spec = saved_spec(config.state_dir)
    except StateError as error:
        return Unknown(str(error), is_fault=True)
    return spec or Unknown(f"{config.state_dir} belongs to no run yet")


def look_at_port(config: PeerConfig) -> Measured[int]:
    """Try to listen on the port, for an instant."""
    try:
        check_port(config.host, config.port)
    except ShoalError as error:
        return Unknown(str(error), is_fault=True)
    return config.port


def look_at_disk(config: PeerConfig) -> Measured[Disk]:
    """Return what the file system says of the state directory, or of the folder that it would be made in."""
    path = config.state_dir.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        found = os.statvfs(path)
    except OSError as error:
        return Unknown(f"{path} cannot be looked at: {error.strerror}", is_fault=True)
    problem = ""
    if not path.is_dir():
        problem = "it is a file where a folder should be"
    elif found.f_flag & os.ST_RDONLY:
        problem = "its file system is read-only"
    elif not os.access(path, os.W_OK | os.X_OK):
        problem = "this user may not write there"
    has_count = found.f_files > 0  # some file systems do not count their files
    free_files = found.f_favail if has_count else 1
    return Disk(str(path), found.f_bavail * found.f_frsize, free_files, not problem, problem)


def look_at_memory(config: PeerConfig, spec: RunSpec | None) -> Measured[Memory]:
    """Return how much memory is free, and whether the run's model fits in."""
    import torch

    from peer.train.launch import devices_of
    from peer.train.memory import check_host, free_bytes

    free = free_bytes(torch.device("cpu"))
    try:
        if spec is not None:
            on_cpu = devices_of(config) == ("cpu",)
            check_host(spec.model, is_training=on_cpu, free=free, base_precision=config.base_precision)
    except DeviceError as error:
        return Memory(free, str(error))
    return Memory(free)


def look_at_devices(config: PeerConfig) -> Measured[Devices]:
    """Return what would train here."""
    import torch

    from peer.train.launch import check_devices, devices_of

    names = devices_of(config)
    try:
        check_devices(names)
    except DeviceError as error:
        return Devices(names, str(error))
    driver = next((name for path, name in DRIVERS.items() if Path(path).exists()), None)
    if driver and not torch.cuda.is_available() and not config.devices:
        return Devices(names, f"{driver} GPU's driver is here, and torch {torch.__version__} cannot use it")
    shown = [f"{name} ({torch.cuda.get_device_name(name)})" if name.startswith("cuda") else name for name in names]
    return Devices(shown)


def look_at_descriptors() -> Measured[Descriptors]:
    """Return how many files a process may have open; the daemon raises the first number by itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2**31
    return Descriptors(*(most if limit == resource.RLIM_INFINITY else limit for limit in (soft, hard)))
