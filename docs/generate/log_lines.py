"""Every warning and error that the daemon logs, with its cause and what to do: the page `log-lines`."""

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

from docs.generate.sources import ROOT, Call, calls, files, texts

ROWS = "docs/log_lines.toml"
LEVELS = {"warning": "WARNING", "error": "ERROR", "exception": "ERROR"}


@dataclass(frozen=True)
class Line:
    """One line that one place of the source may log; {names} stand for what varies."""

    level: str
    path: str
    message: str


@cache
def lines() -> tuple[Line, ...]:
    """Return each line of level WARNING or ERROR, in the order of the files."""
    found = []
    for file in files():
        for call in calls(file):
            func = call.node.func
            if isinstance(func, ast.Attribute) and func.attr in LEVELS and ast.unparse(func.value) == "log":
                found += [Line(LEVELS[func.attr], file.path, message) for message in _messages(call)]
    return tuple(dict.fromkeys(found))


def rows() -> dict[str, dict[str, dict[str, str]]]:
    """Return what was written by hand: file → message → `cause` and `remedy`."""
    return tomllib.loads((ROOT / ROWS).read_text(encoding="utf-8"))


def page() -> str:
    """Return the page in MyST markdown."""
    return "\n".join(_page())


def _messages(call: Call) -> Iterator[str]:
    form, *values = (texts(node, call) for node in call.node.args)
    for text, *inserted in product(form, *values):
        for value in inserted:
            text = next((text.replace(mark, value, 1) for mark in ("%s", "%d", "%.3f") if mark in text), text)
        yield text


def _page() -> Iterator[str]:
    yield "# Lines in the log\n"
    yield "The daemon logs to stderr, one line at a time: time, level, module, message. At INFO it says each round and"
    yield "each change of state; what is listed here is all that it says at WARNING and ERROR. Words in `{braces}`"
    yield "differ from case to case. What nobody foresaw comes with a traceback the first time; the daemon goes on."
    yield "\n| line in the log | cause | remedy |\n| --- | --- | --- |"
    for line in sorted(lines(), key=lambda each: (each.path, each.message)):
        row = rows()[line.path][line.message]
        cells = (f"`{line.message}` ({line.level}, `{line.path}`)", row["cause"], row["remedy"])
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""
