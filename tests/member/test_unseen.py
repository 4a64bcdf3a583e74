"""Why a peer is not seen is said in words, as far as it is known."""

from dataclasses import replace

import pytest

from peer.member.unseen import Trace, why_unseen

REFUSED = "connection refused: nobody listens there"
WELL = Trace(is_present=True, is_connected=True, has_address=True, silent_s=3.0)
GONE = replace(WELL, is_present=False, is_connected=False, silent_s=90.0)


@pytest.mark.parametrize(
    ("trace", "words"),
    [
        (WELL, ""),
        (replace(WELL, failure=REFUSED), ""),  # what failed once has come about since
        (replace(WELL, is_connected=False), ""),  # it has not been tried yet
        (replace(WELL, is_connected=False, failure=REFUSED), f"cannot be dialled from here: {REFUSED}"),
        (GONE, "silent for 90 s: it is not connected"),
        (replace(GONE, failure=REFUSED), f"silent for 90 s: {REFUSED}"),
        (replace(GONE, has_address=False), "told no address"),
        (replace(GONE, is_connected=True), "sleeps or is too busy"),
    ],
)
def test_why_a_peer_is_not_seen(trace: Trace, words: str) -> None:
    assert words in why_unseen(trace) if words else why_unseen(trace) == ""
