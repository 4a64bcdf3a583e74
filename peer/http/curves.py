"""Curves for TensorBoard, on request. The writer is an extra: nothing here is imported unless it is asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.errors import ConfigError, StateError
from peer.http.status import Status

Record = Callable[[Status], None]


@contextmanager
def open_curves(folder: Path | None) -> Iterator[Record]:
    """Yield a function that adds a status to the curves in `folder`; None writes none.

    The horizontal axis is the number of tokens that this peer has trained on. Writes happen in a thread of the
    writer's own; what is still waiting is flushed at the end.
    Raises ConfigError (TensorBoard is not installed), StateError (the folder cannot be written).
    """
    if folder is None:
        yield lambda status: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "--tensorboard needs TensorBoard; install it with: pip install 'shoal[tensorboard]'"
        ) from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writer = SummaryWriter(str(folder))
    except OSError as error:
        raise StateError(f"--tensorboard {folder} cannot be written: {error.strerror}; choose another place") from None

    def record(status: Status) -> None:
        if not status.peers:
            return
        own = status.peers[0]
        scalars = {"speed/tokens_per_s": own.tokens_per_s, "traffic/bytes_in": own.bytes_in}
        scalars |= {"traffic/bytes_out": own.bytes_out, "swarm/peers": len(status.peers), "swarm/age": status.age}
        if own.loss is not None:
            scalars["loss/train"] = own.loss
        for block in status.blocks:
            scalars[f"agreement/{block.block}"] = block.agreement
            scalars[f"age/{block.block}"] = block.age
        for name, value in scalars.items():
            writer.add_scalar(name, value, own.tokens)

    try:
        yield record
    finally:
        writer.close()
