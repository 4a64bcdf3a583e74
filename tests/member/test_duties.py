"""No duty waits for another, and none that fails ends the daemon."""

import asyncio
from pathlib import Path

import pytest

from configs.errors import StateError
from peer.member.chronicle import Chronicle
from peer.member.duties import Duties
from peer.member.watch import Watch


def test_a_duty_that_hangs_delays_no_other(tmp_path: Path) -> None:
    done: list[str] = []

    async def hang() -> None:
        await asyncio.Event().wait()

    async def renew() -> None:
        done.append("renewed")

    async def main() -> None:
        duties = Duties(Chronicle(tmp_path), Watch())
        async with asyncio.TaskGroup() as tasks:
            assert duties.begin("keep", hang, tasks)
            for _ in range(3):
                assert not duties.begin("keep", hang, tasks), "the last time of it is still under way"
                assert duties.begin("renew", renew, tasks)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            duties._under_way["keep"].cancel()

    asyncio.run(main())
    assert done == ["renewed"] * 3


def test_what_others_say_ends_no_daemon_and_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chronicle = Chronicle(tmp_path)

    async def stumble() -> None:
        raise IndexError("a record that nobody foresaw")

    async def main() -> None:
        duties = Duties(chronicle, Watch())
        for _ in range(3):
            async with asyncio.TaskGroup() as tasks:
                duties.begin("read", stumble, tasks)

    asyncio.run(main())
    assert chronicle.faults == {"IndexError": 3}
    [logged] = [record for record in caplog.records if record.exc_info]
    assert "read: IndexError" in logged.message
    assert len(chronicle.events) == 1


def test_a_full_disk_ends_the_daemon(tmp_path: Path) -> None:
    async def save() -> None:
        raise StateError("the disk is full")

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            Duties(Chronicle(tmp_path), Watch()).begin("save", save, tasks)

    with pytest.raises(ExceptionGroup) as error:
        asyncio.run(main())
    assert error.group_contains(StateError, match="full")
