"""What the benchmarks measure is what happens: two members, in namespaces of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.group import Load, per_parameter, run_averagers, run_holders
from benchmarks.patience import until
from benchmarks.usage import cpu_seconds, tree_cpu_seconds
from configs.errors import ShoalError
from peer.chaos.links import Link, forbidden, open_links
from protocols.codecs import encoded_size

SIZE = 50_000

pytestmark = pytest.mark.bench
needs_namespaces = pytest.mark.skipif(forbidden() is not None, reason=str(forbidden()))


@needs_namespaces
def test_holders_exchange_what_their_codec_makes(tmp_path: Path) -> None:
    load = Load(SIZE, 2, 6.0, "int8", seed=3)
    with open_links([Link(), Link()]) as links:
        accounts = run_holders(links, load, tmp_path)
    for account in accounts:
        assert [step["payload_out"] for step in account.steps] == [encoded_size("int8", SIZE)] * 2
        assert [step["payload_in"] for step in account.steps] == [encoded_size("int8", SIZE)] * 2
        assert all(0 < step["anchor_s"] < step["saved_s"] < load.tick_s for step in account.steps)
        assert all(step["cpu_s"]["encode"] < step["cpu_s"]["process"] for step in account.steps)
        assert 1 < per_parameter(account.wire_out, load) < 2  # headers, acknowledgements, lists


@needs_namespaces
def test_a_round_that_is_not_whole_is_no_figure(tmp_path: Path) -> None:
    with (
        open_links([Link(up_mbit=0.2), Link()]) as links,
        pytest.raises(ShoalError, match="round 1 of the holders was not whole"),
    ):
        run_holders(links, Load(SIZE, 1, 3.0, "int8"), tmp_path)


@needs_namespaces
def test_the_baseline_averages_everything(tmp_path: Path) -> None:
    load = Load(SIZE, 3, 20.0)  # on a busy machine Hivemind does not find its group at every step
    with open_links([Link(delay_ms=20)] * 2) as links:
        accounts = run_averagers(links, load, tmp_path)
    for account in accounts:
        whole = [step for step in account.steps if (step["group"], step["averaged"]) == (2, 1.0)]
        assert whole
        assert all(step["seconds"] > 0.04 for step in whole)  # a round trip: its tensors crossed the links
        sent = per_parameter(account.wire_out, load) * load.steps / len(whole)
        assert 2 < sent < 4  # two bytes a value, half of them twice


def test_cpu_time_is_of_the_whole_tree() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    parent = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        until(
            lambda: (cpu_seconds(parent.pid), tree_cpu_seconds(parent.pid)),
            lambda seconds: seconds[1] >= seconds[0] + 0.5,
            "half a second of a child's processor time",
        )
    finally:
        os.killpg(parent.pid, 9)
        parent.wait()
