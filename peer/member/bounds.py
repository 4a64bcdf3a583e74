"""The limits of this machine as they are now: shown, changed while the peer runs, and kept for its next start."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from configs.errors import ConfigError
from configs.kept import keep_limits, spell
from configs.limits import GB, Limits, told
from configs.load import describe
from peer.member.disk import Disk
from peer.member.facts import Facts
from peer.train.launch import devices_of
from peer.train.memory import check_limit
from peer.workers.trainer import Trainer
from protocols.traffic import Traffic

log = logging.getLogger(__name__)


class Bounds:
    """Holds the limits, and lets those who keep to them know. `changed` is set at each change."""

    def __init__(self, facts: Facts, traffic: Traffic, workers: Trainer, disk: Disk) -> None:
        self.now = facts.config.limits
        self.changed = asyncio.Event()
        self.seen: Mapping[str, str] = {}  # limit → why training rests by it, or why that cannot be seen here
        self._facts, self._traffic, self._workers, self._disk = facts, traffic, workers, disk
        self._changing = asyncio.Lock()

    def told(self) -> dict[str, dict[str, Any]]:
        """Return each limit as it is now, and, where there is something to say, what is so at the moment."""
        said = dict(self.seen)
        if self._disk.room.is_known:
            said["disk_gb"] = self._disk.present or f"{self._disk.room.used_bytes / GB:.3g} GB are taken"
        return {key: {**each, "now": said.get(key, "")} for key, each in told(self.now).items()}

    async def change(self, body: bytes) -> None:
        """Change the limits that a JSON object names; null takes one away. They hold at once, and at the next start.

        Raises ConfigError (no such limit, or no such value), DeviceError (too little memory to train), StateError.
        """
        try:
            change = Limits.model_validate_json(body)
        except ValidationError as error:
            raise ConfigError(describe(error, "the limits")) from None
        async with self._changing:
            before, after = self.now, self.now.changed(change)
            if after.memory_gb != before.memory_gb:
                config, model = self._facts.config, self._facts.spec.model
                check_limit(model, after.memory_gb, devices_of(config), config.base_precision)
            await asyncio.to_thread(keep_limits, self._facts.config.state_dir, change)
            self.now = after
            if (after.up_mbit, after.down_mbit) != (before.up_mbit, before.down_mbit):
                self._traffic.change(after.up_mbit, after.down_mbit)
            if after.disk_gb != before.disk_gb:
                self._disk.limit(after.disk_gb)
            if after.memory_gb != before.memory_gb:
                self._workers.limit(after.memory_gb)
            self.changed.set()
        log.info("limits changed: %s", spell(change.model_dump(exclude_unset=True)))
