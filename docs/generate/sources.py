"""Reads the project's own source, without importing it, for the pages that are made of it."""

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class File:
    """One source file: its path from the root, its tree, and the texts that it has names for."""

    path: str
    tree: ast.Module
    constants: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One call in a file, with the functions that it lies in, the innermost last."""

    file: File
    node: ast.Call
    around: tuple[ast.AST, ...]
    statement: ast.stmt


def packages() -> list[str]:
    """Return the top-level folders that are shipped, as the build is told."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    return list(build["targets"]["wheel"]["packages"])


@cache
def files() -> tuple[File, ...]:
    """Return all source files, each with the text constants of its own and those that it imports."""
    paths = [path for package in packages() for path in sorted((ROOT / package).rglob("*.py"))]
    trees = {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    own = {".".join(path.with_suffix("").parts): _constants(tree) for path, tree in trees.items()}
    found = []
    for path, tree in trees.items():
        imported = {
            alias.asname or alias.name: own[node.module][alias.name]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module in own
            for alias in node.names
            if alias.name in own[node.module]
        }
        found.append(File(path.as_posix(), tree, imported | own[".".join(path.with_suffix("").parts)]))
    return tuple(found)


def calls(file: File) -> Iterator[Call]:
    """Yield each call in `file`."""

    def visit(node: ast.AST, around: tuple[ast.AST, ...], statement: ast.stmt) -> Iterator[Call]:
        if isinstance(node, ast.Call):
            yield Call(file, node, around, statement)
        inner = (*around, node) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else around
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inner, child if isinstance(child, ast.stmt) else statement)

    for statement in file.tree.body:
        yield from visit(statement, (), statement)


def texts(node: ast.AST, call: Call) -> list[str]:
    """Return what `node`, the argument of `call`, may say: several where it is chosen, with {names} for what varies."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.JoinedStr):
        return _joined(node.values, call)
    if isinstance(node, ast.FormattedValue):
        known = texts(node.value, call) if isinstance(node.value, ast.Name | ast.IfExp) else []
        return known if known and not any(text.startswith("{") for text in known) else [_placeholder(node.value)]
    if isinstance(node, ast.IfExp):
        return [*texts(node.body, call), *texts(node.orelse, call)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _joined([node.left, node.right], call)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and (said := _returned(node.func.id, call)):
        return said
    if isinstance(node, ast.Name):
        if node.id in call.file.constants:
            return [call.file.constants[node.id]]
        return _assigned(node.id, call) or [_placeholder(node)]
    return [_placeholder(node)]


def _joined(parts: list[ast.expr], call: Call) -> list[str]:
    found = [""]
    for part in parts:
        found = [head + tail for head in found for tail in texts(part, call)]
    return found


def _assigned(name: str, call: Call) -> list[str]:
    """Return the texts that the innermost function gives a local name, if it gives it nothing else."""
    if not call.around:
        return []
    assignments = [
        node
        for node in ast.walk(call.around[-1])
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]
    ]
    before = max((each for each in assignments if each.lineno < call.statement.lineno), key=_line, default=None)
    if before is not None and before.col_offset == call.statement.col_offset:  # side by side: no other one counts
        assignments = [before]
    given = [each.value for each in assignments]
    if not given or not all(map(_is_text, given)):
        return []
    return [text for value in given for text in texts(value, call)]


def _returned(name: str, call: Call) -> list[str]:
    """Return the texts that a function of the same file returns, if it returns nothing else."""
    functions = [node for node in call.file.tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    values = [node.value for found in functions for node in ast.walk(found) if isinstance(node, ast.Return)]
    if not values or not all(value is not None and _is_text(value) for value in values):
        return []
    inside = Call(call.file, call.node, (functions[0],), call.statement)
    return [text for value in values if value is not None for text in texts(value, inside)]


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.IfExp):
        return _is_text(node.body) and _is_text(node.orelse)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _line(node: ast.stmt) -> int:
    return node.lineno


def _constants(tree: ast.Module) -> dict[str, str]:
    """Return the module's own text constants, of which one may hold another."""
    found: dict[str, str] = {}
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and isinstance(node.value, ast.Constant | ast.JoinedStr):
            parts = node.value.values if isinstance(node.value, ast.JoinedStr) else [node.value]
            found[target.id] = "".join(_constant(part, found) for part in parts)
    return {name: text for name, text in found.items() if text}


def _constant(part: ast.expr, known: dict[str, str]) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    name = ast.unparse(part.value) if isinstance(part, ast.FormattedValue) else ""
    return known.get(name, f"{{{name.lower()}}}")


def _placeholder(node: ast.AST) -> str:
    """Return a name for what varies: `{error.strerror}` is {strerror}, `{', '.join(names)}` is {names}."""
    match node:
        case ast.Call(func=ast.Attribute(attr="join"), args=[inner]):
            return _placeholder(inner)
        case ast.Call(func=ast.Name(id="printable" | "str" | "int" | "len" | "abs"), args=[inner, *_]):
            return _placeholder(inner)
        case ast.Attribute(value=ast.Call(func=ast.Name(id="type")), attr="__name__"):
            return "{kind}"
        case ast.Attribute(attr=attr):
            return f"{{{attr.lstrip('_')}}}"
        case ast.Subscript(value=value):
            return _placeholder(value)
        case ast.Name(id=name):
            return f"{{{name.lstrip('_').lower()}}}"
        case ast.BoolOp(values=[first, *_]):
            return _placeholder(first)
        case ast.Call(func=ast.Name(id="describe"), args=[_, where]):
            return f"{_named(where)}: {{key}}: {{problem}}"
        case ast.Call(func=ast.Name(id=name)) if name.strip("_").islower():
            return f"{{{name.strip('_')}}}"
    inner = [each for each in ast.walk(node) if isinstance(each, ast.Name | ast.Attribute)]
    return _placeholder(inner[-1]) if inner else "…"


def _named(where: ast.expr) -> str:
    return str(where.value) if isinstance(where, ast.Constant) else _placeholder(where)
