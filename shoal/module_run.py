"""How a module of the caller's comes to its run: it founds one, joins one by address, or takes one up again.

A run of a module is a run like any other, of `replicas` with one block. In the place of what it has no use for stands
the least that there is: a domain without text, and the list of the module's parameters where the tokenizer would be.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from configs.content import content_id_of
from configs.corpus import DomainInfo, ShardInfo
from configs.errors import UsageError
from configs.files import make_folder, write_file
from configs.load import Settings
from configs.run import InnerSpec, OuterSpec, RoundPlan, RunPlan, StrategySpec
from dht.address_book import AddressBook
from dht.identity import Identity
from dht.network import Network
from dht.records import DomainRecord, sign_record
from peer.corpus.data import BLOBS, TOKENIZER_FILE
from peer.member.entry import Entry, enter, saved_spec, shards_stub
from peer.member.library import Library
from peer.train.outer import new_state
from peer.train.partition import COMMON
from peer.train.pretrained import parameters_id
from shoal.trainee import Parameters

NOTHING = ShardInfo(content_id=content_id_of(b""), tokens=0, size_bytes=0)
OWN_TEXT = DomainInfo(name="own", shards=(NOTHING,), heldout=NOTHING, counts=NOTHING, is_public=False)
ENDLESS = 2**47  # tokens: such a run ends when its last peer leaves
CUT_SHARE = 0.4  # of a round, as in the presets


@dataclass(frozen=True)
class ModuleRun:
    """A run of the module with these parameters, as whoever founds it wants it."""

    parameters: Parameters
    plan: RunPlan

    @classmethod
    def of(cls, parameters: Parameters, name: str, round_seconds: float, outer: OuterSpec) -> "ModuleRun":
        """Return a run with rounds of so many seconds. Raises ValidationError."""
        never = {"double_tokens": ENDLESS, "first_ticks": 1, "last_ticks": 1}
        plan = RunPlan(
            name=name,
            total_tokens=ENDLESS,
            model=parameters.spec,
            strategy=StrategySpec(kind="replicas"),
            inner=InnerSpec(learning_rate=1.0, batch_tokens=8),  # the caller's optimizer knows better
            outer=outer,
            rounds=RoundPlan(tick_seconds=round_seconds, cut_share=CUT_SHARE, **never),
        )
        return cls(parameters, plan)

    async def enter(
        self, settings: Settings, identity: Identity, network: Network, book: AddressBook, admission: str | None
    ) -> Entry:
        """Found, join or resume, as a daemon does. Raises UsageError, NetworkError, StateError."""
        folder = settings.peer.state_dir / "corpus"
        make_folder(folder / BLOBS)
        write_file(folder / BLOBS / NOTHING.content_id, b"")
        saved = saved_spec(settings.peer.state_dir)
        if saved is None and not settings.peer.initial_peers:
            return self._found(folder, identity, network, admission)
        if not (folder / TOKENIZER_FILE).exists():
            write_file(folder / TOKENIZER_FILE, self.parameters.listed)
        entry = await enter(settings, identity, network, book, admission)
        if entry.spec.name != self.plan.name:
            raise UsageError(
                f"the run there is called {entry.spec.name}, not {self.plan.name}; say run={entry.spec.name!r}, or "
                "give the address of another peer"
            )
        return entry

    def _found(self, folder: Path, identity: Identity, network: Network, admission: str | None) -> Entry:
        phi = torch.zeros(self.parameters.size)
        self.parameters.read(phi)
        spec = self.plan.founded(
            self.plan.rounds.tick_seconds or 0.0,
            genesis=float(int(time.time())),
            tokenizer_sha256=self.parameters.sha256,
            end_of_text=0,
            initial_id=parameters_id([phi]),
            admission=admission,
        )
        record = DomainRecord(run_id=spec.run_id, index=0, domain=OWN_TEXT)
        library = Library(folder, spec, [OWN_TEXT], shards_stub(network, spec), None)
        library.set_tokenizer(self.parameters.listed)
        first = new_state(COMMON, phi, None, version=0, round_=0, ages={}, is_final=False)
        signed = sign_record(identity, "domain", record, time.time())
        return Entry(spec, (signed,), library, (), True, first=first)
