"""What a completion is asked and how it looks, without a server."""

import json
from typing import Any

import pytest

from peer.answers.asked import Choice, Refusal, Token, Usage, spelt
from peer.answers.completions import Completion, CompletionRequest


def asked(**fields: Any) -> CompletionRequest:
    return CompletionRequest.parse(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("fish", ["fish"]),
        (["fish"], ["fish"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_a_prompt_is_a_text_or_tokens_or_several(prompt: Any, prompts: list[Any]) -> None:
    assert asked(prompt=prompt).prompts == prompts


@pytest.mark.parametrize("prompt", [[], [[]], [1, "a"], [True], 3, [-1], {"a": 1}])
def test_nothing_else_is_one(prompt: Any) -> None:
    with pytest.raises(Refusal, match="'prompt' must be a text, its tokens, or a list"):
        asked(prompt=prompt)


def test_null_is_not_given() -> None:
    assert asked(prompt="fish", max_tokens=None, stop=None, suffix=None) == asked(prompt="fish")
    with pytest.raises(Refusal, match="there is no 'prompt' in the request"):
        asked(max_tokens=3)


def test_a_part_of_a_character_is_spelt_by_its_bytes() -> None:
    assert spelt("é".encode()) == "é" and spelt("é".encode()[:1]) == r"bytes:\xc3"
    tokens = (Token(b"caf", None, ()), Token(b"\xc3", -1.0, ((b"\xc3", -1.0),)), Token(b"!", -2.0, ()))
    told = Completion("m").whole([Choice(0, "café!", "stop", tokens, 4)], Usage(1, 3))
    logs = told["choices"][0]["logprobs"]
    assert logs["tokens"] == ["caf", r"bytes:\xc3", "!"] and logs["text_offset"] == [4, 7, 7]
    assert logs["top_logprobs"] == [None, {r"bytes:\xc3": -1.0}, {}] and logs["token_logprobs"] == [None, -1.0, -2.0]
    assert told["usage"] == {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
