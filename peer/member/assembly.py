"""Puts the parts of a member together: what each is given, and nothing else of it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dht.address_book import AddressBook
from dht.membership import Membership
from dht.network import Network
from peer.answers.asker import Asker
from peer.answers.speaker import Speaker
from peer.block.store import BlockStore
from peer.member.activity import Activity
from peer.member.best import FOLDER as BEST
from peer.member.bounds import Bounds
from peer.member.chronicle import Chronicle
from peer.member.control import Control
from peer.member.disk import Disk
from peer.member.entry import Entry
from peer.member.examiner import Examiner
from peer.member.exclusions import Exclusions
from peer.member.facts import Facts
from peer.member.keeper import rules_of
from peer.member.learning import Learning
from peer.member.newcomers import Newcomers
from peer.member.outlook import Outlook
from peer.member.owner import Owner
from peer.member.prompts import Prompts
from peer.member.report import Parts, Place
from peer.member.session import Session
from peer.member.timeline import Timeline
from peer.member.vitals import Looker
from peer.publish.publisher import Publisher
from peer.track.feed import Trackers
from peer.train.launch import devices_of
from peer.train.private import Privacy
from peer.workers.trainer import Trainer
from protocols.answer import Answers
from protocols.offers import Offers
from protocols.roll import Roll, ask_roll
from protocols.shards import Shards
from protocols.state import State
from protocols.traffic import Traffic


def caller(network: Network, service: Any, run_id: str | None = None) -> Callable[[str], Any]:
    """Return what reaches a service of another peer: of a run, or, without one, that which every daemon has."""
    return lambda peer_id: network.stub(service, peer_id, run_id)


def assemble(
    facts: Facts, entry: Entry, network: Network, workers: Trainer, book: AddressBook, leaving: asyncio.Event
) -> Parts:
    """Return the parts of a peer that has come to its run; nothing is asked of anybody yet."""
    config, spec, library, home = facts.config, facts.spec, entry.library, facts.config.state_dir
    call = partial(caller, network, run_id=spec.run_id)
    traffic, membership = Traffic(config.up_mbit, config.down_mbit), Membership(network, spec.run_id, facts.clock, book)
    roll = call(Roll)
    membership.ask = lambda peer: ask_roll(roll(peer))
    rules = rules_of(facts, membership)
    store = BlockStore(home / "blocks", spec, facts.strategy, call(State), call(Shards), traffic, rules)
    outlook = Outlook(facts, membership, store, entry.peers)
    library.on_bytes, library.leased = traffic.receiver("text"), outlook.leased
    library.down_mbit = lambda: traffic.down_mbit
    if (stream := library.stream) is not None:
        stream.seed, stream.on_bytes = facts.data_seed, traffic.receiver("text")
        workers.progress = replace(workers.progress, position=stream.begun_at)
        stream.position = lambda: workers.progress.position

    def is_member(peer_id: str) -> bool:
        admission = network.admission
        is_guest = admission is not None and not admission.allows(peer_id, "train")  # reads, and is never one
        return is_guest or peer_id in membership.members(facts.clock.tick())

    activity, privacy = Activity(leaving), Privacy.of(config.clip_norm, config.noise, home)
    session = Session(spec, facts.me, workers, store, privacy)
    chronicle, disk = Chronicle(home), Disk(facts, membership, store, session, library)
    bounds = Bounds(facts, traffic, workers, disk)
    control = Control(activity, session, chronicle, bounds, Owner(devices_of(config)))
    offers = Offers(traffic, facts.me)
    exclusions = Exclusions(network, spec.run_id, facts.clock, offers)
    membership.excluded, membership.took_part = exclusions.at, store.took_part
    speaker = Speaker(facts, store, library, activity.declines, activity.takes_part)
    asker = Asker(facts, library, speaker, outlook, call(Answers))
    return Parts(
        facts=facts,
        activity=activity,
        control=control,
        membership=membership,
        store=store,
        outlook=outlook,
        session=session,
        library=library,
        offers=offers,
        traffic=traffic,
        newcomers=Newcomers(facts.clock.now, spec.rounds.tick_seconds, is_member),
        examiner=Examiner(activity, session, chronicle, facts.clock.now, _best(facts), control.pause),
        exclusions=exclusions,
        chronicle=chronicle,
        timeline=Timeline(home),
        learning=Learning(home),
        asker=asker,
        prompts=Prompts(home, config.prompts, library, asker.ask),
        looker=Looker(home),
        disk=disk,
        trackers=Trackers(config.outlets, home),
        publisher=Publisher(config, facts.me, store, library, chronicle),
        place=Place(),
        admission=network.admission,
    )


def _best(facts: Facts) -> Path | None:
    """Return where the best states are kept: of experts' common trunk no moment is best for all of them."""
    return None if facts.strategy.kind == "experts" else facts.config.state_dir / BEST
