"""Encodings: what is proven or sure is named, the rest is refused with advice that works; nothing is silently wrong."""

import codecs

import pytest

from configs.errors import DataError
from peer.sources.encodings import check_encoding, detect_encoding, fits, given_encoding, likely_encodings

FRENCH = "Où sont passés les élèves ? « À l’école », répond-il, déçu ; ça coûte 5 € à Noël.\n" * 20
GERMAN = "Die Bäume grünen, und die Straße führt über die Höhe: „schön“, sagte Jürgen.\n" * 20
RUSSIAN = (
    "В начале было слово, и слово было у всех на устах. Рыбы плывут стаей, и никто их не ведёт; каждая следит за "
    "соседями и поворачивает вместе с ними, когда приближается хищник.\n"
    "Зимой рыбаки выходят на лёд рано утром, сверлят лунки и ждут. К вечеру они возвращаются домой с уловом.\n"
)
CHINESE = "陈胡公满，是虞帝舜的后代。当初舜还是一个平民时，尧把自己的两个女儿嫁给了他。\n舜去世后，把天下传给禹。\n" * 6
TRADITIONAL = "吾道將君道且殊，君鬚全似老君鬚。尋常有語爭堪信，愛說蟠桃似甕麤。坐惜年光變，遼陽信未通。\n" * 6
JAPANESE = "魚の群れには先導するものがいない。それぞれの魚は隣の魚を見ながら泳ぎ、敵が近づくと向きを変える。\n" * 6
KOREAN = "물고기 떼에는 이끄는 이가 없다. 저마다 옆의 물고기를 보며 헤엄치고, 적이 다가오면 함께 방향을 바꾼다.\n" * 6


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("text", [FRENCH, CHINESE, "plain"])
@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8-sig", b""),
        ("utf-16", b""),
        ("utf-32", b""),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-32-be", codecs.BOM_UTF32_BE),
    ],
)
def test_unicode_is_known_by_its_mark_or_its_form(encoding: str, mark: bytes, text: str, is_whole: bool) -> None:
    head = mark + text.encode(encoding)
    found = detect_encoding(head if is_whole else head[:-1] if len(head) > 20 else head, is_whole)
    assert found is not None and head.decode(found) == text


@pytest.mark.parametrize("text", [FRENCH, CHINESE, RUSSIAN, "plain text\n"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_unicode_without_a_mark_is_known_by_its_zeros(encoding: str, text: str) -> None:
    assert detect_encoding(text.encode(encoding), True) == encoding


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (RUSSIAN * 3, "cp1251"),
        (RUSSIAN * 3, "koi8_r"),
        (RUSSIAN * 3, "cp866"),
        (CHINESE, "gb18030"),
        (TRADITIONAL, "big5"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
        (JAPANESE, "iso2022_jp"),
        (KOREAN, "euc_kr"),
    ],
)
def test_other_scripts_are_known_where_there_is_enough_of_them(text: str, encoding: str) -> None:
    for is_whole in (True, False):
        head = text.encode(encoding)
        found = detect_encoding(head, is_whole)
        assert found is not None and head.decode(found) == text


@pytest.mark.parametrize("encoding", ["cp1252", "iso8859_15", "cp850", "mac_roman", "cp1250", "cp1254"])
@pytest.mark.parametrize("text", [FRENCH, GERMAN])
def test_latin_letters_with_accents_are_never_sure_and_the_advice_works(text: str, encoding: str) -> None:
    head = text.encode(encoding, "ignore")
    assert detect_encoding(head, True) is None
    likely = likely_encodings(head, True)
    assert likely and all(given_encoding(head, True, name) == name for name in likely)
    if encoding == "cp1252":
        assert likely[0] == "cp1252"


def test_what_decodes_to_control_characters_is_not_accepted() -> None:
    head = FRENCH.encode("cp1252")  # with curly quotes and a euro sign
    assert fits(head, "cp1252", True) and not fits(head, "latin-1", True)
    assert given_encoding(head, True, "latin-1") is None


def test_what_is_no_text_is_in_no_encoding() -> None:
    for head in (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 8, b"\0" * 1000, b"a\0\0b\0c" * 100):
        assert detect_encoding(head, True) is None and likely_encodings(head, True) == []
    assert detect_encoding(b"a log with one stray \0" + b"line\n" * 1000, True) == "utf-8"


def test_a_page_says_its_encoding() -> None:
    for declaration in ('<meta charset="{}">', '<meta http-equiv="Content-Type" content="text/html; charset={}">'):
        page = f"<html><head>{declaration.format('iso-8859-1')}</head><p>{FRENCH}".encode("cp1252")
        assert detect_encoding(page, True) == "cp1252"  # as browsers read it
        lie = f"<html><head>{declaration.format('big5')}</head><p>{GERMAN}".encode("cp1252")
        assert detect_encoding(lie, True) != "cp1252"


def test_a_given_encoding_is_for_what_does_not_prove_to_be_in_another() -> None:
    assert given_encoding(FRENCH.encode("cp1252"), True, "cp1252") == "cp1252"
    assert given_encoding(FRENCH.encode(), True, "cp1252") == "utf-8"
    assert given_encoding(b"plain", True, "cp1252") == "cp1252"
    assert given_encoding(b"plain", True, "utf-16") == "utf-8"  # and not Chinese
    for given in ("utf-16-le", "cp1252"):
        assert given_encoding(FRENCH.encode("utf-16-le"), True, given) == "utf-16-le"
    with pytest.raises(DataError, match="no such encoding is known"):
        check_encoding("klingon")
    with pytest.raises(DataError, match="no such encoding is known"):
        check_encoding("base64")
