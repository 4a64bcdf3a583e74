"""`shoal doctor`: prints which case this machine is in, and what to do about it."""

import asyncio
import json
import sys
from dataclasses import asdict
from typing import Any

from configs.errors import ShoalError
from configs.kept import recall
from configs.load import Settings, load
from configs.text import clean
from peer.doctor.examine import examine
from peer.doctor.verdicts import Check, case_of, checks
from peer.ending import first_cause


def run(address: str | None, *, as_json: bool, **flags: Any) -> int:
    """Look, print, and return 0 when nothing is wrong, else 1. Raises UsageError for what is no address."""
    settings, problem = _settings(flags)
    try:
        facts = asyncio.run(examine(settings.peer, address))
    except BaseExceptionGroup as group:
        raise first_cause(group) from None
    found = [*([problem] if problem else []), *checks(facts)]
    is_well = all(check.answer != "no" for check in found)
    if as_json:
        print(
            json.dumps(
                {"is_well": is_well, "case": case_of(facts), "checks": [asdict(check) for check in found]}, indent=1
            )
        )
    else:
        _show(case_of(facts), found)
    return 0 if is_well else 1


def _settings(flags: dict[str, Any]) -> tuple[Settings, Check | None]:
    """Return what a daemon here would be told, and what is wrong with what an earlier one has left."""
    given = load(None, **flags)
    try:
        return recall(given), None
    except ShoalError as error:
        return given, Check("settings", "no", str(error), "do what it says")


def _show(case: str, found: list[Check]) -> None:
    colours = {"yes": "\x1b[32m", "no": "\x1b[1;31m", "not checked": "\x1b[33m"} if sys.stdout.isatty() else {}
    for check in found:
        begin, end = (colours[check.answer], "\x1b[0m") if colours else ("", "")
        print(f"{begin}{check.answer:<12}{end}{check.name:<12}{clean(check.said)}")
        if check.remedy:
            print(f"{'':<24}→ {clean(check.remedy)}")
    print(f"\n{clean(case)}")
