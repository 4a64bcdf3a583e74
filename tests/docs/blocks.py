"""Finds the commands in the documentation, and what the invisible comment before each block says of it.

<!-- run -->                       the tests run it on the page's one machine
<!-- run: long, on second -->      only `make test-long` does, on another machine of the page
<!-- run: may fail -->             its exit code may be 1, which the page explains
<!-- run: in a notebook -->        Python that is no file
<!-- not run: REASON -->           nobody could here: the reason says why
<!-- tested by tests/… -->         a test of its own runs these lines
<!-- before: COMMAND -->           what the page takes for granted, run before the next block
<!-- before on first: COMMAND -->  the same on another machine of the page
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

ROOT = Path(__file__).parents[2]
LANGUAGES = ("sh", "console", "bash", "python")
COMMENT = re.compile(r"<!-- (.+?) -->", re.DOTALL)
# What a block may lack here, as the beginning of its reason; another one has to be argued for in this line.
REASONS = (
    "needs an engine for containers", "needs a GPU", "needs a model from a hub", "needs a second machine",
    "needs an account", "needs a cluster", "needs a service manager", "another program's",
    "installs", "it is the suite",
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """One block of commands: where it stands, and how it is run."""

    page: Path
    line: int
    language: str
    text: str
    before: tuple[tuple[str, str], ...]  # what the page takes for granted: on which machine, and which command
    mark: str  # the last comment before it, "" if there is none

    @property
    def where(self) -> str:
        """The page and the line."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def options(self) -> set[str]:
        """What follows `run:`."""
        return set(filter(None, re.split(r"[:,]\s*", self.mark)[1:]))

    @property
    def is_run(self) -> bool:
        """Whether the tests of these pages run it."""
        return re.match(r"run\b", self.mark) is not None

    @property
    def is_long(self) -> bool:
        """Whether only `make test-long` does."""
        return "long" in self.options

    @property
    def machine(self) -> str:
        """On which of the page's machines."""
        return next((option.removeprefix("on ") for option in self.options if option.startswith("on ")), "here")

    @property
    def test(self) -> Path | None:
        """The test that runs it instead."""
        return ROOT / self.mark.removeprefix("tested by ") if self.mark.startswith("tested by ") else None

    @property
    def cannot_run(self) -> bool:
        """Whether nobody could run it here, for a reason that is one."""
        return self.mark.removeprefix("not run: ").startswith(REASONS) and self.mark.startswith("not run: ")


def pages() -> list[Path]:
    """Return README and all pages that are written by hand."""
    return [
        ROOT / "README.md",
        *sorted(path for path in (ROOT / "docs").rglob("*.md") if "generated" not in path.parts),
    ]


def blocks(page: Path) -> list[Block]:
    """Return the blocks of one page in their order."""
    found: list[Block] = []

    def take(example: Example) -> None:
        comments = COMMENT.findall(example.document.text[: example.start])
        between = example.document.text[: example.start].rsplit("-->", 1)[-1]
        mark = comments[-1] if comments and not between.strip() else ""
        found.append(Block(page, example.line, _language(example), example.parsed, (), mark))

    parsers = [CodeBlockParser(language, take) for language in LANGUAGES]
    document = Sybil(parsers, path=str(ROOT)).parse(page)
    for example in document.examples():
        example.evaluate()
    return [_with_before(document, block) for block in found]


def _language(example: Example) -> str:
    return example.document.text[example.start :].split("\n", 1)[0].strip("`~ ")


def _with_before(document: Document, block: Block) -> Block:
    """Give a block the commands that stand in comments between it and the block before it."""
    lines = document.text.splitlines()[: block.line - 1]
    start = max((at for at, line in enumerate(lines) if line.startswith("```")), default=0)
    commands = tuple(_commands("\n".join(lines[start:]), block.machine))
    return Block(block.page, block.line, block.language, block.text, commands, block.mark)


def _commands(text: str, machine: str) -> Iterator[tuple[str, str]]:
    for comment in COMMENT.findall(text):
        if found := re.fullmatch(r"before(?: on (\w+))?: (.+)", comment):
            yield found[1] or machine, found[2]
