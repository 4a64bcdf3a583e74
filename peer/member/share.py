"""What this machine gives and takes, and what would help: a pure function of the member's parts."""

from peer.http.history import Device, Share
from peer.member.report import Parts
from peer.train.launch import devices_of

PORT_ADVICE = (
    "others reach this machine only through a relay: forward a port at the router (`shoal doctor` says which), "
    "and it relays for others instead"
)
CAP_ADVICE = "say how fast the line is with --up-mbit: then rounds are planned by it"
ROOM_ADVICE = "the text of {domain} is read for the {times}th time: more text of it makes the model better"
REPEATS = 4  # times that a text is read, after which more of it is worth more (Muennighoff et al. 2023)


def share_of(parts: Parts, dht_bytes: tuple[int, int]) -> Share:
    """Return what this machine has given since its peer first joined, and what its daemon has moved since it began."""
    traffic, vitals, config = parts.traffic, parts.looker.vitals, parts.facts.config
    tokens, swarm = parts.chronicle.tokens, parts.outlook.swarm_age()
    return Share(
        tokens=tokens,
        rounds=parts.chronicle.rounds,
        share_of_tokens=min(1.0, tokens / swarm) if swarm else 0.0,
        bytes_in={**traffic.causes_in, "dht": dht_bytes[0]},
        bytes_out={**traffic.causes_out, "dht": dht_bytes[1]},
        up_mbit=config.up_mbit,
        down_mbit=config.down_mbit,
        memory_bytes=vitals.memory_bytes,
        memory_free_bytes=vitals.memory_free_bytes,
        disk_bytes=vitals.disk_bytes,
        disk_free_bytes=vitals.disk_free_bytes or 0,
        devices=[Device(name=name) for name in devices_of(config)],
        step_s=parts.session.progress.usual_step_s,
        advice=advice(parts),
    )


def advice(parts: Parts) -> list[str]:
    """Return what would make this machine of more use; nothing of what is wrong, which the findings say."""
    found = []
    links = [parts.membership.link(peer)[0] for peer in parts.outlook.others()]
    if links and all(link == "relayed" for link in links if link) and any(links):
        found.append(PORT_ADVICE)
    if parts.facts.config.up_mbit is None and len(links) > 1:
        found.append(CAP_ADVICE)
    sub_model = parts.session.sub_model
    if sub_model and (times := repeats(parts, sub_model)) > REPEATS:
        domain = parts.library.domain_name(parts.facts.strategy.domain(sub_model))
        found.append(ROOM_ADVICE.format(domain=domain, times=int(times)))
    return found


def repeats(parts: Parts, sub_model: str) -> float:
    """Return how often the text of a sub-model has been read, by all that train it."""
    text = sum(domain.tokens for domain in parts.library.trains(parts.facts.strategy, sub_model))
    return parts.outlook.ages().get(sub_model, 0) / text if text else 0.0
