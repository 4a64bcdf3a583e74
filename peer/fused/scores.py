"""How good the answers to a task's held-out examples are: ROUGE, BLEU, chrF, exact match, F1, accuracy over options.

Each score comes with a 95 % bootstrap interval over the examples. Answers are the likeliest token each time
(`answers.py`). ROUGE is rouge-score's, BLEU and chrF are sacrebleu's; exact match and F1 follow SQuAD (Rajpurkar et
al., 2016, 1606.05250). Chinese and Japanese have no spaces: there each character counts as a word.

Shapes: N examples, R resamplings, S numbers that one example adds to a score.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from configs.errors import DataError
from peer.corpus.examples import Encoded, Example, TaskEncoder
from peer.fused.answers import answer, preferred
from peer.fused.routed import RoutedModel

RESAMPLINGS = 1000
SAMPLES = 3  # examples that are shown with their answers
LEAD, COPY, MAJORITY = "lead", "copy", "majority"  # the first sentence, the input, the commonest right option
ROUGE = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}

_CHARACTER = "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"  # kana and Han
_WORDS = re.compile(f"{_CHARACTER}|(?:(?!{_CHARACTER})[^\\W_])+")
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s*(?=\s|[\u3040-\u9fff]|$)|\n")
_PUNCTUATION = str.maketrans("", "", string.punctuation + "，。！？、；：“”‘’（）《》「」")

Progress = Callable[[str, int, int], None]  # (what is being done, how much is done, of how much)
Table = NDArray[np.float64]  # (N, S)


@dataclass(frozen=True)
class Score:
    """One score from 0 to 100, and the interval that holds it with 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Sample:
    """One example and its answer, for a person to read."""

    input: str
    reference: str
    answer: str


@dataclass(frozen=True)
class TaskScores:
    """The scores of one task."""

    examples: int
    scores: Mapping[str, Score]
    bleu_words: str  # how sacrebleu found them: "13a" or, where texts are mostly Chinese or Japanese, "zh"
    trivial: Mapping[str, Mapping[str, Score]]  # of what needs no model: `LEAD`, `COPY`, `MAJORITY`
    samples: tuple[Sample, ...]

    def as_dict(self) -> dict[str, object]:
        """Return what `shoal eval --metrics --json` prints of it."""
        return asdict(self)


def score_task(
    model: RoutedModel, encoder: TaskEncoder, examples: Sequence[Example], progress: Progress | None = None
) -> TaskScores:
    """Let `model` answer the examples, and score the answers; of examples with options also its choice.

    An answer is at most as long as the longest target. Inputs are cut so that half a window is left for it, if it may
    need that. Raises DataError: the model came without a tokenizer, or reads less than the task's window.
    """
    if model.tokenizer is None:
        raise DataError("the model directory has no tokenizer.json, so answers cannot be read; fuse again")
    if model.context_length < encoder.window:
        raise DataError(
            f"the model reads {model.context_length} tokens, and the corpus was prepared for {encoder.window}; "
            f"prepare it with --context-length {model.context_length} and this model's tokenizer"
        )
    report = progress or _silent
    longest = max(len(each.answers[0]) for each in encoder.encode(examples) if each is not None)
    encoded = encoder.encode(examples, room=min(longest, encoder.window // 2))
    pairs = [(example, each) for example, each in zip(examples, encoded, strict=True) if each is not None]
    prompts = [each.prompt for _, each in pairs]
    limits = [min(longest, encoder.window - len(prompt)) for prompt in prompts]
    tokens = answer(model, prompts, limits, lambda done, total: report("answering", done, total))
    answers = [str(model.tokenizer.decode(each, skip_special_tokens=True)).strip() for each in tokens]
    answered = [example for example, _ in pairs]
    references = [example.references for example in answered]
    scores, bleu_words = score_answers(answers, references)
    trivial = {name: score_answers(texts, references)[0] for name, texts in trivial_answers(answered).items()}
    if choices := _choices(model, [pair for pair in pairs if pair[0].options], report):
        scores["accuracy"] = _mean(choices)
        trivial[MAJORITY] = {"accuracy": _mean(majority([example for example in answered if example.options]))}
    shown = range(0, len(pairs), max(1, len(pairs) // SAMPLES))[:SAMPLES]
    samples = tuple(Sample(answered[at].input, references[at][0], answers[at]) for at in shown)
    return TaskScores(len(pairs), scores, bleu_words, trivial, samples)


def trivial_answers(examples: Sequence[Example]) -> dict[str, list[str]]:
    """Return the answers of what needs no model: the first sentence of each input, and the input itself."""
    return {
        LEAD: [_SENTENCE.split(example.input.strip(), maxsplit=1)[0] for example in examples],
        COPY: [example.input.strip() for example in examples],
    }


def majority(examples: Sequence[Example]) -> list[float]:
    """Return 1 for each example whose right option is the one that is right most often, 0 for the others.

    Options go by their text where all examples have the same, and else by their place.
    """
    is_alike = len({tuple(sorted(example.options)) for example in examples}) == 1
    right = [
        {option if is_alike else at for at, option in enumerate(example.options) if option in example.references}
        for example in examples
    ]
    ((best, _),) = Counter(option for options in right for option in options).most_common(1) or ((None, 0),)
    return [float(best in options) for options in right]


def score_answers(
    answers: Sequence[str], references: Sequence[Sequence[str]], seed: int = 0
) -> tuple[dict[str, Score], str]:
    """Return the scores of answers, each beside its references, of which the best counts; and how BLEU split words."""
    scorer = RougeScorer(list(ROUGE), tokenizer=_Words())
    rouge = [scorer.score_multi(list(own), text) for text, own in zip(answers, references, strict=True)]
    scores = {name: _mean([each[key].fmeasure for each in rouge], seed) for key, name in ROUGE.items()}
    texts = "".join(own[0] for own in references)
    bleu_words = "zh" if 2 * len(re.findall(_CHARACTER, texts)) > len(texts) else "13a"
    scores["BLEU"] = _of_corpus(BLEU(tokenize=bleu_words, force=True), answers, references, seed)
    scores["chrF"] = _of_corpus(CHRF(), answers, references, seed)
    pairs = list(zip(answers, references, strict=True))
    exact = [max(float(normalized(text) == normalized(one)) for one in own) for text, own in pairs]
    scores["exact match"] = _mean(exact, seed)
    scores["F1"] = _mean([max(token_f1(text, one) for one in own) for text, own in pairs], seed)
    return scores, bleu_words


def normalized(text: str) -> str:
    """Return `text` in lower case, without punctuation, articles and more than one space in a row."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split())


def token_f1(answer: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall over the words that both have, 0 to 1."""
    own, wanted = (_split(normalized(text)) for text in (answer, reference))
    common = sum((Counter(own) & Counter(wanted)).values())
    if not own or not wanted:
        return float(own == wanted)
    return 2 * common / (len(own) + len(wanted))


def bootstrap(table: Table, score: Callable[[Table], float], seed: int = 0) -> Score:
    """Return the score of all examples, and the interval in which it falls in 95 % of resamplings with replacement.

    `score` makes the sums (S,) of examples a score. The same table and seed give the same interval.
    """
    random, count = np.random.default_rng(seed), len(table)
    drawn = [score(table[random.integers(0, count, count)].sum(axis=0)) for _ in range(RESAMPLINGS)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Score(score(table.sum(axis=0)), float(low), float(high))


def _choices(model: RoutedModel, pairs: Sequence[tuple[Example, Encoded]], report: Progress) -> list[float]:
    """Return 1 for each example whose preferred option is a right one, 0 for the others."""
    if not pairs:
        return []
    best = preferred(model, [each for _, each in pairs], lambda done, total: report("ranking options", done, total))
    return [float(example.options[at] in example.references) for (example, _), at in zip(pairs, best, strict=True)]


def _mean(values: Sequence[float], seed: int = 0) -> Score:
    """Return the mean of one number an example, times 100."""
    table = np.array([[value, 1.0] for value in values])
    return bootstrap(table, lambda sums: 100 * float(sums[0] / sums[1]), seed)


def _of_corpus(metric: Any, answers: Sequence[str], references: Sequence[Sequence[str]], seed: int) -> Score:
    """Return a score of sacrebleu, which is one of the sums over all examples. Its statistics are private there."""
    most = max(map(len, references))
    streams = [[own[at] if at < len(own) else None for own in references] for at in range(most)]
    table = np.array(metric._extract_corpus_statistics(answers, streams), dtype=np.float64)
    return bootstrap(table, lambda sums: float(metric._compute_score_from_stats(sums.tolist()).score), seed)


def _split(text: str) -> list[str]:
    """Return words; each Chinese or Japanese character is one."""
    return [part for word in text.split() for part in re.findall(f"{_CHARACTER}|(?:(?!{_CHARACTER}).)+", word)]


class _Words:
    """Splits as rouge-score does, and knows letters beyond ASCII."""

    def tokenize(self, text: str) -> list[str]:
        return _WORDS.findall(text.lower())


def _silent(stage: str, done: int, total: int) -> None:
    """Show no progress."""
