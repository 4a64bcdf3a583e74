"""Sampling and reading a corpus: the properties that training relies on, and damaged files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from configs.errors import DataError
from configs.run import ModelSpec
from peer.corpus.data import Corpus, Sampler, Source, open_corpus, open_tokens, read_counts, token_dtype
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan

CONTEXT = 8
VOCAB = 1 << 16


def write_tokens(path: Path, values: np.ndarray) -> str:
    path.write_bytes(values.astype(token_dtype(VOCAB)).tobytes())
    return str(path)


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    """Two files whose tokens say where they came from: the first counts from 0, the second from 10,000."""
    small = write_tokens(tmp_path / "small", np.arange(10 * CONTEXT + 1))
    large = write_tokens(tmp_path / "large", 10_000 + np.arange(40 * CONTEXT + 3))
    return [Source(small, VOCAB, 1.0), Source(large, VOCAB, 3.0)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("data") / "corpus"
    texts = {name: [f"{name} {number} " * 40 for number in range(50)] for name in ("salt", "sand")}
    prepare_texts(texts, path, Plan(300, context_length=CONTEXT, shard_tokens=1000))
    return open_corpus(path)


def model(vocab_size: int, context_length: int) -> ModelSpec:
    return ModelSpec(
        vocab_size=vocab_size,
        hidden_size=8,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        mlp_size=8,
        context_length=context_length,
    )


def test_batches_are_windows_of_following_tokens(sources: list[Source]) -> None:
    batch = Sampler(sources, CONTEXT, seed=1).batch(0, 16)
    assert batch.shape == (16, CONTEXT + 1)
    assert batch.dtype == torch.int64
    assert torch.equal(batch.diff(dim=1), torch.ones(16, CONTEXT, dtype=torch.int64))


def test_batches_depend_on_sources_seed_and_step_alone(sources: list[Source]) -> None:
    first, second = Sampler(sources, CONTEXT, seed=1), Sampler(sources, CONTEXT, seed=1)
    wanted = [first.batch(step, 4) for step in range(200)]
    for step in (150, 3, 199, 0):
        assert torch.equal(second.batch(step, 4), wanted[step])
    assert not torch.equal(Sampler(sources, CONTEXT, seed=2).batch(0, 4), wanted[0])


def test_each_window_comes_once_in_an_epoch_and_epochs_differ(sources: list[Source]) -> None:
    sampler = Sampler(sources[:1], CONTEXT, seed=0)
    epochs = [sampler.batch(step, 10)[:, 0].tolist() for step in range(3)]
    for starts in epochs:
        assert sorted(starts) == list(range(0, 10 * CONTEXT, CONTEXT))
    assert epochs[0] != epochs[1] != epochs[2]


def test_sources_are_drawn_by_weight_without_replacement(sources: list[Source]) -> None:
    drawn = Sampler(sources, CONTEXT, seed=0).batch(0, 4096)[:, 0]
    assert int((drawn >= 10_000).sum()) == 3072
    counts = np.unique(drawn.numpy(), return_counts=True)[1]
    assert set(counts) <= {3072 // 40, 3072 // 40 + 1, 1024 // 10, 1024 // 10 + 1}


def test_order_of_a_file_does_not_depend_on_the_others(sources: list[Source]) -> None:
    alone = Sampler(sources[1:], CONTEXT, seed=0).batch(0, 40)
    both = Sampler(sources, CONTEXT, seed=0).batch(0, 100)
    assert torch.equal(both[both[:, 0] >= 10_000][:40], alone)


def test_sources_without_a_window_are_passed_over_or_refused(tmp_path: Path, sources: list[Source]) -> None:
    short = Source(write_tokens(tmp_path / "short", np.arange(CONTEXT)), VOCAB)
    assert Sampler([short, sources[0]], CONTEXT, seed=0).batch(0, 20).shape == (20, CONTEXT + 1)
    with pytest.raises(DataError, match=r"one window of 8 tokens.*lower context_length"):
        Sampler([short], CONTEXT, seed=0)


def test_a_token_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    path = write_tokens(tmp_path / "wild", np.arange(100))
    with pytest.raises(DataError, match="outside its vocabulary of 50"):
        Sampler([Source(path, 50)], CONTEXT, seed=0).batch(0, 12)


@pytest.mark.parametrize("content", [b"", b"abc"])
def test_files_that_are_no_token_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokens").write_bytes(content)
    with pytest.raises(DataError, match="not a token file"):
        open_tokens(tmp_path / "tokens", VOCAB)
    with pytest.raises(DataError, match="No such file"):
        open_tokens(tmp_path / "none", VOCAB)


def test_wide_vocabularies_take_four_bytes() -> None:
    assert token_dtype(65_536) == np.dtype("<u2")
    assert token_dtype(65_537) == np.dtype("<u4")


def test_counts_are_those_of_the_shards(corpus: Corpus) -> None:
    for domain in corpus.info.domains:
        tokens = np.concatenate([open_tokens(corpus.blob(shard.content_id), 300) for shard in domain.shards])
        assert np.array_equal(corpus.counts(domain), np.bincount(tokens, minlength=300))
        assert domain.tokens == domain.counts.tokens == tokens.size
    with pytest.raises(DataError, match="counts of 999 tokens"):
        read_counts(corpus.blob(corpus.info.domains[0].counts.content_id), 999)


def test_a_model_must_fit_the_corpus(corpus: Corpus) -> None:
    corpus.check_fits(model(300, CONTEXT))
    with pytest.raises(DataError, match="--vocab-size 512"):
        corpus.check_fits(model(512, CONTEXT))
    with pytest.raises(DataError, match=r"a window of 65536 tokens.*lower run\.model\.context_length"):
        corpus.check_fits(model(300, 65_536))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.json", None, "not a prepared corpus"),
        ("corpus.json", b'{"vocab_size": 1}', "damaged"),
        ("corpus.json", b"\xff", "damaged"),
        ("tokenizer.json", b"{}", "not the one that tokenized"),
        ("blob", None, "missing or cut short"),
        ("blob", b"short", "missing or cut short"),
    ],
)
def test_damaged_corpora_are_refused(tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
    texts = {"salt": [f"{number} grains of salt " * 10 for number in range(20)]}
    info = prepare_texts(texts, tmp_path / "corpus", Plan(300, context_length=CONTEXT))
    path = tmp_path / "corpus" / file
    if file == "blob":
        path = Corpus(tmp_path / "corpus", info).blob(info.domains[0].shards[0].content_id)
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_corpus(tmp_path / "corpus")
    assert "\n" not in str(caught.value)
