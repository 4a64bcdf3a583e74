"""Both that train a peer's sub-model have the face that the rest of the peer sees."""

import inspect

import pytest
import torch

from peer.workers.supervisor import Workers
from peer.workers.trainer import Trainer
from shoal.trainee import Parameters, Trainee

METHODS = [name for name, each in vars(Trainer).items() if inspect.isfunction(each) and not name.startswith("_")]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", [Workers, Trainee])
def test_methods_take_what_the_peer_gives(kind: type, name: str) -> None:
    asked, given = inspect.signature(getattr(Trainer, name)), inspect.signature(getattr(kind, name))
    assert list(given.parameters)[: len(asked.parameters)] == list(asked.parameters)
    assert inspect.iscoroutinefunction(getattr(kind, name)) == inspect.iscoroutinefunction(getattr(Trainer, name))


def test_a_trainee_has_the_attributes_of_a_trainer() -> None:
    trainer: Trainer = Trainee(Parameters.of(torch.nn.Linear(2, 1)))
    assert all(hasattr(trainer, name) for name in Trainer.__annotations__)
    assert trainer.temporary == []
