"""What is held out, and what is left out: decided on what the surveys say, however text is divided into parts."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from configs.errors import DataError
from peer.prepare.fates import DROPPED, HELDOUT, TRAIN, PartFates, check_domains, count, decide, fates
from peer.prepare.survey import IS_FIRST, IS_HELDOUT, IS_LAST, IS_TASK, OF_TASKS, REASONS, Chunk, Part, PartSurvey
from peer.sources.skips import Reason, Skips

WHOLE = IS_FIRST | IS_LAST
HELD_OUT = DROPPED + REASONS.index(Reason.HELD_OUT)


def survey(
    hashes: Sequence[int],
    sizes: int | Sequence[int] = 100,
    flags: int | Sequence[int] = WHOLE,
    domains: int | Sequence[int] = 0,
    verdicts: int | Sequence[int] = 0,
) -> PartSurvey:
    """Return what a part might say whose pieces have these hashes."""
    count = len(hashes)
    return PartSurvey(
        part=Part(0, 0, Chunk(0, 1), count),
        names=("sea", "air"),
        domains=np.broadcast_to(np.array(domains, dtype=np.uint16), count),
        hashes=np.array(hashes, dtype=np.uint64),
        sizes=np.broadcast_to(np.array(sizes, dtype=np.uint32), count),
        flags=np.broadcast_to(np.array(flags, dtype=np.uint8), count),
        verdicts=np.broadcast_to(np.array(verdicts, dtype=np.uint8), count),
        signatures=np.empty((count, 0), dtype=np.uint32),
        skips=Skips(),
    )


def spread(count: int, seed: int = 0) -> list[int]:
    return [int(each) for each in np.random.default_rng(seed).integers(1 << 63, size=count, dtype=np.uint64) * 2]


def decided(*surveys: PartSurvey, share: float = 0.05) -> list[PartFates]:
    return list(fates(surveys, decide(surveys, share)))


def share_of(part: PartFates, sizes: np.ndarray) -> float:
    return float(sizes[part.fates == HELDOUT].sum() / sizes[part.fates <= HELDOUT].sum())


@pytest.mark.parametrize("documents", [20, 200, 2000, 20_000])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
def test_the_share_is_what_was_asked_for(documents: int, share: float) -> None:
    sizes = np.random.default_rng(1).integers(50, 5000, documents)
    [found] = decided(survey(spread(documents), list(sizes)), share=share)
    got = share_of(found, sizes)
    one = sizes.max() / sizes.sum()  # a document is held out or not
    assert abs(got - share) <= max(0.1 * share, one)
    assert got > 0


def test_of_few_long_documents_pieces_are_held_out() -> None:
    flags = [IS_FIRST, *[0] * 98, IS_LAST] * 3
    found = survey(spread(300), flags=flags)
    decision = decide([found], 0.05)
    assert decision.domains[0].by == "pieces"
    [part] = fates([found], decision)
    assert 0.04 < share_of(part, found.sizes) < 0.06
    places = np.flatnonzero(part.fates[:-1] != part.fates[1:])
    assert part.ends[places].all(), "what is held out of a document ends what goes before it"
    assert not part.ends[:-1][(part.fates[:-1] == part.fates[1:]) & (found.flags[:-1] & IS_LAST == 0)].any()


def test_of_many_documents_whole_ones_are_held_out() -> None:
    found = survey(spread(3000), flags=[IS_FIRST, 0, IS_LAST] * 1000)
    decision = decide([found], 0.05)
    assert decision.domains[0].by == "documents"
    [part] = fates([found], decision)
    of_document = part.fates.reshape(-1, 3)
    assert (of_document == of_document[:, :1]).all()


def test_what_a_split_says_is_held_out_and_nothing_else() -> None:
    flags = [WHOLE | IS_HELDOUT] * 10 + [WHOLE] * 90
    [part] = decided(survey(spread(100), flags=flags))
    assert (part.fates == [HELDOUT] * 10 + [TRAIN] * 90).all()


def test_nothing_that_is_trained_on_equals_what_is_held_out_wherever_it_stands() -> None:
    same = spread(100)
    flags = [WHOLE | IS_HELDOUT] * 10 + [WHOLE] * 90
    held, other = survey(same, flags=flags), survey([*same[:5], *spread(200, 2)], domains=1)
    first, second = decided(other, held)
    assert (first.fates[:5] >= HELDOUT).all() and HELD_OUT in first.fates[:5]
    assert (second.fates[10:] == TRAIN).sum() >= 85
    trained = {
        int(each) for part, said in ((first, other), (second, held)) for each in said.hashes[part.fates == TRAIN]
    }
    assert not trained & {int(each) for each in held.hashes[:10]}


def test_the_division_into_parts_does_not_matter() -> None:
    hashes, flags = spread(600), ([IS_FIRST, 0, 0, IS_LAST] * 100) + [WHOLE] * 200
    whole = decided(survey(hashes, flags=flags))[0]
    cuts = [0, 1, 7, 7, 200, 401, 600]
    parts = [survey(hashes[a:b], flags=flags[a:b]) for a, b in pairwise(cuts)]
    found = decided(*parts)
    assert np.array_equal(np.concatenate([part.fates for part in found]), whole.fates)
    assert np.array_equal(np.concatenate([part.ends for part in found]), whole.ends)


def test_what_a_filter_left_out_does_not_count() -> None:
    verdict = 1 + REASONS.index(Reason.LANGUAGE)
    found = survey(spread(100), verdicts=[verdict] * 50 + [0] * 50)
    decision = decide([found], 0.1)
    [part] = fates([found], decision)
    count([found], [part], decision)
    assert (part.fates[:50] == DROPPED + REASONS.index(Reason.LANGUAGE)).all() and (part.fates[50:] < DROPPED).all()
    assert decision.skips.by_reason[Reason.LANGUAGE].size_bytes == 5000
    assert decision.domains[0].trained_bytes + decision.domains[0].heldout_bytes == 5000


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (survey([]), "there is no text"),
        (survey([7]), "only one document"),
        (survey([7, 7, 7]), "says the same"),
        (survey([1, 2], flags=WHOLE | IS_HELDOUT), "only held-out text"),
    ],
)
def test_what_cannot_be_is_one_line(found: PartSurvey, words: str) -> None:
    with pytest.raises(DataError, match=words):
        decision = decide([found], 0.05)
        count([found], list(fates([found], decision)), decision)
        check_domains(decision)


def test_text_and_examples_of_one_folder_are_two_domains() -> None:
    found = survey(spread(100), flags=[WHOLE, WHOLE | IS_TASK] * 50, domains=[0, 1] * 50)
    both = replace(found, names=("sea", "sea" + OF_TASKS))
    assert [domain.name for domain in decide([both], 0.05).domains] == ["sea", "sea-tasks"]
    alone = replace(survey(spread(100), flags=WHOLE | IS_TASK), names=("sea" + OF_TASKS,))
    assert [domain.name for domain in decide([alone], 0.05).domains] == ["sea"]


def test_more_domains_than_there_may_be() -> None:
    def of(many: int) -> list[PartSurvey]:
        base = survey(spread(2))
        return [PartSurvey(**{**vars(base), "names": (f"d{at}", "x")}) for at in range(many)]

    assert len(decide(of(64), 0.5).domains) == 64
    with pytest.raises(DataError, match="more than 64 domains"):
        decide(of(65), 0.5)
