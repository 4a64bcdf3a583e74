import time

from status_example import PEERS, example

from peer.http.status import BlockStatus, DigestMark, Finding, PeerStatus
from peer.http.view import agreement, duration, ending, gap, newest_digest, tally, view

NOW = time.mktime((2026, 12, 1, 9, 0, 0, 0, 0, -1))


def test_a_view_has_every_peer_and_block() -> None:
    shown = view(example(), NOW)
    assert [dot.peer_id for dot in shown.dots] == list(PEERS)
    assert [dot.is_me for dot in shown.dots] == [True, False, False]
    assert {dot.role for dot in shown.dots} == {"holder"}
    assert [sector.gap for sector in shown.sectors] == [""] * 4
    assert shown.progress.share == 2_410_000 / 4_000_000


def test_the_worst_fate_of_a_peer_counts() -> None:
    status = example()
    status.blocks[0].fates = {PEERS[0]: "sealed", PEERS[1]: "late"}
    status.blocks[1].fates = {PEERS[0]: "left out", PEERS[1]: "sealed"}
    assert [dot.fate for dot in view(status, NOW).dots] == ["left out", "late", ""]


def test_a_peer_with_other_bits_than_the_majority_stands_out() -> None:
    status = example()
    assert [dot.agrees for dot in view(status, NOW).dots] == [True, True, True]
    status.peers[1].digests["trunk"][-1] = DigestMark(version=72, digest="ff" * 32)
    assert [dot.agrees for dot in view(status, NOW).dots] == [True, False, True]


def test_a_peer_votes_once_for_a_version() -> None:
    """However often it names one: who stuffs the ballot does not become the majority."""
    status = example()
    status.peers[1].digests["trunk"] = [DigestMark(version=72, digest="ff" * 32)] * 5
    votes = tally(status.peers)
    assert sorted(votes["trunk", 72].values()) == [1, 2]
    assert [agreement(peer, votes) for peer in status.peers] == [True, False, True]


def test_with_nothing_in_common_there_is_nothing_to_compare() -> None:
    status = example()
    for peer in status.peers:
        del peer.digests["trunk"]
    assert [dot.agrees for dot in view(status, NOW).dots] == [None] * 3
    assert newest_digest(status.peers[0], {"expert.0": 1}) == "72:0a0a0a"
    status.peers[0].digests = {}
    assert view(status, NOW).dots[0].digest == ""


def test_an_end_has_its_date_where_the_hour_alone_would_mislead() -> None:
    assert ending(3 * 3600, NOW) == "done in 3.0 h, at 12:00"
    assert ending(13.25 * 86_400, NOW) == "done in 13.2 days, on 14 December at 15:00"
    assert ending(40 * 86_400, NOW) == "done in 40.0 days, on 10 January 2027 at 09:00"


def test_findings_are_passed_on_as_they_are() -> None:
    status = example()
    status.findings = [Finding(code="clock", affects="rounds", cause="the clock is off", cure="set it", is_severe=True)]
    assert view(status, NOW).findings == status.findings


def marked(peer: str, *marks: tuple[int, str]) -> PeerStatus:
    return PeerStatus(peer_id=peer, digests={"trunk": [DigestMark(version=v, digest=d) for v, d in marks]})


def test_agreement_compares_the_newest_common_version() -> None:
    one, two, three = marked("a", (7, "x"), (8, "y")), marked("b", (7, "x")), marked("c", (7, "z"))
    peers = [one, two, three]
    assert [agreement(peer, tally(peers)) for peer in peers] == [True, True, False]
    assert agreement(one, tally([one])) is None
    assert agreement(marked("d", (9, "q")), tally([*peers, marked("d", (9, "q"))])) is None


def test_a_duration_has_one_unit() -> None:
    assert [duration(v) for v in (0, 45, 372, 9_000, 400_000)] == ["0 s", "45 s", "6 min", "2.5 h", "4.6 days"]


def block(holders: int, keepers: int) -> BlockStatus:
    return BlockStatus(block="b", holders=list(PEERS[:holders]), keepers=list(PEERS[3 - keepers :]) if keepers else [])


def test_that_the_common_phase_is_over_is_no_gap() -> None:
    common = BlockStatus(block="model", holders=[], keepers=list(PEERS))
    parted = example().model_copy(update={"blocks": [common]})
    assert [sector.gap for sector in view(parted, NOW).sectors] == [""]
    before = parted.model_copy(update={"phase": "common"})
    assert [sector.gap for sector in view(before, NOW).sectors] == ["nobody trains it now"]


def test_a_gap_is_a_block_that_nobody_trains_or_only_one_has() -> None:
    assert gap(block(0, 0), is_over=False) == "nobody has it"
    assert gap(block(0, 2), is_over=False) == "nobody trains it now"
    assert gap(block(0, 2), is_over=True) == ""  # all is trained: to be kept is enough
    assert gap(block(1, 0), is_over=False) == "only one peer has it"
    assert gap(block(1, 1), is_over=False) == ""
    assert gap(block(2, 0), is_over=False) == ""
