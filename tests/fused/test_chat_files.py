"""A model that was trained on chats says how turns are written, and ends where they do; what it brought stays."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from peer.corpus.chats import FORMS, template
from peer.fused.chat_files import TEMPLATE_FILE, write_chat_files


@pytest.fixture
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return tokenizer


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


@pytest.mark.parametrize(("before", "after"), [(None, [2]), (0, [0, 2]), ([0, 7], [0, 7, 2]), (2, 2), ([2, 0], [2, 0])])
def test_it_ends_where_turns_do(tokenizer: Tokenizer, tmp_path: Path, before: Any, after: Any) -> None:
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_text(json.dumps({"eos_token_id": before, "other": 1}))
    write_chat_files(tmp_path, "chatml", tokenizer)
    for name in ("config.json", "generation_config.json"):
        assert read(tmp_path, name) == {"eos_token_id": after, "other": 1}


def test_a_format_that_ends_with_the_text_changes_no_ends(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"eos_token_id": 0}')
    write_chat_files(tmp_path, "plain", tokenizer)
    assert read(tmp_path, "config.json") == {"eos_token_id": 0}
    assert not (tmp_path / "generation_config.json").exists()


def test_a_template_that_was_brought_stays(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_chat_files(tmp_path, "chatml", tokenizer)
    assert (tmp_path / TEMPLATE_FILE).read_text() == template(FORMS["chatml"])
    (tmp_path / TEMPLATE_FILE).write_text("mine")
    write_chat_files(tmp_path, "chatml", tokenizer)
    assert (tmp_path / TEMPLATE_FILE).read_text() == "mine"
    (tmp_path / TEMPLATE_FILE).unlink()
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "mine, too"}')
    write_chat_files(tmp_path, "chatml", tokenizer)
    assert not (tmp_path / TEMPLATE_FILE).exists()
