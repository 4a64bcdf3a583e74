"""Every error that the project raises, with what to do: the page `errors`, and what its test counts."""

import ast
import hashlib
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from docs.generate.sources import ROOT, Call, File, calls, files, texts

REMEDIES = "docs/remedies.toml"
TREE = "ShoalError"

# A remedy is a clause that begins with what to do, so with one of these.
_VERBS = (
    "add ask begin check choose convert copy delete enlarge fetch fill found free fuse give install join leave let"
    " lower make mend move name paste prepare prune put raise remove rename repair restore run say see send separate"
    " set shorten start take train try turn unset update use wait write end invite bring allow pip revoke open look"
    " push login"
)
_CLAUSE = re.compile(r"(?:^|[;:,(.?]\s*(?:or\s+)?|\b(?:or|and|then|please)\s+)(\w+)")
# So is what the right form is.
_RIGHT_FORM = re.compile(r"\bmust\b|looks? like|needs (?:both|files|the port|s3:)|; there are |docs/\w+\.md shows")


@dataclass(frozen=True)
class ErrorClass:
    """A class of the error tree, and what its docstring says of it."""

    name: str
    base: str
    path: str
    doc: str


@dataclass(frozen=True)
class Raised:
    """One message of one place that makes an error."""

    error: str  # the class
    path: str
    message: str
    remedy: str  # beyond what the message says; may be empty if that is enough
    names_remedy: bool  # the message itself does

    @property
    def has_remedy(self) -> bool:
        """Whether somebody who meets it is told what to do."""
        return self.names_remedy or bool(self.remedy)

    @property
    def anchor(self) -> str:
        """Where it stands on the page."""
        words = re.findall(r"[a-z0-9]+", self.message.lower())
        digest = hashlib.sha256(self.message.encode()).hexdigest()[:6]  # many begin alike
        return "-".join([self.error.lower().strip("_"), *words[:6], digest])


def names_remedy(message: str) -> bool:
    """Whether a message tells the reader to do something."""
    is_told = any(word.lower() in _VERBS.split() for word in _CLAUSE.findall(message))
    return is_told or _RIGHT_FORM.search(message) is not None or "`shoal " in message


@cache
def classes() -> dict[str, ErrorClass]:
    """Return the error tree by name, its root first; also what is derived from it elsewhere."""
    defined = [(node, file.path) for file in files() for node in ast.walk(file.tree) if isinstance(node, ast.ClassDef)]
    found: dict[str, ErrorClass] = {}
    grown = True
    while grown:
        grown = False
        for node, path in defined:
            bases = [ast.unparse(base).split(".")[-1] for base in node.bases]
            base = next((base for base in bases if base in found), None)
            if node.name not in found and (base or node.name == TREE):
                found[node.name] = ErrorClass(node.name, base or "", path, ast.get_docstring(node) or "")
                grown = True
    return found


def table() -> dict[str, dict[str, str]]:
    """Return what was written by hand: `classes` and `messages`, each to its remedy."""
    return tomllib.loads((ROOT / REMEDIES).read_text(encoding="utf-8"))


@cache
def raised() -> tuple[Raised, ...]:
    """Return each message of each place that makes an error, in the order of the files."""
    by_hand = table()
    found = []
    for file in files():
        for call in calls(file):
            name = ast.unparse(call.node.func).split(".")[-1]
            if name in classes() and _is_of_tree(file, name):
                for message in _messages(call):
                    remedy = by_hand["messages"].get(message, "") or by_hand["classes"].get(name, "")
                    found.append(Raised(name, file.path, message, remedy, names_remedy(message)))
    return tuple(dict.fromkeys(found))


def _is_of_tree(file: File, name: str) -> bool:
    """Whether a class of that name, as a file uses it, is an error of ours: another one may be called so, too."""
    where = {file.path} | {
        f"{node.module.replace('.', '/')}.py"
        for node in ast.walk(file.tree)
        if isinstance(node, ast.ImportFrom) and node.module and any(each.name == name for each in node.names)
    }
    bases = [
        ast.unparse(base).split(".")[-1]
        for each in files()
        if each.path in where
        for node in each.tree.body
        if isinstance(node, ast.ClassDef) and node.name == name
        for base in node.bases
    ]
    return name == TREE or not bases or any(base in classes() for base in bases)


def _messages(call: Call) -> Sequence[str]:
    """Return what the error may say; an error that says nothing by itself is named by its class."""
    parts = [node for node in call.node.args if not (isinstance(node, ast.Constant) and isinstance(node.value, int))]
    return texts(parts[0], call) if parts else [ast.unparse(call.node.func)]


def page() -> str:
    """Return the page in MyST markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "# Errors"
    yield ""
    yield "Each failure is one line: what is wrong, then what to do. Below is every one of them, by its class; words in"
    yield "`{braces}` stand for what differs from case to case. The command ends with exit code 1, or with 2 where"
    yield "the mistake is in what was typed or configured. This page is made of the source when the site is built."
    for error in classes().values():
        own = [each for each in raised() if each.error == error.name]
        if not own and error.name != TREE:
            continue
        yield f"\n({error.name.lower()})=\n## {error.name}\n\n{error.doc}\n"
        of_class = table()["classes"].get(error.name)
        if of_class:
            yield f"**What to do**: {of_class}\n"
        for anchor in dict.fromkeys(each.anchor for each in own):
            same = [each for each in own if each.anchor == anchor]
            yield f"({anchor})=\n```text\n{same[0].message}\n```\n"
            if same[0].remedy and same[0].remedy != of_class:
                yield f"{same[0].remedy}\n"
            yield f"*{', '.join(sorted({f'`{each.path}`' for each in same}))}*\n"
