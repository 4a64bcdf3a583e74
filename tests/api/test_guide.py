"""The loop in the guide runs as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.patience import until

GUIDE = Path(__file__).parent.parent.parent / "docs" / "guide" / "api.md"

pytestmark = pytest.mark.swarm


def test_the_three_lines_of_the_guide(capsys: pytest.CaptureFixture[str]) -> None:
    program = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)[0]
    assert program.count("outer") >= 3
    training, leaving = program.rsplit("\n", 2)[:2]
    assert leaving.startswith("outer.close()")
    known: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(training, str(GUIDE), "exec"), known)
    try:  # a quick machine has ended the loop before the first tick that tells of it
        until(known["outer"].status, lambda status: status.losses, "its training to be told of")
    finally:
        exec(leaving, known)
    assert "join with /ip4/" in capsys.readouterr().out
