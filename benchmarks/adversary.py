"""Hostile members: what they offer for a round when they know everything, the others' offers and the rule included.

An attack takes a `Scene` and returns the values of each hostile member's offer; `benchmarks/hostile_swarm.py` encodes
them as any offer is encoded, and `tests/inloop/test_liars.py` has some of the kind in whole daemons. An offer that is
not finite, of a wrong size or signed with a wrong norm is refused before it can count (`peer/block/replica.py`), so
nothing like that stands here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Combine = Callable[[Sequence[Tensor]], Tensor]  # the honest offers and these: what the rule makes of them


@dataclass
class Scene:
    """What hostile members know when they make their offers for a round."""

    share: float  # of the run that is over
    honest: Tensor  # (H, N): what the honest members offer, decoded
    own: Tensor | None  # (M, N): what the hostile ones have learnt, if they train
    hostile: int  # how many they are
    combine: Combine
    last: Tensor  # (N,): the direction of the last steps
    chance: torch.Generator
    kept: dict[str, Tensor] = field(default_factory=dict)  # from round to round

    @property
    def mean(self) -> Tensor:
        """The mean of the honest offers, (N,)."""
        return self.honest.mean(dim=0)

    @property
    def norm(self) -> float:
        """The median norm of the honest offers."""
        return float(self.honest.norm(dim=1).median())

    def learnt(self) -> Tensor:
        assert self.own is not None
        return self.own

    def as_loud(self, values: Tensor) -> Tensor:
        """Return values with the norm of an honest offer, (N,)."""
        return values * (self.norm / values.norm())

    def drawn(self) -> Tensor:
        """Return Gaussian noise of the norm of an honest offer, (N,)."""
        return self.as_loud(torch.randn(self.honest.shape[1], generator=self.chance))

    def before(self) -> Tensor:
        """Return what the honest members offered for the round before, (H, N); in the first round for this one."""
        before = self.kept.get("before", self.honest)
        self.kept["before"] = self.honest
        return before

    def all(self, values: Tensor) -> list[Tensor]:
        """Return the same values for every hostile member."""
        return [values] * self.hostile


def sign_flip(scene: Scene) -> list[Tensor]:
    """The opposite of what was learnt, as loud as the others."""
    return list(-scene.learnt())


def sign_flip_10(scene: Scene) -> list[Tensor]:
    """The same ten times as loud."""
    return list(-10 * scene.learnt())


def scaling(scene: Scene) -> list[Tensor]:
    """What was learnt, a hundred times over."""
    return list(100 * scene.learnt())


def noise(scene: Scene) -> list[Tensor]:
    """Gaussian noise as loud as the others, from each its own."""
    return [scene.drawn() for _ in range(scene.hostile)]


def alie(scene: Scene) -> list[Tensor]:
    """A little is enough (1902.06156): one and a half standard deviations off the mean, in every value."""
    return scene.all(scene.mean - 1.5 * scene.honest.std(dim=0))


def min_max(scene: Scene) -> list[Tensor]:
    """Min-max (NDSS 2021, Shejwalkar): off the mean as far as the two honest offers that are farthest apart."""
    back = -scene.mean / scene.mean.norm()
    return scene.all(scene.mean + _reach(scene) * back)


def min_max_std(scene: Scene) -> list[Tensor]:
    """The same along the standard deviations."""
    spread = scene.honest.std(dim=0)
    return scene.all(scene.mean - _reach(scene) * spread / spread.norm())


def _reach(scene: Scene) -> float:
    """Return how far off the mean an offer may be, backwards, and yet be no farther from any than they are apart."""
    most = float(torch.cdist(scene.honest, scene.honest).max())
    direction = -scene.mean / scene.mean.norm()
    low, high = 0.0, 10 * most
    for _ in range(30):
        middle = (low + high) / 2
        far = float((scene.mean + middle * direction - scene.honest).norm(dim=1).max())
        low, high = (middle, high) if far <= most else (low, middle)
    return low


def label_flip(scene: Scene) -> list[Tensor]:
    """What is learnt from text whose every token stands for another one."""
    return list(scene.learnt())


def copied(scene: Scene) -> list[Tensor]:
    """The first honest member's offer once more."""
    return scene.all(scene.honest[0])


def false_tokens(scene: Scene) -> list[Tensor]:
    """The same, with tokens for a thousand years of training."""
    return copied(scene)


def stale(scene: Scene) -> list[Tensor]:
    """What was learnt in the first round, in every round."""
    return list(scene.kept.setdefault("first", scene.learnt()))


def echo(scene: Scene) -> list[Tensor]:
    """What all others offered for the round before, in the mean: it goes where the last step went."""
    return scene.all(scene.as_loud(scene.before().mean(dim=0)))


def late_copy(scene: Scene) -> list[Tensor]:
    """The first honest member's offer for the round before."""
    return scene.all(scene.before()[0])


def collusion(scene: Scene) -> list[Tensor]:
    """The mean, and a small shift that is the same for all of them and in all rounds."""
    shift = scene.kept.setdefault("shift", scene.drawn())
    return scene.all(scene.mean + 0.5 * scene.norm * shift / shift.norm())


def sleeper(scene: Scene) -> list[Tensor]:
    """Honest for half of the run, then the opposite of the mean."""
    return list(scene.learnt()) if scene.share < 0.5 else scene.all(-scene.as_loud(scene.mean))


def victim(scene: Scene) -> list[Tensor]:
    """What the others offer, without the first honest member, and the opposite of his."""
    return scene.all(scene.as_loud(scene.honest[1:].mean(dim=0) - scene.honest[0]))


def rival(scene: Scene) -> list[Tensor]:
    """The same against what is learnt from the first honest member's text, which his rival trains on as well."""
    return scene.all(scene.as_loud(scene.honest[1:].mean(dim=0) - scene.learnt()[0]))


def tailored_back(scene: Scene) -> list[Tensor]:
    """Of offers like those of ALIE and min-max the one with which the outcome goes least where the honest ones go."""
    return _worst(scene, _spreading(scene), _least)


def tailored_far(scene: Scene) -> list[Tensor]:
    """Of the same offers the one that takes the outcome farthest from where it were without it (NDSS 2021, 4)."""
    return _worst(scene, _spreading(scene), _farthest)


def tailored_apart(scene: Scene) -> list[Tensor]:
    """The same by members who do not look like each other: each mixes noise of his own in, to a cosine of 0.8."""
    return [0.9 * offer + 0.44 * float(offer.norm()) / scene.norm * scene.drawn() for offer in tailored_far(scene)]


def aimed(scene: Scene) -> list[Tensor]:
    """The same against one member: his offer's opposite, and what makes it look like the others'."""
    return _worst(scene, [-scene.honest[0]], _farthest)


STRENGTHS = (0.5, 1.0, 2.0)  # of a direction, in the norm of an offer
ALONG = (0.05, 0.1, 0.15, 0.2, 0.3)  # cosines to the last steps, at which a rule may no longer see anything
LOUDNESS = (1.0, 2.0)

Harm = Callable[[Tensor, Tensor], float]  # of an outcome, and of the one without anybody hostile


def _least(outcome: Tensor, clean: Tensor) -> float:
    return float(-(outcome @ clean))


def _farthest(outcome: Tensor, clean: Tensor) -> float:
    return float((outcome - clean).norm())


def _spreading(scene: Scene) -> list[Tensor]:
    spread = scene.honest.std(dim=0)
    return [-scene.mean, -spread, -spread * torch.sign(scene.mean), scene.kept.setdefault("shift", scene.drawn())]


def _worst(scene: Scene, directions: Sequence[Tensor], harm: Harm) -> list[Tensor]:
    """Return the offer that does most harm, of those that are in part like the others', or like the last steps."""
    clean = scene.combine([])
    found, most = scene.mean, -float("inf")
    for values in _family(scene, directions):
        for loudness in LOUDNESS:
            offer = loudness * scene.as_loud(values)
            done = harm(scene.combine(scene.all(offer)), clean)
            if done > most:
                found, most = offer, done
    return scene.all(found)


def _family(scene: Scene, directions: Sequence[Tensor]) -> Iterator[Tensor]:
    for direction in directions:
        for strength in STRENGTHS:
            yield scene.mean + strength * scene.as_loud(direction)
        if bool(scene.last.any()):
            ahead = scene.last / scene.last.norm()
            aside = direction - ahead * (direction @ ahead)
            for along in ALONG:
                yield along * ahead + aside * ((1 - along**2) ** 0.5 / aside.norm())


Attack = Callable[[Scene], list[Tensor]]
ATTACKS: Mapping[str, Attack] = {
    attack.__name__: attack
    for attack in (
        sign_flip,
        sign_flip_10,
        scaling,
        noise,
        alie,
        min_max,
        min_max_std,
        label_flip,
        copied,
        false_tokens,
        stale,
        echo,
        late_copy,
        collusion,
        sleeper,
        victim,
        rival,
        tailored_back,
        tailored_far,
        tailored_apart,
        aimed,
    )
}
BOASTING = {"false_tokens"}  # whose members claim tokens that they have not trained
# Against one member alone: where who lies sees his offer before he makes his own, nobody can say who is wrong.
AIMED = {"aimed"}
TRAINING = {"sign_flip", "sign_flip_10", "scaling", "label_flip", "stale", "sleeper", "rival"}  # whose members train
