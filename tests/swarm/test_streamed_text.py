"""A daemon that trains on a corpus at a URL, of which only a part may lie on its disk at a time."""

import json
import shlex
from pathlib import Path

import pytest
from mistake import MICRO, mistake, running, shoal, until_status
from servers import Server, upload

from configs.limits import GB
from peer.corpus.data import BLOBS, open_corpus
from peer.corpus.remote import copy_place
from peer.member.own_text import REMOTE
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan

ROOT = Path(__file__).parents[2]

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


@pytest.mark.long
def test_who_joins_without_a_store_trains_on_what_the_others_have_of_it(tmp_path: Path, store: Path) -> None:
    command = shoal("start", "--config", MICRO, "--data", store.as_uri())
    with running(command, tmp_path / "founder") as founder:
        until_status(founder, lambda status: status.peers[0].rounds > 0, "the founder trains")
        with running(shoal("join", founder.address, "--run", founder.run_id), tmp_path / "joiner") as joiner:
            until_status(joiner, lambda status: status.peers[0].rounds > 3, "rounds with both")
            assert list((tmp_path / "joiner" / "corpus" / BLOBS).iterdir())
            assert not (tmp_path / "joiner" / "corpus" / REMOTE).exists()


def test_a_store_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    url = (tmp_path / "none").as_uri()
    said = mistake("start", "--config", MICRO, "--data", url, "--state-dir", str(tmp_path / "state"))
    assert f"{url}/corpus.json is not there; name the folder of a whole corpus" in said
    said = mistake("start", "--config", MICRO, "--data", "s3://key:secret@fish/corpus")
    assert "keys and passwords have no place in a URL" in said and "secret@" not in said.partition("keys")[2]


@pytest.mark.long
def test_private_text_at_a_url_stays_there(tmp_path: Path, store: Path) -> None:
    command = shoal("start", "--config", MICRO, "--data", store.as_uri(), "--private")
    with running(command, tmp_path / "founder") as founder:
        until_status(founder, lambda status: status.peers[0].rounds > 0, "the founder trains")
        alone = "join", founder.address, "--run", founder.run_id
        said = mistake(*alone, "--state-dir", str(tmp_path / "alone"))
        assert "is private; bring your own with --data DIR" in said
        with running(shoal(*alone, "--data", store.as_uri(), "--private"), tmp_path / "joiner") as joiner:
            until_status(joiner, lambda status: status.peers[0].rounds > 3, "rounds with both")
            assert (tmp_path / "joiner" / "corpus" / REMOTE).exists()


def test_the_line_of_the_guide_trains_from_a_bucket(
    tmp_path: Path, store: Path, s3_server: Server, bucket: str
) -> None:
    guide = (ROOT / "docs" / "guide" / "your-own-data.md").read_text(encoding="utf-8")
    line = next(line for line in guide.splitlines() if line.startswith("shoal ") and "--data s3://" in line)
    words = shlex.split(line.replace("BUCKET", bucket).replace("--config tiny", f"--config {MICRO}"))
    upload(s3_server, "corpus", store)
    with running(shoal(*words[1:]), tmp_path / "state") as daemon:
        until_status(daemon, lambda status: status.peers[0].rounds > 1, "it trains from the bucket")
