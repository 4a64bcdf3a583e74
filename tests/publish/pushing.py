"""What the tests of publishing share: servers in processes of their own, and a peer's state directory."""

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peer.block.store import BlockStore
from peer.member.entry import Entry
from peer.train.outer import OuterState, new_state
from peer.train.partition import COMMON

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Server:
    """One that was started for a test."""

    url: str

    def ask(self, path: str, method: str = "GET") -> Any:
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}{path}", method=method), timeout=60) as answer:
            data = answer.read()
        return json.loads(data) if data else None


@contextmanager
def serving(script: str, **environment: str) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        yield Server(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


@dataclass
class Saved:
    """A state directory, and what is in it."""

    folder: Path
    corpus: Path
    entry: Entry
    store: BlockStore
    state: OuterState

    def advance(self) -> OuterState:
        """Store a newer state of the common model."""
        old = self.state
        version = old.version + 1
        ages = {"me": 100 * version}
        self.state = new_state(COMMON, old.phi + 0.5, None, version=version, round_=version, ages=ages, is_final=False)
        asyncio.run(self.store.put(self.state))
        return self.state
