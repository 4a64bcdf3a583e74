"""The three-line loop, in processes of its own on loopback: they join, agree bit for bit, are killed, are refused.

They join as docs/guide/api.md says, by `initial_peers`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import CompletedProcess, run
from typing import Any

import pytest
import torch
from loops import ROOT, TRAINER, Loop, open_loop

import shoal
from benchmarks.patience import HANG_S, until

pytestmark = pytest.mark.swarm

HIDDEN = 64
ROUND_S = 3.0
TOGETHER = 2  # rounds that both must have sealed, with equal bits


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def first(stack: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> tuple[Loop, dict[str, Any]]:
    """A loop that has founded a run and has gone some rounds alone, and what it said first."""
    loop = stack.enter_context(open_loop(tmp_path_factory.mktemp("first") / "log", 0, HIDDEN, ROUND_S))
    begun = loop.next()
    while max(loop.digests) < 2:
        loop.next()
    return loop, begun


@pytest.fixture(scope="module")
def second(
    first: tuple[Loop, dict[str, Any]], stack: ExitStack, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Loop, dict[str, Any]]:
    """A loop that came late, with other values in its module, and what it said first."""
    log = tmp_path_factory.mktemp("second") / "log"
    loop = stack.enter_context(open_loop(log, 1, HIDDEN, ROUND_S, first[1]["address"]))
    return loop, loop.next()


def test_the_founder_begins_with_its_own_module(first: tuple[Loop, dict[str, Any]]) -> None:
    assert first[1]["version"] == 0
    assert first[1]["is_anchor"]


def test_who_comes_late_has_the_state_before_its_first_step(
    first: tuple[Loop, dict[str, Any]], second: tuple[Loop, dict[str, Any]]
) -> None:
    begun = second[1]
    assert begun["version"] >= 2
    assert begun["is_anchor"]  # its module has the bits of the state
    while begun["version"] not in first[0].digests:
        first[0].next()
    assert begun["digest"] == first[0].digests[begun["version"]]


def test_two_loops_have_the_same_bits_round_after_round(
    first: tuple[Loop, dict[str, Any]], second: tuple[Loop, dict[str, Any]]
) -> None:
    loops = first[0], second[0]
    while len(common := loops[0].shared & loops[1].shared) < TOGETHER:
        for loop in loops:
            if max(loop.digests) <= min(max(each.digests) for each in loops):
                loop.next()
    assert all(loops[0].digests[version] == loops[1].digests[version] for version in common)


def test_another_module_is_refused_in_one_line(first: tuple[Loop, dict[str, Any]]) -> None:
    refused = trainer(2, HIDDEN + 1, ROUND_S, first[1]["address"])
    assert refused.returncode == shoal.UsageError.exit_code
    assert refused.stderr.splitlines()[-1].endswith(
        "trains another module: 641 values in 4 parameters, this one has 651 in 4; build the same module, or found a "
        "run of your own: leave initial_peers out"
    )
    assert "Traceback" not in refused.stderr


def test_a_daemon_and_a_visitor_refuse_a_run_of_a_module(first: tuple[Loop, dict[str, Any]], tmp_path: Path) -> None:
    address = first[1]["address"]
    for command in (
        ["join", address, "--host", "127.0.0.1", "--state-dir", str(tmp_path / "state")],
        ["fuse", address, "--out", str(tmp_path / "model")],
    ):
        refused = program("-m", "peer", *command)
        assert refused.returncode == shoal.UsageError.exit_code, refused.stderr
        assert "trains a module of somebody's own program" in refused.stderr.splitlines()[-1]


def test_one_that_is_killed_does_not_stop_the_other(
    first: tuple[Loop, dict[str, Any]], second: tuple[Loop, dict[str, Any]]
) -> None:
    second[0].kill()
    version = max(first[0].digests)
    while max(first[0].digests) < version + 3:
        first[0].next()
    assert first[0].stop()["steps"] > 0


def test_a_module_that_cannot_be_exchanged_is_refused_at_once() -> None:
    with pytest.raises(shoal.UsageError, match="no parameter that is trained"):
        shoal.Outer(torch.nn.Linear(2, 2).requires_grad_(False), run="toy")
    with pytest.raises(shoal.UsageError, match="weight has no values here"):
        shoal.Outer(torch.nn.Linear(2, 2, device="meta"), run="toy")
    with pytest.raises(shoal.ConfigError, match=r"shoal\.Outer: tick_seconds = 0\.0"):
        shoal.Outer(torch.nn.Linear(2, 2), run="toy", round_seconds=0.0)
    with pytest.raises(shoal.ConfigError, match="prot: no such key"):
        shoal.Outer(torch.nn.Linear(2, 2), run="toy", prot=4001)
    with pytest.raises(shoal.ConfigError, match="data is of language models"):
        shoal.Outer(torch.nn.Linear(2, 2), run="toy", data=Path("corpus"))


@pytest.fixture
def module() -> torch.nn.Module:
    torch.manual_seed(7)
    return torch.nn.Linear(3, 2)


def until_version(outer: shoal.Outer, version: int) -> shoal.Anchor:
    """Step until the anchor has come so far."""
    return until(lambda: (outer.step(1), outer.anchor())[1], lambda seen: seen.version >= version, f"version {version}")


def test_a_loop_goes_on_where_its_state_directory_says(module: torch.nn.Module, tmp_path: Path) -> None:
    where = {"state_dir": tmp_path / "state", "host": "127.0.0.1", "round_seconds": 0.5}
    with shoal.Outer(module, run="toy", **where) as outer:
        run_id = outer.status().run_id
        until_version(outer, 1)
        with torch.no_grad():
            module.weight.fill_(4.0)  # learnt
        outer.step(100)
        with pytest.raises(shoal.StateError, match=r"a daemon .* uses"):
            shoal.Outer(module, run="toy", **where)
    with pytest.raises(shoal.StateError, match="has left"):
        outer.anchor()
    outer.step(1)  # the loop may go on by itself
    outer.close()
    again = torch.nn.Linear(3, 2)
    with shoal.Outer(again, run="toy", **where) as outer:
        assert outer.status().run_id == run_id
        told = until_version(outer, outer.anchor().version + 1)  # what was not exchanged before is owed, and now in it
        assert torch.allclose(told.parameters["weight"], torch.full((2, 3), 4.0), atol=1e-5)
    with pytest.raises(shoal.UsageError, match="is called toy, not other"):
        shoal.Outer(module, run="other", **where)


def test_a_loop_that_diverges_is_told_and_sends_nothing(module: torch.nn.Module) -> None:
    with shoal.Outer(module, run="toy", host="127.0.0.1", round_seconds=0.5) as outer:
        until_version(outer, 1)
        with torch.no_grad():
            module.bias[0] = float("inf")
        with pytest.raises(shoal.DeviceError, match="training has diverged"):
            until_version(outer, 10**6)
        with pytest.raises(shoal.DeviceError):
            outer.step(1)


def trainer(*arguments: object) -> CompletedProcess[str]:
    return program(str(TRAINER), *map(str, arguments))


def program(*arguments: str) -> CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return run([sys.executable, *arguments], input="", capture_output=True, text=True, timeout=HANG_S, env=environment)
