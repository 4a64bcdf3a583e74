"""All that the doctor looks at, side by side, each with a deadline; nothing is changed."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from configs.clock import since_boot
from configs.errors import NetworkError
from configs.machine import PeerConfig
from configs.protocol import PROTOCOL_VERSION
from peer import __version__
from peer.doctor import machine as look
from peer.doctor.facts import Daemon, Facts, Machine, Measured, Outside, Unknown
from peer.doctor.outside import NO_ADDRESS, look_outside

PROBE_S = 15.0  # for one look at this machine; torch is imported for some
OUTSIDE_S = 60.0  # for everything that is asked of others, all deadlines together

T = TypeVar("T")


async def examine(config: PeerConfig, address: str | None) -> Facts:
    """Look at this machine and, with the help of the peer at `address`, at the network.

    Raises UsageError for what is no address. Takes a minute at most.
    """
    before = time.time() - since_boot()
    daemon, spec = await _bounded(look.look_at_daemon, config), await _bounded(look.look_at_run, config)
    has_daemon = isinstance(daemon, Daemon)
    port: Measured[int] = Unknown("a daemon has it") if has_daemon else await _bounded(look.look_at_port, config)
    async with asyncio.TaskGroup() as group:
        outside = group.create_task(_outside(config, address, daemon, port))
        disk = group.create_task(_bounded(look.look_at_disk, config))
        devices = group.create_task(_bounded(look.look_at_devices, config))
        known = None if isinstance(spec, Unknown) else spec
        memory = group.create_task(_bounded(look.look_at_memory, config, known))
        descriptors = group.create_task(_bounded(look.look_at_descriptors))
    found = Machine(
        version=__version__,
        protocol=PROTOCOL_VERSION,
        state_dir=str(config.state_dir),
        daemon=daemon,
        run_id=spec if isinstance(spec, Unknown) else spec.run_id,
        port=port,
        disk=disk.result(),
        memory=memory.result(),
        devices=devices.result(),
        descriptors=descriptors.result(),
    )
    return Facts(found, outside.result(), time.time() - since_boot() - before)


async def _outside(config: PeerConfig, address: str | None, daemon: Measured[Daemon], port: Measured[int]) -> Outside:
    if address is None:
        return Outside(NO_ADDRESS)
    taken = daemon.port if isinstance(daemon, Daemon) else 0
    if isinstance(port, Unknown) and not taken:  # somebody else has it: look from any other
        config = config.model_copy(update={"port": 0})
    try:
        async with asyncio.timeout(OUTSIDE_S):
            return await look_outside(config, address, taken or None)
    except TimeoutError:
        return Outside(Unknown(f"not all was answered within {OUTSIDE_S:.0f} s", is_fault=True))
    except NetworkError as error:
        return Outside(Unknown(str(error), is_fault=True))


async def _bounded(probe: Callable[..., Measured[T]], *arguments: object) -> Measured[T]:
    """Run a probe in a thread of its own, which nobody waits for when a disk hangs; what it raises is a mistake."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Measured[T]] = loop.create_future()

    def settle(act: Callable[[], object]) -> None:
        if not done.done():
            act()

    def work() -> None:
        try:
            found = probe(*arguments)
        except BaseException as error:
            loop.call_soon_threadsafe(settle, lambda error=error: done.set_exception(error))
        else:
            loop.call_soon_threadsafe(settle, lambda: done.set_result(found))

    threading.Thread(target=work, daemon=True).start()
    try:
        return await asyncio.wait_for(done, PROBE_S)
    except TimeoutError:
        return Unknown(f"it did not answer within {PROBE_S:.0f} s")
