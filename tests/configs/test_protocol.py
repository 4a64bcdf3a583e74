"""Who understands whom, on both sides of each edge, and who is told to update."""

import pytest
from pydantic import ValidationError

from configs.errors import ProtocolError
from configs.protocol import OLDEST_PROTOCOL, PROTOCOL_VERSION, Spoken, check_need
from configs.run import RunSpec

THIS, THAT = "update this one (pip install -U shoal)", "update that one (pip install -U shoal)"


def test_this_version_speaks_a_range() -> None:
    assert 1 <= OLDEST_PROTOCOL <= PROTOCOL_VERSION
    assert not Spoken(protocol=PROTOCOL_VERSION, oldest=OLDEST_PROTOCOL).why_apart("it")


@pytest.mark.parametrize(
    ("protocol", "oldest", "remedy"),
    [
        (2, 1, THAT),
        (3, 1, ""),
        (4, 4, ""),
        (5, 5, ""),
        (9, 5, ""),
        (9, 6, THIS),
        (6, 6, THIS),
    ],
)
def test_ranges_that_do_not_meet_are_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, protocol: int, oldest: int, remedy: str
) -> None:
    monkeypatch.setattr("configs.protocol.PROTOCOL_VERSION", 5)
    monkeypatch.setattr("configs.protocol.OLDEST_PROTOCOL", 3)
    said = Spoken(protocol=protocol, oldest=oldest).why_apart("peer Qm")
    assert bool(said) is bool(remedy) and remedy in said and "\n" not in said
    if said:
        theirs = "6" if protocol == oldest else f"{oldest} to {protocol}"
        assert said.startswith(f"peer Qm speaks protocol {theirs}, this peer speaks 3 to 5: ")


def test_only_what_is_later_may_say_what_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configs.protocol.PROTOCOL_VERSION", 5)
    assert [Spoken(protocol=p).unknown_fields for p in (4, 5, 6)] == [None, None, "ignore"]


def test_no_range_that_is_none() -> None:
    for told in ({"protocol": 0}, {"protocol": True}, {"protocol": "2"}, {"oldest": 2}, {"protocol": 1 << 17}):
        with pytest.raises(ValidationError):
            Spoken.model_validate(told)
    assert Spoken.model_validate({"anything": 1}) == Spoken(protocol=1, oldest=1)


def test_a_run_of_a_later_protocol_is_refused_before_its_unknown_keys() -> None:
    check_need(PROTOCOL_VERSION, "the run")
    later = PROTOCOL_VERSION + 1
    with pytest.raises(ProtocolError, match=f"speaks protocol {PROTOCOL_VERSION}, the run needs {later}: pip install"):
        RunSpec.model_validate_json(f'{{"protocol": {later}, "a_new_key": 1}}')
