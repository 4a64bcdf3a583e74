"""What a swarm that is made up remembers: its rounds, curves, answers and share. See `page_swarm`."""

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from peer.http.history import (
    Answered,
    AnswersHistory,
    Curves,
    Device,
    Part,
    Piece,
    Point,
    PromptHistory,
    RoundRecord,
    Rounds,
    Share,
)

START_TICK = 1000  # in which a made-up swarm begins; what was before is made up too
PHASES = (("snapshot", 0.02), ("offer", 0.35), ("gathered", 1.6), ("sealed", 2.1), ("stepped", 2.4), ("applied", 2.6))
WORDS = {
    "python": "def read(path): with open(path) as file: return file.read()",
    "docs": "The function returns the number of bytes that were read from the stream",
    "cpp": "template <typename T> class Tensor { public: T* data() const; };",
    "law": "the party of the first part shall indemnify and hold harmless the other",
    "medicine": "the patient presented with a fever and was treated with fluids for two days",
    "news": "the council said on Monday that the bridge would open again before winter",
    "poetry": "and the slow river keeps the light of all the evenings it has seen",
    "recipes": "stir the onions in butter until they are soft and then add the flour",
}


@dataclass(frozen=True)
class PageHistory:
    """What is remembered of a swarm; the first of its peers is the daemon."""

    ids: Sequence[str]
    homes: Sequence[str]  # the sub-model of each
    sub_models: dict[str, str]
    began: float
    tick_seconds: float
    is_well: bool

    @property
    def peers(self) -> int:
        return len(self.ids)

    @property
    def domains(self) -> list[str]:
        return list(self.sub_models.values())

    @property
    def blocks(self) -> list[str]:
        return [*(["trunk"] if len(self.sub_models) > 1 else []), *self.sub_models]

    def tokens_at(self, tick: int) -> int:
        return 2_400 * self.peers * tick

    def rounds(self, tick: int, block: str | None, before: int | None, limit: int) -> Rounds:
        newest = min(before - 1 if before is not None else tick - 1, tick - 1)
        first = START_TICK - 400
        found: list[RoundRecord] = []
        for tick in range(newest, first, -1):
            for name in self.blocks:
                if block in (None, name) and (tick + len(name)) % 2 == 0:
                    found.append(self._round(name, tick))
            if len(found) >= limit:
                break
        found = found[:limit]
        return Rounds(rounds=found, older=found[-1].tick if found and found[-1].tick > first + 1 else None)

    def curves(self) -> Curves:
        def points(shift: int, scale: float = 1.0) -> list[Point]:
            return [
                Point(tokens=self.tokens_at(k * 5), at=self.began - 200 + k, value=scale * loss_at(k / 200, shift))
                for k in range(200)
            ]

        held_out = {
            name: {domain: points(abs(a - b) + 1) for b, domain in enumerate(self.domains)}
            for a, name in enumerate(self.sub_models)
        }
        rate = [
            Point(tokens=p.tokens, at=p.at, value=3e-4 * min(1, (k + 1) / 20) * (1 - k / 260))
            for k, p in enumerate(points(0))
        ]
        norm = [
            Point(tokens=p.tokens, at=p.at, value=0.6 + 0.3 * math.sin(k / 3) ** 2 + 3 / (k + 2))
            for k, p in enumerate(points(0))
        ]
        run = {domain: points(at) for at, domain in enumerate(self.domains)}
        return Curves(held_out=held_out, run=run, training=points(0, 0.98), learning_rate=rate, gradient_norm=norm)

    def answers(self) -> AnswersHistory:
        prompts = []
        for at, domain in enumerate(self.domains):
            words = WORDS.get(domain, WORDS["python"]).split()
            answers = [
                Answered(
                    at=self.began - 3_600 + 240 * k,
                    tick=600 + 25 * k,
                    age=self.tokens_at(600 + 25 * k),
                    pieces=self.pieces(words, right=(k + 1) / 14, seed=k + 100 * at),
                )
                for k in range(14)
            ]
            prompts.append(PromptHistory(prompt=" ".join(words[:3]), domain=domain, answers=answers))
        return AnswersHistory(prompts=prompts)

    def share(self, tick: int) -> Share:
        out = {"offers": 812_000_000, "states": 240_000_000, "text": 31_000_000, "help": 4_200_000, "dht": 9_100_000}
        return Share(
            tokens=self.tokens_at(tick) // self.peers,
            rounds=tick - 40,
            share_of_tokens=1 / self.peers,
            bytes_in={name: round(1.3 * size) for name, size in out.items()},
            bytes_out=out,
            up_mbit=20.0,
            down_mbit=None,
            memory_bytes=2_400_000_000,
            memory_free_bytes=9_100_000_000,
            disk_bytes=3_600_000_000,
            disk_free_bytes=81_000_000_000,
            devices=[Device(name="cuda:0", memory_used_bytes=6_200_000_000, memory_total_bytes=12_884_901_888)],
            step_s=0.32,
            advice=[]
            if self.is_well
            else [
                "your link sends 4 Mbit/s and a round's offers need 6: raise --up-mbit, or join a run with longer ticks"
            ],
        )

    def pieces(self, words: list[str], right: float, seed: int) -> list[Piece]:
        chance, names = random.Random(seed), list(self.sub_models)
        pieces = []
        for word in words * 2:
            is_right = chance.random() < right
            text = word if is_right else chance.choice(["the", "of", "and", "a", "to"])
            pieces.append(Piece(text=f" {text}", sub_model=names[0] if is_right else chance.choice(names)))
        return pieces

    def _round(self, block: str, tick: int) -> RoundRecord:
        chance = random.Random(f"{block}{tick}")
        is_skipped = not self.is_well and chance.random() < 0.06
        members = [k for k in range(self.peers) if block in ("trunk", self.homes[k])][:8] or [0]
        parts = []
        for k in members:
            fate = (
                "sealed"
                if self.is_well or k == 0 or chance.random() > 0.08
                else chance.choice(["late", "absent", "left out"])
            )
            why = {
                "late": "its offer came 0.8 s after the cut",
                "absent": "nothing was heard of it",
                "left out": "its list named an offer that nobody else had",
            }
            offered = None if fate == "absent" else 3.4 if fate == "late" else 0.3 + chance.random()
            parts.append(
                Part(
                    peer=self.ids[k],
                    fate=fate,
                    offer_s=offered,
                    list_s=None if fate != "sealed" else 1.6 + chance.random() / 3,
                    size_bytes=0 if fate == "absent" else 610_000 + chance.randrange(9_000),
                    tokens=2_400 * tick,
                    why=why.get(fate, ""),
                )
            )
        sealed = sum(part.fate == "sealed" for part in parts)
        phases = dict(PHASES[:3] if is_skipped else PHASES)
        return RoundRecord(
            block=block,
            tick=tick,
            at=self.began + (tick - START_TICK) * self.tick_seconds,
            length_s=2 * self.tick_seconds * 3,
            cut_s=3.0,
            outcome="skipped: no offer is held by more than half" if is_skipped else f"sealed {sealed} of {len(parts)}",
            cause="no offer is held by more than half" if is_skipped else "",
            is_step=not is_skipped,
            version=tick // 2,
            age=self.tokens_at(tick),
            digest="" if is_skipped else hashlib.sha256(f"{block}{tick}".encode()).hexdigest(),
            phases=phases,
            parts=parts,
            bytes_in=sum(part.size_bytes for part in parts[1:]),
            bytes_out=parts[0].size_bytes * (len(parts) - 1),
        )


def loss_at(done: float, shift: int) -> float:
    return 3.0 + 0.08 * shift + (4.6 - 0.1 * shift) * math.exp(-4.5 * done)
