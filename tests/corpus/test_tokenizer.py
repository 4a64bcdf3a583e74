"""One way to read a tokenizer, in training and afterwards; a part of a text is read as a part of it."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from configs.errors import DataError
from peer.corpus.tokenizer import decode_part, encode_text, end_of_text, open_tokenizer, read_tokenizer, train_tokenizer

TEXT = "the cat sat on the mat, and the dog sat on the cat"


def like_sentencepiece(*special: str) -> Tokenizer:
    """Return a tokenizer like Llama 2's: a space is a part of the next word, and is lost before the first one."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=list(special), show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


@pytest.mark.parametrize("kind", ["sentencepiece", "byte level"])
def test_the_parts_of_a_text_make_the_text(kind: str) -> None:
    text = TEXT if kind == "sentencepiece" else f"{TEXT}: ä€🇩🇪!"
    tokenizer = like_sentencepiece() if kind == "sentencepiece" else train_tokenizer(iter([TEXT]), 300).tokenizer
    tokens = encode_text(tokenizer, text)
    for cut in range(1, len(tokens)):
        parts = [decode_part(tokenizer, tokens, 0, cut), decode_part(tokenizer, tokens, cut, len(tokens))]
        if not any("\ufffd" in part for part in parts):  # not in the midst of a character
            assert "".join(parts) == text


@pytest.mark.parametrize("reader", ["read_tokenizer", "open_tokenizer"])
def test_a_tokenizer_is_read_in_one_way_whatever_its_file_says(tmp_path: Path, reader: str) -> None:
    written = like_sentencepiece("<eos>", "<user>")
    written.enable_truncation(4)
    written.enable_padding(length=40)
    (tmp_path / "tokenizer.json").write_text(written.to_str())
    read = read_tokenizer(tmp_path).tokenizer if reader == "read_tokenizer" else open_tokenizer(written.to_str())
    text = f"{TEXT} <user> <eos>"
    tokens = encode_text(read, text)
    assert len(tokens) > 4 and len(tokens) != 40
    assert not {read.token_to_id("<eos>"), read.token_to_id("<user>")} & {*tokens}, "in a text they are text"


@pytest.mark.parametrize(
    ("files", "end"),
    [
        ({}, "</s>"),
        ({"tokenizer_config.json": {"eos_token": "<turn>"}}, "<turn>"),
        ({"tokenizer_config.json": {"eos_token": {"content": "<turn>", "lstrip": False}}}, "<turn>"),
        ({"tokenizer_config.json": {"eos_token": None}, "config.json": {"eos_token_id": [2, 1]}}, "<turn>"),
        ({"config.json": {"eos_token_id": 2}}, "<turn>"),
        ({"config.json": {"eos_token_id": 10**6}}, "</s>"),
        ({"tokenizer_config.json": {"eos_token": "<nowhere>"}}, "</s>"),
        ({"tokenizer_config.json": ["</s>"]}, "</s>"),
    ],
)
def test_the_end_of_a_text_is_what_the_model_says(tmp_path: Path, files: dict[str, object], end: str) -> None:
    tokenizer = like_sentencepiece("<unk>", "</s>", "<turn>")
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert read_tokenizer(tmp_path).end == tokenizer.token_to_id(end)
    assert read_tokenizer(tmp_path / "tokenizer.json").end == tokenizer.token_to_id(end)


def test_an_unknown_end_is_one_line_whose_advice_works(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(like_sentencepiece("<fin>").to_str())
    with pytest.raises(DataError, match=r"name it as eos_token in the tokenizer_config\.json"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<fin>"}')
    assert read_tokenizer(tmp_path).end == 0
    with pytest.raises(DataError, match="eos_token"):
        end_of_text(like_sentencepiece("<fin>"))


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b'{"model": 1}'])
def test_what_is_no_tokenizer_is_one_line(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(DataError):
        open_tokenizer(raw)
    (tmp_path / "tokenizer.json").write_bytes(raw)
    with pytest.raises(DataError, match="is not a Hugging Face tokenizer"):
        read_tokenizer(tmp_path)
