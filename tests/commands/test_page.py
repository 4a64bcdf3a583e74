import io
import math

import pytest
from rich.console import Console, RenderableType
from status_example import PEERS, example

from peer.commands.page import draw, overview, short, si, sparkline, to_svg
from peer.http.status import BlockStatus, Finding, PeerStatus
from peer.http.view import view

NOW = 1_700_000_000.0


def printed(page: RenderableType, width: int = 100) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(page)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_page_says_what_matters() -> None:
    text = "\n".join(printed(draw(view(example(), NOW))))
    for fact in (
        "tiny",
        "sub-models parted",
        "tick 412",
        "up 13 min",
        "done in 6 min",
        "60%",
        "BBBBBB",
        "expert.1",
        "docs",
        "sealed 3 of 3",
        "72:484848 ✓",
        "worker restarted",
        "▁",
    ):
        assert fact in text


@pytest.mark.parametrize("width", [60, 80, 81, 98, 100, 102, 160])
def test_the_join_line_can_be_pasted_into_a_shell(width: int) -> None:
    status = example()
    lines = printed(draw(view(status, NOW), width=width), width)
    start = next(k for k, line in enumerate(lines) if line.startswith("shoal join"))
    pasted = lines[start].rstrip()
    while pasted.endswith("\\"):
        start += 1
        pasted = pasted[:-1] + lines[start].rstrip()
    assert pasted.split() == status.join.split()


@pytest.mark.parametrize(("width", "height"), [(100, 30), (80, 24), (140, 50)])
@pytest.mark.parametrize("crowd", [0, 1, 9, 300])
def test_a_page_fits(width: int, height: int, crowd: int) -> None:
    status = example()
    status.peers = [*status.peers[:1], *(status.peers[1].model_copy(update={"rounds": k}) for k in range(crowd))]
    status.blocks = [BlockStatus(block=f"expert.{k}", holders=[PEERS[0]], keepers=[]) for k in range(crowd)]
    status.events = ["something happened " * 20] * 50
    lines = printed(draw(view(status, NOW), width=width, height=height), width)
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    if crowd == 300:
        assert sum("more" in line for line in lines) == 2


def test_an_empty_status_is_a_page_too() -> None:
    status = example().model_copy(
        update={"peers": [], "blocks": [], "losses": [], "events": [], "eta_s": None, "total_tokens": 0, "join": ""}
    )
    assert printed(draw(view(status, NOW)))


def test_what_peers_write_cannot_steer_the_terminal() -> None:
    status = example()
    status.peers[1] = PeerStatus(
        peer_id="\x1b[2J\x07\n", state="\x1b]0;owned\x07", domain="[red]x[/]", sub_model="a\nb"
    )
    status.blocks[0].outcome = "\x1b[31mred"
    status.events = ["first\x1b[1A"]
    text = "\n".join(printed(draw(view(status, NOW))))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]x[/]" in text


def test_overview_shows_every_daemon_and_the_newest_of_each_block() -> None:
    statuses = [example(k) for k in range(3)]
    statuses[1].blocks[0].version = 99
    for status in statuses:
        status.events = []
    lines = printed(overview(statuses, NOW, "three peers"))
    assert len(lines) < 30
    text = "\n".join(lines)
    assert "three peers" in text
    assert all(text.count(f"\n{short(peer)}") == 2 for peer in PEERS)  # a row and a curve
    assert next(line for line in lines if line.startswith("trunk")).split()[4] == "99"
    assert "waiting" in "\n".join(printed(overview([], NOW, "none yet")))


def test_what_is_wrong_stands_at_the_top() -> None:
    warning = "this peer trains alone: " + "a long story " * 12 + "\x1b[2J"
    finding = Finding(code="alone", affects="this peer's rounds", cause=warning, cure="")
    lines = printed(draw(view(example().model_copy(update={"findings": [finding]}), NOW)))
    assert lines[1].startswith("! this peer trains alone") and lines[2].startswith("  ")
    assert "\x1b" not in "".join(lines[1:4]) and all(len(line) <= 100 for line in lines)


def test_a_picture_loads_nothing_and_is_the_same_each_time() -> None:
    first = to_svg(draw(view(example(), NOW)), "shoal")
    assert first == to_svg(draw(view(example(), NOW)), "shoal")
    assert first.startswith("<svg")
    assert "@font-face" not in first
    assert "http" not in first.replace("http://www.w3.org/2000/svg", "").replace("https://www.textualize.io", "")


def test_numbers_stay_short() -> None:
    assert [si(v) for v in (0, 999, 999.9, 1000, 12_345, 999_960, 4e6, 2.5e9, 3e12)] == [
        "0", "999", "1.0k", "1.0k", "12.3k", "1.0M", "4.0M", "2.5G", "3.0T",
    ]  # fmt: skip


def test_sparkline_is_bounded_and_skips_what_is_not_a_number() -> None:
    assert sparkline([], 10) == ""
    assert sparkline([math.nan, math.inf], 10) == ""
    assert sparkline([1.0, 1.0], 10) == "▁▁"
    assert sparkline(list(range(200)), 8) == "▁▂▃▄▅▆▇█"
    assert len(sparkline(list(range(7)), 3)) == 3
