from status_example import example

from peer.track.scalars import scalars


def test_a_status_is_named_numbers() -> None:
    status = example()
    status.held_out = {"python": [(10, 4.0), (20, 3.5)], "c++ & more": [(10, 2.0)]}
    status.skipped = {"heard 1 of 3": 4}
    found = {scalar.name: scalar.value for scalar in scalars(status)}
    assert found["loss/train"] == 3.2
    assert found["loss/held-out/python"] == 3.5 and found["loss/held-out/c_more"] == 2.0
    assert found["speed/tokens_per_s"] == 2_345.6
    assert (found["traffic/bytes_in"], found["traffic/bytes_out"]) == (45_600_000, 43_100_000)
    assert found["rounds/sealed"] == 412 and found["rounds/skipped/heard_1_of_3"] == 4
    assert found["swarm/peers"] == 3 and found["swarm/age"] == 2_410_000
    assert found["agreement/trunk"] == 1.0 and found["age/expert.0"] == 803_000


def test_what_is_not_known_is_no_number() -> None:
    status = example()
    status.peers[0].loss = None
    assert "loss/train" not in {scalar.name for scalar in scalars(status)}
    assert scalars(status.model_copy(update={"peers": []})) == []
