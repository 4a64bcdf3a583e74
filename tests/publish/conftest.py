"""Real servers, each in a process of its own, and a peer's state to push to them."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from pushing import Saved
from servers import Server, serving

from configs.load import Settings, load
from configs.machine import PeerConfig
from configs.run import RunPlan
from dht.address_book import AddressBook
from dht.identity import Identity
from peer.block.store import BlockStore, initial_state
from peer.member.entry import enter
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan
from peer.train.partition import Strategy

TEXTS = {
    "fish": [f"a shoal of {count} fish swims, and nobody leads it. " * 40 for count in range(20)],
    "birds": [f"a flock of {count} flies south again. " * 60 for count in range(20)],
}


@pytest.fixture
def s3(s3_server: Server, bucket: str) -> Iterator[Server]:
    """A server with an empty bucket `fish`, which can be told to stall, and the environment to reach it."""
    s3_server.ask("/_stall/off", "DELETE")
    yield s3_server
    s3_server.ask("/_stall/off", "PUT")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A hub, and the environment to reach it, for this process and those that it starts."""
    import huggingface_hub.constants

    with serving("hub_server.py") as server:
        for name, value in {
            "HF_ENDPOINT": server.url,
            "HF_TOKEN": "may-write",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",  # the hub's own protocol for large files has no server here
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        resolve = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", resolve)
        yield server


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str], Saved]:
    """Found a run of replicas and leave it: its state directory has the first state."""

    def save(name: str = "state") -> Saved:
        folder, corpus = tmp_path / name, tmp_path / "corpus"
        if not corpus.exists():
            prepare_texts(TEXTS, corpus, Plan(vocab_size=300, context_length=32))
        plan = load("tiny").run
        assert plan is not None
        values = plan.model_dump()
        values["model"] |= {"context_length": 32, "hidden_size": 16, "num_layers": 1, "mlp_size": 32, "num_heads": 2}
        values["model"] |= {"num_kv_heads": 1}
        values["strategy"] = {"kind": "replicas"}
        values["rounds"] |= {"tick_seconds": 1.0}
        folder.mkdir()
        settings = Settings(run=RunPlan.model_validate(values), peer=PeerConfig(state_dir=folder, data=corpus))
        identity = Identity.load_or_create(folder / "identity.key")
        entry = asyncio.run(enter(settings, identity, cast(Any, None), AddressBook(folder / "address_book.json")))
        entry.save(folder)
        strategy = Strategy.of(entry.spec.strategy, len(entry.library.domains))
        store = BlockStore(folder / "blocks", entry.spec, strategy, cast(Any, None), cast(Any, None))
        state = initial_state(entry.spec, strategy)
        asyncio.run(store.put(state))
        return Saved(folder, corpus, entry, store, state)

    return save
