"""The pages that are made of the source: what they say is all that there is, and enough."""

import re
from collections.abc import Callable, Iterator

import pytest
import typer
from blocks import ROOT, pages
from status_example import example

from configs.machine import PeerConfig
from docs.generate import commands, errors, log_lines, metrics, settings
from peer.commands.main import app
from peer.http.metrics import render


def test_each_error_says_what_to_do_and_stands_on_the_page() -> None:
    page = errors.page()
    found = errors.raised()
    missing = [f"{each.error} in {each.path}: {each.message}" for each in found if not each.has_remedy]
    assert not missing, "say in the message what to do, or in docs/remedies.toml"
    documented = [each for each in found if f"({each.anchor})=" in page and each.message in page]
    assert len(documented) / len(found) == 1.0
    assert len(found) > 400  # what finds them still does


def test_each_class_of_errors_that_is_used_stands_on_the_page() -> None:
    used = {each.error for each in errors.raised()}
    assert used >= {"UsageError", "ConfigError", "DataError", "NetworkError", "PeerError", "StateError", "DeviceError"}
    assert all(f"## {name}\n" in errors.page() for name in used)


def test_no_remedy_is_of_an_error_that_is_gone() -> None:
    messages = {each.message for each in errors.raised()}
    assert not [message for message in errors.table()["messages"] if message not in messages]
    assert not errors.table()["classes"].keys() - errors.classes().keys()


@pytest.mark.parametrize(
    ("message", "does"),
    [
        ("the prompt is empty; give at least one word", True),
        ("port 4001 is taken: choose another", True),
        ("leave out --task", True),
        ("most of it is damaged (or leave such text out: --max-bad 0.1)", True),
        ("{path} must be a table", True),
        ("the port is taken", False),
        ("the machine gave up", False),
        ("the daemon did not start", False),
    ],
)
def test_what_names_a_remedy(message: str, does: bool) -> None:
    assert errors.names_remedy(message) is does


def test_what_is_only_called_like_an_error_of_ours_is_none() -> None:
    assert [each for each in errors.raised() if each.error == "Refusal"]  # of a request
    assert not [each for each in errors.raised() if each.error == "Refusal" and each.path.startswith("peer/prepare/")]


def test_each_warning_in_the_log_has_a_cause_and_a_remedy() -> None:
    rows = {(path, line) for path, table in log_lines.rows().items() for line in table}
    logged = {(line.path, line.message) for line in log_lines.lines()}
    assert not logged - rows, "docs/log_lines.toml lacks these lines"
    assert not rows - logged, "docs/log_lines.toml has lines that are never logged"
    cells = [row for table in log_lines.rows().values() for row in table.values()]
    assert all(row.keys() == {"cause", "remedy"} and row["cause"] and row["remedy"] for row in cells)
    assert len(logged) > 30
    assert all(f"`{line.message}`" in log_lines.page() for line in log_lines.lines())


def test_each_setting_has_a_comment() -> None:
    found = list(settings.keys())
    assert not [key.name for key in found if not key.comment], "a comment beside it in configs/ is its documentation"
    names = {key.name for key in found}
    assert names >= {f"peer.{key}" for key in PeerConfig.model_fields}
    assert names >= {"run.total_tokens", "run.model.adapter.rank", "run.rounds.cut_share"}
    port = next(key for key in found if key.name == "peer.port")
    assert (port.variable, port.default) == ("SHOAL_PEER__PORT", "`0`") and "65,535" in port.type


def test_each_metric_of_a_real_scrape_is_documented() -> None:
    scraped = {line.split()[2] for line in render(example()).decode().splitlines() if line.startswith("# TYPE")}
    documented = {metric.name for metric in metrics.metrics()}
    assert scraped and scraped <= documented
    assert all(f"`{name}`" in metrics.page() for name in documented)


def test_each_command_is_documented() -> None:
    page = commands.page()
    assert all(f"## `shoal {name}`" in page for name in ("start", "join", "fuse", "doctor", "identity"))
    assert "### `shoal identity backup`" in page and "--context-length" in page


def options(command: typer.core.TyperGroup | typer.core.TyperCommand, name: str = "") -> Iterator[tuple[str, set[str]]]:
    """Yield each command's name and the options that it takes."""
    yield name, {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    for below, each in getattr(command, "commands", {}).items():
        yield from options(each, f"{name} {below}".strip())


def test_each_option_that_a_page_names_is_one() -> None:
    known = dict(options(typer.main.get_command(app)))
    texts = {page.name: page.read_text(encoding="utf-8").replace("\\\n", " ") for page in [*pages(), ROOT / "llms.txt"]}
    named: list[tuple[str, str, str]] = []
    for name, text in texts.items():
        for words, rest in re.findall(r"shoal ([a-z]+(?: [a-z]+)?)\b([^`#\n]*)", text):
            command = words if words in known else words.split()[0]
            if command in known:  # else it is a sentence about Shoal
                named += [(name, command, option) for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", rest)]
    assert not [each for each in named if each[2] not in known[each[1]]]
    assert len(named) > 80


@pytest.mark.parametrize("made", [errors.page, log_lines.page, settings.page, metrics.page, commands.page])
def test_a_page_is_the_same_each_time(made: Callable[[], str]) -> None:
    assert made() == made() and made().startswith(("# ", "\n# "))
