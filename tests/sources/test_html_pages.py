"""HTML as text: what is seen, in order; encodings; pages of any size."""

from pathlib import Path

import pytest

from peer.sources.documents import PIECE_CHARACTERS, Piece, Reading, SourceFile
from peer.sources.pages import charset_of, text_of_page
from peer.sources.reading import read
from peer.sources.skips import Reason, SkipError, Skips


def source(path: Path, data: bytes, **more: object) -> SourceFile:
    path.write_bytes(data)
    return SourceFile(str(path), len(data), "html", "d", **more)  # type: ignore[arg-type]


def pieces(file: SourceFile, since: int = 0) -> tuple[list[Piece], Skips]:
    skips = Skips()
    return list(read(file, Reading(), skips, since)), skips


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (
            "<h1>A &amp; B</h1><p>One  <b>two</b>\n three.<p>Four&nbsp;&hellip; &eacute;",
            "A & B\n\nOne two three.\n\nFour … é",
        ),
        ("<p>a<br>b<ul><li>c<li>d</ul>e", "a\nb\n\nc\nd\n\ne"),
        ("<script>var a = '<p>no</p>'</script><style>p {}</style>a<!-- no -->b", "ab"),
        ("<title>no</title><body>yes", "yes"),
        ("<pre>  a\n   b</pre>c", "a\n   b\n\nc"),
        ("<table><tr><th>k<th>v</tr><tr><td>1</td><td>2</td></tr></table>", "k\tv\n1\t2"),
        ("<p hidden>no <i>no</i></p><div style='display: none'><p>no<br></div>yes", "yes"),
        ("a<noscript>no</noscript><b>b</b>", "ab"),
        ("no markup at all < 3", "no markup at all < 3"),
        ("<?xml version='1.0' encoding='latin-1'?><html><head><meta charset='latin-1'></head><p>é海</html>", "é海"),
        ("", ""),
    ],
)
def test_what_is_seen(page: str, text: str) -> None:
    assert text_of_page(page) == text


def test_the_page_says_its_encoding(tmp_path: Path) -> None:
    page = '<html><head><meta charset="ISO-8859-1"></head><body><p>caf\u00e9 \u201cquoted\u201d</p></body></html>'
    found, skips = pieces(source(tmp_path / "a.html", page.encode("cp1252")))
    assert found == [Piece("caf\u00e9 \u201cquoted\u201d", 0)] and not skips.by_reason
    for encoding in ("utf-8-sig", "utf-16"):
        found, _ = pieces(source(tmp_path / "a.html", "<p>é".encode(encoding)))
        assert found[0].content == "é"
    found, _ = pieces(source(tmp_path / "a.html", "<p>д".encode("cp1251"), encoding="cp1251"))
    assert found[0].content == "д"
    assert charset_of(b"<meta http-equiv='Content-Type' content='text/html; charset=koi8-r'>", "utf-8") == "koi8-r"
    assert charset_of(b"<meta charset=unheard-of>", "utf-8") == "utf-8"


def test_a_page_that_cannot_be_decoded_is_counted(tmp_path: Path) -> None:
    data = b"<p>good<p>b\xe4d"
    found, skips = pieces(source(tmp_path / "a.html", data))
    assert not found and skips.by_reason[Reason.ENCODING].size_bytes == len(data)
    with pytest.raises(SkipError, match="byte 11: is not utf-8"):
        pieces(source(tmp_path / "a.html", data, is_named=True))
    _, skips = pieces(source(tmp_path / "a.html", b"<p>a\0b"))
    assert skips.by_reason[Reason.TYPE].count == 1
    _, skips = pieces(source(tmp_path / "a.html", b"<p> </p>"))
    assert skips.by_reason[Reason.BLANK].count == 1


def test_a_long_page_comes_in_pieces(tmp_path: Path) -> None:
    words = [f"paragraph {number} of the page" for number in range(60_000)]
    file = source(tmp_path / "a.html", ("<p>" + "</p><p>".join(words)).encode())
    found, _ = pieces(file)
    assert "".join(str(piece.content) for piece in found) == "\n\n".join(words)
    assert all(len(str(piece.content)) <= PIECE_CHARACTERS for piece in found) and len(found) > 50
    assert [piece.is_last for piece in found].index(True) == len(found) - 1
    assert pieces(file, found[30].mark)[0] == found[30:]
