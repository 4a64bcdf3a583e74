"""The loop in the guide runs as it stands there."""

import logging
import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parent.parent.parent / "docs" / "guide" / "api.md"

pytestmark = pytest.mark.swarm


def test_the_three_lines_of_the_guide(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    program = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)[0]
    assert program.count("outer") >= 3
    exec(compile(program, str(GUIDE), "exec"), {"__name__": "__main__"})
    assert "join with /ip4/" in capsys.readouterr().out
    assert "training model; loss" in caplog.text
