"""The endpoint as the official client of OpenAI sees it, over real connections."""

import dataclasses
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from serving import PROMPT, client_of, server

import peer.answers.endpoint
import peer.fused.batch
from benchmarks.patience import HANG_S, until
from configs.corpus import TaskFormat
from peer.answers.reading import Stops
from peer.commands.main import main
from peer.fused.generate import Generation, task_prompt
from peer.fused.routed import RoutedModel
from peer.fused.sampling import Sampling

LONG = 4096  # tokens, without chance: seconds of writing


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def url(model: RoutedModel) -> Iterator[str]:
    with server(model) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with client_of(url) as client:
        yield client


@dataclasses.dataclass
class Begun:
    """The generations of which the server has written something."""

    generations: list[Generation] = dataclasses.field(default_factory=list)
    event: threading.Event = dataclasses.field(default_factory=threading.Event)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Begun:
    noted = Begun()

    class Noted(Generation):
        def __iter__(self) -> Iterator[str]:
            for index, piece in enumerate(super().__iter__()):
                if not index:
                    noted.generations.append(self)
                    noted.event.set()
                yield piece

    monkeypatch.setattr(peer.answers.endpoint, "Generation", Noted)
    return noted


def test_an_answer_is_that_of_generate(client: openai.OpenAI, model: RoutedModel) -> None:
    expected = Generation(model, PROMPT, Sampling(max_tokens=20, temperature=0.8, top_k=50, seed=3))
    text = "".join(expected)
    options: dict[str, Any] = {"max_tokens": 20, "temperature": 0.8, "seed": 3, "extra_body": {"top_k": 50}}
    for prompt in (PROMPT, [PROMPT]):
        done = client.completions.create(model="fused", prompt=prompt, **options)
        assert (done.object, done.model, done.choices[0].text) == ("text_completion", "fused", text)
        assert done.choices[0].finish_reason == ("stop" if expected.has_ended else "length")
        assert done.usage is not None
        assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (
            expected.prompt_tokens,
            expected.answer_tokens,
        )
    pieces = list(
        client.completions.create(
            model="fused", prompt=PROMPT, stream=True, stream_options={"include_usage": True}, **options
        )
    )
    assert "".join(choice.text for piece in pieces for choice in piece.choices) == text
    assert len(pieces) > 3 and len({piece.id for piece in pieces}) == 1
    assert [choice.finish_reason for piece in pieces for choice in piece.choices][-1] in ("stop", "length")
    assert pieces[-1].usage == done.usage


def test_a_stream_ends_with_done(url: str) -> None:
    asked = {"prompt": PROMPT, "max_tokens": 3, "temperature": 0, "stream": True}
    answer = httpx.post(f"{url}/v1/completions", json=asked, trust_env=False)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [event.removeprefix("data: ") for event in answer.text.strip().split("\n\n")]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"


def test_an_answer_ends_before_a_stop(client: openai.OpenAI, model: RoutedModel) -> None:
    asked: dict[str, Any] = {"model": "fused", "prompt": PROMPT, "max_tokens": 30, "seed": 0}
    whole = client.completions.create(**asked).choices[0].text
    stop = whole[3:5]
    cut = client.completions.create(**asked, stop=["never", stop])
    assert cut.choices[0].text == whole[: whole.find(stop)]
    assert cut.choices[0].finish_reason == "stop"
    assert cut.usage is not None and cut.usage.completion_tokens < 30
    streamed = client.completions.create(**asked, stop=stop, stream=True)
    assert "".join(choice.text for piece in streamed for choice in piece.choices) == cut.choices[0].text


def test_a_stop_is_found_however_the_text_is_cut() -> None:
    for text, expected in (("one two three", "one "), ("one tw", "one tw"), ("one t two", "one t "), ("", "")):
        for size in range(1, 6):
            stops = Stops(["two", "twofold"])
            found = ""
            for at in range(0, len(text), size):
                found += stops.feed(text[at : at + size])
                if stops.is_found:
                    break
            assert found + stops.rest == expected
            assert stops.is_found == (expected != text)


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [card.id for card in client.models.list()] == ["fused"]
    assert client.models.retrieve("fused").owned_by == "shoal"
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt' here; there is 'fused'"):
        client.models.retrieve("gpt")


@pytest.mark.parametrize(
    ("options", "says", "param"),
    [
        ({"prompt": ""}, "the prompt is empty", "prompt"),
        ({"prompt": []}, "must be a text, its tokens, or a list of up to 64 of them", "prompt"),
        ({"prompt": ["a", 1]}, "must be a text, its tokens, or a list of up to 64 of them", "prompt"),
        ({"prompt": [1, 2**30]}, "there is no token 1073741824; there are 300", "prompt"),
        ({"prompt": "fish " * 200}, "tokens, and at most 100 are read; shorten it", "prompt"),
        ({"suffix": "end"}, "'suffix' is not supported; leave it out", "suffix"),
        ({"n": 65}, "less than or equal to 64", "n"),
        ({"n": 40, "prompt": ["a", "b"]}, "at most 64 answers are written to one request", None),
        ({"n": 3, "best_of": 2}, "best_of must be at least n", None),
        ({"best_of": 2}, "leave out stream", None),
        ({"top_p": 1.5}, "less than or equal to 1", "top_p"),
        ({"logprobs": 21}, "less than or equal to 20", "logprobs"),
        ({"logit_bias": {"300": 1}}, "there is no token 300; there are 300", "logit_bias"),
        ({"logit_bias": {"one": 1}}, "should match pattern", "logit_bias"),
        ({"presence_penalty": 3}, "less than or equal to 2", "presence_penalty"),
        ({"max_tokens": -1}, "greater than or equal to 0", "max_tokens"),
        ({"max_tokens": LONG + 1}, f"less than or equal to {LONG}", "max_tokens"),
        ({"temperature": -1}, "greater than or equal to 0", "temperature"),
        ({"seed": -1}, "greater than or equal to 0", "seed"),
        ({"stop": ["a"] * 17}, "'stop' must be a text or up to 16", "stop"),
        ({"stop": ""}, "'stop' must be a text or up to 16", "stop"),
        ({"extra_body": {"beams": 3}}, "there is no option 'beams'", "beams"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    options: dict[str, Any], says: str, param: str | None, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer.answers.endpoint, "MAX_PROMPT_TOKENS", 100)
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{"model": "fused", "prompt": "fish", "stream": True, **options})
    told = caught.value.body
    assert isinstance(told, dict)
    assert says in told["message"] and "\n" not in told["message"]
    assert (told["param"], told["type"]) == (param, "invalid_request_error")


def test_neutral_options_are_taken(client: openai.OpenAI) -> None:
    neutral: dict[str, Any] = {
        "n": 1,
        "top_p": 1.0,
        "echo": False,
        "presence_penalty": 0,
        "logit_bias": {},
        "user": "me",
    }
    assert client.completions.create(model="fused", prompt="fish", max_tokens=1, logprobs=None, **neutral).choices


def test_other_errors_have_their_own_class(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'"):
        client.completions.create(model="gpt", prompt="fish")
    with pytest.raises(openai.BadRequestError, match="no chat template: ask POST /v1/completions"):
        client.chat.completions.create(model="fused", messages=[{"role": "user", "content": "fish"}])
    with pytest.raises(openai.NotFoundError, match="there are GET /v1/models and /health, POST /v1/completions and"):
        client.embeddings.create(model="fused", input="fish")
    with pytest.raises(openai.APIStatusError, match="more than 1048576 bytes") as caught:
        client.completions.create(model="fused", prompt="fish " * 300_000)
    assert caught.value.status_code == 413


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (b'{"prompt": "fish", "max_tokens": 1}', {"Content-Type": "application/json"}, 200),
        (
            b'{"prompt": "fish"}',
            {"Content-Type": "text/plain"},
            415,
        ),  # what a foreign page can send without being asked
        (b'{"prompt": "fish"}', {"Content-Type": "application/json", "Host": "evil.example"}, 403),  # DNS rebinding
        (b'{"prompt"', {"Content-Type": "application/json"}, 400),
        (b"[" * 100_000, {"Content-Type": "application/json"}, 400),
        (b"\xff", {"Content-Type": "application/json"}, 400),
        (b"3", {"Content-Type": "application/json"}, 400),
        (b'{"max_tokens": 1}', {"Content-Type": "application/json"}, 400),
        (b'{"prompt": "\\ud800"}', {"Content-Type": "application/json"}, 400),
        (b'{"prompt": "fish", "\\ud800": 1}', {"Content-Type": "application/json"}, 400),
        (b'{"prompt": "fish", "temperature": NaN}', {"Content-Type": "application/json"}, 400),
    ],
)
def test_bodies_of_all_kinds(body: bytes, headers: dict[str, str], code: int, url: str) -> None:
    answer = httpx.post(f"{url}/v1/completions", content=body, headers=headers, trust_env=False, timeout=HANG_S)
    assert answer.status_code == code
    assert code == 200 or isinstance(answer.json()["error"]["message"], str)


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_client_that_leaves_ends_its_generation(
    is_stream: bool, url: str, client: openai.OpenAI, begun: Begun
) -> None:
    body = json.dumps({"prompt": PROMPT, "max_tokens": LONG, "temperature": 0, "stream": is_stream})
    headers = ("Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}")
    lines = ("POST /v1/completions HTTP/1.1", *headers, "", body)
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall("\r\n".join(lines).encode())
        assert begun.event.wait(HANG_S)
    until(lambda: httpx.get(f"{url}/health", trust_env=False).json()["asked"], lambda asked: not asked, "it to end")
    assert 0 < begun.generations[0].answer_tokens < LONG


def test_others_are_answered_while_it_writes(model: RoutedModel, begun: Begun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.answers.endpoint, "MAX_WAITING", 0)
    monkeypatch.setattr(peer.fused.batch, "MAX_TEXTS", 1)
    with (
        server(model) as url,
        client_of(url) as client,
        client.completions.create(model="fused", prompt=PROMPT, max_tokens=LONG, temperature=0, stream=True) as stream,
    ):
        next(iter(stream))
        assert client.models.list().data
        with pytest.raises(openai.RateLimitError, match="it is busy with what was asked before"):
            client.completions.create(model="fused", prompt=PROMPT)
        assert begun.generations[0].answer_tokens < LONG


@pytest.mark.parametrize("at_once", [1, 5, 16])
def test_two_dozen_clients_each_get_the_answer_that_one_gets_alone(
    model: RoutedModel, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(peer.fused.batch, "MAX_TEXTS", at_once)
    prompts = [PROMPT[: 3 + 7 * (number % 9)] for number in range(24)]
    asked: dict[str, Any] = {"model": "fused", "extra_body": {"top_k": 50}}
    with server(model) as url, client_of(url) as client, ThreadPoolExecutor(24) as clients:
        answers = clients.map(
            lambda number: client.completions.create(
                prompt=prompts[number], seed=number, max_tokens=4 + number, temperature=0.8, **asked
            ),
            range(24),
        )
        found = [answer.choices[0].text for answer in answers]
        several = client.completions.create(prompt=prompts[:3], n=8, max_tokens=2, **asked)
    assert len(several.choices) == 24
    for number, text in enumerate(found):
        sampling = Sampling(max_tokens=4 + number, temperature=0.8, top_k=50, seed=number)
        assert text == "".join(Generation(model, prompts[number], sampling)), number


def test_one_request_for_many_answers_does_not_find_itself_in_the_queue(
    model: RoutedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer.answers.endpoint, "MAX_WAITING", 0)
    with server(model) as url, client_of(url) as client:
        asked = client.completions.create(model="fused", prompt=[PROMPT] * 10, n=4, max_tokens=1)
    assert len(asked.choices) == 40


def test_a_model_that_fails_is_an_error_of_the_server(
    client: openai.OpenAI, model: RoutedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(model.models[0], "forward", fail)
    with pytest.raises(openai.InternalServerError, match="the model failed; see the server's log"):
        client.completions.create(model="fused", prompt=PROMPT)
    with pytest.raises(openai.APIError, match="the model failed"):
        list(client.completions.create(model="fused", prompt=PROMPT, stream=True))


def test_a_model_that_has_learnt_a_task_is_asked_as_it_was_trained(model: RoutedModel) -> None:
    trained = dataclasses.replace(model, task=TaskFormat(prompt="Q {input} A ", window=24))
    expected = Generation(trained, task_prompt(trained, "fish"), Sampling(max_tokens=5, temperature=0))
    with server(trained, is_task=True) as url, client_of(url) as client:
        asked: dict[str, Any] = {"model": "fused", "max_tokens": 5, "temperature": 0}
        assert client.completions.create(prompt="fish", **asked).choices[0].text == "".join(expected)
        turn: Any = {"role": "user", "content": "fish"}
        chat = client.chat.completions.create(messages=[turn], **asked)
        assert chat.choices[0].message.content == "".join(expected)
        with pytest.raises(openai.BadRequestError, match="send one message of the user, its input"):
            client.chat.completions.create(messages=[turn, {"role": "assistant", "content": "x"}, turn], **asked)
        with pytest.raises(openai.BadRequestError, match="the input is empty"):
            client.completions.create(prompt=" ", **asked)
        with pytest.raises(openai.BadRequestError, match="and the model reads 24"):
            client.completions.create(prompt="fish " * 30, **asked)


def test_the_command_serves_until_it_is_told_to_end(folder: Path) -> None:
    command = [sys.executable, "-m", "peer", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        url = re.fullmatch(r"serving fused at (http://127\.0\.0\.1:\d+)/v1; Ctrl-C ends it\n", line)
        assert url, line + process.stderr.read()
        with client_of(url[1]) as client:
            assert client.completions.create(model="fused", prompt=PROMPT, max_tokens=3).choices[0].text
            with client.completions.create(
                model="fused", prompt=PROMPT, max_tokens=LONG, temperature=0, stream=True
            ) as stream:
                next(iter(stream))
                process.send_signal(signal.SIGINT)
                with pytest.raises(openai.APIError, match="it is ending"):
                    list(stream)
            assert process.wait(HANG_S) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


def test_what_keeps_it_from_serving_is_one_line(
    folder: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def complains(*arguments: str) -> str:
        code = main(["serve", *arguments])
        output = capsys.readouterr()
        assert code in (1, 2) and output.out == "" and output.err.count("\n") == 1
        return output.err

    taken = url.rsplit(":", 1)[1]
    assert f"the endpoint cannot listen on 127.0.0.1: port {taken} is taken; choose another --port" in complains(
        str(folder), "--port", taken
    )
    assert "give --host an address of this machine" in complains(str(folder), "--host", "203.0.113.7")
    assert "the model was not trained on a task" in complains(str(folder), "--port", "0", "--task")
    assert "no model directory" in complains(str(tmp_path / "nowhere"))
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "branch.1" / "model.safetensors").write_bytes(b"\0" * 100)
    assert f"{damaged / 'branch.1'} cannot be loaded" in complains(str(damaged), "--port", "0")
    shutil.rmtree(damaged / "branch.1")
    assert "holds no model" in complains(str(damaged), "--port", "0")
    mute = shutil.copytree(folder / "branch.0", tmp_path / "mute", ignore=shutil.ignore_patterns("tokenizer.json"))
    assert "has no tokenizer.json" in complains(str(mute), "--port", "0")
