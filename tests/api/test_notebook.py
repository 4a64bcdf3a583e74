"""The notebook of the documentation runs from its first cell to its last, and its cells come to what they say."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from benchmarks.patience import HANG_S

ROOT = Path(__file__).parent.parent.parent
NOTEBOOK = ROOT / "docs" / "notebooks" / "first.ipynb"

pytestmark = pytest.mark.swarm


def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=HANG_S, kernel_name="python3").execute()
    said = [
        output["data"]["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    assert said[0].startswith("{'code': ")
    assert "shoal join /ip4/127.0.0.1/tcp/" in said[1]
    assert said[2].count("'model'") >= 5
    assert said[3].startswith("('paused', ")
    assert "model" in said[4]
    assert "'code': " in said[5]
    assert said[7] == "True"  # the second module got the state of the first
    assert "sealed 2 of 2" in said[8]
    assert int(said[9]) >= 1
