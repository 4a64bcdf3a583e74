"""A `Status` as Prometheus metrics. Nothing is counted here: each scrape is made from the status of that moment."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from peer.http.status import PeerStatus, Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(status: Status) -> bytes:
    """Return the metrics of `status` in Prometheus' text format, for `CONTENT_TYPE`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StatusCollector(status))
    return generate_latest(registry)


class _StatusCollector(Collector):
    """Holds one status; the registry asks it once."""

    def __init__(self, status: Status) -> None:
        self.status = status

    def collect(self) -> Iterator[Metric]:
        yield from _run_metrics(self.status)
        if self.status.peers:
            yield from _own_metrics(self.status.peers[0])
        yield from _block_metrics(self.status)


def _run_metrics(status: Status) -> Iterator[Metric]:
    facts = {name: str(getattr(status, name)) for name in ("version", "peer_id", "run_id", "run_name", "strategy")}
    yield InfoMetricFamily("shoal", "The daemon and its run.", value=facts)
    phase = GaugeMetricFamily("shoal_phase", "1 for the phase that the run is in.", labels=["phase"])
    for name in ("common", "parted", "done"):
        phase.add_metric([name], float(status.phase == name))
    yield phase
    state = GaugeMetricFamily("shoal_state", "1 for what the daemon is doing.", labels=["state"])
    state.add_metric([status.state], 1.0)
    yield state
    yield GaugeMetricFamily("shoal_tick", "The current tick.", value=status.tick)
    yield GaugeMetricFamily("shoal_peers", "Peers that this daemon knows of, itself included.", value=len(status.peers))
    yield GaugeMetricFamily("shoal_dht_records", "Records that it keeps for the DHT.", value=status.dht_records)
    yield GaugeMetricFamily("shoal_age_tokens", "Tokens that the swarm has absorbed.", value=status.age)
    yield GaugeMetricFamily("shoal_goal_tokens", "Tokens after which training ends.", value=status.total_tokens)
    yield GaugeMetricFamily("shoal_warnings", "Things that are wrong; see the status.", value=len(status.warnings))
    skipped = CounterMetricFamily("shoal_rounds_skipped", "Rounds that came to nothing, by cause.", labels=["cause"])
    for cause, count in sorted(status.skipped.items()):
        skipped.add_metric([cause], count)
    yield skipped
    held_out = GaugeMetricFamily("shoal_held_out_loss", "Nats per token of held-out text.", labels=["domain"])
    for domain, points in sorted(status.held_out.items()):
        held_out.add_metric([domain], points[-1][1])
    yield held_out
    if status.eta_s is not None:
        yield GaugeMetricFamily("shoal_eta_seconds", "Expected time until training ends.", value=status.eta_s)


def _own_metrics(own: PeerStatus) -> Iterator[Metric]:
    if own.loss is not None:
        yield GaugeMetricFamily("shoal_loss", "Nats per token, of the last inner steps.", value=own.loss)
    yield GaugeMetricFamily("shoal_tokens_per_second", "Speed of this peer's training.", value=own.tokens_per_s)
    yield CounterMetricFamily("shoal_tokens", "Tokens that this peer has trained on.", value=own.tokens)
    yield CounterMetricFamily("shoal_rounds_sealed", "Rounds that this peer has sealed.", value=own.rounds)
    yield CounterMetricFamily("shoal_received_bytes", "Bytes received from other peers.", value=own.bytes_in)
    yield CounterMetricFamily("shoal_sent_bytes", "Bytes sent to other peers.", value=own.bytes_out)


def _block_metrics(status: Status) -> Iterator[Metric]:
    columns = (
        ("shoal_block_age_tokens", "Tokens that the block has absorbed.", lambda b: b.age),
        ("shoal_block_version", "Outer steps that the block has taken.", lambda b: b.version),
        ("shoal_block_holders", "Peers that train the block.", lambda b: len(b.holders)),
        ("shoal_block_keepers", "Peers that store the block.", lambda b: len(b.keepers)),
        ("shoal_block_round_ticks", "Length of the block's rounds.", lambda b: b.round_ticks),
        ("shoal_block_last_round_tick", "Tick of the block's last exchange.", lambda b: b.last_round),
        ("shoal_block_agreement_ratio", "Share of the holders that have the majority's digest.", lambda b: b.agreement),
    )
    for name, documentation, value_of in columns:
        family = GaugeMetricFamily(name, documentation, labels=["block"])
        for block in status.blocks:
            family.add_metric([block.block], float(value_of(block)))
        yield family
