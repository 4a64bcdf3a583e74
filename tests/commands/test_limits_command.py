"""How limits are shown in a terminal."""

from configs.limits import Limits, told
from peer.commands.limits import CAPS, lines
from peer.commands.options import LIMIT_OPTIONS, PEER_OPTIONS


def test_every_limit_has_an_option_at_a_start_and_while_running() -> None:
    assert list(LIMIT_OPTIONS) == list(Limits.model_fields)
    assert LIMIT_OPTIONS.items() <= PEER_OPTIONS.items()


def test_what_can_be_taken_away_is_what_may_be_none() -> None:
    assert [name for name, field in Limits.model_fields.items() if field.default is None] == CAPS


def test_a_limit_is_shown_with_its_unit_its_meaning_and_what_is_so_now() -> None:
    limits = Limits(disk_gb=2, pause_on_gpu_use=True)
    found = {
        name: {**each, "now": "0.5 GB are taken" if name == "disk_gb" else ""} for name, each in told(limits).items()
    }
    shown = [entry.partition("\n") for entry in lines(found)]
    firsts = {first.split()[0]: first.partition(" ")[2].strip() for first, _, _ in shown}
    assert firsts["disk_gb"] == "2.0 GB (0.5 GB are taken)"
    assert (firsts["pause_on_gpu_use"], firsts["pause_on_battery"], firsts["hours"]) == ("yes", "no", "none")
    assert all(second.strip().endswith(".") for _, _, second in shown)
