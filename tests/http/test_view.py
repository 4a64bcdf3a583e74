import time

import pytest
from status_example import PEERS, example

from peer.http.status import BlockStatus, DigestMark, PeerStatus
from peer.http.view import agreement, duration, ending, gap, newest_digest, view

NOW = 1_700_000_000.0


def marked(peer: str, *marks: tuple[int, str]) -> PeerStatus:
    return PeerStatus(peer_id=peer, digests={"trunk": [DigestMark(version=v, digest=d) for v, d in marks]})


def test_agreement_compares_the_newest_common_version() -> None:
    one, two, three = marked("a", (7, "x"), (8, "y")), marked("b", (7, "x")), marked("c", (7, "z"))
    peers = [one, two, three]
    assert [agreement(peer, peers) for peer in peers] == [True, True, False]
    assert agreement(one, [one]) is None
    assert agreement(marked("d", (9, "q")), [*peers, marked("d", (9, "q"))]) is None


def test_the_newest_digest_is_of_the_block_that_most_share() -> None:
    one = PeerStatus(
        peer_id="a",
        sub_model="expert.0",
        digests={
            "expert.0": [DigestMark(version=9, digest="f" * 64)],
            "trunk": [DigestMark(version=7, digest="e" * 64)],
        },
    )
    assert newest_digest(one, [one]) == "9:ffffff"
    assert newest_digest(one, [one, marked("b", (7, "e" * 64))]) == "7:eeeeee"
    assert newest_digest(PeerStatus(peer_id="c"), [one]) == ""


def test_a_duration_has_one_unit() -> None:
    assert [duration(v) for v in (0, 45, 372, 9_000, 400_000)] == ["0 s", "45 s", "6 min", "2.5 h", "4.6 days"]


def at(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M"))


@pytest.mark.parametrize(
    ("now", "end", "said"),
    [
        ("2026-11-30 10:00", "2026-11-30 10:26", "done in 26 min, at 10:26"),
        ("2026-11-30 23:50", "2026-12-01 00:10", "done in 20 min, on 1 December at 00:10"),
        ("2026-11-30 10:00", "2026-12-13 10:26", "done in 13.0 days, on 13 December at 10:26"),
        ("2026-11-30 10:00", "2027-01-02 10:00", "done in 33.0 days, on 2 January 2027 at 10:00"),
    ],
)
def test_an_end_has_its_date_where_the_hour_would_mislead(now: str, end: str, said: str) -> None:
    assert ending(at(end) - at(now), at(now)) == said


def block(holders: int, keepers: int) -> BlockStatus:
    return BlockStatus(block="b", holders=list(PEERS[:holders]), keepers=list(PEERS[3 - keepers :]) if keepers else [])


def test_a_gap_is_a_block_that_nobody_trains_or_only_one_has() -> None:
    assert gap(block(0, 0), is_over=False) == "nobody has it"
    assert gap(block(0, 2), is_over=False) == "nobody trains it now"
    assert gap(block(0, 2), is_over=True) == ""  # all is trained: to be kept is enough
    assert gap(block(1, 0), is_over=False) == "only one peer has it"
    assert gap(block(1, 1), is_over=False) == ""
    assert gap(block(2, 0), is_over=False) == ""


def test_a_view_draws_what_the_status_says() -> None:
    status = example()
    status.blocks[0].fates = {PEERS[1]: "late", PEERS[2]: "sealed"}
    seen = view(status, NOW)
    assert seen.headline.phase == "sub-models parted" and seen.headline.up_s == 780.0
    assert seen.progress.share == pytest.approx(0.6025) and seen.progress.ends.startswith("done in 6 min")
    assert [dot.is_me for dot in seen.dots] == [True, False, False]
    assert [dot.fate for dot in seen.dots] == ["", "late", "sealed"]
    assert [dot.role for dot in seen.dots] == ["holder"] * 3
    assert [sector.block for sector in seen.sectors] == ["trunk", "expert.0", "expert.1", "expert.2"]
    assert seen.sectors[1].domain == "python" and seen.sectors[1].round_s == 4.0
    over = view(status.model_copy(update={"phase": "done"}), NOW)
    assert not over.progress.ends and over.progress.ends_at is None
