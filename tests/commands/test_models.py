"""What is wrong with a model's folder, or with data for it, is said before anything is loaded."""

import hashlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.corpus import TaskFormat
from configs.errors import DataError
from peer.commands.options import check_model
from peer.commands.preparing import _way_to_train
from peer.fused.on_corpus import check_format, check_tokenizer


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`shoal fuse` writes one"):
        check_model(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"neither shoal\.json nor config\.json"):
        check_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    check_model(tmp_path)


def test_data_with_another_tokenizer_or_prompt_format(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    corpus: Any = SimpleNamespace(name="data", info=SimpleNamespace(tokenizer_sha256="0" * 64))
    with pytest.raises(DataError, match=r"data was prepared with another tokenizer .*--tokenizer"):
        check_tokenizer(tmp_path, corpus)
    corpus.info.tokenizer_sha256 = hashlib.sha256(b"{}").hexdigest()
    check_tokenizer(tmp_path, corpus)
    forms = [TaskFormat(prompt=prompt, window=8) for prompt in ("Q: {input}", "{input}")]
    forms.append(TaskFormat(prompt="{input}", window=8, chat="plain"))
    for mine, trained, option in ((0, 1, "--prompt-format '{input}'"), (1, 2, "--chat-format plain")):
        with pytest.raises(DataError, match=f"as the model was trained, with {re.escape(option)}"):
            check_format(Path("data"), forms[mine], forms[trained])
    check_format(Path("data"), forms[0], forms[0])
    check_format(Path("data"), None, forms[0])


@pytest.mark.parametrize(
    ("like", "is_private", "is_task", "model", "line"),
    [
        (None, False, False, False, "shoal start --config tiny --data out"),
        (None, False, True, False, "shoal start --config answer --data out"),
        (None, False, False, True, "shoal start --config small --init-from {model} --data out"),
        (None, False, True, True, "shoal start --config answer --init-from {model} --data out"),
        ("/ip4/192.0.2.1/tcp/1/p2p/Qm", True, False, False, "shoal join {like} --data out --private"),
    ],
)
def test_the_way_to_train_is_a_line_to_type(
    tmp_path: Path, like: str | None, is_private: bool, is_task: bool, model: bool, line: str
) -> None:
    if model:
        (tmp_path / "config.json").write_text("{}")
    corpus: Any = SimpleNamespace(task_format=object() if is_task else None, vocab_size=2048)
    plan: Any = SimpleNamespace(is_private=is_private, context_length=128, tokenizer=tmp_path, together=None)
    assert _way_to_train(corpus, Path("out"), plan, like).endswith(line.format(model=tmp_path, like=like))
