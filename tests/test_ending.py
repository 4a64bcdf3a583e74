"""How a process ends: at signals, and by the error that a person can act on."""

import asyncio
import os
import signal

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
