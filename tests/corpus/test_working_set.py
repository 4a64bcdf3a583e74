"""The order of windows when few shards lie here at a time: each once an epoch, from few shards, the same each time."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.errors import DataError
from peer.corpus.data import Sampler, token_dtype
from peer.corpus.source import Part, Source
from peer.corpus.working_set import WorkingSet

CONTEXT = 4
SIZES = {
    "even": [12] * 7,
    "uneven": [1, 40, 3, 17, 2, 9],
    "tiny": [1, 1, 1, 1, 1],  # fewer windows than turns
    "one": [5],
    "two": [8, 6],
}


def order(windows: list[int], active: int, seed: int = 3) -> WorkingSet:
    return WorkingSet([f"shard{at}" for at in range(len(windows))], windows, active, seed)


@pytest.mark.parametrize("windows", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("active", [1, 2, 3, 5, 6, 7, 8, 50])
def test_every_window_of_every_shard_comes_once_an_epoch(windows: list[int], active: int) -> None:
    working, total = order(windows, active), sum(windows)
    everything = sorted((shard, at) for shard, size in enumerate(windows) for at in range(size))
    epochs = [[working.window(pick) for pick in range(epoch * total, (epoch + 1) * total)] for epoch in range(3)]
    for drawn in epochs:
        assert sorted(drawn) == everything
    if total > 5:
        assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("windows", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("active", [1, 2, 3, 6, 7])
def test_no_more_shards_are_in_turn_than_may_be_and_each_is_read_through_before_it_leaves(
    windows: list[int], active: int
) -> None:
    working, total = order(windows, active), sum(windows)
    for epoch in range(3):
        drawn = [working.window(pick)[0] for pick in range(epoch * total, (epoch + 1) * total)]
        first = {shard: drawn.index(shard) for shard in drawn}
        last = {shard: at for at, shard in enumerate(drawn)}
        for at in range(total):
            is_open = [shard for shard in first if first[shard] <= at <= last[shard]]
            assert len(is_open) <= active
            assert drawn[at] in working.shards(working.place(epoch * total + at))


def test_with_every_turn_one_shard_leaves_and_one_joins() -> None:
    working = order([30] * 6, 3)
    turns = [set(working.shards(working.place(pick))) for pick in range(0, 180, 1)]
    changes = [(before, after) for before, after in pairwise(turns) if before != after]
    assert len(changes) == 6 + 3 - 2
    assert all(len(after - before) <= 1 and len(before - after) <= 1 for before, after in changes)
    assert max(map(len, turns)) == 3
    assert len(turns[0]) == len(turns[-1]) == 1  # the first step of all waits for one shard


def test_a_turn_mixes_its_shards() -> None:
    working = order([300] * 6, 3)
    full = [pick for pick in range(1800) if len(working.shards(working.place(pick))) == 3]
    drawn = [working.window(pick)[0] for pick in full]
    changes = sum(before != after for before, after in pairwise(drawn))
    assert changes > 0.6 * len(drawn)  # by chance two in three


@pytest.mark.parametrize(("count", "turns"), [(3, 1), (4, 1), (5, 8)])  # below, at and above what may be in turn
def test_what_lies_here_whole_is_one_turn_after_the_first_epoch(count: int, turns: int) -> None:
    working, total = order([20] * count, 4), 20 * count
    seen = {working.place(pick) for pick in range(total, 2 * total)}
    assert len(seen) == turns
    assert len({working.place(pick) for pick in range(total)}) == count + min(count, 4) - 1


@pytest.mark.parametrize("active", [1, 2, 5, 9])
def test_it_foresees_what_is_drawn_from_any_pick_on(active: int) -> None:
    windows = [7, 1, 12, 5, 30, 2, 9]
    working, total = order(windows, active), sum(windows)
    drawn = [working.window(pick)[0] for pick in range(2 * total)]
    for pick in range(0, total + 7, 3):
        end = (pick // total + 2) * total
        foreseen = list(working.ahead(pick))
        assert [due for due, _ in foreseen] == sorted(due for due, _ in foreseen)
        for at in range(pick, min(end, 2 * total)):
            epoch = at // total
            due = [due for due, shard in foreseen if shard == drawn[at] and due // total == epoch]
            assert due and due[0] <= at


def test_the_seed_and_the_names_order_it() -> None:
    first, second = order([20] * 5, 2), order([20] * 5, 2)
    picks = range(0, 200, 7)
    assert [first.window(pick) for pick in picks] == [second.window(pick) for pick in reversed(picks)][::-1]
    assert [first.window(pick) for pick in picks] != [order([20] * 5, 2, seed=4).window(pick) for pick in picks]


def stream(folder: Path, sizes: list[int], active: int, name: str = "s") -> Source:
    """Write shards of which each token is another."""
    folder.mkdir(exist_ok=True)
    parts, begin = [], 0
    for at, size in enumerate(sizes):
        path = folder / f"{name}{at}"
        np.arange(begin, begin + size).astype(token_dtype(65_536)).tofile(path)
        parts.append(Part(str(path), size))
        begin += size
    return Source(name, 65_536, 1.0, parts=tuple(parts), active=active)


def test_training_resumes_by_its_step_alone(tmp_path: Path) -> None:
    source = stream(tmp_path, [41, 4, 90, 33, 27], active=2)
    straight = Sampler([source], CONTEXT, seed=1)
    wanted = [straight.batch(step, 3) for step in range(60)]
    for step in range(60):
        assert torch.equal(Sampler([source], CONTEXT, seed=1).batch(step, 3), wanted[step])
    starts = torch.cat([batch[:, 0] for batch in wanted])[: 10 + 22 + 8 + 6].tolist()
    assert len(set(starts)) == 46  # the shard of 4 tokens holds no window and the one after


@pytest.mark.parametrize("size", [CONTEXT, CONTEXT + 1])
def test_a_part_must_hold_a_window_and_the_token_after(tmp_path: Path, size: int) -> None:
    source = stream(tmp_path, [size], active=2)
    if size > CONTEXT:
        assert Sampler([source], CONTEXT, seed=0).batch(0, 1).shape == (1, CONTEXT + 1)
    else:
        with pytest.raises(DataError, match="as long as one window"):
            Sampler([source], CONTEXT, seed=0)


def test_only_what_a_batch_draws_from_must_lie_here(tmp_path: Path) -> None:
    source = stream(tmp_path, [41, 53, 90, 33, 27, 61], active=2)
    wanted = [Sampler([source], CONTEXT, seed=1).batch(step, 3) for step in range(40)]
    contents = {part.path: Path(part.path).read_bytes() for part in source.parts}
    sampler = Sampler([source], CONTEXT, seed=1)
    for step in range(40):
        for path in contents:
            Path(path).unlink(missing_ok=True)
        lacking = sampler.lacking(step, 3)
        assert 1 <= len(lacking) <= 3  # a batch may reach from one turn into the next
        for path in lacking:
            Path(path).write_bytes(contents[path])
        assert not sampler.lacking(step, 3)
        assert torch.equal(sampler.batch(step, 3), wanted[step])


def test_streams_and_files_mix_and_it_is_known_when_each_part_is_due(tmp_path: Path) -> None:
    plain = stream(tmp_path, [500], active=1, name="plain").parts[0].path
    sources = [
        Source(plain, 65_536, 1.0),
        stream(tmp_path / "a", [41, 53, 90, 33], active=2, name="a"),
        stream(tmp_path / "b", [100, 80, 70], active=2, name="b"),
    ]
    sampler = Sampler(sources, CONTEXT, seed=1)
    for part in (*sources[1].parts, *sources[2].parts):
        Path(part.path).unlink()
    for begin in (0, 5, 33):
        foreseen = [(due, part.path) for due, part in sampler.ahead(begin, 3)]
        assert [due for due, _ in foreseen] == sorted(due for due, _ in foreseen)
        in_time = {path for due, path in foreseen if due <= begin + 12}
        for step in range(begin, begin + 12):
            drawn = set(sampler.lacking(step, 3))
            assert drawn <= in_time


def test_a_part_of_another_size_is_refused(tmp_path: Path) -> None:
    source = stream(tmp_path, [40], active=1)
    Path(source.parts[0].path).write_bytes(bytes(60))
    with pytest.raises(DataError, match="has 30 tokens, not 40; remove it"):
        Sampler([source], CONTEXT, seed=0).batch(0, 2)
