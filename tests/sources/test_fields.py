"""What of a record is learnt: texts, tasks and chats by the names of their columns or by options, and what is wrong."""

import pytest

from peer.corpus.examples import Example
from peer.sources.documents import Content, Reading
from peer.sources.fields import Found, Kind, is_record, kind_of
from peer.sources.skips import Reason
from peer.sources.values import Refusal, strings_size

PLAIN = Reading()


def found(record: object, how: Reading = PLAIN) -> Found:
    kind = kind_of(record, how)
    assert isinstance(kind, Kind), kind
    read = kind.read(record)
    assert isinstance(read, Found), read
    return read


def content(record: object, how: Reading = PLAIN) -> Content:
    return found(record, how).content


def refusal(record: object, how: Reading = PLAIN, first: object = None) -> Refusal:
    kind = kind_of(record if first is None else first, how)
    read = kind if isinstance(kind, Refusal) else kind.read(record)
    assert isinstance(read, Refusal), read
    return read


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"text": "a"}, "a"),
        ({"text": "a", "input": "b", "target": "c"}, "a"),
        ({"content": "a", "url": "b"}, "a"),
        ({"code": "a", "lang": "py", "stars": 3}, "a"),
        ({"sentence": "a", "label": 1}, "a"),
        ({"review": "a", "id": "7", "stars": 3}, "a"),
        ({"tweet": "a", "label": "1", "score": "-3.5e7"}, "a"),
        ({"text": b"a"}, "a"),
        ("a", "a"),
    ],
)
def test_texts(record: object, text: str) -> None:
    assert content(record) == text


def test_a_text_column_may_lie_in_another() -> None:
    assert content({"a": {"b": "c"}, "text": "d"}, Reading(text_column="a.b")) == "c"
    assert content({"a.b": "e", "a": {"b": "c"}}, Reading(text_column="a.b")) == "e"


@pytest.mark.parametrize(
    ("record", "example"),
    [
        ({"input": "a", "target": "b"}, Example("a", "b", ("b",))),
        (
            {"input": "a", "target": "b", "targets": ["c", "b"], "options": ["b", "x"]},
            Example("a", "b", ("c", "b"), ("b", "x")),
        ),
        ({"instruction": "Do", "input": "", "output": "b"}, Example("Do", "b", ("b",))),
        ({"instruction": "Do", "input": "this", "output": "b"}, Example("Do\n\nthis", "b", ("b",))),
        ({"prompt": "a", "completion": "b"}, Example("a", "b", ("b",))),
        ({"question": "a", "answer": "b", "id": "3"}, Example("a", "b", ("b",))),
        (
            {"context": "c", "question": "q", "answers": {"text": ["a", "b", "a"], "answer_start": [1, 2, 1]}},
            Example("c\n\nq", "a", ("a", "b")),
        ),
        ({"context": "c", "question": "q", "answers": [{"text": "a"}]}, Example("c\n\nq", "a", ("a",))),
        ({"article": "a", "highlights": "b", "id": "1"}, Example("a", "b", ("b",))),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            Example("a", "b", ("b",)),
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "a"}]},
                    {"role": "assistant", "content": "b"},
                ]
            },
            Example("a", "b", ("b",)),
        ),
        (
            {
                "conversations": [
                    {"from": "system", "value": "s"},
                    {"from": "human", "value": "a"},
                    {"from": "gpt", "value": "b"},
                ]
            },
            Example("a", "b", ("b",), before=(("system", "s"),)),
        ),
    ],
)
def test_tasks_that_are_known_by_themselves(record: object, example: Example) -> None:
    assert content(record) == example


def test_columns_of_a_task_are_named() -> None:
    record = {"translation": {"de": "Hund", "en": "dog"}, "q": "what?", "n": 3, "a": "this"}
    how = Reading(input_column="translation.de", target_column="translation.en")
    assert content(record, how) == Example("Hund", "dog", ("dog",))
    how = Reading(prompt="Question {n}: {q} {translation.de}", target_column="a")
    assert content(record, how) == Example("Question 3: what? Hund", "this", ("this",))
    assert content({"x": "a", "target": "b"}, Reading(input_column="x")) == Example("a", "b", ("b",))


def test_a_pair_of_languages_needs_its_direction_and_what_it_says_works() -> None:
    record = {"id": "1", "translation": {"de": "Hund", "en": "dog"}}
    said = refusal(record)
    assert said.reason is Reason.COLUMN
    assert "--input-column translation.de --target-column translation.en" in said.words
    assert content(record, Reading(input_column="translation.de", target_column="translation.en"))


def test_labels() -> None:
    read = found({"text": "a", "kind": "sea fish", "split": "validation"}, Reading(domain_column="kind"))
    assert read == Found("a", "sea-fish", "heldout")
    assert found({"text": "a", "split": "train"}).split == "train"
    assert found({"text": "a", "split": "down the middle"}).split is None
    assert found({"text": "a", "part": "dev"}, Reading(split_column="part")).split == "heldout"
    said = refusal({"text": "abc", "split": "unsupervised"}, first={"text": "a", "split": "train"})
    assert (said.reason, said.size_bytes) == (Reason.COLUMN, 3) and "'unsupervised', neither train nor" in said.words
    assert "'kind' is empty" in refusal({"text": "a", "kind": ""}, Reading(domain_column="kind")).words
    assert "no column 'topic'; the columns are: text" in refusal({"text": "a"}, Reading(domain_column="topic")).words


@pytest.mark.parametrize(
    ("record", "reason", "words"),
    [
        ({"text": 5}, Reason.TYPE, "holds int, not text"),
        ({"text": ["a"]}, Reason.TYPE, "holds list, not text"),
        ({"text": None}, Reason.BLANK, "empty"),
        ({"text": " \n"}, Reason.BLANK, "empty"),
        ({"text": "\ud800"}, Reason.TYPE, "half a character at 0"),
        ({"text": "a\0"}, Reason.TYPE, "control character 0 at 1"),
        ([1], Reason.TYPE, "no record"),
        ({"a": "x", "b": "y"}, Reason.COLUMN, "--text-column, one of: a, b"),
        ({"a": 1}, Reason.COLUMN, "the columns are: a"),
        ({"body": "a", "article": "b"}, Reason.COLUMN, "--text-column, one of: body, article"),
        ({"input": "a", "target": ""}, Reason.INCOMPLETE, "'target' is empty"),
        ({"input": "a", "target": "b", "targets": ["c"]}, Reason.INCOMPLETE, "not among 'targets'"),
        ({"input": "a", "target": "b", "options": ["c"]}, Reason.INCOMPLETE, "not among 'options'"),
        ({"input": "a", "target": "b", "options": "c"}, Reason.TYPE, "no list of texts"),
        ({"context": "c", "question": "q", "answers": {"text": []}}, Reason.BLANK, "no answer"),
        ({"context": "c", "question": "q", "answers": 5}, Reason.TYPE, "'answers' holds int"),
        ({"messages": "hi"}, Reason.TYPE, "no list of turns"),
        ({"messages": [{"role": "user", "content": "a"}]}, Reason.INCOMPLETE, "the assistant speaks last"),
        (
            {"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "b"}]},
            Reason.INCOMPLETE,
            "empty",
        ),
    ],
)
def test_what_cannot_be_used(record: object, reason: Reason, words: str) -> None:
    said = refusal(record)
    assert said.reason is reason and words in said.words


@pytest.mark.parametrize(
    ("first", "record", "reason", "size"),
    [
        ({"text": "a"}, {"input": "abc", "target": "d"}, Reason.COLUMN, None),
        ({"input": "a", "target": "b"}, {"text": "abc"}, Reason.COLUMN, None),
        ({"input": "a", "target": "b"}, {"input": "abc"}, Reason.INCOMPLETE, 3),
        ({"input": "a", "target": "b"}, {"target": "ab"}, Reason.INCOMPLETE, 2),
        ({"input": "a", "target": "b"}, "abc", Reason.TYPE, None),
    ],
)
def test_records_of_another_kind(first: object, record: object, reason: Reason, size: int | None) -> None:
    said = refusal(record, first=first)
    assert (said.reason, said.size_bytes) == (reason, size)


def test_options_that_fit_nothing_say_what_would() -> None:
    assert "--target-column" in refusal({"q": "a", "b": "c"}, Reading(input_column="q")).words
    assert "'q'" in refusal({"b": "c", "target": "d"}, Reading(prompt="{q}")).words
    assert "names no column" in refusal({"b": "c", "target": "d"}, Reading(prompt="hello")).words
    assert refusal({"b": {}, "target": "d"}, Reading(prompt="{b}")).reason is Reason.TYPE
    assert refusal({"b": "", "target": "d"}, Reading(prompt="{b}")).reason is Reason.INCOMPLETE
    assert (
        "the columns are: text, a.b; name one with --text-column"
        in refusal({"text": "a", "a": {"b": "c"}}, Reading(text_column="body")).words
    )


def test_a_wrapper_is_no_record() -> None:
    assert is_record({"text": "a"}, PLAIN) and is_record({"x": {"y": 1}}, Reading(text_column="x.y"))
    assert not is_record({"data": [{"y": "a"}]}, Reading(text_column="y")) and not is_record([], Reading("y"))
    assert not is_record({"version": "1", "data": []}, PLAIN)


def test_columns_that_are_needed() -> None:
    kind = kind_of({"text": "a", "split": "train", "other": 1}, Reading(domain_column="kind"))
    assert isinstance(kind, Kind) and kind.columns == ("text", "kind", "split")


def test_sizes() -> None:
    assert strings_size({"a": " é ", "b": ["x", {"c": "yz"}], "d": 5}) == 5
