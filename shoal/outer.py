"""Your own training loop as a peer: `torch.nn.Module`, any optimizer, three lines.

    outer = shoal.Outer(model, run="mine", initial_peers=[…])   # none: this one founds the run
    …
        optimizer.step()
        outer.step(tokens)
    …
    outer.close()

What happens at a round's end is what happens to any peer of strategy `replicas` (docs/guide/rounds.md), with the
same code: θ is copied out between two optimizer steps, its difference to the last common state goes out as a signed,
compressed offer, and the new common state comes in between two later steps, θ ← θ + (φ_new − θ_snapshot). Training
waits for none of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from configs.errors import ConfigError, StateError, UsageError
from configs.load import describe
from configs.run import OuterSpec
from dht.loop_thread import HAS_ENDED, LoopThread
from peer.train.partition import COMMON
from shoal.module_run import ModuleRun
from shoal.peer import Peer, load, opened
from shoal.trainee import Parameters, Trainee

if TYPE_CHECKING:
    from types import TracebackType

    from torch import Tensor
    from torch.nn import Module

    from peer.http.status import Status

log = logging.getLogger(__name__)

ROUND_S = 30.0
# Keys of `[peer]` that say how a language model is trained and read: here that is the caller's.
NOT_HERE = frozenset(
    {"answers", "base", "base_precision", "data", "devices", "init_from", "micro_batch", "precision", "private"}
    | {"sub_model", "threads"}
)


@dataclass(frozen=True)
class Anchor:
    """The last state that this peer and the others have in common: equal digests are equal bits."""

    version: int  # rounds that led to it
    digest: str
    tokens: int  # that are in it, of all peers
    parameters: Mapping[str, Tensor]  # by their names, float32, on the CPU; views of the state, not to be written


class Outer:
    """Exchanges a module with the others of its run while the caller's loop trains it.

    All trainable parameters are exchanged, in float32; buffers and frozen parameters are not. The module may be on any
    device, but must be whole in this process, and built alike at each peer. A peer that joins gets the swarm's state
    into its module before its first step.
    """

    def __init__(
        self,
        module: Module,
        *,
        run: str,
        initial_peers: Sequence[str] = (),
        round_seconds: float = ROUND_S,
        outer: OuterSpec | None = None,
        state_dir: Path | str | None = None,
        **options: Any,
    ) -> None:
        """Found the run `run`, or join it at `initial_peers`, and return when the module has its state.

        round_seconds  between two exchanges; the founder's word counts, as that for `outer` does
        outer          codec and outer optimizer: `shoal.OuterSpec`; by default four bits a value, DiLoCo's Nesterov
        state_dir      where identity, state and what is owed are kept for the next start; None: nowhere
        options        the other keys of a preset's `[peer]`, such as `port`, `host`, `announce`, `up_mbit`

        Holds a thread and a libp2p process until `close`. Raises ShoalError in one of its kinds.
        """
        if strange := sorted(NOT_HERE & options.keys()):
            raise ConfigError(
                f"shoal.Outer: {', '.join(strange)} is of language models; leave it out, your loop decides"
            )
        parameters = Parameters.of(module)
        try:
            mine = ModuleRun.of(parameters, run, round_seconds, outer or OuterSpec())
        except ValidationError as error:
            raise ConfigError(describe(error, "shoal.Outer")) from None
        self._temporary = TemporaryDirectory(prefix="shoal-outer-") if state_dir is None else None
        folder = Path(self._temporary.name if self._temporary else state_dir or "")
        settings = load(state_dir=folder, initial_peers=tuple(initial_peers), answers=False, **options)
        self._trainee = Trainee(parameters)
        peer = opened(settings, self._trainee.opened(), mine.enter)
        try:
            self._loop: LoopThread[Peer] = LoopThread(peer, "shoal-outer")
        except BaseException:
            self._forget()
            raise
        self._has_told = False
        self._trainee.hold()

    def step(self, tokens: int, loss: float | Tensor | None = None) -> None:
        """Say that an optimizer step is over, of so many tokens; the module may change now, and at no other time.

        `tokens` weighs this peer's work beside the others': tokens, examples, whatever all peers count alike. `loss` is
        only shown. Raises the ShoalError that has ended the peer, if one has; the loop may go on without it.
        """
        if tokens < 0:
            raise UsageError(f"a step of {tokens} tokens is not possible; give how many it has trained")
        self._trainee.step(tokens, loss)
        if not self._loop.is_open:
            self._loop.check()
        elif self._loop.value.has_left and not self._has_told:
            self._has_told = True
            log.warning("this peer was told to leave its run: training goes on alone")

    @property
    def address(self) -> str:
        """The address by which others join: their `initial_peers`."""
        return self._loop.value.address

    def status(self) -> Status:
        """Return everything that `shoal status --json` shows, as it is now."""
        return self._loop.call(self._look())

    def anchor(self) -> Anchor:
        """Return the last state that is common with the others, to evaluate or to save; training goes on from its own.

        Raises StateError when the peer has left.
        """
        return self._loop.call(self._anchor())

    def close(self) -> None:
        """Finish the round that is under way, hand over, save and leave; the module keeps what it has.

        Up to a minute. The second time it does nothing. Raises the error that has ended the peer, if `step` has not.
        """
        self._trainee.release()
        try:
            self._loop.close()
        finally:
            self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _forget(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    async def _look(self) -> Status:
        return self._loop.value.status()

    async def _anchor(self) -> Anchor:
        replica = self._loop.value.daemon.parts.session.replicas.get(COMMON)
        if replica is None:
            raise StateError(HAS_ENDED)
        state = replica.state
        named = self._trainee.parameters.tensors(state.phi)
        return Anchor(state.version, state.digest, state.age, named)
