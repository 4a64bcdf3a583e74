"""From facts to answers: each bar from both sides, each no with what to do, and nothing said that was not measured."""

from dataclasses import replace
from typing import Any

import pytest

from configs.protocol import PROTOCOL_VERSION
from configs.run import RunSpec
from dht.relays import WIDE_BYTES, Terms
from peer.doctor.facts import (
    Daemon,
    Description,
    Descriptors,
    Devices,
    Disk,
    Facts,
    Machine,
    Memory,
    OtherVersion,
    Outside,
    Unknown,
)
from peer.doctor.verdicts import (
    LEAST_DESCRIPTORS,
    LEAST_MBIT,
    LEAST_MEMORY_BYTES,
    STEP_S,
    Check,
    Nat,
    case_of,
    checks,
    nat_kind,
)
from peer.member.vitals import LEAST_DISK_BYTES
from protocols.reach import Outcome, ReachAnswer

OWN, ROUTER = "192.168.1.2", "5.5.0.2"
PORT = 4001


@pytest.fixture
def well(smallest_run: Any) -> Facts:
    """The facts of a machine with which nothing is wrong."""
    spec: RunSpec = smallest_run()
    machine = Machine(
        version="1",
        protocol=PROTOCOL_VERSION,
        state_dir="/state",
        daemon=Unknown("no daemon runs in /state"),
        run_id=spec.run_id,
        port=PORT,
        disk=Disk("/state", 10 << 30, 1000, is_writable=True),
        memory=Memory(8 << 30),
        devices=Devices(["cpu"]),
        descriptors=Descriptors(1024, 4096),
    )
    outside = Outside(
        "/ip4/5.5.0.1/tcp/4001/p2p/Qm",
        frozenset({OWN}),
        PORT,
        PORT,
        [seen("open", OWN)],
        "",
        Terms(1800, 4 << 30),
        Description("1", spec, 0.0, 0.01),
        100.0,
    )
    return Facts(machine, outside, 0.0)


def seen(outcome: Outcome, host: str, port: int = PORT) -> ReachAnswer:
    return ReachAnswer(outcome=outcome, family="ip4", host=host, port=port)


def machine(facts: Facts, **changes: Any) -> Facts:
    return replace(facts, machine=replace(facts.machine, **changes))


def outside(facts: Facts, **changes: Any) -> Facts:
    return replace(facts, outside=replace(facts.outside, **changes))


def told(facts: Facts, name: str) -> Check:
    return next(check for check in checks(facts) if check.name == name)


def test_nothing_is_wrong_where_all_is_well(well: Facts) -> None:
    answers = {check.name: check.answer for check in checks(well)}
    assert answers.pop("daemon") == "not checked"
    assert set(answers.values()) == {"yes"}
    assert not [check.remedy for check in checks(well) if check.remedy]
    assert case_of(well) == "others can dial this machine"


def test_without_an_address_the_network_is_not_checked_and_nothing_is_called_wrong(well: Facts) -> None:
    facts = replace(well, outside=Outside(Unknown("give the address of a peer")))
    found = {check.name: check for check in checks(facts)}
    for name in ("address", "reachable", "nat", "relay", "clock", "bandwidth", "run", "versions"):
        assert found[name].answer == "not checked"
        assert "give the address" in found[name].said
    assert case_of(facts) == "not known without an address"


def test_a_peer_that_cannot_be_reached_is_the_one_thing_that_is_wrong(well: Facts) -> None:
    facts = replace(well, outside=Outside(Unknown("connection refused", is_fault=True)))
    assert [check.name for check in checks(facts) if check.answer == "no"] == ["address"]
    assert case_of(facts) == "no way to the peer: connection refused"


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([seen("silent", OWN)], "none"),
        ([seen("silent", ROUTER)], "cone"),  # the router keeps the port
        ([seen("silent", ROUTER, 999)], "unknown"),  # one peer alone
        ([seen("silent", ROUTER, 999), seen("silent", ROUTER, 999)], "cone"),
        ([seen("silent", ROUTER, 999), seen("silent", ROUTER, 1000)], "symmetric"),
        ([seen("silent", ROUTER), seen("silent", ROUTER, 1000)], "symmetric"),
        ([seen("open", OWN, 999), seen("silent", ROUTER)], "cone"),  # one of them is at home
        ([ReachAnswer(outcome="relayed")], "unknown"),
        ([], "unknown"),
    ],
)
def test_the_kind_of_a_nat(well: Facts, answers: list[ReachAnswer], kind: Nat) -> None:
    assert nat_kind(outside(well, reach=answers).outside) == kind


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        (seen("silent", OWN), "this machine's firewall"),
        (seen("silent", ROUTER), "forward TCP port 4001"),
        (seen("refused", ROUTER), "forward TCP port 4001"),
        (seen("other", ROUTER), "another machine behind your router has this port"),
    ],
)
def test_what_to_do_about_a_closed_door(well: Facts, answer: ReachAnswer, remedy: str) -> None:
    check = told(outside(well, reach=[answer]), "reachable")
    assert check.answer == "no"
    assert remedy in check.remedy and "a relay carries" in check.remedy
    alone = told(outside(well, reach=[answer], terms=Unknown("none", is_fault=True)), "reachable")
    assert "relay" not in alone.remedy


def test_what_is_open_at_home_is_not_said_of_the_internet(well: Facts) -> None:
    assert "the Internet was not tried" in told(well, "reachable").said
    assert "the Internet" not in told(outside(well, reach=[seen("open", ROUTER)]), "reachable").said
    both = outside(well, reach=[seen("open", OWN), seen("silent", ROUTER)])
    assert told(both, "reachable").answer == "no", "who sees it on the Internet decides"


@pytest.mark.parametrize(
    ("answer", "terms", "case"),
    [
        (seen("silent", OWN), Terms(0, 0), "behind a firewall, reached through a relay"),
        (seen("silent", ROUTER), Terms(0, 0), "behind a cone NAT, reached through a relay"),
        (seen("silent", ROUTER, 9), Unknown("", is_fault=True), "behind a NAT of unknown kind, and nobody relays"),
        (ReachAnswer(outcome="relayed"), Terms(0, 0), "not known: nobody could try"),
    ],
)
def test_the_case_is_named(well: Facts, answer: ReachAnswer, terms: Any, case: str) -> None:
    assert case in case_of(outside(well, reach=[answer], terms=terms))


@pytest.mark.parametrize(
    ("name", "change", "is_right"),
    [
        ("disk", {"disk": Disk("/", LEAST_DISK_BYTES, 1, is_writable=True)}, True),
        ("disk", {"disk": Disk("/", LEAST_DISK_BYTES - 1, 1, is_writable=True)}, False),
        ("disk", {"disk": Disk("/", LEAST_DISK_BYTES, 0, is_writable=True)}, False),
        ("disk", {"disk": Disk("/", 1 << 40, 1, is_writable=False, problem="read-only")}, False),
        ("memory", {"memory": Memory(LEAST_MEMORY_BYTES)}, True),
        ("memory", {"memory": Memory(LEAST_MEMORY_BYTES - 1)}, False),
        ("memory", {"memory": Memory(1 << 40, "this run's model needs more")}, False),
        ("open files", {"descriptors": Descriptors(10, LEAST_DESCRIPTORS)}, True),  # the daemon raises the first
        ("open files", {"descriptors": Descriptors(10, LEAST_DESCRIPTORS - 1)}, False),
        ("gpu", {"devices": Devices(["cuda:0 (NVIDIA)"])}, True),
        ("gpu", {"devices": Devices(["cpu"], "torch cannot use it")}, False),
        ("port", {"port": 0}, True),
        ("port", {"port": Unknown("port 4001 is taken", is_fault=True)}, False),
        ("daemon", {"daemon": Daemon("training", "", 4001, [], [])}, True),
        ("daemon", {"daemon": Daemon("training", "", 4001, ["it trains alone"], [])}, False),
        ("daemon", {"daemon": Daemon("training", "", 4001, [], ["peer Qm is not seen"])}, False),
        ("daemon", {"daemon": Unknown("it does not answer", is_fault=True)}, False),
        ("run", {"run_id": Unknown("it belongs to none")}, True),
        ("run", {"run_id": "f" * 32}, False),
        ("run", {"run_id": Unknown("run.json is damaged", is_fault=True)}, False),
    ],
)
def test_what_is_wrong_with_a_machine(well: Facts, name: str, change: dict[str, Any], is_right: bool) -> None:
    facts = machine(well, **change)
    check = told(facts, name)
    assert (check.answer, bool(check.remedy)) == (("yes", False) if is_right else ("no", True)), check
    assert [each.name for each in checks(facts) if each.answer == "no"] == ([] if is_right else [name])


@pytest.mark.parametrize(
    ("name", "change", "is_right"),
    [
        ("clock", {"clock_offset_s": 3.0, "uncertainty_s": 0.0}, True),
        ("clock", {"clock_offset_s": -3.1, "uncertainty_s": 0.0}, False),
        ("clock", {"clock_offset_s": -3.1, "uncertainty_s": 0.2}, True),  # that may be the network's
    ],
)
def test_clocks(well: Facts, name: str, change: dict[str, Any], is_right: bool) -> None:
    description = well.outside.description
    assert isinstance(description, Description)
    assert (told(outside(well, description=replace(description, **change)), name).answer == "yes") is is_right


@pytest.mark.parametrize(("step_s", "is_right"), [(STEP_S, True), (-STEP_S - 0.1, False)])
def test_a_clock_that_is_being_set(well: Facts, step_s: float, is_right: bool) -> None:
    assert (told(replace(well, clock_step_s=step_s), "clock").answer == "yes") is is_right


@pytest.mark.parametrize(
    ("name", "change", "is_right"),
    [
        ("relay", {"terms": Terms(120, WIDE_BYTES)}, True),
        ("relay", {"terms": Terms(120, WIDE_BYTES - 1)}, False),
        ("relay", {"terms": Terms(0, 0)}, True),
        ("relay", {"terms": Unknown("it refuses", is_fault=True)}, False),
        ("bandwidth", {"down_mbit": LEAST_MBIT}, True),
        ("bandwidth", {"down_mbit": 0.99 * LEAST_MBIT}, False),
        ("run", {"description": Unknown("it does not describe its run", is_fault=True)}, False),
        ("versions", {"description": OtherVersion("it speaks another", is_fault=True)}, False),
    ],
)
def test_what_is_wrong_outside(well: Facts, name: str, change: dict[str, Any], is_right: bool) -> None:
    facts = outside(well, **change)
    assert [each.name for each in checks(facts) if each.answer == "no"] == ([] if is_right else [name])
    assert bool(told(facts, name).remedy) is not is_right


def test_an_offer_that_takes_longer_than_a_cut_is_said(well: Facts, smallest_run: Any) -> None:
    description = well.outside.description
    assert isinstance(description, Description)
    model = {"vocab_size": 32_000, "hidden_size": 512, "num_layers": 8, "num_heads": 8, "num_kv_heads": 8}
    large = smallest_run(model={**model, "mlp_size": 2048, "context_length": 8})
    facts = outside(well, description=replace(description, spec=large), down_mbit=50.0)
    assert told(facts, "bandwidth").answer == "no"
    assert told(outside(facts, down_mbit=5e4), "bandwidth").answer == "yes"
