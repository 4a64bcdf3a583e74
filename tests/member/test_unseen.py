"""Why a peer is not seen is said in words, as far as it is known."""

from dataclasses import replace

import pytest

from configs.errors import ProtocolError
from peer.member.unseen import Trace, check_understood, why_unseen

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
        (replace(GONE, failure=REFUSED, apart="it speaks protocol 3"), "it speaks protocol 3"),
        (replace(WELL, apart="it speaks protocol 3"), "it speaks protocol 3"),
    ],
)
def test_why_a_peer_is_not_seen(trace: Trace, words: str) -> None:
    assert words in why_unseen(trace) if words else why_unseen(trace) == ""


def test_who_understands_none_of_the_others_does_not_go_on() -> None:
    check_understood({}, [])  # nobody else is there
    check_understood({"a": "a speaks protocol 3"}, ["b"])  # one is understood
    with pytest.raises(ProtocolError, match=r"^a speaks protocol 3$"):
        check_understood({"a": "a speaks protocol 3"}, [])
    with pytest.raises(ProtocolError, match="none of the 2 others of the run is understood here; a speaks protocol 3"):
        check_understood({"b": "b speaks protocol 4", "a": "a speaks protocol 3"}, [])
