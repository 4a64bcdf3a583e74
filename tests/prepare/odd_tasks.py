"""Odd inputs of tasks and chats: each form in which people write examples."""

import json
from collections.abc import Sequence

from odd_entries import Odd, Remedy, asked, chatted, filled, lines_of, paragraphs, passages, records, sentences, size

WINDOW = 192  # tokens, in which each example has room
ASKED, TOLD = sentences("Perch", 120), [f"Answer {n} is {n * 13 % 101}." for n in range(120)]
PAIRS = [asked(*pair) for pair in zip(ASKED, TOLD, strict=True)]
MORE = sentences("Trout", 120)
PLAIN = ("--chat-format", "plain")


def _squad() -> tuple[str, list[str]]:
    """Return a file as the first SQuAD has it, and what must come of it."""
    paragraphs_of = [
        {
            "context": MORE[n],
            "qas": [
                {
                    "id": f"{n}.{k}",
                    "question": ASKED[2 * n + k],
                    "answers": [{"text": TOLD[2 * n + k], "answer_start": 0}],
                }
                for k in (0, 1)
            ],
        }
        for n in range(60)
    ]
    articles = [{"title": f"T{n}", "paragraphs": paragraphs_of[n * 6 : n * 6 + 6]} for n in range(10)]
    examples = [asked(f"{MORE[n // 2]}\n\n{ASKED[n]}", TOLD[n]) for n in range(120)]
    return json.dumps({"version": "1.1", "data": articles}), examples


def messages(*turns: str, system: str = "") -> dict[str, object]:
    """Return a chat as OpenAI's API writes it."""
    told = [{"role": ("user", "assistant")[at % 2], "content": turn} for at, turn in enumerate(turns)]
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *told]}


def sharegpt(*turns: str) -> dict[str, object]:
    """Return a chat as ShareGPT writes it."""
    return {"conversations": [{"from": ("human", "gpt")[at % 2], "value": turn} for at, turn in enumerate(turns)]}


def _four(n: int) -> Sequence[str]:
    return ASKED[n], TOLD[n], MORE[n], f"So it is, {n}."


SQUAD, SQUAD_EXAMPLES = _squad()
UNANSWERED = [
    {"context": MORE[n], "question": ASKED[n], "answers": {"text": [], "answer_start": []}} for n in range(20)
]

TASKS = [
    Odd(
        "input and target",
        filled({"in/a.jsonl": records({"input": i, "target": t} for i, t in zip(ASKED, TOLD, strict=True))}),
        {"in": PAIRS},
        context=WINDOW,
    ),
    Odd(
        "input and target, with other right answers and options",
        filled(
            {
                "in/a.jsonl": records(
                    {"input": i, "target": t, "targets": ["Or so.", t], "options": [t, "Never."]}
                    for i, t in zip(ASKED, TOLD, strict=True)
                )
            }
        ),
        {"in": PAIRS},
        context=WINDOW,
    ),
    Odd(
        "prompt and completion, as CSV",
        filled(
            {"in/a.csv": "prompt,completion\n" + "".join(f'"{i}","{t}"\n' for i, t in zip(ASKED, TOLD, strict=True))}
        ),
        {"in": PAIRS},
        context=WINDOW,
    ),
    Odd(
        "question and answer, as JSON",
        filled({"in/a.json": json.dumps([{"question": i, "answer": t} for i, t in zip(ASKED, TOLD, strict=True)])}),
        {"in": PAIRS},
        context=WINDOW,
    ),
    Odd(
        "Alpaca",
        filled(
            {
                "alpaca.json": json.dumps(
                    [
                        {"instruction": i, "input": m if n % 2 else "", "output": t}
                        for n, (i, m, t) in enumerate(zip(ASKED, MORE, TOLD, strict=True))
                    ]
                )
            }
        ),
        {
            "alpaca": [
                asked(f"{i}\n\n{m}" if n % 2 else i, t)
                for n, (i, m, t) in enumerate(zip(ASKED, MORE, TOLD, strict=True))
            ]
        },
        ("alpaca.json",),
        context=WINDOW,
    ),
    Odd(
        "SQuAD, as it is published, in train-v1.1.json and dev-v1.1.json",
        filled(
            {"in/train-v1.1.json": SQUAD, "in/dev-v1.1.json": SQUAD.replace("perch", "pike").replace("Perch", "Pike")}
        ),
        {"in": [*SQUAD_EXAMPLES, *(e.replace("perch", "pike").replace("Perch", "Pike") for e in SQUAD_EXAMPLES)]},
        heldout={"in": [e.replace("perch", "pike").replace("Perch", "Pike") for e in SQUAD_EXAMPLES]},
        context=WINDOW,
    ),
    Odd(
        "SQuAD rows, some without an answer",
        filled(
            {
                "in/a.jsonl": records(
                    {"id": str(n), "context": m, "question": i, "answers": {"text": [t, "x"], "answer_start": [1, 2]}}
                    for n, (i, m, t) in enumerate(zip(ASKED, MORE, TOLD, strict=True))
                )
                + records(UNANSWERED)
            }
        ),
        {"in": [asked(f"{m}\n\n{i}", t) for i, m, t in zip(ASKED, MORE, TOLD, strict=True)]},
        skipped={"BLANK": (20, size(f"{e['context']}\n\n{e['question']}" for e in UNANSWERED))},
        context=WINDOW,
    ),
    Odd(
        "chats as OpenAI's API writes them",
        filled({"in/a.jsonl": records(messages(*_four(n)) for n in range(120))}),
        {"in": [chatted(*_four(n)) for n in range(120)]},
        options=PLAIN,
        context=WINDOW,
    ),
    Odd(
        "chats with what a system says, and content in parts",
        filled(
            {
                "in/a.jsonl": records(
                    {
                        "messages": [
                            {"role": "developer", "content": "Be brief."},
                            {"role": "user", "content": [{"type": "text", "text": ASKED[n]}]},
                            {"role": "assistant", "content": TOLD[n]},
                        ]
                    }
                    for n in range(120)
                )
            }
        ),
        {"in": [f"System:\nBe brief.\n{chatted(ASKED[n], TOLD[n])}" for n in range(120)]},
        options=PLAIN,
        context=WINDOW,
    ),
    Odd(
        "chats as ShareGPT writes them",
        filled({"in/a.json": json.dumps([sharegpt(*_four(n)) for n in range(120)])}),
        {"in": [chatted(*_four(n)) for n in range(120)]},
        options=PLAIN,
        context=WINDOW,
    ),
    Odd(
        "chats of one turn, written as any task where nothing says how",
        filled({"in/a.jsonl": records(messages(i, t) for i, t in zip(ASKED, TOLD, strict=True))}),
        {"in": PAIRS},
        context=WINDOW,
    ),
    Odd(
        "chats that the assistant does not end, below the limit",
        filled(
            {
                "in/a.jsonl": records(messages(*_four(n)) for n in range(120))
                + records([messages("Hello?"), {"messages": []}])
            }
        ),
        {"in": [chatted(*_four(n)) for n in range(120)]},
        options=PLAIN,
        skipped={"INCOMPLETE": (2, len("Hello?"))},
        context=WINDOW,
    ),
    Odd(
        "columns of a task that are named",
        filled(
            {"in/a.jsonl": records({"q": {"x": i}, "gold": t, "text": "no"} for i, t in zip(ASKED, TOLD, strict=True))}
        ),
        {"in": PAIRS},
        options=("--input-column", "q.x", "--target-column", "gold"),
        context=WINDOW,
    ),
    Odd(
        "a prompt made of several columns",
        filled(
            {
                "in/a.tsv": "n\tcontext\tquestion\tanswer\n"
                + "".join(f"{n}\t{m}\t{i}\t{t}\n" for n, (i, m, t) in enumerate(zip(ASKED, MORE, TOLD, strict=True)))
            }
        ),
        {
            "in": [
                asked(f"{n}. {m} Question: {i}", t) for n, (i, m, t) in enumerate(zip(ASKED, MORE, TOLD, strict=True))
            ]
        },
        options=("--prompt", "{n}. {context} Question: {question}"),
        context=WINDOW,
    ),
    Odd(
        "translations, of which nobody says from what to what",
        filled({"in/a.jsonl": records({"translation": {"de": i, "en": t}} for i, t in zip(ASKED, TOLD, strict=True))}),
        {"in": PAIRS},
        refused="which is the input is not said",
        remedy=Remedy(
            "--input-column translation.de --target-column translation.en",
            ("--input-column", "translation.de", "--target-column", "translation.en"),
        ),
        context=WINDOW,
    ),
    Odd(
        "examples of which some are half, below the limit",
        filled(
            {
                "in/a.jsonl": records({"input": i, "target": t} for i, t in zip(ASKED, TOLD, strict=True))
                + records([{"input": "A half."}, {"target": "Other."}])
            }
        ),
        {"in": PAIRS},
        skipped={"INCOMPLETE": (2, len("A half.") + len("Other."))},
        context=WINDOW,
    ),
    Odd(
        "examples and text in one folder",
        filled(
            {
                "in/a.jsonl": records({"input": i, "target": t} for i, t in zip(ASKED, TOLD, strict=True)),
                "in/b.txt": paragraphs(passages("Smelt")),
            }
        ),
        {"in-tasks": PAIRS, "in": passages("Smelt")},
        context=WINDOW,
    ),
    Odd(
        "examples with a column of splits",
        filled(
            {
                "in/a.jsonl": records(
                    {"input": i, "target": t, "split": "train" if n % 4 else "validation"}
                    for n, (i, t) in enumerate(zip(ASKED, TOLD, strict=True))
                )
            }
        ),
        {"in": PAIRS},
        heldout={"in": PAIRS[::4]},
        context=WINDOW,
    ),
    Odd(
        "inputs and targets where text was asked for",
        filled({"in/a.jsonl": lines_of(MORE, "text", input="x", target="y")}),
        {"in": MORE},
    ),
]
