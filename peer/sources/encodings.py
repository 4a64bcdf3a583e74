"""Tells the encoding of a text from its first bytes, if that is sure; names the likely ones if it is not.

UTF-8 proves itself, but for a few damaged lines, and so do byte order marks and the zeros of UTF-16 and UTF-32. What a
web page declares is believed if it fits. Chinese, Japanese and Korean show by their commonest letters; of all others
`charset-normalizer` judges, and only scripts other than Latin are ever sure: German in cp1252 and in cp1250 are the
same bytes, and of French the judge prefers Baltic encodings as often as not.
"""

import codecs
import re
from typing import TYPE_CHECKING

from configs.errors import DataError

if TYPE_CHECKING:
    from charset_normalizer import CharsetMatch

JUDGED_BYTES = 1 << 15  # of a text in an unknown encoding, at most
MIN_FOREIGN = 100  # bytes that are not ASCII, for a judgement to be sure
FOREIGN_SHARE = 0.4  # of all letters: fewer are Latin with accents, in which pairs of bytes pass for Chinese
CHAOS_MARGIN, COHERENCE_MARGIN = 0.03, 0.1  # by which the next likely encoding must be worse
SHOWN = 3  # likely encodings in a message

# Those that people have files in. The others that Python knows decode the same bytes to other letters, and would make
# every judgement unsure.
KANA = frozenset(map(chr, range(0x3041, 0x3094)))
HAN = frozenset(
    "的一是不了在人有我他这這个個们們中来來上大为為和国國地到以说說时時要就出会會可也你对對生能而子那得于於着著下自之年过過发發后後作里裡"
    "用道行所然家种種事成方多经經么麼去法学學如都同现現当當没沒动動面起看定天分还還进進好小部其些主样樣理心她本前开開但因只从從想实實日军軍"
    "者意无無力它与與长長把机機十民第公此已工使情明性知全三又关關点點正业業外将將两兩高间間由问問很最重并並物手应應战戰向头頭文体體政美相见見"
    "被利什二等产產或新己制身果加西月话話合回特代内內信表化老给給世位次度门門任常先海通教儿兒原东東声聲提立及比员員解水名真论論处處走义義各"
    "入几幾口条條平气氣何安山王曰君吾云雲風风花春秋夜歸归"
)
HANGUL = frozenset("이다는의을를에서고하지가은로도기사한리스인대정시아해어그제자라부나으수일있전들상과원선보장니")
# Encodings in pairs of bytes → the commonest letters of what they are for. Decoded wrongly, a text has few of them.
COMMON = {"gb18030": HAN, "big5": HAN, "cp932": KANA, "euc_jp": KANA, "cp949": HANGUL}
COMMON_SHARE = 0.2  # at least; twice that of the next
MIN_COHERENCE = 0.35
PLAUSIBLE = (
    *("cp1252", "cp1250", "iso8859_2", "iso8859_15", "cp1254", "cp1257", "cp1258", "cp850", "mac_roman"),
    *("cp1251", "koi8_r", "koi8_u", "cp866", "iso8859_5", "mac_cyrillic"),
    *("cp1253", "iso8859_7", "cp1255", "cp1256", "cp874"),
    *COMMON,
)
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
SEVEN_BITS = re.compile(rb"\x1b(?:\$[@B]|\([JI])")  # how Japanese begins in ISO-2022-JP
DECLARED = re.compile(
    rb"""<meta[^>]{0,200}charset\s*=\s*["']?([\w.:-]+)|<\?xml[^>]{0,100}encoding\s*=\s*["']([\w.:-]+)"""
)
CONTROLS = re.compile("[\x00-\x07\x0e-\x1a\x1c-\x1f\x7f-\x9f]")
ASCII = bytes(range(0x80))
LETTERS = bytes(range(ord("A"), ord("Z") + 1)) + bytes(range(ord("a"), ord("z") + 1))
STRAY_ZEROS = 0.001  # of the bytes of a text, at most
SPOILT_SHARE = 0.01  # of a text in UTF-8 that may stand in lines which are not


def detect_encoding(head: bytes, is_whole: bool) -> str | None:
    """Return the encoding of a text that begins with `head`, as Python names it; None: it is not sure, or no text.

    `is_whole`: nothing follows. Otherwise `head` may end within a character.
    """
    proven = _proven(head, is_whole)
    if proven is not None:
        return proven
    has_zeros = b"\0" in head
    found = _wide(head, is_whole) if has_zeros else _declared(head, is_whole)
    if found is None and _is_nearly_utf8(head):
        return "utf-8"
    return found if found is not None or has_zeros else _judged(head, is_whole)


def given_encoding(head: bytes, is_whole: bool, encoding: str) -> str | None:
    """Return the encoding of a text whose user says `encoding`; None: it is not in that one.

    What proves to be Unicode is read as that: `encoding` is meant for the files that do not say what they are in.
    """
    is_wide = codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))
    is_plain = head.isascii() and b"\0" not in head
    if is_plain and not is_wide:
        return encoding if fits(head, encoding, is_whole) else None
    proven = _proven(head, is_whole) or (_wide(head, is_whole) if b"\0" in head else None)
    return proven or (encoding if fits(head, encoding, is_whole) else None)


def check_encoding(encoding: str) -> None:
    """Raise DataError if Python knows no such encoding of text."""
    try:
        "".encode(encoding)
    except LookupError:
        raise DataError(
            f"--encoding {encoding}: no such encoding is known; give one such as cp1252, cp1251, gb18030 or utf-16"
        ) from None


def likely_encodings(head: bytes, is_whole: bool) -> list[str]:
    """Return what a text that begins with `head` may be in, the likeliest first; nothing if it seems to be no text."""
    if b"\0" in head:
        return []
    matches = sorted(_matches(head, is_whole), key=lambda match: (match.chaos, -match.coherence))
    likely = [match.encoding for match in matches if match.chaos <= matches[0].chaos + CHAOS_MARGIN]
    if _is_latin(
        head
    ):  # that many pairs of bytes pass for Chinese says nothing, and most such files are in one encoding
        likely = ["cp1252", *(name for name in likely if name not in ("cp1252", *COMMON))]
    return [name for name in likely if fits(head, name, is_whole)][:SHOWN]


def fits(head: bytes, encoding: str, is_whole: bool) -> bool:
    """Say whether `head` decodes to a text without control characters, which a wrong encoding often shows."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head, final=is_whole)
    except (UnicodeError, LookupError):
        return False
    return CONTROLS.search(text) is None


def _proven(head: bytes, is_whole: bool) -> str | None:
    """Return the encoding that the bytes themselves prove."""
    for mark, encoding in MARKS:
        if head.startswith(mark):
            is_text = encoding == "utf-8-sig" or _is_readable(head, encoding, is_whole)
            return encoding if is_text and _decodes(head, encoding, is_whole) else None
    if SEVEN_BITS.search(head) and fits(head, "iso2022_jp", is_whole):
        return "iso2022_jp"
    is_text = head.count(b"\0") <= STRAY_ZEROS * len(head)
    return "utf-8" if is_text and _decodes(head, "utf-8", is_whole) else None


def _is_nearly_utf8(head: bytes) -> bool:
    """Say whether all but a few lines are UTF-8, so that only those are lost, and said to be."""
    spoilt = sum(len(line) for line in head.split(b"\n") if not line.isascii() and not _decodes(line, "utf-8", True))
    return spoilt <= SPOILT_SHARE * len(head) and head.count(b"\0") <= STRAY_ZEROS * len(head)


def _decodes(head: bytes, encoding: str, is_whole: bool) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(head, final=is_whole)
    except UnicodeError:
        return False
    return True


def _wide(head: bytes, is_whole: bool) -> str | None:
    """Return which UTF-16 or UTF-32 without a mark fits, by its zeros or its spaces and line ends; None: no text."""
    zeros = [head[at::4].count(0) / max(1, len(head) // 4) for at in range(4)]
    if min(zeros[2:]) > 0.9 or min(zeros[:2]) > 0.9:
        name = "utf-32-le" if zeros[3] >= zeros[0] else "utf-32-be"
    else:
        spaces = {"utf-16-le": _units(head, "utf-16-le"), "utf-16-be": _units(head, "utf-16-be")}
        name = max(spaces, key=lambda name: spaces[name])
        if min(spaces.values()) * 4 > max(spaces.values()) or not max(spaces.values()):
            return None
    return name if _is_readable(head, name, is_whole) else None


def _is_readable(head: bytes, encoding: str, is_whole: bool) -> bool:
    """Say whether nearly all characters of UTF-16 or UTF-32 can be seen: few of any other bytes can."""
    if not fits(head, encoding, is_whole):
        return False
    text = codecs.getincrementaldecoder(encoding)().decode(head)
    seen = sum(character.isprintable() or character.isspace() or character == "\ufeff" for character in text)
    return seen >= 0.99 * len(text)


def _units(head: bytes, encoding: str) -> int:
    """Count the characters of UTF-16 that are in every text, but hardly ever with their bytes exchanged."""
    units = head[: len(head) // 2 * 2].decode(encoding, "replace")
    return sum(units.count(character) for character in "\n\r .。，、e")


def _declared(head: bytes, is_whole: bool) -> str | None:
    """Return the encoding that a web page says it is in, if it fits."""
    said = DECLARED.search(head[:2048])
    if said is None:
        return None
    name = (said[1] or said[2]).decode()
    try:
        known = codecs.lookup(name).name
    except LookupError:
        return None
    # The web has always read Latin-1 as the encoding of Windows that holds it.
    name = {"iso8859-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030"}.get(known, known)
    return name if fits(head, name, is_whole) else None


def _judged(head: bytes, is_whole: bool) -> str | None:
    """Return what a text that proves nothing is in, if that is sure."""
    if _foreign(head) < MIN_FOREIGN or _is_latin(head):
        return None
    common = {name: _common_share(head, name, is_whole) for name in COMMON}
    first, second = sorted(common, key=lambda name: -common[name])[:2]
    if common[first] >= COMMON_SHARE and common[second] <= common[first] / 2:
        return first
    matches = [match for match in _matches(head, is_whole) if common.get(match.encoding, 1.0) >= COMMON_SHARE / 2]
    if not matches:
        return None
    best = min(matches, key=lambda match: (match.chaos, -match.coherence))
    letters = [character for character in str(best) if ord(character) >= 0x80 and character.isalpha()]
    is_latin = sum(ord(letter) < 0x250 for letter in letters) > 0.1 * len(letters)
    if is_latin or best.encoding in COMMON or best.coherence < MIN_COHERENCE:
        return None
    if not all(_is_worse(match, best) for match in matches if str(match) != str(best)):
        return None
    return best.encoding if fits(head, best.encoding, is_whole) else None


def _common_share(head: bytes, encoding: str, is_whole: bool) -> float:
    """Return which share of the letters that are not ASCII are among the commonest of a script; 0: it does not fit."""
    if not fits(head, encoding, is_whole):
        return 0.0
    text = codecs.getincrementaldecoder(encoding)().decode(head[:JUDGED_BYTES])
    letters = [character for character in text if ord(character) >= 0x80 and character.isalpha()]
    return sum(letter in COMMON[encoding] for letter in letters) / max(1, len(letters))


def _foreign(head: bytes) -> int:
    """Count the bytes that are not ASCII."""
    return len(head[:JUDGED_BYTES].translate(None, ASCII))


def _is_latin(head: bytes) -> bool:
    """Say whether most letters are ASCII, so that the others seem to be letters with accents."""
    latin = len(head[:JUDGED_BYTES]) - len(head[:JUDGED_BYTES].translate(None, LETTERS))
    return _foreign(head) < FOREIGN_SHARE * (_foreign(head) + latin)


def _is_worse(match: "CharsetMatch", best: "CharsetMatch") -> bool:
    more_chaos = match.chaos - best.chaos
    less_coherence = best.coherence - match.coherence
    return (more_chaos >= CHAOS_MARGIN and less_coherence >= -COHERENCE_MARGIN / 2) or (
        more_chaos >= 0 and less_coherence >= COHERENCE_MARGIN
    )


def _matches(head: bytes, is_whole: bool) -> "list[CharsetMatch]":
    """Return what may be, of as much as ends with a line, or with a character of whatever length."""
    from charset_normalizer import from_bytes

    if is_whole and len(head) <= JUDGED_BYTES:
        return list(from_bytes(head, cp_isolation=list(PLAUSIBLE)))
    judged = head[:JUDGED_BYTES]
    # No encoding of these has a line end as the second half of a character.
    whole_lines = judged[: judged.rfind(b"\n") + 1]
    if whole_lines:
        return list(from_bytes(whole_lines, cp_isolation=list(PLAUSIBLE)))
    return max(
        (list(from_bytes(judged[: len(judged) - cut], cp_isolation=list(PLAUSIBLE))) for cut in range(4)), key=len
    )
