"""What is known of the swarm, by the records of its members and what lies here."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from configs.run import RunSpec
from dht.membership import ACT_TICKS
from peer.member.outlook import Outlook
from peer.train.partition import COMMON, Strategy


def member(ages: dict[str, int], *, is_leaving: bool = False, leases: tuple[str, ...] = ()) -> Any:
    record = SimpleNamespace(ages=ages, keeps=ages, leases=leases, is_leaving=is_leaving, addresses=("/ip4/192.0.2.1",))
    return SimpleNamespace(record=record)


@pytest.fixture
def outlook(smallest_run: Callable[..., RunSpec]) -> Callable[..., Outlook]:
    spec = smallest_run(total_tokens=1000, strategy={"kind": "branches", "common_tokens": 400})
    clock = SimpleNamespace(tick=lambda: 9)
    facts: Any = SimpleNamespace(spec=spec, strategy=Strategy.of(spec.strategy, 2), me="me", clock=clock)

    def make(stored: dict[str, int], **known: Any) -> Outlook:
        store: Any = SimpleNamespace(ages=lambda: dict(stored))
        membership: Any = SimpleNamespace(
            known=lambda: known,
            record=lambda peer: known[peer].record if peer in known else None,
            members=lambda tick: ("a", "me"),
            knows=lambda peer: peer != "stranger",
        )
        return Outlook(facts, membership, store, ["b", "a"])

    return make


def test_others_are_those_who_are_present_and_those_who_were_dialled(outlook: Callable[..., Outlook]) -> None:
    assert outlook({}).others() == ["a", "b"]
    assert outlook({}).acting_tick() == 9 + ACT_TICKS


def test_the_nearest_are_asked_first(outlook: Callable[..., Outlook]) -> None:
    near = member({})
    near.record.addresses = ("/ip4/192.168.1.6/tcp/1",)
    own = ["/ip4/192.168.1.5/tcp/1"]
    assert outlook({}, a=member({}), b=near).nearest(own) == [["b"], ["a", "b"]]
    near.record.addresses = ("/ip4/192.168.1.5/tcp/2",)
    assert outlook({}, a=near, b=near).nearest(own) == [["a", "b"]]
    assert outlook({}).nearest(own) == [["a", "b"]]  # of which nothing is known


def test_a_block_is_as_old_as_the_oldest_copy_that_anybody_has(outlook: Callable[..., Outlook]) -> None:
    seen = outlook({COMMON: 100}, a=member({COMMON: 300, "branch.1": 20}), b=member({COMMON: 200}))
    assert seen.ages() == {COMMON: 300, "branch.1": 20}


@pytest.mark.parametrize(
    ("ages", "phase", "age"),
    [
        ({COMMON: 300}, "common", 300),
        ({COMMON: 400, "branch.0": 450}, "parted", 450),
        ({COMMON: 400, "branch.0": 700, "branch.1": 600}, "parted", 900),
        ({COMMON: 400, "branch.0": 700, "branch.1": 700}, "done", 1000),
    ],
)
def test_phase_and_age_count_the_common_tokens_once(
    outlook: Callable[..., Outlook], ages: dict[str, int], phase: str, age: int
) -> None:
    seen = outlook({}, a=member(ages))
    assert (seen.phase(), seen.swarm_age()) == (phase, age)


def test_leases_are_those_of_others_and_members_those_who_stay(outlook: Callable[..., Outlook]) -> None:
    seen = outlook({}, me=member({}, leases=("1",)), a=member({}, leases=("1", "2")), b=member({}, is_leaving=True))
    assert seen.leased() == {"1": 1, "2": 1}
    assert list(seen.members()) == ["me", "a"]
