"""Text that is one pile: what splitting a model wins where domains have to be found in it first.

The pile is clustered by what `shoal prepare --domains` does, into as many domains as there are peers; on what was found
a dense model and a fused one are trained as in `quality.py`, with the settings that were best there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.quality_cells import PEERS, Cell, Trials
from benchmarks.routes import DEFAULT
from benchmarks.text import prepared
from peer.prepare.plan import Plan


@dataclass(frozen=True)
class Pile:
    """A pile, and the loss of each row on it, by seed: nats per token, its clusters weighing the same."""

    name: str
    losses: Mapping[str, Sequence[float]]

    def ratio(self, row: str, base: str) -> float:
        """Return the mean loss of one row over another's."""
        return fmean(self.losses[row]) / fmean(self.losses[base])


def train_on_pile(
    name: str, sources: Sequence[Path], cells: Mapping[str, Sequence[Cell]], cache: Path, jobs: int
) -> Pile:
    """Find domains in `sources` taken together, and train each row's `cells` on them."""
    out = cache / f"pile-{name}"
    model = next(iter(cells.values()))[0].model
    plan = Plan(vocab_size=model.vocab_size, context_length=model.context_length, domains=PEERS)
    corpus = prepared(sources, out / "corpus", plan)
    trained = Trials(corpus.path, out, jobs).outcomes(cell for row in cells.values() for cell in row)
    losses = {row: [fmean(trained[cell]["losses"][DEFAULT].values()) for cell in of] for row, of in cells.items()}
    return Pile(name, losses)
