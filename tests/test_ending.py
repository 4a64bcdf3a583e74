"""How a process ends: at signals, and by the error that a person can act on."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from configs.errors import NetworkError
from peer.ending import first_cause, leave_on_signals


def test_the_error_that_a_person_can_act_on_is_the_one_that_is_shown() -> None:
    wanted = NetworkError("the port is taken")
    group = BaseExceptionGroup("", [KeyError("a"), BaseExceptionGroup("", [ValueError("b"), wanted])])
    assert first_cause(group) is wanted
    assert isinstance(first_cause(BaseExceptionGroup("", [KeyError("a"), ValueError("b")])), KeyError)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("has_begun", [True, False])
def test_a_signal_asks_to_leave_and_ends_what_has_not_begun(
    number: signal.Signals, has_begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if number == signal.SIGHUP:
        monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)  # these tests may run below nohup
    seen: list[str] = []

    async def main() -> None:
        leaving = asyncio.Event()
        with leave_on_signals(leaving) as begun:
            if has_begun:
                begun()
            os.kill(os.getpid(), number)
            try:
                async with asyncio.timeout(5.0):
                    await leaving.wait()
                    await asyncio.sleep(0.01)
                seen.append("goes on")
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

    if has_begun:
        asyncio.run(main())
        assert seen == ["goes on"]
    else:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(main())
        assert seen == ["cancelled"]


HANGS = """
import threading, time
from peer.ending import in_time
with in_time(most_s=1.5) as begin:
    begin()
    print("leaving", flush=True)
    time.sleep({seconds})
print("left", flush=True)
"""


@pytest.mark.parametrize(("seconds", "said"), [(600, "leaving\n"), (0, "leaving\nleft\n")])
def test_what_hangs_while_leaving_is_ended(seconds: int, said: str) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", HANGS.format(seconds=seconds)], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, said)
    assert ("leaving took longer than 1.5 s" in done.stderr) is (seconds > 0)
    assert time.monotonic() - began < 200


def test_whoever_asks_to_leave_is_heard() -> None:
    begun: list[str] = []

    async def main() -> None:
        leaving = asyncio.Event()
        with leave_on_signals(leaving, lambda: begun.append("begun")) as has_begun:
            has_begun()
            await asyncio.sleep(0)
            assert not begun
            leaving.set()
            await asyncio.sleep(0.01)

    asyncio.run(main())
    assert begun == ["begun"]
