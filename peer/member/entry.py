"""How a daemon comes to its run: it founds one, joins one by address, or takes up the one in its state directory."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs.corpus import DomainInfo
from configs.errors import (
    ConfigError,
    DataError,
    NetworkError,
    PeerError,
    ProtocolError,
    RefusedError,
    ShoalError,
    StateError,
    UsageError,
)
from configs.files import read_bytes, read_model, write_file, write_json
from configs.kept import spell
from configs.load import Settings
from configs.machine import NO_HINTS, Hints, PeerConfig
from configs.run import AdapterSpec, ModelSpec, OriginSpec, RunPlan, RunSpec
from configs.state_format import check_format, write_format
from dht.address_book import AddressBook
from dht.admission import HOW_TO_JOIN
from dht.identity import Identity
from dht.network import Network
from dht.records import DomainRecord, open_record, sign_record
from peer import __version__
from peer.corpus.data import BLOBS, TOKENIZER_FILE, Corpus
from peer.member.library import Library, tokenizer_from
from peer.member.own_text import built_in, given_corpus, match, own_corpus
from peer.train.origin import keep_files, read_files
from peer.train.outer import OuterState
from peer.train.pretrained import (
    check_tokenizer,
    copy_base,
    parameters_id,
    read_parameters,
    read_pretrained,
    write_parameters,
)
from peer.workers.pace import choose_tick, measure_pace
from protocols.describe import Describe, Description, describe
from protocols.shards import Shards

log = logging.getLogger(__name__)

RUN_FILE = "run.json"
DOMAINS_FILE = "domains.bin"
HINTS_FILE = "hints.json"
OF_NO_RUN = (  # a run's spec: if it was lost and others have the run, it comes back with theirs
    "if a later version of shoal has written it, start that one; else move it away and join again by the address of "
    "another peer (shoal join ADDR), which brings it: what was trained here is kept"
)
REMEDY = "restore it, or start while another peer of the run is there"


@dataclass(frozen=True)
class Entry:
    """A run as this peer has entered it."""

    spec: RunSpec
    domain_records: tuple[bytes, ...]  # signed by who added them, in order
    library: Library
    peers: tuple[str, ...]  # that were reached
    is_founder: bool  # nobody else has the initial state
    clock: str = ""  # why a tick is as long as it is, if it was chosen here and now
    hints: Hints = NO_HINTS  # what the run's founder suggests to everybody's machine; passed on to those who join
    first: OuterState | None = None  # the state with which it begins, where neither seed nor files make it

    def save(self, state_dir: Path) -> None:
        """Make `state_dir` this run's. Raises StateError."""
        write_format(state_dir, __version__)
        write_file(state_dir / RUN_FILE, self.spec.model_dump_json(indent=1).encode())
        framed = b"".join(len(record).to_bytes(4, "big") + record for record in self.domain_records)
        write_file(state_dir / DOMAINS_FILE, framed)
        if self.hints != NO_HINTS:
            write_json(state_dir / HINTS_FILE, self.hints.model_dump())

    def advised(self, settings: Settings) -> Settings:
        """Return `settings` with what the run's founder suggests, wherever nothing was given; say what it is."""
        taken = self.hints.new_to(settings.peer)
        if taken:
            log.info("the run's founder suggests %s", spell(taken))
        return settings.model_copy(update={"peer": settings.peer.model_copy(update=taken)})


async def enter(
    settings: Settings, identity: Identity, network: Network, book: AddressBook, admission: str | None = None
) -> Entry:
    """Found, join or resume. `book` has the addresses of an earlier life, `admission` is the key of a closed run.

    Raises UsageError, NetworkError, StateError, DataError: each with what to do.
    """
    entry = await _entered(settings, identity, network, book, admission)
    if (base := settings.peer.base) is not None:
        await asyncio.to_thread(copy_base, base, entry.spec, entry.library.folder / BLOBS)
        keep_files(read_files(base), settings.peer.state_dir)
    return entry


async def _entered(
    settings: Settings, identity: Identity, network: Network, book: AddressBook, admission: str | None
) -> Entry:
    config = settings.peer
    known = [address for addresses in book.peers().values() for address in addresses]
    saved = saved_spec(config.state_dir)
    if saved is not None and config.run_id not in (None, saved.run_id):
        raise StateError(_other_state(config.state_dir, saved.run_id, str(config.run_id)))
    if config.initial_peers:
        return await _join(config, network, saved, known, admission)
    if saved is not None:
        return await _resume(config, network, saved, known)
    if settings.run is None:
        raise ConfigError("nothing to found: give a preset with --config, such as --config tiny, or join by an address")
    return replace(await _found(settings.run, config, identity, network, admission), hints=settings.hints)


async def _found(
    plan: RunPlan, config: PeerConfig, identity: Identity, network: Network, admission: str | None
) -> Entry:
    corpus = await asyncio.to_thread(own_corpus, plan, config)
    plan = windowed(plan, corpus)
    model, initial_id, origin = await asyncio.to_thread(_beginning, plan, config, corpus)
    plan = plan.model_copy(update={"model": model})
    tick_s, clock = await _clock(plan, config, initial_id)
    spec = plan.founded(
        tick_s,
        genesis=float(int(time.time())),
        tokenizer_sha256=corpus.info.tokenizer_sha256,
        end_of_text=corpus.info.end_of_text,
        initial_id=initial_id,
        origin=origin,
        admission=admission,
    )
    domains = [d.model_copy(update={"is_public": d.is_public and not config.private}) for d in corpus.info.domains]
    now = time.time()
    records = tuple(
        sign_record(identity, "domain", DomainRecord(run_id=spec.run_id, index=index, domain=domain), now)
        for index, domain in enumerate(domains)
    )
    library = Library(config.state_dir / "corpus", spec, domains, shards_stub(network, spec), corpus)
    library.set_tokenizer(corpus.tokenizer_json())
    library.keep_counts()
    return Entry(spec, records, library, (), True, clock)


def windowed(plan: RunPlan, corpus: Corpus) -> RunPlan:
    """Return `plan` with a context in which the windows of a task's examples fit, as many as in its own."""
    form = corpus.info.task_format
    if form is None or plan.model.context_length % form.window == 0:
        return plan
    length = form.window * max(1, plan.model.context_length // form.window)
    log.info("%s has examples: windows of %d tokens, not of %d", corpus.name, length, plan.model.context_length)
    model = plan.model.model_copy(update={"context_length": length})
    inner = plan.inner.model_copy(update={"batch_tokens": max(plan.inner.batch_tokens, length)})
    return plan.model_copy(update={"model": model, "inner": inner})


async def _clock(plan: RunPlan, config: PeerConfig, initial_id: str | None) -> tuple[float, str]:
    """Return the run's tick in seconds, and why it is that: measured, unless the plan says it."""
    if plan.rounds.tick_seconds is not None:
        return plan.rounds.tick_seconds, ""
    base = config.state_dir / "corpus" / BLOBS / initial_id if initial_id and plan.model.adapter else None
    log.info("measuring how long a step takes here")
    return choose_tick(plan.rounds, await measure_pace(config, plan, base))


async def _join(
    config: PeerConfig, network: Network, saved: RunSpec | None, known: Sequence[str], admission: str | None
) -> Entry:
    try:
        peers = await network.connect(config.initial_peers)
        description, peer = await _described(network, peers, config.run_id)
    except RefusedError:
        raise
    except NetworkError as error:  # nobody is there, or those who are have too much to do to describe the run
        if saved is None or not known:
            raise
        log.warning("%s; trying the peers of last time", error)
        return await _resume(config, network, saved, known)
    spec = description.spec
    if admission != spec.admission:
        raise UsageError(
            f"run {spec.run_id} is closed: {HOW_TO_JOIN}"
            if spec.admission
            else f"run {spec.run_id} is an open one, "
            f"and the invitation for another: leave out --invitation, or see whether {config.state_dir} is the right "
            "--state-dir"
        )
    if saved is not None and saved.run_id != spec.run_id:
        raise StateError(_other_state(config.state_dir, saved.run_id, spec.run_id))
    if config.run_id is None and saved is None and admission is None:
        log.warning(
            "no --run was given: that this is the run you mean, its tokenizer and its text are taken on trust from %s; "
            "ask whoever invited you whether it is run %s",
            peer,
            spec.run_id,
        )
    for member, addresses in description.members.items():  # a flood of records in the DHT may hide them
        await network.remember(member, addresses)
    records = tuple(description.domains)
    domains = read_domains(records, spec)
    library = await asyncio.to_thread(_library, config, network, spec, domains)
    has_it = library.has_tokenizer
    library.set_tokenizer(
        library.tokenizer_json if has_it else await _tokenizer(description, network, spec, peer, library.folder)
    )
    hints = description.hints if description.hints != NO_HINTS else saved_hints(config.state_dir)
    return Entry(spec, records, library, tuple(peers), False, hints=hints)


async def _resume(config: PeerConfig, network: Network, spec: RunSpec, known: Sequence[str]) -> Entry:
    try:
        peers = await network.connect(known) if known else []
    except NetworkError:
        log.warning("none of the %d known peers answers; going on alone, and looking for them", len(known))
        peers = []
    try:
        records = saved_records(config.state_dir)
        domains = read_domains(records, spec)
    except StateError as error:
        description, _ = await _described_again(network, spec, peers, error)
        records = description.domains
        domains = read_domains(records, spec)
    library = await asyncio.to_thread(_library, config, network, spec, domains)
    if not library.has_tokenizer:
        lost = StateError(f"{library.folder / TOKENIZER_FILE} is missing or damaged; {REMEDY}")
        description, peer = await _described_again(network, spec, peers, lost)
        library.set_tokenizer(await _tokenizer(description, network, spec, peer, library.folder))
    library.set_tokenizer(library.tokenizer_json)
    return Entry(spec, records, library, tuple(peers), False, hints=saved_hints(config.state_dir))


async def _described(network: Network, peers: Sequence[str], run_id: str | None) -> tuple[Description, str]:
    """Ask one of `peers` after the other for the run; return who answered, too.

    Raises what the first of them said, or why it said nothing, if nobody describes it.
    """
    failures: list[ShoalError] = []
    for peer in peers:
        try:
            return await describe(network.stub(Describe, peer), expected_run_id=run_id), peer
        except ShoalError as error:
            failures.append(error)
            if len(peers) > 1:
                log.warning("%s does not describe the run: %s", peer, error)
    raise failures[0]


async def _described_again(
    network: Network, spec: RunSpec, peers: Sequence[str], lost: ShoalError
) -> tuple[Description, str]:
    """Ask for the run once more, as part of it was lost here; return who answered, too. Raises `lost` if nobody did."""
    log.warning("%s", lost)
    if peers:
        with suppress(ShoalError):
            return await _described(network, peers, spec.run_id)
    raise lost


def _library(config: PeerConfig, network: Network, spec: RunSpec, domains: list[DomainInfo]) -> Library:
    corpus = given_corpus(config)
    if corpus is not None:
        domains = match(corpus, spec, domains)
    else:
        corpus = built_in(config.state_dir, spec)
    return Library(config.state_dir / "corpus", spec, domains, shards_stub(network, spec), corpus)


def _beginning(plan: RunPlan, config: PeerConfig, corpus: Corpus) -> tuple[ModelSpec, str | None, OriginSpec | None]:
    """Return the run's model, what the run spec calls its first parameters, and what the model says of itself.

    The last two are None when the seed makes them.
    """
    folder = config.init_from
    if folder is None:
        model = plan.model.model_copy(update={"vocab_size": corpus.info.vocab_size})
        corpus.check_fits(model)
        return model, None, None
    planned = plan.model
    if plan.strategy.kind == "adapters" and planned.adapter is None:
        planned = planned.model_copy(update={"adapter": AdapterSpec()})
    model, origin = read_pretrained(folder, planned)
    if plan.strategy.kind == "experts" and model.config is not None:
        from peer.train.mixtures import check_experts  # with Transformers, which takes seconds

        check_experts(folder, model.config)
    check_tokenizer(folder, corpus)
    corpus.check_fits(model)
    log.info("reading %s", folder)
    keep_files(read_files(folder), config.state_dir)
    if model.adapter is not None:
        return model, write_parameters(folder, model, config.state_dir / "corpus" / BLOBS), origin
    return model, parameters_id(read_parameters(folder, model)), origin


async def _tokenizer(description: Description, network: Network, spec: RunSpec, peer: str, folder: Path) -> bytes:
    stub = shards_stub(network, spec)
    return await tokenizer_from(stub, peer, description.tokenizer_id, description.tokenizer_bytes, folder)


def shards_stub(network: Network, spec: RunSpec) -> Callable[[str], Any]:
    """Return what makes a stub of a peer's `Shards` service."""
    return lambda peer: network.stub(Shards, peer, spec.run_id)


def read_domains(records: Sequence[bytes], spec: RunSpec) -> list[DomainInfo]:
    """Check signed domain records and return the domains by their index."""
    opened = [open_record(data, "domain", DomainRecord).record for data in records]
    by_index = {record.index: record.domain for record in opened if record.run_id == spec.run_id}
    if not by_index or sorted(by_index) != list(range(len(by_index))):
        raise DataError("the peer does not know the run's domains; join by another one")
    return [by_index[index] for index in sorted(by_index)]


def saved_spec(state_dir: Path) -> RunSpec | None:
    """Return the run that a state directory belongs to, or None. Raises StateError: damaged, or of a later version."""
    check_format(state_dir)
    try:
        return read_model(state_dir / RUN_FILE, RunSpec, OF_NO_RUN)
    except ProtocolError as error:
        raise StateError(f"{state_dir / RUN_FILE}: {error}") from None


def saved_records(state_dir: Path) -> tuple[bytes, ...]:
    """Return the signed domain records in a state directory, in their order. Raises StateError if it is damaged."""
    path = state_dir / DOMAINS_FILE
    data = read_bytes(path, REMEDY)
    if not data:
        raise StateError(f"{path} is missing or empty; {REMEDY}")
    records, at = list[bytes](), 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        record = bytes(data[at + 4 : at + 4 + size])
        try:
            open_record(record, "domain", DomainRecord)
        except PeerError as error:
            reason = "it is cut off" if at + 4 + size > len(data) else error
            raise StateError(f"{path} is damaged ({reason}); {REMEDY}") from None
        records.append(record)
        at += 4 + size
    return tuple(records)


def saved_hints(state_dir: Path) -> Hints:
    """Return what the founder of a state directory's run suggests. Raises StateError if it is damaged."""
    remedy = "delete it, it only holds what the run's founder suggests"
    return read_model(state_dir / HINTS_FILE, Hints, remedy) or NO_HINTS


def _other_state(state_dir: Path, saved: str, asked: str) -> str:
    return (
        f"{state_dir} holds run {saved}, but the run asked for is {asked}; give another --state-dir for it, "
        f"or leave out --run and the address to go on with {saved}"
    )
