"""A daemon that trains on a corpus at a URL, of which only a part may lie on its disk at a time."""

import json
from pathlib import Path

import pytest
from mistake import MICRO, mistake, running, shoal, until_status

from configs.limits import GB
from peer.corpus.data import BLOBS, Sampler, open_corpus
from peer.corpus.remote import copy_place, open_remote
from peer.member.own_text import REMOTE
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan

pytestmark = pytest.mark.swarm

SHARD_TOKENS, BATCH, CONTEXT = 4096, 8, 64


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = [f"{number} bottles of beer on the wall, {number} bottles of beer. " * 20 for number in range(1500)]
    folder = tmp_path_factory.mktemp("store") / "corpus"
    prepare_texts({"songs": text}, folder, Plan(vocab_size=512, context_length=CONTEXT, shard_tokens=SHARD_TOKENS))
    return folder


def test_it_trains_from_a_cache_smaller_than_the_corpus_and_goes_on_where_it_was(tmp_path: Path, store: Path) -> None:
    shards = open_corpus(store).info.domains[0].shards
    sizes = [shard.size_bytes for shard in shards]
    most_bytes = 4 * max(sizes)
    assert sum(sizes) > 3 * most_bytes
    url, state = store.as_uri(), tmp_path / "state"
    place = copy_place(state / "corpus" / REMOTE, url) / BLOBS

    def lie_here() -> list[str]:
        return [shard.content_id for shard in shards if (place / shard.content_id).is_file()]

    command, cache_gb = shoal("start", "--config", MICRO, "--data", url), str(most_bytes / GB)
    seen = set[str]()
    with running(command, state, SHOAL_PEER__CACHE_GB=cache_gb) as daemon:
        assert daemon.process is not None

        def has_changed(_: object) -> bool:
            here = lie_here()
            assert sum((place / name).stat().st_size for name in here if (place / name).exists()) <= most_bytes
            seen.update(here)
            return len(seen) >= 9 and (state / "corpus" / "position.json").exists()

        status = until_status(daemon, lambda status: has_changed(status), "nine shards were read")
        assert not [each for each in status.findings if each.code == "text-store"]
        daemon.process.kill()
        daemon.process.wait()
        kept = json.loads((state / "corpus" / "position.json").read_text())["position"]
    assert kept > 0
    with running(command, state) as daemon:  # what was told is kept
        rounds = status.peers[0].rounds
        until_status(daemon, lambda status: status.peers[0].rounds > rounds + 3, "it trains again")
        assert f"goes on at step {kept} of its text" in daemon.log
        assert "GB of it lie in" in daemon.log
