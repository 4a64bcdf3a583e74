"""What the fork server imports first binds it to its parent, and lets it give way. Here it must do neither."""

import signal
import sys
from types import SimpleNamespace

import pytest

from peer.train import background


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a fork server ends by itself")
def test_it_asks_to_end_with_its_parent_then_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    library = SimpleNamespace(prctl=lambda option, number: asked.append((option, number)))
    monkeypatch.setattr("ctypes.CDLL", lambda name: library)
    monkeypatch.setattr(background, "give_way", lambda: asked.append("gives way"))
    sys.modules.pop("peer.train.lifeline", None)
    import peer.train.lifeline

    del sys.modules["peer.train.lifeline"]
    assert asked == [(peer.train.lifeline.PR_SET_PDEATHSIG, signal.SIGKILL), "gives way"]
