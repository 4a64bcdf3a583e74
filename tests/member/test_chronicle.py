"""What a peer remembers of itself."""

from pathlib import Path

from peer.block.exchange import Outcome
from peer.member.chronicle import MAX_LOSSES, Chronicle
from peer.workers.progress import Progress


def test_counters_survive_a_restart(tmp_path: Path) -> None:
    chronicle = Chronicle(tmp_path)
    chronicle.sub_model = "branch.1"
    chronicle.trained(Progress(tokens=500, loss=3.0))
    chronicle.round_ended("branch.1", 8, Outcome("sealed 2 of 2", True), "branch.1")
    chronicle.save()
    again = Chronicle(tmp_path)
    assert (again.rounds, again.tokens, again.sub_model, again.starts) == (1, 500, "branch.1", 2)


def test_a_worker_that_counts_anew_takes_no_tokens_away(tmp_path: Path) -> None:
    chronicle = Chronicle(tmp_path)
    for tokens in (100, 300, 200, 250):  # a fall: work was dropped
        chronicle.trained(Progress(tokens=tokens))
    assert chronicle.tokens == 350
    chronicle.trained(Progress(tokens=40, load=1))
    assert chronicle.tokens == 390
    chronicle.trained(Progress(tokens=40, load=1))
    assert chronicle.tokens == 390, "a look at a worker that stands still counts nothing"


def test_rounds_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    chronicle = Chronicle(tmp_path)
    chronicle.round_ended("trunk", 8, Outcome("sealed 2 of 2", True), "expert.0")
    chronicle.round_ended("expert.0", 8, Outcome("alone", True), "expert.0")
    chronicle.round_ended("expert.0", 9, Outcome("skipped: heard 1 of 2", False, "unheard"), "expert.0")
    assert chronicle.rounds == 1, "the trunk's rounds are those of the same training"
    assert chronicle.skipped == {"unheard": 1}
    assert chronicle.outcomes == {"trunk": (8, "sealed 2 of 2"), "expert.0": (9, "skipped: heard 1 of 2")}


def test_losses_are_thinned_with_their_ends_kept(tmp_path: Path) -> None:
    chronicle = Chronicle(tmp_path)
    for step in range(1, 3 * MAX_LOSSES):
        chronicle.trained(Progress(tokens=step, loss=float(step)))
    assert len(chronicle.losses) <= MAX_LOSSES
    assert chronicle.losses[0] == (1, 1.0)
    assert chronicle.losses[-1] == (3 * MAX_LOSSES - 1, 3 * MAX_LOSSES - 1.0)
