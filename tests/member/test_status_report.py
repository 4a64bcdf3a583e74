"""What is shown of peers and blocks, and what is not shown any more."""

from types import SimpleNamespace
from typing import Any

import pytest

from configs.protocol import PROTOCOL_VERSION
from dht.membership import Member
from dht.records import MemberRecord, Report
from peer.http.status import SILENT
from peer.member import report
from peer.member.report import block_status, join_line, packed_digests, peer_status, state_of
from protocols.sealing import Mark

DIGEST = "ab" * 32


def test_a_peer_that_is_heard_no_more_has_no_state_and_no_speed_of_long_ago() -> None:
    report = Report(state="training", sub_model="model", rounds=7, tokens=900, tokens_per_s=123.0)
    there, gone = (peer_status("a", report, 5, is_present=is_present) for is_present in (True, False))
    assert (there.state, there.tokens_per_s) == ("training", 123.0)
    assert (gone.state, gone.tokens_per_s) == (SILENT, 0.0)
    assert (gone.rounds, gone.tokens, gone.seen_tick) == (7, 900, 5), "what it had done it has done"


@pytest.mark.parametrize(
    ("state", "step_s", "is_leaving", "shown"),
    [
        ("training", None, False, "starting"),  # its worker has not taken a step yet
        ("training", 0.5, False, "training"),
        ("paused", None, False, "paused"),
        ("training", 0.5, True, "leaving"),  # as soon as it is asked to
    ],
)
def test_the_state_is_what_is_true_now(state: str, step_s: float | None, is_leaving: bool, shown: str) -> None:
    from peer.member.activity import State

    activity = SimpleNamespace(state=State(state), leaving=SimpleNamespace(is_set=lambda: is_leaving))
    parts: Any = SimpleNamespace(activity=activity, session=SimpleNamespace(progress=SimpleNamespace(step_s=step_s)))
    assert state_of(parts) == shown


def test_a_peer_of_another_protocol_is_shown_with_the_reason_whether_it_was_known_before_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = MemberRecord(run_id="0" * 32)
    known = {peer: Member(record, 90.0, 9, {}) for peer in ("a", "b")}
    membership = SimpleNamespace(
        members=lambda tick: ("a", "b"),
        known=lambda: known,
        apart=lambda: {"b": "b speaks protocol 3", "c": "c speaks protocol 4"},
        link=lambda peer: ("direct", ""),
    )
    facts = SimpleNamespace(me="me", clock=SimpleNamespace(now=lambda: 100.0))
    monkeypatch.setattr(report, "report_of", lambda parts: Report())
    parts: Any = SimpleNamespace(facts=facts, membership=membership)
    shown = [(peer.peer_id, peer.protocol, peer.why) for peer in report._peers(parts, 10)]
    assert shown == [
        ("me", PROTOCOL_VERSION, ""),
        ("a", 1, ""),
        ("b", 0, "b speaks protocol 3"),
        ("c", 0, "c speaks protocol 4"),
    ]


def test_a_block_stands_where_the_newest_copy_is() -> None:
    def member(version: int, *, is_leaving: bool = False) -> Any:
        record = SimpleNamespace(
            keeps={"model": version},
            ages={"model": 10 * version},
            is_leaving=is_leaving,
            report=Report(state="training"),
        )
        return SimpleNamespace(record=record)

    members = {"a": member(3), "b": member(5), "c": member(9, is_leaving=True)}
    status = block_status("model", members, ["a"], 8, (4, 40))
    assert (status.version, status.age) == (5, 50)
    assert (status.holders, status.keepers) == (["a"], ["b"])


def test_a_record_carries_the_last_digests_only() -> None:
    marks = [Mark(version, DIGEST) for version in range(12)]
    assert [version for version, _ in packed_digests({"model": marks})["model"]] == [7, 8, 9, 10, 11]


@pytest.mark.parametrize(("admission", "ends"), [(None, "0123"), ("0" * 64, "0123 --invitation INVITATION")])
def test_the_line_to_join_by_has_the_first_address(admission: str | None, ends: str) -> None:
    parts: Any = SimpleNamespace(
        place=SimpleNamespace(addresses=["/ip4/192.0.2.1/tcp/1/p2p/Qm"]),
        facts=SimpleNamespace(spec=SimpleNamespace(run_id="0123", admission=admission)),
    )
    assert join_line(parts) == f"shoal join /ip4/192.0.2.1/tcp/1/p2p/Qm --run {ends}"
