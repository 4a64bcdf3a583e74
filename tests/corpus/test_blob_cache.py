"""Shards in a folder of bounded size: what leaves, what stays, what is damaged, and two processes in one folder."""

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest

from configs.content import content_id_of
from configs.corpus import ShardInfo
from configs.errors import NetworkError
from peer.corpus.blob_cache import TRIES, BlobCache, DamagedBlobError, Fetch
from peer.corpus.remote import MOST_ACTIVE, DataError, most_active

SIZE = 1000


def content(number: int) -> bytes:
    return bytes([number]) * SIZE


def blob(number: int) -> ShardInfo:
    return ShardInfo(content_id=content_id_of(content(number)), tokens=SIZE // 2, size_bytes=SIZE)


BLOBS = [blob(number) for number in range(6)]
KNOWN = [each.content_id for each in BLOBS]


def fetch_of(number: int, fetched: list[int] | None = None) -> Fetch:
    def fetch(path: Path) -> None:
        if fetched is not None:
            fetched.append(number)
        path.write_bytes(content(number))

    return fetch


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "cache", 3 * SIZE, KNOWN)


def fill(cache: BlobCache, *numbers: int) -> None:
    """Fetch blobs, each needed a second after the one before."""
    for number in numbers:
        assert cache.make_room(SIZE, ())
        assert cache.obtain(BLOBS[number], fetch_of(number))
        at = 1_000_000 + sum(1 for _ in cache.folder.iterdir()) + number
        os.utime(cache.path(KNOWN[number]), (at, at))


def here(cache: BlobCache) -> set[int]:
    return {number for number, name in enumerate(KNOWN) if cache.path(name).exists()}


def test_it_never_takes_more_than_it_may(cache: BlobCache) -> None:
    for number in (*range(6), *range(6)):
        assert cache.make_room(SIZE, ())
        cache.obtain(BLOBS[number], fetch_of(number))
        assert cache.used_bytes <= 3 * SIZE
    assert cache.used_bytes == 3 * SIZE


@pytest.mark.parametrize(("more", "leave"), [(0, set()), (SIZE - 1, {0}), (SIZE, {0}), (SIZE + 1, {0, 1})])
def test_what_was_needed_longest_ago_leaves_and_no_more_than_must(cache: BlobCache, more: int, leave: set[int]) -> None:
    fill(cache, 0, 1, 2)
    assert cache.make_room(more, ())
    assert here(cache) == {0, 1, 2} - leave


def test_what_is_held_or_to_be_kept_stays(cache: BlobCache) -> None:
    fill(cache, 0, 1, 2)
    cache.hold([KNOWN[0]])
    assert cache.make_room(SIZE, [KNOWN[1]])
    assert here(cache) == {0, 1}
    assert not cache.make_room(3 * SIZE, [KNOWN[1]])
    assert here(cache) == {0, 1}
    cache.hold([])
    assert cache.make_room(3 * SIZE, ())
    assert here(cache) == set()


def test_to_be_held_is_to_be_needed_now(cache: BlobCache) -> None:
    fill(cache, 0, 1, 2)
    cache.hold([KNOWN[0]])
    cache.close()
    assert cache.make_room(SIZE, ())
    assert here(cache) == {0, 2}


def test_another_process_sees_what_is_held(cache: BlobCache, tmp_path: Path) -> None:
    """Locks belong to open files: a second cache in this process is like one in another."""
    fill(cache, 0, 1, 2)
    cache.hold([KNOWN[0], KNOWN[1], KNOWN[2]])
    other = BlobCache(tmp_path / "cache", 3 * SIZE, KNOWN)
    assert not other.make_room(SIZE, ())
    cache.hold([KNOWN[0], KNOWN[2]])
    assert other.make_room(SIZE, ())
    assert here(cache) == {0, 2} and not cache.has(BLOBS[1])


def test_what_lies_here_is_taken_after_a_restart_if_it_is_whole(cache: BlobCache, tmp_path: Path) -> None:
    fill(cache, 0, 1)
    cache.path(KNOWN[1]).write_bytes(b"x" * SIZE)
    again, fetched = BlobCache(tmp_path / "cache", 3 * SIZE, KNOWN), list[int]()
    assert not again.has(BLOBS[0])  # as long as nobody has looked
    assert not again.obtain(BLOBS[0], fetch_of(0, fetched)) and again.has(BLOBS[0])
    assert again.obtain(BLOBS[1], fetch_of(1, fetched)) and again.has(BLOBS[1])
    assert fetched == [1]
    assert again.path(KNOWN[1]).read_bytes() == content(1)


@pytest.mark.parametrize("wrong", [b"", b"x" * SIZE, b"\x00" * (SIZE - 1), b"\x00" * (SIZE + 1)])
def test_a_damaged_blob_is_fetched_again_and_named_in_the_end(cache: BlobCache, wrong: bytes) -> None:
    answers = [wrong] * (TRIES - 1) + [content(0)]
    assert cache.obtain(BLOBS[0], lambda path: path.write_bytes(answers.pop(0)) and None)
    assert not answers
    with pytest.raises(DamagedBlobError, match=rf"blob {KNOWN[1]} is damaged where it comes from .*put it there anew"):
        cache.obtain(BLOBS[1], lambda path: path.write_bytes(wrong) and None)
    assert here(cache) == {0}
    assert not [path for path in cache.folder.iterdir() if path.name.endswith(".part")]


def test_a_fetch_that_breaks_off_leaves_nothing(cache: BlobCache) -> None:
    def breaks(path: Path) -> None:
        path.write_bytes(content(0)[:10])
        raise NetworkError("gone")

    with pytest.raises(NetworkError):
        cache.obtain(BLOBS[0], breaks)
    assert here(cache) == set() and cache.used_bytes == 0
    assert cache.obtain(BLOBS[0], fetch_of(0))


def test_what_it_does_not_know_stays(cache: BlobCache) -> None:
    (cache.folder / "heldout").write_bytes(bytes(10 * SIZE))
    fill(cache, 0, 1, 2)
    assert cache.make_room(3 * SIZE, ())
    assert (cache.folder / "heldout").exists()


def _fetch_all(folder: Path, log: Path, begin: Any, order: list[int]) -> None:
    cache = BlobCache(folder, 6 * SIZE, KNOWN)
    begin.wait(60)
    for number in order:

        def slow(path: Path, number: int = number) -> None:
            time.sleep(0.02)  # as a network: so that the other one comes meanwhile
            with log.open("a") as file:
                file.write(f"{number}\n")
            fetch_of(number)(path)

        cache.obtain(BLOBS[number], slow)


def test_two_processes_fetch_each_blob_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    begin, log = context.Barrier(2), tmp_path / "log"
    orders = [list(range(6)), list(range(6))]
    processes = [
        context.Process(target=_fetch_all, args=(tmp_path / "cache", log, begin, order), daemon=True)
        for order in orders
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert sorted(log.read_text().split()) == [str(number) for number in range(6)]
    assert here(BlobCache(tmp_path / "cache", 6 * SIZE, KNOWN)) == set(range(6))


@pytest.mark.parametrize(
    ("room", "active"),
    [(2, 1), (3, 2), (MOST_ACTIVE, MOST_ACTIVE - 1), (MOST_ACTIVE + 1, MOST_ACTIVE), (100, MOST_ACTIVE)],
)
def test_as_many_shards_are_active_as_there_is_room_for_with_the_next(room: int, active: int) -> None:
    sizes = [[10] * 50, [10] * 50]
    assert most_active(sizes, 2 * room * 10) == active
    if active < MOST_ACTIVE:
        assert most_active(sizes, 2 * (room + 1) * 10 - 1) == active


def test_a_cache_without_room_for_two_shards_says_how_large_it_must_be() -> None:
    with pytest.raises(DataError, match=r"two shards of each domain that is trained need 4.5e-08 GB: raise cache_gb"):
        most_active([[10, 20, 20], [5]], 44)
    assert most_active([[10, 20, 20], [5]], 45) == 1
