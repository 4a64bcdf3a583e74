"""Domains that several parties find together, each in text that stays with it: they meet, share terms, add up sums.

    the first   with host(plan, participants, place, say) as plan:     prepare(…, plan, …)
    the others  with join(target, plan, folder, place, say) as plan:   prepare(…, plan, …)

The first one's tokenizer is everybody's. What each gives to the others are sums, masked so that only those of all can
be read (protocols/sums.py, circle.py, masks.py). The network lives in a thread of its own: it answers
while text is read.
"""

import hashlib
import logging
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from configs.errors import DataError, NetworkError, PeerError, UsageError
from dht.addresses import addresses_of, parse_address
from dht.loop_thread import LoopThread
from dht.network import Network, open_network
from peer.corpus.data import TOKENIZER_FILE
from peer.corpus.mixture import Add, Integers
from peer.corpus.tokenizer import Vocabulary
from peer.prepare.plan import Plan, Together
from protocols.circle import Circle
from protocols.sums import MAX_SEATS, JoinRequest, Meeting, Terms
from protocols.sums import join as take_seat

log = logging.getLogger(__name__)

MARK = "#"  # between the first one's address and the word
WORD_BYTES = 16
DIAL_S = 10.0
FEWEST_HIDDEN = 3  # participants from which on nobody can tell the other's numbers from the sum

Say = Callable[[str], None]  # shows a line to whoever waits


@dataclass(frozen=True)
class Place:
    """Where to be reached by the others; see `open_network`."""

    host: str = "0.0.0.0"
    port: int = 0
    announce: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class _Open:
    """A network with this participant's side of the meeting."""

    network: Network
    meeting: Meeting
    addresses: tuple[str, ...]

    def stub(self, peer: str) -> object:
        """Return the caller's side of another participant."""
        return self.network.stub(Meeting, peer)


@contextmanager
def host(plan: Plan, participants: int, place: Place, say: Say) -> Iterator[Plan]:
    """Open a meeting of so many, and yield the plan by which its first participant prepares its text.

    `say` is told the line by which the others take part. Raises UsageError; the plan's `together` raises NetworkError
    (somebody is gone) and PeerError (somebody sends what cannot be).
    """
    if not 2 <= participants <= MAX_SEATS:
        raise UsageError(f"{participants} participants are not possible; choose from 2 to {MAX_SEATS}")
    if plan.domains is None:
        raise UsageError("--together finds domains with others; say how many with --domains")
    plan.check()
    word = secrets.token_hex(WORD_BYTES)
    with _thread(place, participants - 1, word) as thread:
        it = thread.value
        say(f"on each of the {participants - 1} others: shoal prepare TEXT --out DIR --together-with '{it.addresses[0]}"
            f"{MARK}{word}'")  # fmt: skip

        async def gather(vocabulary: Vocabulary) -> Circle:
            await it.meeting.seated(lambda taken: say(f"{taken + 1} of {participants} participants are here"))
            roster = {it.meeting.me: list(it.addresses), **it.meeting.roster}
            it.meeting.open(_terms(plan, vocabulary, roster), vocabulary.json)
            return await _begun(it, say)

        yield replace(plan, together=_together(thread, gather))


@contextmanager
def join(target: str, plan: Plan, folder: Path, place: Place, say: Say) -> Iterator[Plan]:
    """Take a seat at the meeting of `target` (ADDR#WORD), wait for the others, and yield the plan that all share.

    Its tokenizer is written into `folder`. Raises UsageError (no such target), NetworkError, PeerError; so does the
    plan's `together`.
    """
    address, mark, word = target.rpartition(MARK)
    if not mark or not word:
        raise UsageError(f"'{target}' lacks the word after {MARK}; paste the whole line that the first one printed")
    first = parse_address(address)[1]
    with _thread(place) as thread:
        it = thread.value

        async def sit() -> tuple[Terms, bytes]:
            await it.network.connect([address])
            say("waiting for the others, and for the first one's tokenizer")
            request = JoinRequest(word=word, addresses=list(it.addresses))
            terms, tokenizer = await take_seat(it.stub(first), request)
            if not {it.meeting.me, first} <= terms.participants.keys():
                raise PeerError("the first participant left out itself or this one; begin again")
            it.meeting.open(terms)
            return terms, tokenizer

        async def gather(vocabulary: Vocabulary) -> Circle:
            return await _begun(it, say)

        terms, tokenizer = thread.call(sit())
        (folder / TOKENIZER_FILE).write_bytes(tokenizer)
        say(
            f"{terms.domains} domains, vocabulary of {terms.vocab_size:,} tokens, windows of {terms.context_length}, "
            f"{terms.heldout_share:.1%} held out: as the first one says"
        )
        yield replace(
            plan,
            domains=terms.domains,
            seed=terms.seed,
            context_length=terms.context_length,
            heldout_share=terms.heldout_share,
            vocab_size=terms.vocab_size,
            tokenizer=folder / TOKENIZER_FILE,
            together=_together(thread, gather),
        )


def _terms(plan: Plan, vocabulary: Vocabulary, roster: dict[str, list[str]]) -> Terms:
    assert plan.domains is not None
    return Terms(
        participants=roster,
        domains=plan.domains,
        seed=plan.seed,
        context_length=plan.context_length,
        heldout_share=plan.heldout_share,
        vocab_size=vocabulary.size,
        tokenizer=hashlib.sha256(vocabulary.json).hexdigest(),
        tokenizer_bytes=len(vocabulary.json),
    )


def _together(thread: LoopThread[_Open], gather: "Callable[[Vocabulary], object]") -> Together:
    """Return what finding domains asks for: with a vocabulary, a way to add up."""

    @contextmanager
    def meet(vocabulary: Vocabulary) -> Iterator[Add]:
        circle: Circle = thread.call(gather(vocabulary))  # type: ignore[arg-type]

        def add(sums: Integers) -> Integers:
            if sums.min() < 0 or sums.max() >= 1 << 32:
                raise DataError("there is more text than can be counted together; give less")
            return thread.call(circle.add(sums.astype(np.uint32))).astype(np.int64)

        yield add
        thread.call(circle.end())

    return meet


async def _begun(it: _Open, say: Say) -> Circle:
    """Meet all the others, and say who they are."""
    terms = it.meeting.terms
    assert terms is not None
    for peer, addresses in terms.participants.items():
        if peer != it.meeting.me:
            try:  # one of the two reaches the other: that will do
                await it.network.connect(addresses_of(peer, addresses), DIAL_S)
            except (NetworkError, UsageError) as error:
                log.info("%s: %s", terms.name(peer), error)
    circle = Circle(it.meeting, it.stub)
    await circle.begin()
    others = [terms.name(peer) for peer in sorted(terms.participants) if peer != it.meeting.me]
    say(f"finding domains with {', '.join(others)}; no text moves, they see how often all of you use each token")
    if len(terms.participants) < FEWEST_HIDDEN:
        say("of two, each can tell the other's counts from the sum; with a third nobody can")
    return circle


@contextmanager
def _thread(place: Place, seats: int = 0, word: str = "") -> Iterator[LoopThread[_Open]]:
    thread = LoopThread(_open(place, seats, word), "shoal-together")
    try:
        yield thread
    finally:
        thread.close()


@asynccontextmanager
async def _open(place: Place, seats: int, word: str) -> AsyncIterator[_Open]:
    with tempfile.TemporaryDirectory(prefix="shoal-together-") as folder:
        key = Path(folder) / "identity.key"
        async with open_network(key, host=place.host, port=place.port, announce=place.announce) as network:
            meeting = Meeting(network.peer_id, seats, word)
            await network.serve(meeting)
            yield _Open(network, meeting, tuple(await network.addresses()))
