import pickle
import subprocess
import sys

import pytest

from configs.errors import DataError
from peer.prepare.cleaning import RUN, SHORTEST, Cleaning, Filter, known_languages, language_of
from peer.sources.skips import Reason

ENGLISH = "The daemon trains a part of the model on its own machine, and gossips with the others what it has learnt."
GERMAN = (
    "Der Daemon trainiert einen Teil des Modells auf seinem eigenen Rechner und erzählt den anderen, was er lernte."
)
FRENCH = "Le démon entraîne une partie du modèle sur sa propre machine et raconte aux autres ce qu'il a appris."
CHINESE = "守护进程在自己的机器上训练模型的一部分，并且每一轮都与其他持有相同模块的节点交换所学到的内容。"
CLASSICAL = "學而時習之，不亦說乎？有朋自遠方來，不亦樂乎？人不知而不慍，不亦君子乎？"
UNSURE = ("", "???", "x = 3", "12 34 56\n78 90", "0x7f 0x3a 0x11")

QUESTION = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."
SHORT_QUESTION = "What is the capital city of the state of Vermont?"
POEM = "床前明月光，疑是地上霜。举头望明月，低头思故乡。白日依山尽，黄河入海流。欲穷千里目，更上一层楼。"


def listed_filter(*texts: tuple[str, str]) -> Filter:
    return Filter(Cleaning(decontaminate=("list",)), texts)


def test_nothing_is_left_out_unless_it_is_asked_for():
    assert Cleaning().is_idle and not Cleaning().is_filtering
    assert not Cleaning(near=0.7).is_idle and not Cleaning(near=0.7).is_filtering
    assert Cleaning(max_characters=3).is_filtering
    assert Filter(Cleaning()).verdict(ENGLISH) is None


@pytest.mark.parametrize(
    ("text", "code"), [(ENGLISH, "en"), (GERMAN, "de"), (FRENCH, "fr"), (CHINESE, "zh"), (CLASSICAL, "zh")]
)
def test_languages_are_told(text, code):
    assert language_of(text) == code
    assert language_of("\n\n   " + text.upper()) == code


def test_a_document_in_another_language_is_left_out():
    filter = Filter(Cleaning(languages=("en", "zh")))
    assert [filter.verdict(text) for text in (ENGLISH, CHINESE, GERMAN)] == [None, None, Reason.LANGUAGE]


@pytest.mark.parametrize("text", UNSURE)
def test_a_document_whose_language_is_not_sure_stays(text):
    assert Filter(Cleaning(languages=("de",))).verdict(text) is None


def test_the_first_characters_tell_the_language_of_a_long_document():
    filter = Filter(Cleaning(languages=("en",)))
    assert filter.verdict(ENGLISH * 20 + GERMAN * 100) is None


def test_norwegian_goes_by_both_of_its_codes():
    text = "Programmet trener en del av modellen på sin egen maskin og forteller de andre hva den har lært hver runde."
    for code in ("no", "nb"):
        assert Filter(Cleaning(languages=(code,))).verdict(text) is None


def test_a_document_that_is_too_short_or_too_long_is_left_out():
    filter = Filter(Cleaning(min_characters=3, max_characters=5))
    verdicts = [filter.verdict(text) for text in ("ab", "  ab\n", "abc", "abcde", "\nabcde\n", "abcdef")]
    assert verdicts == [Reason.LENGTH, Reason.LENGTH, None, None, None, Reason.LENGTH]


def test_the_length_of_a_document_in_pieces_is_judged_in_the_end():
    filter = Filter(Cleaning(min_characters=1000, languages=("en",)))
    assert filter.verdict(ENGLISH, is_whole=False) is None
    assert filter.verdict(GERMAN, is_whole=False) is Reason.LANGUAGE
    assert filter.of_length(999) is Reason.LENGTH and filter.of_length(1000) is None


def test_a_document_that_holds_a_part_of_a_listed_text_is_left_out():
    filter = listed_filter(("a.txt", POEM), ("b.txt", QUESTION))
    part = QUESTION.split()
    held = f"He wrote: «{' '.join(part[2 : 2 + RUN]).upper()}!» and left."
    assert filter.verdict(held) is Reason.LISTED
    assert filter.listed_in(held) == "b.txt"
    assert filter.verdict(" ".join(part[2 : 1 + RUN])) is None
    assert filter.verdict(ENGLISH) is None


def test_text_without_spaces_is_compared_by_characters():
    filter = listed_filter(("a.txt", POEM))
    signs = POEM.replace("，", "").replace("。", "")
    assert filter.listed_in("李白：" + signs[4 : 4 + 2 * RUN]) == "a.txt"
    assert filter.listed_in("李白：" + signs[4 : 3 + 2 * RUN]) is None
    assert filter.listed_in(CLASSICAL) is None


def test_a_short_listed_text_is_looked_for_as_a_whole():
    filter = listed_filter(("q.txt", SHORT_QUESTION), ("a.txt", "Montpelier"), ("b.txt", QUESTION))
    assert filter.passed_over == 1
    assert filter.listed_in(f"Q: {SHORT_QUESTION.lower()} A: Montpelier") == "q.txt"
    assert filter.listed_in(f"Asked: {QUESTION}") == "b.txt"
    assert filter.listed_in("What is the capital city of the state of Maine?") is None
    assert filter.listed_in("Montpelier") is None


def test_the_first_file_that_holds_a_text_is_named():
    assert listed_filter(("b.txt", QUESTION), ("a.txt", QUESTION)).listed_in(QUESTION) == "b.txt"


def test_a_list_with_nothing_to_look_for_is_refused():
    with pytest.raises(DataError, match=rf"list holds no text of {SHORTEST} words or more"):
        listed_filter(("a.txt", "yes"), ("a.txt", "no"))
    listed_filter(("a.txt", "one two three four five six seven eight"))  # what the message advises


def test_a_filter_says_the_same_after_it_was_shipped():
    filter = Filter(
        Cleaning(languages=("en",), min_characters=10, decontaminate=("list",)), [("a.txt", POEM), ("b.txt", QUESTION)]
    )
    texts = (ENGLISH, GERMAN, QUESTION, "short")
    code = (
        "import pickle, sys; filter, texts = pickle.load(sys.stdin.buffer);"
        "print([getattr(filter.verdict(text), 'name', None) for text in texts])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps((filter, texts)), capture_output=True, check=True, timeout=60
    )
    assert done.stdout.decode().strip() == "[None, 'LANGUAGE', 'LISTED', 'LENGTH']"
    assert [filter.verdict(text) for text in texts] == [None, Reason.LANGUAGE, Reason.LISTED, Reason.LENGTH]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Cleaning(min_characters=5, max_characters=4), "at least 5 and at most 4 characters"),
        (Cleaning(min_characters=-1), "at least -1"),
        (Cleaning(max_characters=0), "at most 0"),
        (Cleaning(near=1.5), "a similarity of 1.5 .* such as 0.7"),
        (Cleaning(near=0.0), "a similarity of 0.0"),
        (Cleaning(languages=("english",)), "no language 'english' .* en,"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(DataError, match=words):
        Filter(options)


def test_every_language_that_the_message_offers_is_taken():
    Cleaning(languages=tuple(known_languages())).check()


def test_without_the_extra_a_message_says_what_to_install(monkeypatch):
    from peer.prepare import cleaning

    cleaning._identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(DataError, match=r"pip install 'shoal\[clean\]'"):
        Filter(Cleaning(languages=("en",)))
    assert Filter(Cleaning(min_characters=3)).verdict("ab") is Reason.LENGTH  # the other filters do without
