"""From facts to answers: each check says yes, no or not checked, why, and for a no what to do. Pure."""

from dataclasses import dataclass
from typing import Literal

from configs.clock import MAX_SKEW_S
from configs.protocol import UPDATE
from configs.run import RunSpec
from dht.addresses import is_internet
from dht.streams import DESCRIPTORS, MAX_STREAMS
from peer.doctor.facts import Description, Facts, Machine, OtherVersion, Outside, Unknown
from peer.member.vitals import needed_disk_bytes
from peer.train.memory import trained_values
from protocols.codecs import encoded_size
from protocols.reach import decisive

Answer = Literal["yes", "no", "not checked"]
Nat = Literal["none", "cone", "symmetric", "unknown"]

LEAST_MEMORY_BYTES = 1 << 30
LEAST_DESCRIPTORS = 2 * MAX_STREAMS
LEAST_MBIT = 1.0
STEP_S = 0.5  # by which a clock may be corrected within seconds


@dataclass(frozen=True)
class Check:
    """One question, its answer, what was found, and what to do about it."""

    name: str
    answer: Answer
    said: str
    remedy: str = ""


def checks(facts: Facts) -> list[Check]:
    """Return the answers to all questions, those about the machine first."""
    machine, outside = facts.machine, facts.outside
    spec = outside.description.spec if isinstance(outside.description, Description) else None
    return [
        versions(machine, outside),
        daemon(machine),
        run(machine, outside),
        port(machine),
        address(outside),
        reachable(outside),
        nat(outside),
        relay(outside),
        clock(outside, facts.clock_step_s),
        bandwidth(outside),
        devices(machine),
        memory(machine),
        disk(machine, spec),
        descriptors(machine),
    ]


def case_of(facts: Facts) -> str:
    """Say in a few words how this machine stands in the network."""
    outside = facts.outside
    if isinstance(outside.way, Unknown):
        return f"no way to the peer: {outside.way.why}" if outside.way.is_fault else "not known without an address"
    answer = decisive(outside.reach)
    if answer is None:
        return "not known: nobody could try to dial this machine"
    if answer.outcome == "open":
        return "others can dial this machine"
    kind = nat_kind(outside)
    before = "a firewall" if kind == "none" else {"unknown": "a NAT of unknown kind"}.get(kind, f"a {kind} NAT")
    by = "reached through a relay" if not isinstance(outside.terms, Unknown) else "and nobody relays for it"
    return f"behind {before}, {by}"


def versions(machine: Machine, outside: Outside) -> Check:
    """Does the peer speak the same protocol?"""
    own = f"shoal {machine.version}, protocol {machine.protocol}"
    found = outside.description
    if isinstance(found, Unknown):
        if isinstance(found, OtherVersion):
            return Check("versions", "no", f"{own}; {found.why}", f"update the older of the two: {UPDATE}")
        return Check("versions", "not checked", f"{own}; {found.why or _why(outside)}")
    return Check("versions", "yes", f"{own}; the peer has {found.version}")


def daemon(machine: Machine) -> Check:
    """Is the daemon of the state directory well?"""
    found = machine.daemon
    if isinstance(found, Unknown):
        return Check("daemon", "no" if found.is_fault else "not checked", found.why, _if_fault(found, "see its log"))
    troubles = [*found.warnings, *found.unseen]
    if troubles:
        return Check("daemon", "no", f"it is {found.state}; {'; '.join(troubles)}", "see what each of these says")
    return Check("daemon", "yes", f"it is {found.state}")


def run(machine: Machine, outside: Outside) -> Check:
    """Is the peer's run the one that this state directory belongs to?"""
    found, own = outside.description, machine.run_id
    if isinstance(own, Unknown) and own.is_fault:
        return Check("run", "no", own.why, "move the damaged file away, or give another --state-dir")
    if isinstance(found, Unknown):
        is_mute = found.is_fault and not isinstance(found, OtherVersion)
        remedy = "see that it is the address of a Shoal peer of this version; to a closed run you must be invited"
        return Check("run", "no" if is_mute else "not checked", found.why or _why(outside), remedy if is_mute else "")
    name = f"{found.spec.run_id} ({found.spec.name})"
    if isinstance(own, Unknown) or own == found.spec.run_id:
        return Check("run", "yes", name)
    said = f"the peer belongs to run {name}, and {machine.state_dir} to run {own}"
    return Check("run", "no", said, "give another --state-dir to join that run, or the address of a peer of your own")


def port(machine: Machine) -> Check:
    """Can the port be listened on?"""
    found = machine.port
    if isinstance(machine.daemon, Unknown) and isinstance(found, Unknown):
        remedy = "end the program that has it, or choose another with --port"
        return Check("port", "no" if found.is_fault else "not checked", found.why, _if_fault(found, remedy))
    if not isinstance(machine.daemon, Unknown):
        return Check("port", "yes", f"the daemon listens on port {machine.daemon.port}")
    if found == 0:
        return Check("port", "yes", "any free one will be taken; give --port to have the same each time")
    return Check("port", "yes", f"port {found} is free")


def address(outside: Outside) -> Check:
    """Can the peer be dialled from here?"""
    way = outside.way
    if isinstance(way, Unknown):
        remedy = "do what it says, then ask again; or try the address of another peer"
        return Check("address", "no" if way.is_fault else "not checked", way.why, _if_fault(way, remedy))
    return Check("address", "yes", f"{way} answers")


def reachable(outside: Outside) -> Check:
    """Can others dial this machine?"""
    answer = decisive(outside.reach)
    where = f"port {outside.asked_port}"
    if answer is None:
        asked = outside.reach[0].outcome if outside.reach else ""
        why = {"relayed": "the peer sees this machine through a relay", "busy": "the peer was asked too often of late"}
        return Check("reachable", "not checked", why.get(asked) or outside.reach_problem or _why(outside))
    inside = "" if is_internet(answer.host) else ", from within this network; the Internet was not tried"
    if answer.outcome == "open":
        return Check("reachable", "yes", f"{where} is open at {answer.host}{inside}")
    said = {
        "refused": f"{where} is refused at {answer.host}",
        "silent": f"nothing comes back from {where} at {answer.host}",
        "other": f"something that is no Shoal peer answers on {where} at {answer.host}",
    }[answer.outcome]
    if nat_kind(outside) == "none":
        remedy = f"let TCP {where} in at this machine's firewall"
    elif answer.outcome == "other":
        remedy = "another machine behind your router has this port: choose another with --port, and forward that one"
    else:
        remedy = f"forward TCP {where} to this machine at your router, and say so with --announce"
    also = "; until then a relay carries what others send" if not isinstance(outside.terms, Unknown) else ""
    return Check("reachable", "no", said + inside, remedy + also)


def nat_kind(outside: Outside) -> Nat:
    """Say what kind of NAT is before this machine, by where others see it from.

    Source: RFC 4787, section 4.1. A router that keeps the port, or shows all others the same one, has one mapping for
    each of our ports; with another one for each destination no hole can be punched.
    """
    seen = [answer for answer in outside.reach if answer.host]
    if not seen:
        return "unknown"
    if all(answer.host in outside.hosts for answer in seen):
        return "none"
    ports = {answer.port for answer in seen if answer.host not in outside.hosts}
    if len(ports) > 1:
        return "symmetric"
    return "cone" if ports == {outside.own_port} or len(seen) > 1 else "unknown"


def nat(outside: Outside) -> Check:
    """Is there a NAT between this machine and others, and of which kind?"""
    kind = nat_kind(outside)
    seen = next((answer.host for answer in outside.reach if answer.host), "")
    match kind:
        case "none":
            return Check("nat", "yes", f"none: others see this machine at its own address {seen}")
        case "cone":
            return Check("nat", "yes", f"cone: others see {seen}, and every one of them the same port")
        case "symmetric":
            said = f"symmetric: {seen} shows another port to each other peer, so only a relay or a forwarded port helps"
            return Check("nat", "no", said, "forward a port at the router, or join by a peer that can be reached")
    if seen:
        said = f"unknown kind: {seen} changes ports, and one peer alone cannot tell whether it does for each"
        return Check("nat", "not checked", said)
    return Check("nat", "not checked", outside.reach_problem or _why(outside))


def relay(outside: Outside) -> Check:
    """Does the peer relay for this machine, and enough?"""
    terms = outside.terms
    if isinstance(terms, Unknown):
        remedy = "join by a peer that others can dial: it relays for you"
        return Check(
            "relay", "no" if terms.is_fault else "not checked", terms.why or _why(outside), _if_fault(terms, remedy)
        )
    data = "without limit" if terms.data_bytes == 0 else f"{terms.data_bytes / 2**20:,.0f} MiB"
    time = "for ever" if terms.seconds == 0 else f"{terms.seconds / 60:g} min"
    said = f"there is one: {data} each way and {time} for each connection"
    if not terms.are_wide:
        return Check(
            "relay", "no", said, "too little for offers: name more peers that can be dialled, or restart that one"
        )
    return Check("relay", "yes", said)


def clock(outside: Outside, step_s: float) -> Check:
    """Does this machine's clock agree with the peer's, and stand still?"""
    if abs(step_s) > STEP_S:
        said = f"this machine's clock was set by {step_s:+.1f} s just now"
        return Check("clock", "no", said, "let NTP alone set it, slowly; end other programs that do")
    found = outside.description
    if isinstance(found, Unknown):
        return Check("clock", "not checked", found.why or _why(outside))
    off_s = found.clock_offset_s
    if abs(off_s) - found.uncertainty_s > MAX_SKEW_S:
        behind = "behind" if off_s > 0 else "ahead of"
        said = f"this machine's clock is {abs(off_s):.1f} s {behind} the peer's; at most {MAX_SKEW_S:g} s are allowed"
        return Check("clock", "no", said, "set the wrong one of the two, for example by turning on NTP")
    return Check("clock", "yes", f"within {max(0.1, abs(off_s) + found.uncertainty_s):.1f} s of the peer's")


def bandwidth(outside: Outside) -> Check:
    """Is the line to the peer fast enough for the run's offers?"""
    mbit, found = outside.down_mbit, outside.description
    if isinstance(mbit, Unknown):
        return Check("bandwidth", "not checked", mbit.why or _why(outside))
    said = f"at least {mbit:,.1f} Mbit/s from the peer"
    if not isinstance(found, Unknown):
        size, cut_s = offer_bytes(found.spec), found.spec.rounds.cut_share * shortest_round_s(found.spec)
        needed_s = 8e-6 * size / mbit
        said += (
            f": an offer of {size / 1e6:,.1f} MB takes {needed_s:,.1f} s, the shortest round's cut is {cut_s:,.1f} s"
        )
        if needed_s > cut_s:
            return Check(
                "bandwidth", "no", said, "no harm is done, rounds are made longer; a faster line makes more of them"
            )
    if mbit < LEAST_MBIT:
        return Check("bandwidth", "no", said, "free the line, or join by a peer that is nearer")
    return Check("bandwidth", "yes", said)


def offer_bytes(spec: RunSpec) -> int:
    """Return the size of an offer of a whole sub-model."""
    return encoded_size(spec.outer.codec, trained_values(spec.model))


def shortest_round_s(spec: RunSpec) -> float:
    """Return how long a round is while the run is young."""
    return spec.rounds.first_ticks * spec.rounds.tick_seconds


def devices(machine: Machine) -> Check:
    """Is there what shall train?"""
    found = machine.devices
    if isinstance(found, Unknown):
        return Check("gpu", "not checked", found.why)
    if found.problem:
        return Check("gpu", "no", found.problem, "install torch for it, or name what is here with --device")
    if all(name == "cpu" for name in found.names):
        return Check("gpu", "yes", "none here; the processor trains")
    return Check("gpu", "yes", ", ".join(found.names))


def memory(machine: Machine) -> Check:
    """Is there memory for the run's model?"""
    found = machine.memory
    if isinstance(found, Unknown):
        return Check("memory", "not checked", found.why)
    said = f"{found.free_bytes / 2**30:.1f} GiB are free"
    if found.problem:
        return Check("memory", "no", found.problem, "end other programs, or join a run with a smaller model")
    if found.free_bytes < LEAST_MEMORY_BYTES:
        return Check(
            "memory", "no", said, f"free some: {LEAST_MEMORY_BYTES >> 30} GiB is the least for the smallest model"
        )
    return Check("memory", "yes", said)


def disk(machine: Machine, spec: RunSpec | None) -> Check:
    """Can the state directory be written, and has its disk room?"""
    found = machine.disk
    if isinstance(found, Unknown):
        return Check("disk", "not checked", found.why)
    if not found.is_writable:
        return Check("disk", "no", f"{found.path}: {found.problem}", "make it writable, or give another --state-dir")
    need = needed_disk_bytes(spec)
    said = f"{found.free_bytes / 2**20:,.0f} MiB are free at {found.path}"
    if found.free_bytes < need or found.free_files == 0:
        least = f"{need / 2**20:,.0f} MiB, and names for files, are the least"
        return Check("disk", "no", f"{said}; {least}", "free some, or give a --state-dir on another disk")
    return Check("disk", "yes", said)


def descriptors(machine: Machine) -> Check:
    """May a process have enough files and connections open?"""
    found = machine.descriptors
    if isinstance(found, Unknown):
        return Check("open files", "not checked", found.why)
    said = f"a process may have {found.hard:,} files and connections open"
    if found.hard < LEAST_DESCRIPTORS:
        remedy = f"raise it: ulimit -Hn {DESCRIPTORS} as root, LimitNOFILE={DESCRIPTORS} in a systemd unit"
        return Check("open files", "no", f"{said}, {LEAST_DESCRIPTORS:,} are the least", remedy)
    return Check("open files", "yes", said)


def _why(outside: Outside) -> str:
    """Say why nothing was asked of the peer."""
    if isinstance(outside.way, Unknown):
        return "the peer cannot be reached" if outside.way.is_fault else outside.way.why
    return "the peer did not say in time"


def _if_fault(found: Unknown, remedy: str) -> str:
    return remedy if found.is_fault else ""
