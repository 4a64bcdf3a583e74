"""Turns a page of HTML into its visible text. A page is one document, and is never held as a whole.

The parser is libxml2's through lxml, fed block by block: what builds a tree of a page (selectolax, inscriptis) needs
many times its size.
"""

import codecs
import re
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from peer.sources.documents import Piece, Reading, SourceFile
from peer.sources.skips import Reason, Skips
from peer.sources.streams import DamagedError, open_bytes
from peer.sources.text import BLOCK_BYTES, cut_stream, lost_bytes

HEAD_BYTES = 4096  # of a page, in which its encoding is said
FED_CHARACTERS = 1 << 16  # that the parser gets at once

# What is never seen; `title` is, but not on the page.
_HIDDEN = {"head", "script", "style", "template", "noscript", "iframe", "object", "svg", "math", "select", "textarea"}
_EMPTY = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_LINES = {"br", "li", "tr", "dt", "dd", "option", "caption", "figcaption", "legend"}  # begin a line
_BLOCKS = {
    *("p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "blockquote", "pre", "section", "hr"),
    *(
        "article",
        "aside",
        "header",
        "footer",
        "main",
        "nav",
        "form",
        "fieldset",
        "figure",
        "details",
        "address",
        "body",
    ),
    *("thead", "tbody", "tfoot", "center", "summary", "dialog"),
}  # stand between blank lines
_CELLS = {"td", "th"}
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_NOT_SHOWN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_SPACE = re.compile(r"[ \t\r\n\f\xa0]+")


def read_page(file: SourceFile, how: Reading, skips: Skips, since: int) -> Iterator[Piece]:
    """Yield the pieces of a page's text; marks are ordinals. Raises OSError.

    What is not in the encoding that the page says, or else the file, is counted, and what follows it: of a page of a
    block or less that is all.
    """
    with open_bytes(file) as stream:
        for number, (passage, is_last) in enumerate(
            cut_stream(_texts(_decoded(file, stream, skips)), how.piece_characters)
        ):
            if number >= since:
                yield Piece(passage, number, is_last=is_last)


def text_of_page(page: str) -> str:
    """Return the visible text of a page."""
    return "".join(_texts(iter([page]))).strip()


def charset_of(head: bytes, otherwise: str) -> str:
    """Return the encoding of a page: what its byte order mark or `<meta charset>` says, or else another."""
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name
    said = _CHARSET.search(head)
    if said is None or codecs.lookup(otherwise).name.startswith("utf-16"):  # of which that search sees nothing
        return otherwise
    try:
        name = codecs.lookup(said[1].decode("ascii", "replace")).name
    except LookupError:
        return otherwise
    return "cp1252" if name in ("iso8859-1", "ascii") else name  # as browsers, and so authors, understand it


def _decoded(file: SourceFile, stream: BinaryIO, skips: Skips) -> Iterator[str]:
    """Yield the page block by block, as long as it is sound."""
    decoder: codecs.IncrementalDecoder | None = None
    encoding, read_bytes = file.encoding, 0
    while True:
        try:
            data = stream.read(BLOCK_BYTES)
        except DamagedError as error:
            skips.add(Reason.DAMAGED, f"{file.url}: {error}", lost_bytes(file, read_bytes))
            return
        if decoder is None:
            encoding = charset_of(data[:HEAD_BYTES], file.encoding)
            decoder = codecs.getincrementaldecoder(encoding)()
        left = max(len(data), file.size_bytes - read_bytes)
        try:
            text = decoder.decode(data, not data)
        except UnicodeDecodeError as error:
            at = read_bytes + error.start
            words = f"{file.url}, byte {at}: is not {encoding}, as the page or --encoding says; convert it"
            skips.add(Reason.ENCODING, words, left)
            return
        if "\0" in text:
            skips.add(
                Reason.TYPE, f"{file.url}: has the control character 0", max(len(data), file.size_bytes - read_bytes)
            )
            return
        if text:
            yield text
        if not data:
            return
        read_bytes += len(data)


def _texts(pages: Iterator[str]) -> Iterator[str]:
    """Yield the visible text of a page that comes block by block."""
    from lxml import etree

    visible = _Visible()
    parser = etree.HTMLParser(target=visible, encoding="utf-8", huge_tree=True)
    is_fed = False
    for page in pages:
        for start in range(0, len(page), FED_CHARACTERS):
            parser.feed(page[start : start + FED_CHARACTERS].encode())
            is_fed = True
            if text := visible.take():
                yield text
    if is_fed:
        parser.close()
        yield visible.take()


class _Visible:
    """Gathers what is seen of a page while it is parsed."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._hidden = 0  # elements around this one that are not seen, from the outermost
        self._pre = 0
        self._gap = ""  # what must come before the next word: a space, a tab, line ends
        self._is_begun = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        is_unseen = (
            tag in _HIDDEN
            or "hidden" in attributes
            or (attributes.get("style") and _NOT_SHOWN.search(attributes["style"]) is not None)
        )
        if self._hidden or is_unseen:
            self._hidden += tag not in _EMPTY
            return
        self._break(tag)
        self._pre += tag == "pre"

    def end(self, tag: str) -> None:
        """An element ends."""
        if self._hidden:
            self._hidden -= tag not in _EMPTY
            return
        if tag != "br":
            self._break(tag)
        self._pre -= tag == "pre"

    def data(self, text: str) -> None:
        """There is text."""
        if self._hidden:
            return
        if not self._pre:
            text = _SPACE.sub(" ", text)
            if text.startswith(" "):
                self._gap = self._gap or " "
            ending = " " if text.endswith(" ") and text != " " else ""
            text = text.strip(" ")
        else:
            ending = ""
        if text:
            if self._is_begun or self._pre:
                self._parts.append(self._gap if self._is_begun else "")
            self._parts.append(text)
            self._is_begun, self._gap = True, ending

    def comment(self, text: str) -> None:
        """There is a comment."""

    def close(self) -> None:
        """The page ends."""

    def take(self) -> str:
        """Return what has been seen since this was last called."""
        text = "".join(self._parts)
        self._parts.clear()
        return text

    def _break(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._gap = "\n\n"
        elif tag in _LINES and self._gap != "\n\n":
            self._gap = "\n"
        elif tag in _CELLS and "\n" not in self._gap:
            self._gap = "\t"
