"""Holds the layers of the house: who may import whom, read from the source without importing anything."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each layer → the layers below it, which it may import besides itself.
BELOW = {
    "configs": set(),
    "dht": {"configs"},
    "protocols": {"configs", "dht"},
    "peer.train": {"configs"},
    "peer": {"configs", "dht", "protocols", "peer.train"},
}

# Each layer → the packages of others that it must do without.
FOREIGN = {
    "configs": {"asyncio", "hivemind", "torch", "transformers"},
    "dht": {"torch", "transformers"},
    "protocols": {"transformers"},
    "peer.train": {"asyncio", "hivemind", "uvloop"},
    "peer": {"hivemind"},
}


@dataclass(frozen=True)
class Import:
    module: str  # absolute and dotted
    line: int
    at_module_level: bool  # runs when the importing module is imported


def layer_of(module: str) -> str | None:
    """Return the layer of one of our modules, None for somebody else's."""
    inside = [layer for layer in BELOW if f"{module}.".startswith(f"{layer}.")]
    return max(inside, key=len, default=None)


def sources(layer: str) -> list[Path]:
    """Return the files of a layer, without those of a layer inside it."""
    files = sorted((ROOT / layer.replace(".", "/")).rglob("*.py"))
    return [file for file in files if layer_of(".".join(file.relative_to(ROOT).parts)) == layer]


def imports(source: str, package: str) -> Iterator[Import]:
    """Yield what `source`, a module of `package`, imports: `from a import b` as both a and a.b."""

    def visit(node: ast.AST, at_module_level: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(name.name, node.lineno, at_module_level) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (Import(f"{module}.{name.name}", node.lineno, at_module_level) for name in node.names)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_module_level and not is_function and not is_for_types)

    yield from visit(ast.parse(source), True)


def imports_of(layer: str) -> Iterator[tuple[str, Import]]:
    """Yield (where, what) for each import in a layer."""
    for file in sources(layer):
        path = file.relative_to(ROOT)
        for found in imports(file.read_text(encoding="utf-8"), ".".join(path.parent.parts)):
            yield f"{path}:{found.line} imports {found.module}", found


@pytest.mark.parametrize("layer", BELOW)
def test_a_layer_imports_only_from_below(layer: str) -> None:
    assert sources(layer)
    wrong = [where for where, found in imports_of(layer) if layer_of(found.module) not in {None, layer, *BELOW[layer]}]
    assert not wrong


@pytest.mark.parametrize("layer", BELOW)
def test_a_layer_does_without(layer: str) -> None:
    assert not [where for where, found in imports_of(layer) if found.module.split(".")[0] in FOREIGN[layer]]


@pytest.mark.parametrize("layer", [layer for layer in BELOW if layer != "peer.train"])
def test_transformers_is_imported_only_where_it_is_used(layer: str) -> None:
    early = [where for where, found in imports_of(layer) if found.at_module_level]
    assert not [where for where in early if " imports transformers" in where]


def test_the_reader_sees_every_kind_of_import() -> None:
    source = """
import torch.nn as nn
from ..status import Status
from . import data
if TYPE_CHECKING:
    import early
class A:
    import inside
def later():
    from transformers import AutoModel
"""
    found = {one.module: one.at_module_level for one in imports(source, "peer.train")}
    assert found == {
        "torch.nn": True,
        "peer.status.Status": True,
        "peer.train.data": True,
        "early": False,
        "inside": True,
        "transformers.AutoModel": False,
    }
