"""Holds the layers of the house: who may import whom, read from the source without importing anything."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# The floors of the house, from the ground: who stands on one imports from those below it and from its own floor.
FLOORS = [
    ["configs"],
    ["dht", "peer.corpus", "peer.http", "peer.track"],
    ["protocols", "peer.train", "peer.sources", "peer.prepare"],
    ["peer.block", "peer.workers", "peer.fused"],
    ["peer.member", "peer.answers", "peer.publish", "peer.simulate"],
    ["peer.daemon", "peer.doctor", "peer.visit", "peer.chaos", "peer.service"],
    ["peer.commands"],
    ["shoal"],
]
LAYERS = [layer for floor in FLOORS for layer in floor]
TOPS = sorted({layer.split(".")[0] for layer in LAYERS})  # our own packages, each with all that is in it
HALL = "peer"  # the files of peer/ itself that are no layer: the entry, and how a process ends

# Each layer → the packages of others that it must do without.
FOREIGN = {
    "configs": {"asyncio", "hivemind", "torch", "transformers"},
    "dht": {"torch", "transformers"},
    "protocols": {"transformers"},
    "peer": {"hivemind"},
    "shoal": {"hivemind"},
    "peer.train": {"asyncio", "uvloop"},
    "peer.corpus": {"asyncio", "uvloop"},
    "peer.sources": {"asyncio", "uvloop", "torch"},
    "peer.prepare": {"asyncio", "uvloop", "torch"},
    "peer.fused": {"asyncio", "uvloop"},
}

# Packages that another one brings as a part of itself.
BROUGHT = {"botocore": "boto3", "s3transfer": "boto3", "py4j": "pyspark"}


@dataclass(frozen=True)
class Import:
    module: str  # absolute and dotted
    line: int
    at_module_level: bool  # runs when the importing module is imported


def layer_of(module: str) -> str | None:
    """Return the layer of one of our modules, None for somebody else's, or one of the hall's."""
    inside = [layer for layer in LAYERS if f"{module}.".startswith(f"{layer}.")]
    return max(inside, key=len, default=None)


def floor_of(layer: str) -> int:
    return next(level for level, floor in enumerate(FLOORS) if layer in floor)


def sources(layer: str) -> list[Path]:
    """Return the files of a layer, or of the hall with all that is in it."""
    path = ROOT / layer.replace(".", "/")
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


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


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_from_below(layer: str) -> None:
    assert sources(layer)
    wrong = [
        where
        for where, found in imports_of(layer)
        if (other := layer_of(found.module)) not in {None, layer} and floor_of(other) > floor_of(layer)
    ]
    assert not wrong


@pytest.mark.parametrize("layer", FOREIGN)
def test_a_layer_does_without(layer: str) -> None:
    assert not [where for where, found in imports_of(layer) if found.module.split(".")[0] in FOREIGN[layer]]


def _distribution(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=;! ]", name, maxsplit=1)[0]).lower()


def test_everything_that_is_imported_is_asked_for_by_the_project_itself() -> None:
    """What is there only because somebody else needs it, is gone on the next machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    declared, installed = {_distribution(name) for name in asked}, packages_distributions()
    missing = {
        name: where
        for top in TOPS
        for where, found in imports_of(top)
        if (name := found.module.split(".")[0]) not in sys.stdlib_module_names and layer_of(found.module) is None
        if name not in (HALL, "compression")  # Python's own from 3.14
        if not {_distribution(one) for one in installed.get(BROUGHT.get(name, name), [])} & declared
    }
    assert not missing


@pytest.mark.parametrize(
    "layer", ["configs", "dht", "protocols", "peer.block", "peer.workers", "peer.member", "peer.http"]
)
def test_transformers_is_imported_only_where_it_is_used(layer: str) -> None:
    early = [where for where, found in imports_of(layer) if found.at_module_level]
    assert not [where for where in early if " imports transformers" in where]


def test_no_file_imports_itself_in_a_circle() -> None:
    """Nor for the type checker alone: what needs to know of each other so much is one room."""
    files = [file for top in TOPS for file in sources(top)]
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}
    graph = {
        module: {
            other
            for found in imports(file.read_text(encoding="utf-8"), ".".join(file.relative_to(ROOT).parent.parts))
            for other in (found.module, found.module.rpartition(".")[0])
            if other in modules and other != module
        }
        for module, file in modules.items()
    }
    while leaves := [module for module, needs in graph.items() if not needs]:
        for module in leaves:
            del graph[module]
        for needs in graph.values():
            needs.difference_update(leaves)
    assert not graph  # what is left imports, or is imported by, a circle


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
