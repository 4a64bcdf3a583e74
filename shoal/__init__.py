"""Shoal from Python: text to a corpus, a peer in your program, a model from a swarm, and your own loop as a peer.

    prepare, fuse, load_model, generate, evaluate     what the commands of these names do    (models.py)
    load, open_peer, SyncPeer                         a peer in this program                 (peer.py, threads.py)
    Outer                                             any torch module, any training loop    (outer.py)

What fails for a reason that a person can act on raises a `ShoalError`, whose message is one line: what is wrong and
what to do. Importing this is quick; torch and the like are imported by what needs them.
"""

from typing import TYPE_CHECKING, Any

from configs.errors import (
    ConfigError,
    DataError,
    DeviceError,
    NetworkError,
    PeerError,
    RefusedError,
    ShoalError,
    StateError,
    UsageError,
)
from configs.load import Settings
from configs.run import OuterSpec
from peer import __version__
from peer.http.status import Status
from shoal.events import Event
from shoal.models import Answer, Fused, Model, Scores, evaluate, fuse, generate, load_model, prepare
from shoal.peer import Peer, load, open_peer
from shoal.threads import SyncPeer

if TYPE_CHECKING:
    from shoal.outer import Anchor, Outer

__all__ = [
    "Anchor",
    "Answer",
    "ConfigError",
    "DataError",
    "DeviceError",
    "Event",
    "Fused",
    "Model",
    "NetworkError",
    "Outer",
    "OuterSpec",
    "Peer",
    "PeerError",
    "RefusedError",
    "Scores",
    "Settings",
    "ShoalError",
    "StateError",
    "Status",
    "SyncPeer",
    "UsageError",
    "__version__",
    "evaluate",
    "fuse",
    "generate",
    "load",
    "load_model",
    "open_peer",
    "prepare",
]


def __getattr__(name: str) -> Any:
    """Return what needs torch, imported when it is first asked for."""
    if name in ("Anchor", "Outer"):
        from shoal import outer

        return getattr(outer, name)
    raise AttributeError(f"module 'shoal' has no attribute {name!r}")
