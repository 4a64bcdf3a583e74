"""Every key of a run and of a peer, with its bounds, its default and its comment in the source: the page `config`."""

import ast
import inspect
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from configs.machine import PeerConfig
from configs.names import MAX_COUNT
from configs.run import RunPlan

TABLES = {"peer": PeerConfig, "run": RunPlan}
_BOUNDS = {"minimum": "≥ ", "exclusiveMinimum": "> ", "maximum": "≤ ", "exclusiveMaximum": "< ", "pattern": ""}
_BOUNDS |= {"minLength": "characters ≥ ", "maxLength": "characters ≤ ", "minItems": "items ≥ ", "maxItems": "items ≤ "}


@dataclass(frozen=True)
class Key:
    """One key that a preset, the environment or an option may set."""

    name: str  # as in run.rounds.cut_share
    type: str
    default: str
    comment: str

    @property
    def variable(self) -> str:
        """The variable of the environment that sets it."""
        return f"SHOAL_{self.name.replace('.', '__').upper()}"


def keys() -> Iterator[Key]:
    """Yield every key, those of a table together."""
    for table, model in TABLES.items():
        yield from _keys(table, model)


def page() -> str:
    """Return the page in MyST markdown."""
    return "\n".join(_page())


def _keys(name: str, model: type[BaseModel]) -> Iterator[Key]:
    comments = _comments(model)
    schema = model.model_json_schema()
    inner: list[tuple[str, type[BaseModel]]] = []
    for key, field in model.model_fields.items():
        sections = [each for each in _parts(field.annotation) if isinstance(each, type) and issubclass(each, BaseModel)]
        if sections:
            inner.append((f"{name}.{key}", sections[0]))
            continue
        default = "required" if field.is_required() else "" if field.default_factory else _shown(field.default)
        said = comments.get(key) or field.description or ""
        yield Key(f"{name}.{key}", _type(schema["properties"][key]), default, said)
    for section, of in inner:
        yield from _keys(section, of)


def _parts(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", None) or (annotation,)


def _comments(model: type[BaseModel]) -> dict[str, str]:
    """Return the comment of each field: what stands above it, then what stands behind it."""
    source = inspect.getsource(model)
    tree = ast.parse(source).body[0]
    assert isinstance(tree, ast.ClassDef)
    lines = source.splitlines()
    behind = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and lines[token.start[0] - 1].strip() != token.string
    }
    found: dict[str, str] = {}
    for node in tree.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        first = node.lineno - 1
        while lines[first - 1].strip().startswith("#"):
            first -= 1
        above = [line.strip().lstrip("# ") for line in lines[first : node.lineno - 1]]
        found[node.target.id] = " ".join([*above, behind.get(node.end_lineno or node.lineno, "")]).strip()
    return found


def _type(schema: dict[str, Any]) -> str:
    """Return in a few words what a JSON schema allows."""
    if options := schema.get("anyOf"):
        return " or ".join(dict.fromkeys("none" if each.get("type") == "null" else _type(each) for each in options))
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    kind = {"string": "text", "array": "list", "boolean": "`true` or `false`", "integer": "whole number"}
    bounds = ", ".join(
        f"{sign}`{schema[name]}`" if name == "pattern" else f"{sign}{schema[name]:,}"
        for name, sign in _BOUNDS.items()
        if name in schema and schema[name] != MAX_COUNT
    )
    named = kind.get(schema.get("type", ""), schema.get("type", ""))
    if schema.get("format") == "path":
        named = "path"
    return f"{named}, {bounds}" if bounds else named


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else '' if value == () else value}`".replace("``", "empty")


def _page() -> Iterator[str]:
    yield "# Every setting\n"
    yield "A preset is a TOML file with two tables: `[run]` is what the founder fixes for everybody, `[peer]` is this"
    yield "machine's. The environment goes over it, by the variable that each key names, and options go over both:"
    yield "[which counts when](../operations.md#settings). This page is made of the models in `configs/`."
    section = ""
    for key in keys():
        table, _, name = key.name.rpartition(".")
        if table != section:
            section = table
            yield f"\n## [{table}]\n\n| key | what | allowed | default | environment |\n| --- | --- | --- | --- | --- |"
        cells = (f"`{name}`", key.comment, key.type, key.default, f"`{key.variable}`")
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""
