"""Every metric that a daemon tells Prometheus, read from where they are made: the page `metrics`."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from docs.generate.sources import files

SOURCE = "peer/http/metrics.py"
KINDS = {"GaugeMetricFamily": "gauge", "CounterMetricFamily": "counter", "InfoMetricFamily": "info"}
SUFFIXES = {"counter": "_total", "info": "_info"}  # that Prometheus' format adds


@dataclass(frozen=True)
class Metric:
    """One family of metrics."""

    name: str  # as a scrape shows it
    kind: str
    what: str
    labels: tuple[str, ...]


def metrics() -> Iterator[Metric]:
    """Yield each family in the order of the source."""
    tree = next(file.tree for file in files() if file.path == SOURCE)
    for function in tree.body:
        for node in ast.walk(function):
            match node:
                case ast.Call(func=ast.Name(id=kind), args=[ast.Constant(value=str(name)), ast.Constant(value=what)]):
                    if kind in KINDS:
                        yield _metric(name, KINDS[kind], str(what), node)
                case ast.Tuple(elts=[ast.Constant(value=str(name)), ast.Constant(value=str(what)), ast.Lambda()]):
                    yield Metric(name, "gauge", what, ("block",))


def page() -> str:
    """Return the page in MyST markdown."""
    return "\n".join(_page())


def _metric(name: str, kind: str, what: str, node: ast.Call) -> Metric:
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    labels = given.get("labels")
    names = tuple(ast.literal_eval(labels)) if labels is not None else ()
    return Metric(f"{name}{SUFFIXES.get(kind, '')}", kind, what, names)


def _page() -> Iterator[str]:
    yield "# Every metric\n"
    yield "A daemon answers at `/metrics` of its status page, in Prometheus' text format. Nothing is counted for a"
    yield "scrape: it is made from the status of that moment. [Which to watch](../operations.md#looking-at-it)."
    yield f"This page is made of `{SOURCE}`.\n\n| metric | kind | labels | what |\n| --- | --- | --- | --- |"
    for metric in metrics():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.what} |"
    yield ""
