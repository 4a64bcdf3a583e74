"""The trackers, each by its own library, which is an extra: nothing of it is imported unless it is asked for.

Each is used by one thread, its own (peer/track/feed.py), which alone it may keep waiting. What it raises is a reason to
try again later, never to end anything.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from configs.errors import ConfigError, NetworkError, StateError
from configs.outlets import Outlet, Tracking
from peer.http.status import Status
from peer.track.scalars import Scalar

# Tracker → what it imports, and what installs that.
LIBRARIES: dict[Tracking, tuple[str, str]] = {
    "tensorboard": ("tensorboard", "tensorboard"),
    "wandb": ("wandb", "wandb"),
    "mlflow": ("mlflow", "mlflow"),
    "otel": ("opentelemetry.exporter.otlp.proto.http", "otel"),
}
PROJECT = "shoal"  # of Weights & Biases, where none is given
ONLINE_S = 30.0  # for Weights & Biases to answer
MOST_METRICS = 1000  # in one request to MLflow


@dataclass(frozen=True)
class Subject:
    """Whose curves these are; the same after a restart, so that they go on where they were."""

    run_id: str
    run_name: str
    peer_id: str
    strategy: str
    folder: Path  # for what a library keeps on this disk

    @classmethod
    def of(cls, status: Status, folder: Path) -> "Subject":
        """Return whom a status is of."""
        return cls(status.run_id, status.run_name, status.peer_id, status.strategy, folder)

    @property
    def name(self) -> str:
        """What it is called among others of its run."""
        return f"{self.run_name}-{self.peer_id[-6:]}"

    @property
    def facts(self) -> dict[str, str]:
        """What is told of it once."""
        return {"run_id": self.run_id, "run": self.run_name, "peer_id": self.peer_id, "strategy": self.strategy}


class Tracker(Protocol):
    """Takes the values of curves at a number of tokens, and at a time in wall-clock seconds."""

    def write(self, tokens: int, wall_s: float, values: Sequence[Scalar]) -> None:
        """Take values. May wait, and may raise anything."""

    def close(self) -> None:
        """Let what was taken arrive, and let go."""


def check_installed(outlets: Sequence[Outlet]) -> None:
    """Raise ConfigError if a library is not there, with the line that installs it."""
    for outlet in outlets:
        module, extra = LIBRARIES[outlet.kind]
        try:
            is_there = find_spec(module) is not None
        except ModuleNotFoundError:  # a package above it
            is_there = False
        if not is_there:
            raise ConfigError(f"{outlet} needs a library; install it with: pip install 'shoal[{extra}]'")


class TensorBoard:
    """Event files in a folder."""

    def __init__(self, place: str, subject: Subject) -> None:
        from torch.utils.tensorboard import SummaryWriter

        try:
            Path(place).mkdir(parents=True, exist_ok=True)
            self._writer = SummaryWriter(place)
        except OSError as error:
            raise StateError(f"{place} cannot be written: {error.strerror}") from None

    def write(self, tokens: int, wall_s: float, values: Sequence[Scalar]) -> None:
        """Add values to the event file; every two minutes at the latest they are on disk."""
        for scalar in values:
            self._writer.add_scalar(scalar.name, scalar.value, tokens, wall_s)

    def close(self) -> None:
        """Write what waits."""
        self._writer.close()


class WeightsAndBiases:
    """A run of a project; `WANDB_MODE=offline` keeps it on disk for `wandb sync`."""

    def __init__(self, place: str, subject: Subject) -> None:
        import wandb

        settings = wandb.Settings(
            console="off", silent=True, init_timeout=ONLINE_S, root_dir=str(subject.folder), disable_git=True
        )
        mode = os.environ.get("WANDB_MODE", "online")
        if mode == "online" and not wandb.api.api_key:  # it would ask at the terminal, and wait
            raise ConfigError("no key is known: `wandb login`, or set WANDB_API_KEY, or WANDB_MODE=offline")
        self._run: Any = wandb.init(
            project=place or PROJECT,
            name=subject.name,
            id=f"{subject.run_id[:8]}-{subject.peer_id[-12:]}",
            resume="allow",
            config=subject.facts,
            settings=settings,
        )
        self._run.define_metric("tokens")
        self._run.define_metric("*", step_metric="tokens")

    def write(self, tokens: int, wall_s: float, values: Sequence[Scalar]) -> None:
        """Hand values to its own process, which sends them."""
        named = {scalar.name: scalar.value for scalar in values}
        self._run.log({**named, "tokens": tokens, "wall_s": wall_s, "_timestamp": wall_s})

    def close(self) -> None:
        """Wait until they are sent, or on disk."""
        self._run.finish()


class MLflow:
    """A run of an experiment that is called as the swarm's run."""

    def __init__(self, place: str, subject: Subject) -> None:
        from mlflow import MlflowClient

        client: Any = MlflowClient(tracking_uri=place or None)
        found = client.get_experiment_by_name(subject.run_name)
        experiment = found.experiment_id if found else client.create_experiment(subject.run_name)
        tags = {f"shoal.{key}": value for key, value in subject.facts.items()}
        same = " and ".join(f"tags.`shoal.{key}` = '{tags[f'shoal.{key}']}'" for key in ("run_id", "peer_id"))
        earlier = client.search_runs([experiment], filter_string=same, max_results=1)
        if earlier:
            self._id = earlier[0].info.run_id
            client.update_run(self._id, status="RUNNING")
        else:
            self._id = client.create_run(experiment, tags=tags, run_name=subject.name).info.run_id
        self._client = client

    def write(self, tokens: int, wall_s: float, values: Sequence[Scalar]) -> None:
        """Send values to the tracking server, or write them into its store."""
        from mlflow.entities import Metric

        metrics = [Metric(scalar.name, float(scalar.value), int(wall_s * 1000), tokens) for scalar in values]
        for at in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self._id, metrics=metrics[at : at + MOST_METRICS])

    def close(self) -> None:
        """Say that this peer has ended, for now."""
        self._client.set_terminated(self._id)


class OpenTelemetry:
    """Gauges to a collector, by OTLP over HTTP; they have the time of day, and the tokens as one of them."""

    def __init__(self, place: str, subject: Subject) -> None:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.resources import Resource

        about = {"service.name": "shoal", "service.instance.id": subject.peer_id}
        about |= {f"shoal.{key}": value for key, value in subject.facts.items()}
        endpoint = None
        if place:  # a collector is mostly named without the path that metrics go to
            endpoint = place if urlsplit(place).path.strip("/") else f"{place.rstrip('/')}/v1/metrics"
        self._exporter: Any = OTLPMetricExporter(endpoint=endpoint)
        self._reader = InMemoryMetricReader()
        self._provider = MeterProvider([self._reader], Resource.create(about), shutdown_on_exit=False)
        self._meter = self._provider.get_meter("shoal")
        self._gauges: dict[str, Any] = {}

    def write(self, tokens: int, wall_s: float, values: Sequence[Scalar]) -> None:
        """Send values now. Raises NetworkError if the collector does not take them."""
        from opentelemetry.sdk.metrics.export import MetricExportResult

        for scalar in (*values, Scalar("tokens", tokens), Scalar("wall_s", wall_s)):
            name = f"shoal.{scalar.group.replace('/', '.')}"
            if name not in self._gauges:
                self._gauges[name] = self._meter.create_gauge(name)
            self._gauges[name].set(float(scalar.value), {scalar.label: scalar.of} if scalar.of else {})
        data = self._reader.get_metrics_data()
        if data is not None and self._exporter.export(data) is not MetricExportResult.SUCCESS:
            raise NetworkError("the collector does not take them; is it there, and does it take OTLP over HTTP?")

    def close(self) -> None:
        """Close its connections."""
        self._provider.shutdown()
        self._exporter.shutdown()


OPEN: dict[Tracking, Callable[[str, Subject], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
    "otel": OpenTelemetry,
}
