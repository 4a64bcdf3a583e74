"""Logging, set up in one place: one line a message, on stderr. What is printed for people goes to stdout instead."""

import logging
import os
import sys

QUIET = ("asyncio", "httpcore", "hivemind", "uvicorn", "urllib3", "filelock")  # heard from WARNING on


def configure(level: str) -> None:
    """Send messages of `level` (debug, info, warning, error) and above to stderr.

    Call it once, before hivemind is imported: hivemind reads its own level from the environment at import.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    least = max(logging.getLevelName(level.upper()), logging.WARNING)
    for name in QUIET:
        logging.getLogger(name).setLevel(least)
    os.environ.setdefault("HIVEMIND_LOGLEVEL", logging.getLevelName(least))
    os.environ.setdefault("HIVEMIND_COLORS", "0")
