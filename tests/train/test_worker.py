"""What a worker tells of its speed."""

from types import SimpleNamespace
from typing import Any

from peer.train.ledger import TokenLedger
from peer.train.messages import Diverged, Stepped
from peer.train.worker import Worker


def test_tokens_that_were_dropped_are_no_speed_below_zero() -> None:
    """It had told of 5,000 tokens when training diverged; then it is asked nothing, and takes a step."""
    told: list[Any] = []
    worker: Any = object.__new__(Worker)  # without the model, the channel and the process
    worker._ranks, worker._channel = SimpleNamespace(index=0), SimpleNamespace(send=told.append)
    worker._theta = SimpleNamespace(replace=lambda anchor, blocks: None)
    worker._inner = SimpleNamespace(use=lambda layout, is_fresh: None, rate=0.1, gradient_norm=1.0)
    worker._anchor, worker._layout = None, SimpleNamespace(blocks=("model",))
    worker._ledger, worker._position, worker._epoch = TokenLedger(), 10, 1
    worker._threads, worker._step_s, worker._failures = 1, 0.1, 0
    worker._ledger.trained(5_000)
    worker._shown_at, worker._shown_tokens = 1.0, 5_000  # long ago, by the monotonic clock
    worker._go_back(9.0)
    worker._ledger.trained(512)
    worker._show(3.0)
    diverged, stepped = told
    assert isinstance(diverged, Diverged) and isinstance(stepped, Stepped)
    assert stepped.tokens == 512 and stepped.tokens_per_s is None
