"""The page in a real Chromium, which can reach nothing but this machine."""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from benchmarks.browser import (
    PATIENCE_MS,
    SCHEMES,
    WIDTHS,
    Seen,
    attacks_that_pass,
    chromium_path,
    made_up_swarm,
    open_browser,
    open_page,
    violations,
)
from benchmarks.patience import HANG_S

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium_path() is None, reason="there is no Chromium; make tools installs it"),
    pytest.mark.skipif(bool(os.environ.get("SHOAL_NO_WEB")), reason="SHOAL_NO_WEB: the page was left out"),
]
expect.set_options(timeout=PATIENCE_MS)

Check = Callable[[Page, Seen], Awaitable[None]]


@dataclass
class Stage:
    """One browser and one swarm of twelve for all tests of this file: each opens a profile of its own."""

    runner: asyncio.Runner
    browser: Browser
    url: str

    def on_page(self, check: Check, peers: int = 12, *options: str) -> None:
        async def main() -> None:
            async with contextlib.AsyncExitStack() as stack:
                url = self.url
                if peers != 12 or options:
                    url, _ = await stack.enter_async_context(made_up_swarm(peers, *options))
                page, seen = await stack.enter_async_context(open_page(self.browser, url))
                await check(page, seen)
                assert (seen.foreign, seen.complaints) == ([], [])

        self.run(main())

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        self.runner.run(asyncio.wait_for(main, HANG_S))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    async def close() -> None:
        await stack.aclose()

    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        try:
            browser = runner.run(stack.enter_async_context(open_browser()))
            url, _ = runner.run(stack.enter_async_context(made_up_swarm(12)))
            yield Stage(runner, browser, url)
        finally:
            runner.run(close())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_keeps_to_itself_and_anybody_can_use_it(stage: Stage, width: int, scheme: str) -> None:
    """No foreign request, no complaint, no violation, and nothing overflows; the benchmark has it with 300 peers."""

    async def main() -> None:
        async with open_page(stage.browser, stage.url, width, scheme) as (page, seen):
            await page.wait_for_selector(".fall")
            assert await violations(page) == []
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            assert (seen.foreign, seen.complaints) == ([], [])

    stage.run(main())


def test_the_check_for_accessibility_sees_what_is_wrong(stage: Stage) -> None:
    async def check(page: Page, seen: Seen) -> None:
        await page.evaluate("document.querySelector('#swarm svg[role=img]').removeAttribute('aria-label')")
        assert any("svg-img-alt" in each for each in await violations(page))

    stage.on_page(check)


def test_no_other_site_reads_or_steers_the_daemon(stage: Stage) -> None:
    async def main() -> None:
        async with made_up_swarm(3) as (url, _):
            tried, passed = await attacks_that_pass(url)
            assert tried == 10
            assert passed == []

    asyncio.run(asyncio.wait_for(main(), HANG_S))


@pytest.mark.parametrize("peers", [1, 2, 12, 300])
def test_every_peer_is_on_the_map_and_in_the_list(stage: Stage, peers: int) -> None:
    async def check(page: Page, seen: Seen) -> None:
        dots = page.locator("#swarm svg[role=img] > g[transform]")
        await expect(dots).to_have_count(peers)
        await expect(page.get_by_role("listbox").get_by_role("option")).to_have_count(peers)
        await expect(page.get_by_role("img", name=f"Map of {peers} peers")).to_be_visible()
        # No two are drawn at one place, and none outside the drawing.
        places = await dots.evaluate_all("all => all.map((dot) => dot.getAttribute('transform'))")
        assert len(set(places)) == peers
        numbers = [[float(n) for n in re.findall(r"-?[\d.]+", place)] for place in places]
        assert all(abs(x) < 430 and abs(y) < 430 for x, y in numbers)
        nearest = min(
            ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 for i, a in enumerate(numbers) for b in numbers[:i]), default=1e6
        )
        assert nearest**0.5 > 8  # so that dots of the least radius do not cover each other

    stage.on_page(check, peers)


def test_what_ails_comes_first_and_says_what_helps(stage: Stage) -> None:
    async def check(page: Page, seen: Seen) -> None:
        findings = page.locator("section", has=page.get_by_role("heading", name="What is wrong")).locator("li")
        await expect(findings).to_have_count(2)
        await expect(findings.first).to_contain_text("severe")
        await expect(findings.first).to_contain_text("join with --sub-model expert.2")
        await expect(page.locator("#swarm svg[role=img]")).to_contain_text("nobody trains it now")

    stage.on_page(check)


def test_where_nothing_is_wrong_it_says_so(stage: Stage) -> None:
    async def check(page: Page, seen: Seen) -> None:
        await expect(page.get_by_role("heading", name="Nothing is wrong")).to_be_visible()
        await expect(page.get_by_text("all well")).to_be_visible()

    stage.on_page(check, 12, "--well")


def test_the_keyboard_is_enough(stage: Stage) -> None:
    """From peer to peer, from round to round, through a confirmation and back, without a mouse."""

    async def check(page: Page, seen: Seen) -> None:
        await page.keyboard.press("Tab")
        await expect(page.locator(":focus")).to_have_text("Skip to the swarm")
        peers = page.get_by_role("listbox")
        chosen = peers.locator("[aria-selected=true]")
        first = await chosen.inner_text()
        await peers.focus()
        await page.keyboard.press("ArrowDown")
        await expect(chosen).not_to_have_text(first)
        name = (await chosen.locator(".mono").inner_text()).strip()
        await expect(page.locator(".peer .name strong")).to_have_text(name)  # its card is shown
        await page.keyboard.press("End")
        await expect(peers.get_by_role("option").last).to_have_attribute("aria-selected", "true")

        scrubber = page.get_by_role("slider", name="Round")
        await scrubber.focus()
        newest = await page.locator(".round .title strong").inner_text()
        await page.keyboard.press("ArrowLeft")
        await expect(page.locator(".round .title strong")).not_to_have_text(newest)
        await expect(scrubber).to_have_attribute("aria-valuetext", re.compile(r"round \d+, (sealed|skipped)"))

        await page.get_by_role("button", name="Pause").focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog", name="Pause training here?")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await expect(page.locator("header .state")).to_have_text("training")
        await page.keyboard.press("Enter")  # the focus is back on the button
        await page.keyboard.press("Tab")  # from Cancel to Pause
        await page.keyboard.press("Enter")
        await expect(page.locator("header .state")).to_have_text("paused")
        await page.get_by_role("button", name="Resume").click()
        await page.get_by_role("dialog").get_by_role("button", name="Resume").click()
        await expect(page.locator("header .state")).to_have_text("training")

    stage.on_page(check)


def test_curves_change_with_what_is_asked_and_stand_in_a_table(stage: Stage) -> None:
    async def check(page: Page, seen: Seen) -> None:
        learning = page.locator("#learning")
        await expect(learning.get_by_role("img", name="Learning rate. ")).to_be_visible()
        await learning.get_by_label("Held-out text by").select_option("expert.1")
        await expect(learning.get_by_role("heading", name="Loss of expert.1")).to_be_visible()
        await learning.get_by_role("button", name="Time").click()
        await learning.get_by_text("As a table").click()
        table = learning.get_by_role("table").first
        await expect(table.get_by_role("columnheader")).to_have_text(["Time", "python", "docs", "cpp"])
        assert await table.get_by_role("row").count() > 5

    stage.on_page(check)


def test_a_new_view_leaves_the_charts_as_they_are(stage: Stage) -> None:
    """One that was enlarged stays so, and nothing is drawn anew for figures that are the same."""

    async def check(page: Page, seen: Seen) -> None:
        await expect(page.locator("#learning .uplot")).to_have_count(4)
        await expect(page.get_by_role("img", name="Learning rate. ")).to_be_visible()
        before = await page.locator("#learning .uplot").first.element_handle()
        assert before is not None
        tick = page.locator("dl div", has_text="Tick").locator("dd").first
        for _ in range(2):
            await expect(tick).not_to_have_text(await tick.inner_text())
        assert await before.evaluate("chart => chart.isConnected")

    stage.on_page(check)


def test_answers_go_back_in_time_and_say_who_wrote_them(stage: Stage) -> None:
    async def check(page: Page, seen: Seen) -> None:
        answers = page.locator("#answers")
        text = answers.locator(".answer .text")
        newest = await text.inner_text()
        await answers.get_by_role("slider").fill("0")
        await expect(text).not_to_have_text(newest)
        await expect(answers.get_by_text("1 of 14")).to_be_visible()
        await expect(answers.get_by_role("list", name="Who wrote how much")).to_contain_text("expert.")

    stage.on_page(check)


def test_the_playground_asks_and_says_what_goes_wrong(stage: Stage) -> None:
    async def check(page: Page, seen: Seen) -> None:
        await page.get_by_label("Prompt", exact=True).last.fill("def read")
        await page.get_by_role("button", name="Ask", exact=True).click()
        answer = page.locator("section", has=page.get_by_role("heading", name="Ask the swarm")).locator(".answer")
        await expect(answer).to_contain_text("return")
        await expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()  # it is whole
        await page.get_by_label("Prompt", exact=True).last.fill("fail")
        await page.get_by_role("button", name="Ask", exact=True).click()
        await expect(answer.get_by_role("alert")).to_have_text(
            "no peer of expert.2 answers; ask again when one is there"
        )

    stage.on_page(check)


def test_the_theme_is_what_was_chosen_also_after_a_reload(stage: Stage) -> None:
    async def check(page: Page, seen: Seen) -> None:
        light = await page.evaluate("getComputedStyle(document.body.parentElement).backgroundColor")
        await page.get_by_label("Colours").select_option("dark")
        await page.reload()
        await page.wait_for_selector("#swarm svg[role=img]")
        assert await page.evaluate("getComputedStyle(document.body.parentElement).backgroundColor") != light
        assert await page.evaluate("localStorage.getItem('theme')") == "dark"

    stage.on_page(check)


def test_a_daemon_that_is_lost_is_said_to_be(stage: Stage) -> None:
    """Both one that is stopped in its tracks, which closes nothing, and one that is gone."""

    async def main() -> None:
        async with made_up_swarm(3) as (url, process), open_page(stage.browser, url) as (page, _):
            banner = page.get_by_role("alert").filter(has_text="The daemon no longer answers")
            await expect(banner).to_have_count(0)
            process.send_signal(signal.SIGSTOP)
            await expect(banner).to_be_visible()
            await expect(banner).to_contain_text(re.compile(r"What you see is from \d\d:\d\d:\d\d"))
            process.send_signal(signal.SIGCONT)
            await expect(banner).to_have_count(0)  # and it goes on where it was
            process.kill()
            await expect(banner).to_be_visible()

    stage.run(main())


def test_eight_tabs_of_a_browser_all_draw(stage: Stage) -> None:
    """It keeps six connections to a host: with a stream for each tab the seventh would wait for ever."""

    async def main() -> None:
        context = await stage.browser.new_context()
        context.set_default_timeout(PATIENCE_MS)
        try:
            for _ in range(8):
                page = await context.new_page()
                await page.goto(stage.url, wait_until="commit")
                await page.wait_for_selector("#swarm svg[role=img] .core")
                await page.wait_for_selector(".fall")
        finally:
            await context.close()

    stage.run(main())


def test_without_shared_workers_a_page_reads_by_itself(stage: Stage) -> None:
    async def main() -> None:
        context = await stage.browser.new_context()
        context.set_default_timeout(PATIENCE_MS)
        try:
            page = await context.new_page()
            await page.add_init_script("delete window.SharedWorker")
            await page.goto(stage.url, wait_until="commit")
            await page.wait_for_selector("#swarm svg[role=img] .core")
            assert await page.evaluate("typeof SharedWorker") == "undefined"
        finally:
            await context.close()

    stage.run(main())
