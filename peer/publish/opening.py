"""Opens a target by whatever client it needs."""

from configs.outlets import Target
from peer.publish.places import Folder, Pace, Place


def open_place(target: Target, pace: Pace | None = None) -> Place:
    """Open a target; `pace` is for what leaves this machine. Each transfer raises one line, with a remedy.

    Raises ConfigError if its client is not installed.
    """
    if target.kind == "folder":
        return Folder(target)
    if target.kind == "s3":
        from peer.publish.bucket import Bucket  # an extra

        return Bucket(target, pace)
    from peer.publish.hub import Hub  # takes a second

    return Hub(target, pace)
