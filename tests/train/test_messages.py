"""Messages between daemon and worker arrive as they were sent, and each request has somebody who does it."""

import math
import socket
from typing import get_args

import msgpack
import pytest
from pydantic import ValidationError

from configs.errors import ConfigError, DataError, DeviceError, NetworkError, ShoalError
from peer.corpus.source import Source
from peer.train.channel import Channel, packed, unpacked
from peer.train.messages import (
    Answered,
    Apply,
    Asked,
    Diverged,
    Done,
    Failed,
    Load,
    Message,
    Pause,
    Place,
    Ready,
    Refused,
    Request,
    Snapshot,
    Stalled,
    Stepped,
)
from peer.train.worker import HANDLERS

PLACE = Place(ages={"trunk": 1, "expert.0": 2}, epoch=3, position=4, tokens=5, snapshot_tokens=6)
MESSAGES: list[Message] = [
    Asked(id=1, request=Apply(ages={"trunk": 7}, epoch=8)),
    Asked(id=2, request=Load(sub_model="expert.0", num_domains=2, sources=(Source("a", 300, 0.5, True),), place=PLACE)),
    Asked(id=3, request=Pause()),
    Answered(id=1, answer=Done()),
    Answered(id=2, answer=Snapshot(tokens=64, steps=0, loss=None, position=1)),
    Answered(id=3, answer=Refused(kind="data", message="no such file")),
    Ready(micro_batch=4),
    Stepped(position=1, loss=2.5, tokens=64, tokens_per_s=None, step_s=0.1),
    Stalled(reason="no text"),
    Failed(kind="memory", reason="out of memory", detail="a traceback"),
]


def test_messages_arrive_as_they_were_sent() -> None:
    here, there = socket.socketpair()
    with here, there:
        for message in MESSAGES:
            Channel(here).send(message)
        channel = Channel(there)
        assert [channel.receive() for _ in MESSAGES] == MESSAGES


def test_a_loss_that_is_no_number_arrives() -> None:
    arrived = unpacked(packed(Diverged(loss=math.nan, position=1, epoch=2))[4:])
    assert isinstance(arrived, Diverged) and math.isnan(arrived.loss)


def test_a_message_of_another_kind_is_refused() -> None:
    for field in ({"type": "reboot"}, {"type": "ready", "micro_batch": 1, "more": 1}, {"type": "ready"}):
        with pytest.raises(ValidationError):
            unpacked(msgpack.packb(field))


def test_every_request_has_a_handler() -> None:
    assert set(HANDLERS) == set(get_args(Request))


@pytest.mark.parametrize(
    ("error", "arrives"),
    [(DataError, DataError), (ConfigError, ConfigError), (DeviceError, DeviceError), (NetworkError, ShoalError)],
)
def test_an_error_comes_out_of_the_worker_as_it_went_in(error: type[ShoalError], arrives: type[ShoalError]) -> None:
    found = Refused.of(error("no such file")).error()
    assert type(found) is arrives and str(found) == "no such file"
