"""Each tracker by its own library, and what it has written read back."""

import gzip
import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from status_example import example

from benchmarks.patience import until
from configs.errors import ConfigError, NetworkError, StateError
from configs.outlets import Outlet, read_outlet
from peer.track.scalars import scalars
from peer.track.trackers import (
    LIBRARIES,
    MLflow,
    OpenTelemetry,
    Subject,
    TensorBoard,
    Tracker,
    WeightsAndBiases,
    check_installed,
)

TIMES = ((1000, 1_700_000_000.0), (2000, 1_700_000_060.0))  # tokens, and when


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return Subject.of(example(), tmp_path)


def write(tracker: Tracker) -> None:
    status = example()
    status.held_out = {"python": [(10, 4.0), (20, 3.5)]}
    for tokens, wall_s in TIMES:
        tracker.write(tokens, wall_s, scalars(status))
    tracker.close()


def test_tensorboard_has_the_curves(tmp_path: Path, subject: Subject) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write(TensorBoard(str(tmp_path / "curves"), subject))
    events = accumulator.EventAccumulator(str(tmp_path / "curves"))
    events.Reload()
    assert [(e.step, e.wall_time) for e in events.Scalars("loss/train")] == list(TIMES)
    assert {round(e.value, 6) for e in events.Scalars("loss/held-out/python")} == {3.5}
    assert events.Scalars("agreement/trunk")[0].value == 1.0


def test_a_folder_that_cannot_be_is_named(tmp_path: Path, subject: Subject) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be written"):
        TensorBoard(str(tmp_path / "file"), subject)


def test_wandb_keeps_the_curves_offline(tmp_path: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with ThreadPoolExecutor(1) as pool:  # as a feed does, out of the main thread
        pool.submit(lambda: write(WeightsAndBiases("fish", subject))).result()
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    # Its own process writes, and on a busy machine it is not done when it says so.
    rows, run = until(
        lambda: _read_wandb(file),
        lambda read: read[1] is not None and len(read[0]) == len(TIMES),
        "the curves",
        most_s=60,
    )
    assert (run.project, run.display_name) == ("fish", subject.name)
    assert [(row["tokens"], row["_timestamp"]) for row in rows] == list(TIMES)
    assert rows[0]["loss/train"] == pytest.approx(3.2) and rows[1]["loss/held-out/python"] == 3.5


def test_wandb_without_a_key_asks_nobody(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "")
    monkeypatch.setenv("NETRC", "/nowhere")
    with pytest.raises(ConfigError, match=r"no key is known: `wandb login`.* WANDB_MODE=offline"):
        WeightsAndBiases("", subject)


@pytest.mark.parametrize("store", ["sqlite", "file"])
def test_mlflow_has_the_curves_and_goes_on_with_them(
    store: str, tmp_path: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = f"sqlite:///{tmp_path}/curves.db" if store == "sqlite" else (tmp_path / "curves").as_uri()
    write(MLflow(uri, subject))
    write(MLflow(uri, subject))
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    (run,) = client.search_runs([experiment.experiment_id])  # the same one after a restart
    history = client.get_metric_history(run.info.run_id, "loss/train")
    assert {(point.step, point.timestamp / 1000) for point in history} == set(TIMES)
    assert client.get_metric_history(run.info.run_id, "loss/held-out/python")[0].value == 3.5
    assert run.data.tags["shoal.peer_id"] == subject.peer_id and run.info.status == "FINISHED"


@contextmanager
def collector(answer: int = 200) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """An OpenTelemetry collector: decodes what it is sent."""
    service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    requests: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            requests.append((self.path, service.ExportMetricsServiceRequest.FromString(body)))
            self.send_response(answer)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_collector_gets_gauges_by_otlp(subject: Subject) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with collector() as (url, requests):
        write(OpenTelemetry(url, subject))
    assert [path for path, _ in requests] == ["/v1/metrics"] * 2
    (resource,) = requests[-1][1].resource_metrics
    about = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert (about["service.name"], about["service.instance.id"]) == ("shoal", subject.peer_id)
    found = {
        (metric.name, *(attribute.value.string_value for attribute in point.attributes)): point.as_double
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.gauge.data_points
    }
    assert found["shoal.loss.train",] == pytest.approx(3.2)
    assert found["shoal.loss.held-out", "python"] == 3.5
    assert found["shoal.tokens",] == 2000.0


def test_a_collector_that_refuses_is_an_error(subject: Subject) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with collector(answer=400) as (url, _), pytest.raises(NetworkError, match="the collector does not take them"):
        write(OpenTelemetry(f"{url}/v1/metrics", subject))


@pytest.mark.parametrize("kind", LIBRARIES)
def test_a_missing_extra_is_one_line(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, extra = LIBRARIES[kind]  # type: ignore[index]
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{module.partition('.')[0]}.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=rf"{kind}:x needs a library; .*pip install 'shoal\[{extra}\]'"):
        check_installed([Outlet(kind, "x")])  # type: ignore[arg-type]
    check_installed([])


def test_what_is_installed_passes() -> None:
    pytest.importorskip("tensorboard")
    check_installed([read_outlet("tensorboard:x")])


def _read_wandb(file: Path) -> tuple[list[dict[str, Any]], Any]:
    """Read back what `wandb sync` would send."""
    from wandb.proto import wandb_internal_pb2

    rows, run = [], None
    for data in _leveldb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)  # type: ignore[attr-defined]
        if record.WhichOneof("record_type") == "run" and run is None:
            run = record.run
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows, run


def _leveldb_records(data: bytes, header_bytes: int = 7, block_bytes: int = 1 << 15) -> Iterator[bytes]:
    """Yield the records of a log as LevelDB writes it: blocks, in which each piece has a sum, a size and a kind."""
    at, record = header_bytes, b""
    while at + 7 <= len(data):
        if (left := block_bytes - at % block_bytes) < 7:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""
