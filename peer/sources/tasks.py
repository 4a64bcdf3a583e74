"""Makes examples of records: of pairs of columns, and of the forms of tasks and chats that everybody writes. Pure."""

from collections.abc import Mapping

from configs.errors import DataError
from peer.corpus.chats import ASSISTANT, SYSTEM, USER, Turn, check_turns
from peer.corpus.examples import Example
from peer.sources.skips import Reason
from peer.sources.values import (
    Record,
    RefusedError,
    filled,
    has_column,
    look_up,
    text_of_value,
    texts_in,
    type_name,
    value_in,
)

SPEAKERS = {
    **dict.fromkeys(("system", "developer"), SYSTEM),
    **dict.fromkeys(("user", "human"), USER),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), ASSISTANT),
}


def pair(record: Record, source: str, target: str) -> Example:
    """Return the example of two columns; beside one called `input`, `targets` and `options` count too."""
    there = [name for name in (source, target) if has_column(record, name)]
    if len(there) == 1:
        lacking = target if there == [source] else source
        known = look_up(record, there[0])
        size = len(known.strip().encode(errors="surrogatepass")) if isinstance(known, str) else None
        raise RefusedError(Reason.INCOMPLETE, f"has '{there[0]}' and no '{lacking}'; add it", size)
    asked, answer = filled(record, source, "--input-column"), filled(record, target, "--target-column")
    if source != "input":
        return example(asked, answer)
    return example(asked, answer, texts_in(record, "targets"), texts_in(record, "options"))


def alpaca(record: Record) -> Example:
    """Return an instruction, with what it is about if anything, and its output."""
    instruction = filled(record, "instruction", "--input-column")
    more = text_of_value(record.get("input"), "input")
    return example(
        f"{instruction}\n\n{more}" if more.strip() else instruction, filled(record, "output", "--target-column")
    )


def squad(record: Record) -> Example:
    """Return a context with a question below it, and its first answer; all answers count as right."""
    context, question = (filled(record, column, "--prompt") for column in ("context", "question"))
    answers = record.get("answers")
    texts = answers.get("text") if isinstance(answers, Mapping) else answers
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list | tuple):
        raise RefusedError(Reason.TYPE, f"'answers' holds {type_name(answers)}, no list of texts")
    found = [each.get("text") if isinstance(each, Mapping) else each for each in texts]
    references = tuple(dict.fromkeys(text_of_value(each, "answers") for each in found))
    references = tuple(text for text in references if text.strip())
    if not references:  # the second SQuAD has many of these, and means them
        size = len(f"{context}\n\n{question}".strip().encode())
        raise RefusedError(Reason.BLANK, "the question has no answer", size)
    return example(f"{context}\n\n{question}", references[0], references)


def chat(record: Record, column: str) -> Example:
    """Return the example whose target is the last turn of a chat, as OpenAI's API or ShareGPT writes it."""
    said = value_in(record, column, "--text-column")
    if not isinstance(said, list) or not all(isinstance(each, Mapping) for each in said):
        raise RefusedError(Reason.TYPE, f"'{column}' holds no list of turns, each with a role and a content")
    turns: list[Turn] = []
    for at, each in enumerate(said, start=1):
        role = str(each.get("role", each.get("from"))).lower()
        content = each["content"] if "content" in each else each.get("value")
        if isinstance(content, list) and all(
            isinstance(part, Mapping) and part.get("type") == "text" for part in content
        ):
            content = "".join(str(part.get("text") or "") for part in content)
        text = text_of_value(content, f"turn {at} of {column}")
        turns.append((SPEAKERS.get(role, role), text))
    size = sum(len(text.strip().encode()) for _, text in turns)
    try:
        check_turns(turns)
    except DataError as error:
        raise RefusedError(Reason.INCOMPLETE, str(error), size) from None
    if blank := [at for at, (_, text) in enumerate(turns, start=1) if not text.strip()]:
        raise RefusedError(Reason.INCOMPLETE, f"turn {blank[0]} is empty", size)
    *before, (_, asked), (_, answer) = turns
    return Example(asked, answer, (answer,), before=tuple(before))


def example(source: str, target: str, references: tuple[str, ...] = (), options: tuple[str, ...] = ()) -> Example:
    """Return an example; what is right is its target unless there are more references."""
    size = len(source.strip().encode()) + len(target.strip().encode())
    if references and target not in references:
        raise RefusedError(Reason.INCOMPLETE, "'target' is not among 'targets'; add it, or leave 'targets' out", size)
    references = references or (target,)
    if options and not set(options) & set(references):
        raise RefusedError(Reason.INCOMPLETE, "'target' is not among 'options'; add it, or leave 'options' out", size)
    return Example(source, target, references, options)
