"""Odd inputs in all sorts of encodings: those that prove themselves, those that must be sure, those that never are."""

import codecs
import json
from collections.abc import Sequence
from pathlib import Path

from odd_entries import Odd, Remedy, filled, lines_of, passages, sentences

GERMAN = [
    f"Die Bäume am Fluss {n} grünen früh, und die Straße nach Köln führt {n * 31 % 997} Meter über die Höhe."
    for n in range(200)
]
FRENCH = [
    f"L’été n° {n} était très chaud, et la forêt où nous étions brûla {n * 17 % 997} jours — hélas…" for n in range(200)
]
RUSSIAN = [
    (
        "Корабль {n} вышел из гавани рано утром, и на борту было {m} человек команды.",
        "В начале было слово {n}, и слово было у всех на устах, у всех {m}.",
        "Рыбы плывут стаей по {n}, и никто их не ведёт; каждая следит за соседями.",
        "Зимой рыбаки выходят на лёд, сверлят {m} лунок и ждут, а к вечеру возвращаются домой с уловом {n}.",
    )[n % 4].format(n=n, m=n * 31 % 997)
    for n in range(200)
]
JAPANESE = [
    f"{n}番目の船は朝早く港を出ました。乗っていた人は全部で{n * 31 % 997}人でしたが、それは秘密です。"
    for n in range(200)
]
CHINESE = [
    f"第{n}条船一大早就离开了这个港口，船上的人一共有{n * 31 % 997}个，他们都知道要去什么地方。" for n in range(200)
]
TAIWANESE = [
    f"第{n}條船一大早就離開了這個港口，船上的人一共有{n * 31 % 997}個，他們都知道要去什麼地方。" for n in range(200)
]
KOREAN = [
    f"{n}번째 배는 아침 일찍 항구를 떠났고, 배에는 모두 {n * 31 % 997}명의 사람이 타고 있었습니다." for n in range(200)
]
GREEK = [
    f"Το πλοίο {n} έφυγε από το λιμάνι νωρίς το πρωί, και πάνω του ήταν {n * 31 % 997} άνθρωποι." for n in range(200)
]
ENGLISH = sentences("Gudgeon", 400)
LONG = passages("Minnow", 100)

LATIN_PAGE = '<html><meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1"><p>'


def text(lines: Sequence[str], encoding: str, ends: str = "\n") -> dict[str, bytes]:
    """Return one file of lines in an encoding."""
    return {"in/a.txt": (ends.join(lines) + ends).encode(encoding)}


def found(name: str, lines: Sequence[str], encoding: str) -> Odd:
    """Return an entry whose encoding must be found."""
    return Odd(name, filled(text(lines, encoding)), {"in": lines})


def said(name: str, lines: Sequence[str], encoding: str) -> Odd:
    """Return an entry whose encoding cannot be sure, and must be said."""
    remedy = Remedy(f"--encoding {encoding}", ("--encoding", encoding))
    return Odd(
        name, filled(text(lines, encoding)), {"in": lines}, refused="is in no encoding that is sure", remedy=remedy
    )


def _bad_line(place: Path) -> None:
    raw = "\n".join(ENGLISH).encode() + b"\n"
    at = raw.index(b"gudgeon", 3 * len(raw) // 4)
    (place / "in").mkdir()
    (place / "in" / "a.txt").write_bytes(raw[:at] + b"\xe4" + raw[at:])


def _bad_text() -> tuple[list[str], int]:
    """Return the texts that stay of the file that `_bad_line` writes, and the bytes of the line that goes."""
    whole = "\n".join(ENGLISH)
    at = whole.encode().index(b"gudgeon", 3 * (len(whole.encode()) + 1) // 4)
    line = whole[:at].count("\n")
    return ENGLISH[:line] + ENGLISH[line + 1 :], len(ENGLISH[line].encode()) + 1


KEPT, LOST = _bad_text()
MARK = codecs.BOM_UTF8

ENCODINGS = [
    Odd("UTF-8 with a byte order mark", filled({"in/a.txt": MARK + "\n".join(GERMAN).encode()}), {"in": GERMAN}),
    Odd("JSON lines with a byte order mark", filled({"in/a.jsonl": MARK + lines_of(GERMAN).encode()}), {"in": GERMAN}),
    Odd(
        "files with byte order marks, put together",
        filled({"in/a.txt": MARK + "\n".join(GERMAN[:100]).encode() + b"\n" + MARK + "\n".join(GERMAN[100:]).encode()}),
        {"in": GERMAN},
    ),
    found("UTF-16, little end first, with a mark", GERMAN, "utf-16"),
    Odd(
        "UTF-16, big end first, with a mark",
        filled({"in/a.txt": codecs.BOM_UTF16_BE + "\n".join(GERMAN).encode("utf-16-be")}),
        {"in": GERMAN},
    ),
    found("UTF-16, little end first, without a mark", GERMAN, "utf-16-le"),
    found("UTF-16, big end first, without a mark", RUSSIAN, "utf-16-be"),
    found("Chinese in UTF-16 without a mark", CHINESE, "utf-16-le"),
    Odd("UTF-16 with the line ends of Windows", filled(text(GERMAN, "utf-16", "\r\n")), {"in": GERMAN}),
    found("UTF-32 with a mark", GERMAN, "utf-32"),
    found("UTF-32 without a mark", JAPANESE, "utf-32-be"),
    Odd("JSON lines in UTF-16", filled({"in/a.jsonl": lines_of(FRENCH).encode("utf-16")}), {"in": FRENCH}),
    Odd(
        "JSON in UTF-16, a list",
        filled({"in/a.json": json.dumps(FRENCH, ensure_ascii=False, indent=1).encode("utf-16-le")}),
        {"in": FRENCH},
    ),
    Odd(
        "CSV in UTF-16, as a spreadsheet exports it",
        filled({"in/a.csv": ("text;n\r\n" + "".join(f'"{line}";1\r\n' for line in FRENCH)).encode("utf-16")}),
        {"in": FRENCH},
    ),
    Odd(
        "characters of four bytes",
        filled(text([f"🐟𝔸 {line}" for line in GERMAN], "utf-16")),
        {"in": [f"🐟𝔸 {line}" for line in GERMAN]},
    ),
    said("German in cp1252", GERMAN, "cp1252"),
    said("French in cp1252, with quotes that latin-1 does not have", FRENCH, "cp1252"),
    Odd(
        "French in cp1252 that is said to be latin-1",
        filled(text(FRENCH, "cp1252")),
        {"in": FRENCH},
        options=("--encoding", "latin-1"),
        refused="is not in latin-1",
        remedy=Remedy("--encoding cp1252", ("--encoding", "cp1252")),
    ),
    Odd(
        "JSON lines in cp1252",
        filled({"in/a.jsonl": lines_of(GERMAN).encode("cp1252")}),
        {"in": GERMAN},
        refused="--encoding cp1252",
        remedy=Remedy("--encoding cp1252", ("--encoding", "cp1252")),
    ),
    Odd(
        "CSV in cp1252",
        filled({"in/a.csv": ("text\n" + "".join(f'"{line}"\n' for line in GERMAN)).encode("cp1252")}),
        {"in": GERMAN},
        refused="--encoding cp1252",
        remedy=Remedy("--encoding cp1252", ("--encoding", "cp1252")),
    ),
    Odd(
        "files in UTF-8 beside many in cp1252",
        filled({f"in/{n}.txt": line.encode("utf-8" if n % 3 else "cp1252") for n, line in enumerate(GERMAN)}),
        {"in": GERMAN},
        refused="of the text cannot be used",
        remedy=Remedy("--encoding cp1252", ("--encoding", "cp1252")),
    ),
    Odd(
        "one file in cp1252 among many, below the limit",
        filled({f"in/{n}.txt": line for n, line in enumerate(GERMAN)} | {"in/x.txt": "Ä ö ü.".encode("cp1252")}),
        {"in": GERMAN},
        skipped={"ENCODING": (1, 6)},
    ),
    found("Japanese in Shift-JIS", JAPANESE, "cp932"),
    found("Japanese in EUC-JP", JAPANESE, "euc_jp"),
    found("Japanese in seven bits", JAPANESE, "iso2022_jp"),
    found("Chinese in GBK", CHINESE, "gbk"),
    found("Chinese in Big5", TAIWANESE, "big5"),
    found("Korean in EUC-KR", KOREAN, "euc_kr"),
    found("Russian in KOI8-R", RUSSIAN, "koi8_r"),
    found("Russian in cp1251", RUSSIAN, "cp1251"),
    found("Greek in cp1253", GREEK, "cp1253"),
    Odd(
        "Chinese in a page that says GB2312",
        filled({"in/a.html": f'<html><meta charset="gb2312"><body><p>{"<p>".join(CHINESE)}'.encode("gb18030")}),
        {"in": CHINESE},
        is_whole=False,
    ),
    Odd(
        "a page in cp1252 that says latin-1",
        filled({"in/a.html": (LATIN_PAGE + "<p>".join(FRENCH)).encode("cp1252")}),
        {"in": FRENCH},
        is_whole=False,
    ),
    Odd(
        "files of four encodings side by side",
        filled(
            {
                "in/a.txt": "\n".join(RUSSIAN).encode("koi8_r"),
                "in/b.txt": "\n".join(JAPANESE).encode("cp932"),
                "in/c.txt": "\n".join(GERMAN).encode("utf-16"),
                "in/d.txt": "\n".join(KOREAN).encode(),
            }
        ),
        {"in": [*RUSSIAN, *JAPANESE, *GERMAN, *KOREAN]},
    ),
    Odd("one bad byte late in a file of UTF-8", _bad_line, {"in": KEPT}, skipped={"ENCODING": (1, LOST)}),
    Odd(
        "one bad byte in a JSON line",
        filled({"in/a.jsonl": lines_of(ENGLISH).encode() + b'{"text": "b\xe4d"}\n'}),
        {"in": ENGLISH},
        skipped={"ENCODING": (1, len(b'{"text": "b\xe4d"}'))},
    ),
    Odd(
        "one bad byte in a CSV",
        filled({"in/a.csv": b"text\n" + "\n".join(f'"{line}"' for line in ENGLISH).encode() + b'\n"b\xe4d"\n'}),
        {"in": ENGLISH},
        skipped={"ENCODING": (1, 3)},
    ),
    Odd(
        "a bad byte after two megabytes, in cp1252 from there on",
        filled(
            {
                "in/a.txt": "\n\n".join(LONG * 1).encode()
                + b"\n\n"
                + "\n\n".join(passages("Dace", 60)).encode()
                + "\n\nF\u00fcr.\n".encode("cp1252")
            }
        ),
        {"in": [*LONG, *passages("Dace", 60)]},
        skipped={"ENCODING": (1, 4)},
    ),
    Odd(
        "a few control characters, as old terminals left them",
        filled({"in/a.txt": "\n".join(ENGLISH) + "\nbell \x07 rings\n"}),
        {"in": ENGLISH},
        skipped={"TYPE": (1, len("bell \x07 rings"))},
    ),
    Odd(
        "an encoding that nobody knows",
        filled(text(GERMAN, "cp1252")),
        {"in": GERMAN},
        options=("--encoding", "klingon"),
        refused="no such encoding is known",
        remedy=Remedy(
            "--encoding klingon: no such encoding is known; give one such as cp1252", ("--encoding", "cp1252")
        ),
    ),
    Odd(
        "letters made of two characters, and marks of direction",
        filled(text([f"e\u0301 \u200e{line}\u00a0" for line in ENGLISH], "utf-8")),
        {"in": [f"e\u0301 \u200e{line}" for line in ENGLISH]},
    ),
    Odd(
        "lines that end as on the first Macs",
        filled({f"in/{n}.txt": "\r".join(ENGLISH[n * 10 : n * 10 + 10]) for n in range(40)}),
        {"in": ["\r".join(ENGLISH[n * 10 : n * 10 + 10]) for n in range(40)]},
    ),
]
