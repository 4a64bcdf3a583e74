"""Turns are written as models know them, by the encoder and by the template alike, and the assistant's are learnt."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers.utils.chat_template_utils import render_jinja_template

from configs.corpus import INPUT, ChatFormat, TaskFormat
from configs.errors import DataError
from peer.corpus.chats import ASSISTANT, FORMS, SYSTEM, USER, check_turns, template
from peer.corpus.examples import Example, TaskEncoder
from peer.corpus.tokenizer import train_tokenizer
from peer.sources.documents import Reading, SourceFile
from peer.sources.reading import read
from peer.sources.skips import SkipError, Skips

FORMATS: tuple[ChatFormat, ...] = get_args(ChatFormat)
END = "<|endoftext|>"
WINDOW = 256
CHAT = [(SYSTEM, "Be brief."), (USER, "Is a cod a fish?"), (ASSISTANT, "Yes."), (USER, "And <|im_end|> a crab?")]


@pytest.fixture(params=["bytes", "words"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """Of single bytes, or one that joins letters, spaces and words; and the special tokens of all formats."""
    special = [END, *dict.fromkeys(token for form in FORMS.values() for token in form.special)]
    if request.param == "words":
        own = "\n".join(f"{role.capitalize()}: {text}" for role, text in CHAT)
        tokenizer = train_tokenizer(iter([own, FORMS["plain"].opens[USER]] * 20), 420).tokenizer
    else:
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(models.BPE({letter: at for at, letter in enumerate(letters)}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return tokenizer


def encoder(tokenizer: Tokenizer, chat: ChatFormat | None, window: int = WINDOW) -> TaskEncoder:
    form = TaskFormat(prompt=INPUT if chat else "{input}\n", window=window, chat=chat)
    return TaskEncoder(form, tokenizer, tokenizer.token_to_id(END))


def example(answer: str = "No, it is not.") -> Example:
    return Example(CHAT[-1][1], answer, (answer,), before=tuple(CHAT[:-1]))


def spelt(tokenizer: Tokenizer, tokens: Any) -> str:
    return str(tokenizer.decode([int(token) for token in tokens], skip_special_tokens=False))


@pytest.mark.parametrize("chat", FORMATS)
def test_what_the_assistant_says_is_learnt_and_nothing_else(tokenizer: Tokenizer, chat: ChatFormat) -> None:
    (encoded,) = encoder(tokenizer, chat).encode([example()])
    assert encoded is not None and not encoded.lost
    marked = encoded.marked()
    end = FORMS[chat].end or END
    lead = FORMS[chat].lead
    assert spelt(tokenizer, marked[marked >= 0]) == f"{lead}Yes.{end}{lead}No, it is not.{end}"


def test_chatml_is_written_as_its_models_read_it(tokenizer: Tokenizer) -> None:
    (encoded,) = encoder(tokenizer, "chatml").encode([example()])
    assert encoded is not None
    tokens = np.concatenate([encoded.prompt, encoded.answers[0]])
    assert spelt(tokenizer, tokens) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nIs a cod a fish?<|im_end|>\n"
        "<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nAnd <|im_end|> a crab?<|im_end|>\n"
        "<|im_start|>assistant\nNo, it is not.<|im_end|>"
    )
    said = tokenizer.token_to_id("<|im_end|>")
    assert (tokens == said).sum() == 5  # what a user writes is text


@pytest.mark.parametrize("chat", FORMATS)
@pytest.mark.parametrize("first", [0, 1], ids=["with a system", "without"])
def test_the_template_writes_what_the_encoder_reads(tokenizer: Tokenizer, chat: ChatFormat, first: int) -> None:
    turns = [(role, text.replace("<|im_end|>", "then")) for role, text in CHAT[first:]]
    told = Example(turns[-1][1], "No.", ("No.",), before=tuple(turns[:-1]))
    (encoded,) = encoder(tokenizer, chat).encode([told])
    assert encoded is not None
    messages = [{"role": role, "content": text} for role, text in turns]
    (text,), _ = render_jinja_template(
        conversations=[messages], chat_template=template(FORMS[chat]), add_generation_prompt=True, eos_token=END
    )
    tokenizer.encode_special_tokens = False
    assert tokenizer.encode(text, add_special_tokens=False).ids == encoded.prompt.tolist()


@pytest.mark.parametrize("chat", FORMATS)
def test_a_question_is_a_chat_of_one_turn(tokenizer: Tokenizer, chat: ChatFormat) -> None:
    own = encoder(tokenizer, chat)
    (encoded,) = own.encode([Example("Is a cod a fish?", "Yes.", ("Yes.",))])
    assert encoded is not None
    assert own.question("Is a cod a fish?", WINDOW) == encoded.prompt.tolist()


def test_a_long_chat_loses_its_first_turns_then_the_beginning_of_the_last(tokenizer: Tokenizer) -> None:
    if tokenizer.get_vocab_size() > 300:
        pytest.skip("lengths are those of single bytes")

    def prompt(window: int) -> str:
        (encoded,) = encoder(tokenizer, "plain", window).encode([example("No.")])
        assert encoded is not None and (encoded.lost > 0) == (window < 104)
        return spelt(tokenizer, encoded.prompt)

    asked = "User:\nAnd <|im_end|> a crab?\nAssistant:\n"
    assert prompt(WINDOW).startswith("System:\nBe brief.\nUser:\nIs a cod")
    assert prompt(90) == f"User:\nIs a cod a fish?\nAssistant:\nYes.{END}\n{asked}"
    assert prompt(70) == asked  # no answer stands there without its question
    assert prompt(40) == "User:\n<|im_end|> a crab?\nAssistant:\n"


def test_in_a_prompt_format_each_turn_stands_in_the_prompt(tokenizer: Tokenizer) -> None:
    (encoded,) = encoder(tokenizer, None).encode([example("No.")])
    assert encoded is not None
    assert spelt(tokenizer, encoded.prompt) == (f"Be brief.\n\nIs a cod a fish?\nYes.{END}And <|im_end|> a crab?\n")


def test_a_format_whose_tokens_are_not_there_is_refused(tokenizer: Tokenizer) -> None:
    plain = Tokenizer.from_str(tokenizer.to_str().replace("<|im_start|>", "<|im_begun|>"))
    with pytest.raises(DataError, match=r"chatml is written with <\|im_start\|>, which this tokenizer does not have"):
        encoder(plain, "chatml")


@pytest.mark.parametrize(
    "roles",
    ["", "u", "a", "s", "su", "ua u", "uu a", "au", "usa", "ssua", "x a"],
)
def test_turns_out_of_turn_are_refused(roles: str) -> None:
    names = {"u": USER, "a": ASSISTANT, "s": SYSTEM, "x": "tool"}
    with pytest.raises(DataError, match="the assistant speaks last"):
        check_turns([(names[role], "text") for role in roles.replace(" ", "")])


def test_chats_are_read_from_json_lines_and_back(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    turns = [*CHAT, (ASSISTANT, "No.")]
    messages = [{"role": role, "content": text} for role, text in turns]
    path.write_text(json.dumps({"messages": messages}) + "\n")
    (piece,) = read(SourceFile(str(path), 1, "json_lines", "chats"), Reading(), Skips())
    found = piece.content
    assert isinstance(found, Example)
    assert ([*found.before, (USER, found.input), (ASSISTANT, found.target)]) == turns
    assert Example.from_line(found.to_line()) == found


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ("hello", "holds no list of turns"),
        ([{"role": "user", "content": "a"}], "line 1: the turns must be user and assistant"),
        ([{"role": "user", "content": ""}, {"role": "assistant", "content": "b"}], "turn 1 is empty"),
        ([{"role": "user"}, {"role": "assistant", "content": "b"}], "turn 1 is empty"),
    ],
)
def test_a_broken_chat_is_one_line(tmp_path: Path, messages: object, says: str) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": messages}) + "\n")
    with pytest.raises(SkipError, match=says):
        list(read(SourceFile(str(path), 1, "json_lines", "chats", is_named=True), Reading(), Skips()))
