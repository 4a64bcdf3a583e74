"""What a round brings to a peer, in bytes, of a block that is worth a swarm; the simulated one is short."""

from peer.simulate.scenario import Gossip, Scenario
from peer.train.mixing import FRAGMENT_CODEC
from protocols.codecs import encoded_size

PARAMETERS = 1_000_000  # of the block that bytes are counted for

# Estimates of what surrounds the values.
OFFER_BYTES = 1000  # signed header, public key, signature, hashes
LIST_ENTRY_BYTES = 120
RECORD_BYTES = 900  # a signed record of a group's bucket
ANSWER_BYTES = 1000  # 20 neighbours, in the answer of a DHT node


def received(scenario: Scenario, gossip: Gossip, lookup_rpcs: float) -> float:
    """Return what a peer receives in a round: offers with fragments, lists, its bucket's records, DHT answers."""
    members = scenario.peers / gossip.groups
    lists = gossip.entries * LIST_ENTRY_BYTES + gossip.reads * members * RECORD_BYTES
    return gossip.offers * offer_bytes(scenario) + lists + lookup_rpcs * ANSWER_BYTES


def offer_bytes(scenario: Scenario) -> int:
    """Return the size of an offer, with its fragment where there are several groups."""
    fragment = 0 if scenario.is_one_group else encoded_size(FRAGMENT_CODEC, PARAMETERS // scenario.fragments)
    return OFFER_BYTES + encoded_size(scenario.codec, PARAMETERS) + fragment
