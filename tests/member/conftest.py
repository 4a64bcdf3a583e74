"""What tests of a member's beginning share: a tokenizer of single letters, and founding without a network."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from configs.load import Settings, load
from configs.machine import PeerConfig
from configs.run import RunPlan
from dht.address_book import AddressBook
from dht.identity import Identity
from peer.member.entry import Entry, enter


@pytest.fixture(scope="session")
def letters() -> Tokenizer:
    """A tokenizer of single bytes, whose token 0 ends a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: at for at, token in enumerate(["</s>", *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.fixture(scope="session")
def founded() -> Callable[..., Entry]:
    """Found a run as a daemon does; no network is needed for that."""

    def found(folder: Path, strategy: dict[str, Any], **peer: Any) -> Entry:
        plan = load("tiny").run
        assert plan is not None
        model = plan.model.model_copy(update={"context_length": 32})
        inner = plan.inner.model_copy(update={"optimizer": "adamw"})  # which adapters need
        parts = {"model": model.model_dump(), "inner": inner.model_dump(), "strategy": strategy}
        run = RunPlan.model_validate({**plan.model_dump(), **parts})
        folder.mkdir(exist_ok=True)
        settings = Settings(run=run, peer=PeerConfig(state_dir=folder, **peer))
        identity = Identity.load_or_create(folder / "identity.key")
        return asyncio.run(enter(settings, identity, cast(Any, None), AddressBook(folder / "address_book.json")))

    return found


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> list[Identity]:
    folder = tmp_path_factory.mktemp("identities")
    return [Identity.load_or_create(folder / str(index) / "identity.key") for index in range(3)]
