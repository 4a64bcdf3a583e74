"""Some of the benchmark's situations, in this process: a firewall, a NAT, a clock, a disk and a port, made for real."""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks.doctor import QUICK, SITUATIONS, Clinic, open_clinic
from benchmarks.nats import lacking
from peer.chaos.links import Peer, enter_place, forbidden
from peer.commands.main import main

pytestmark = pytest.mark.skipif(bool(forbidden() or lacking()), reason=str(forbidden() or lacking()))


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    with open_clinic(tmp_path_factory.mktemp("clinic")) as clinic:
        yield clinic


def ask_here(place: Peer, arguments: list[str], settings: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    """Run the command in a thread of this process that has moved to `place`: its imports are there already."""
    said = io.StringIO()
    with ThreadPoolExecutor(1, initializer=enter_place, initargs=(place,)) as inside, contextlib.redirect_stdout(said):
        code = inside.submit(main, [*arguments, "--json"]).result()
    return code, json.loads(said.getvalue())


@pytest.mark.parametrize("situation", [each for each in SITUATIONS if each.name in QUICK], ids=lambda each: each.name)
def test_the_doctor_names_it(clinic: Clinic, situation: Any, tmp_path: Path) -> None:
    assert clinic.try_out(situation, ask_here) == []
