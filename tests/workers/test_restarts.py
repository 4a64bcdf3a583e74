"""What is done when workers die follows from why, and how often."""

import pytest

from configs.errors import DeviceError
from peer.workers.restarts import MAX_DEATHS, Death, Restarts

CRASH, NO_MEMORY = Death("it crashed"), Death("out of memory", "memory")


def test_workers_are_started_again_until_they_die_too_often_without_a_step() -> None:
    restarts = Restarts(0)
    for _ in range(MAX_DEATHS - 1):
        assert restarts.after(CRASH, has_stepped=False, micro_batch=4) == "it crashed"
    assert restarts.after(CRASH, has_stepped=True, micro_batch=4) == "it crashed"
    for _ in range(MAX_DEATHS - 2):
        restarts.after(CRASH, has_stepped=False, micro_batch=4)
    with pytest.raises(DeviceError, match=r"ended 3 times before a step: it crashed; see the log .*, then start again"):
        restarts.after(CRASH, has_stepped=False, micro_batch=4)


def test_memory_that_is_short_halves_the_micro_batch_as_often_as_it_can() -> None:
    restarts = Restarts(0)
    for had in (8, 4, 2):
        assert f"now with a micro-batch of {had // 2}" in restarts.after(NO_MEMORY, has_stepped=False, micro_batch=had)
        assert restarts.micro_batch == had // 2
    with pytest.raises(DeviceError, match="out of memory even with one sequence at a time; give more memory"):
        restarts.after(NO_MEMORY, has_stepped=False, micro_batch=1)


def test_a_device_that_is_missing_is_not_tried_again() -> None:
    with pytest.raises(DeviceError, match=r"^no such device$"):
        Restarts(0).after(Death("no such device", "device"), has_stepped=True, micro_batch=1)
