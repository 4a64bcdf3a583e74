"""Does a peer say what ails it, so that who reads it can help? Real swarms (`ailing.py`), each made ill in its own way.

An ailment counts when, in this order, the swarm was well and nobody complained; the patient's `status`, its `GET /view`
and its page in a real Chromium named the cause and the cure; and the finding was gone, with rounds of all sealed, after
that cure was carried out. Of what is wrong from the founding on, a run that is founded as the cure says must show
nothing for as long as it took before. A swarm that nothing ails must stay silent.
"""

import asyncio
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from playwright.async_api import Browser
from playwright.async_api import Error as BrowserError
from rich.markup import escape
from rich.table import Table

from benchmarks.ailing import AILMENTS, Ailment, Stage
from benchmarks.browser import open_browser, open_page
from benchmarks.ward import LOOK_S, Setting, Ward, open_ward
from configs.errors import ShoalError
from peer.http.status import Finding

NAMED_S = 180.0  # from the ailment's beginning until it must be named
CURED_S = 300.0  # from the cure until all is well
LEAST_CALM_S = 20.0  # of a run that was founded as the cure says, without the finding
CONTROL, CONTROL_S, QUICK_CONTROL_S = "nothing: the control", 90.0, 20.0
WELL_S = 60.0  # for a swarm to be well before it is made ill
SHOWN_S = 15.0  # until the page shows what the status says
QUICK = ("disk nearly full", "clock set by 300 s")
FINDINGS = "section[aria-labelledby=wrong]"


@dataclass
class Course:
    """What came of one ailment."""

    name: str
    named_s: float | None = None
    cured_s: float | None = None
    cause: str = ""
    cure: str = ""
    beside: tuple[str, ...] = ()  # what else was said when it was named
    problem: str = ""  # why it does not count

    @property
    def holds(self) -> bool:
        return not self.problem


def named(ailment: Ailment, findings: Sequence[Finding]) -> Finding | None:
    """Return the finding that names an ailment: its code, its cause, and the cure that will be carried out."""
    for each in findings:
        if each.code == ailment.code and re.search(ailment.cause, each.cause) and re.search(ailment.cure, each.cure):
            return each
    return None


def is_shown(ailment: Ailment, text: str) -> bool:
    """Say whether a page's text names the ailment, in its own words."""
    return all(re.search(pattern, text) for pattern in (ailment.cause, ailment.cure)) and ailment.code in text


class Practice:
    """Goes from swarm to swarm, with one browser."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self._browser, self._folder, self._wards = browser, folder, 0

    async def treat_all(self, ailments: Sequence[Ailment], control_s: float = 0.0) -> list[Course]:
        """Treat one after the other; those that share a setting share a swarm, as long as it gets well.

        The first swarm is watched for `control_s` before anything is done to it: that is the control.
        """
        courses: list[Course] = []
        waiting = list(ailments)
        while waiting:
            setting = waiting[0].setting
            async with AsyncExitStack() as stack:
                ward = await stack.enter_async_context(self._open(setting))
                if control_s and not courses:
                    courses.append(await self._control(ward, control_s))
                while waiting and waiting[0].setting == setting:
                    ailment = waiting.pop(0)
                    course = await self._treat(ailment, ward)
                    courses.append(course)
                    print(_line(course), flush=True)
                    if not course.holds or ailment.stage is None:
                        break
        return courses

    async def _control(self, ward: Ward, seconds: float) -> Course:
        """Watch a swarm that nothing ails: nobody must complain."""
        course, complaints = Course(CONTROL), set[str]()
        await ward.settle()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for index in range(len(ward.daemons)):
                complaints |= {f"{each.code}: {each.line()}" for each in await ward.findings(index)}
            await asyncio.sleep(LOOK_S)
        for index in range(len(ward.daemons)):
            if "Nothing is wrong" not in (text := await self._page(ward, index)):
                complaints.add(f"the page: {text}")
        course.problem = "; ".join(sorted(complaints))
        print(_line(course), flush=True)
        return course

    def _open(self, setting: Setting) -> AbstractAsyncContextManager[Ward]:
        self._wards += 1
        return open_ward(setting, self._folder / f"ward{self._wards}")

    async def _treat(self, ailment: Ailment, ward: Ward) -> Course:
        course = Course(ailment.name)
        try:
            if ailment.stage is None:
                await self._founded_ill(ailment, ward, course)
            else:
                await self._fallen_ill(ailment, ailment.stage, ward, course)
        except (ShoalError, OSError, BrowserError) as error:  # a page or a view that is not given counts against it
            course.problem = str(error)
        return course

    async def _fallen_ill(self, ailment: Ailment, stage: Stage, ward: Ward, course: Course) -> None:
        await ward.settle()
        complaints = await _last_complaints(ward)
        if complaints:
            raise ShoalError(f"before anything was done: {complaints}")
        began = time.monotonic()
        async with stage(ward):
            await self._named(ailment, ward, course, began)
            began = time.monotonic()
        since = time.time()
        await self._cured(ailment, ward, since)
        course.cured_s = time.monotonic() - began

    async def _founded_ill(self, ailment: Ailment, ward: Ward, course: Course) -> None:
        assert ailment.cured is not None
        await ward.start(0)
        await asyncio.gather(*(ward.start(index) for index in range(1, ailment.setting.peers)))
        began = time.monotonic()  # whoever looks at a page looks at a peer that is there
        await self._named(ailment, ward, course, began)
        for daemon in ward.daemons:
            await daemon.close()
        assert course.named_s is not None
        began = time.monotonic()
        async with self._open(ailment.cured) as fresh:
            await fresh.settle()
            calm = time.monotonic() + max(LEAST_CALM_S, course.named_s - (time.monotonic() - began))
            while time.monotonic() < calm:
                await self._none_of(ailment, fresh)
                await asyncio.sleep(LOOK_S)
            if ailment.code in await self._page(fresh, ailment.patient):
                raise ShoalError("the page of the new run says it, too")
        course.cured_s = time.monotonic() - began

    async def _named(self, ailment: Ailment, ward: Ward, course: Course, began: float) -> None:
        """Wait until status, view and page name it."""
        seen: list[Finding] = []
        while (found := named(ailment, seen)) is None:
            if time.monotonic() - began > NAMED_S:
                said = "; ".join(f"[{each.code}] {each.line()}" for each in seen) or "nothing"
                raise ShoalError(f"not named in {NAMED_S:g} s; said was {said}{ward.gone()}")
            await asyncio.sleep(LOOK_S)
            seen = await ward.findings(ailment.patient) or seen
        course.named_s, course.cause, course.cure = time.monotonic() - began, found.cause, found.cure
        course.beside = tuple(f"{each.code}: {each.line()}" for each in seen if each is not found)
        url = await ward.url(ailment.patient)
        view = json.loads(await asyncio.to_thread(_get, f"{url}/view"))
        if named(ailment, [Finding.model_validate(each) for each in view["findings"]]) is None:
            raise ShoalError("the view does not say what the status says")
        text = await self._page(ward, ailment.patient)
        if not is_shown(ailment, text):
            raise ShoalError(f"the page does not say what the status says, but: {text[:500]}")

    async def _cured(self, ailment: Ailment, ward: Ward, since: float) -> None:
        """Wait until nobody says it any more, and rounds are sealed as before."""
        deadline = time.monotonic() + CURED_S
        while True:
            status = await ward.status(ailment.patient)
            said = [] if status is None else [each for each in status.findings if each.code == ailment.code]
            if status is not None and not said and ward.is_well(since):
                break
            if time.monotonic() > deadline:
                rest = "; ".join(each.line() for each in said) or "rounds are not sealed by all"
                raise ShoalError(f"the cure does not help in {CURED_S:g} s: {rest}")
            await asyncio.sleep(LOOK_S)
        if is_shown(ailment, text := await self._page(ward, ailment.patient)):
            raise ShoalError(f"the page still says it: {text[:500]}")

    async def _none_of(self, ailment: Ailment, ward: Ward) -> None:
        for each in await ward.findings(ailment.patient):
            if each.code == ailment.code:
                raise ShoalError(f"the run that was founded as the cure says has it, too: {each.line()}")

    async def _page(self, ward: Ward, index: int) -> str:
        """Return what a peer's page says under what is wrong."""
        async with open_page(self._browser, await ward.url(index)) as (page, _):
            return await page.locator(FINDINGS).inner_text()


async def _last_complaints(ward: Ward) -> str:
    """Wait until nobody complains; return what is said all the same."""
    deadline = time.monotonic() + WELL_S
    while True:
        said = [each.line() for index in range(len(ward.daemons)) for each in await ward.findings(index)]
        if not said or time.monotonic() > deadline:
            return "; ".join(said)
        await asyncio.sleep(LOOK_S)


def _get(url: str) -> bytes:
    with urlopen(url, timeout=SHOWN_S) as answer:
        return bytes(answer.read())


def _line(course: Course) -> str:
    times = [f"{'-' if each is None else f'{each:.0f} s'}" for each in (course.named_s, course.cured_s)]
    return f"{course.name}: named {times[0]}, cured {times[1]}; {course.cause}; {course.cure} {course.problem}"


def table_of(courses: Sequence[Course]) -> Table:
    """Return the courses as a table for people."""
    table = Table("ailment", "named after", "what was said", "cured after", "counts")
    for each in courses:
        times = ["-" if seconds is None else f"{seconds:.0f} s" for seconds in (each.named_s, each.cured_s)]
        said = f"{each.cause}; {each.cure}" if each.cause else ""
        table.add_row(each.name, times[0], escape(said), times[1], "yes" if each.holds else escape(each.problem[:300]))
    return table


async def treat(names: Sequence[str] = (), *, is_quick: bool = False) -> list[Course]:
    """Treat the ailments of these names; without names all, after the control."""
    chosen = [each for each in AILMENTS if not names or each.name in names]
    if is_quick and not names:
        chosen = [each for each in AILMENTS if each.name in QUICK]
    with tempfile.TemporaryDirectory(prefix="shoal-ailing-") as folder:
        async with open_browser() as browser:
            control_s = 0.0 if names else QUICK_CONTROL_S if is_quick else CONTROL_S
            return await Practice(browser, Path(folder)).treat_all(chosen, control_s)


if __name__ == "__main__":  # some of them, by name
    asyncio.run(treat(sys.argv[1:]))
