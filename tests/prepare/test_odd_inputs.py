"""Each odd input becomes the right corpus, or one line with a remedy that works; and no text is lost unsaid."""

import os
from pathlib import Path

import pytest
from odd_check import check, spelled
from odd_entries import Odd
from odd_inputs import ODD


@pytest.mark.parametrize("odd", ODD, ids=[spelled(odd.name) for odd in ODD])
def test_an_odd_input_becomes_the_right_corpus(odd: Odd, tmp_path: Path) -> None:
    if odd.needs_user and os.geteuid() == 0:
        pytest.skip("everything is open to a superuser")
    outcome = check(odd, tmp_path)
    if outcome.wrong:
        pytest.fail("\n".join(outcome.wrong), pytrace=False)
    assert outcome.found == outcome.put_in
