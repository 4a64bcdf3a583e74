"""What a round costs, as the simulation reckons it."""

import pytest

from peer.simulate.scenario import Scenario
from peer.simulate.traffic import PARAMETERS, offer_bytes
from protocols.codecs import encoded_size


@pytest.mark.parametrize("peers", [3, 500])
def test_an_offer_is_its_values_and_in_random_groups_a_fragment(peers: int) -> None:
    scenario = Scenario(peers=peers)
    values = encoded_size(scenario.codec, PARAMETERS)
    beside = offer_bytes(scenario) - values
    assert (beside < 0.01 * values) == scenario.is_one_group
    assert scenario.is_one_group == (peers == 3)
