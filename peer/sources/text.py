"""Reads text and code: a document is a line, paragraphs that are joined, or a whole file.

A block of a megabyte is decoded at once and cut into spans; what is left of it is put before the next. Every rule looks
from the beginning of a piece forward only, so that a reader that begins at any piece gives it and all after it.
"""

import codecs
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from peer.sources.documents import PIECE_CHARACTERS, DocumentUnit, Piece, Reading, SourceFile
from peer.sources.skips import Reason, Skips
from peer.sources.streams import DamagedError, open_bytes

MIN_CHARACTERS = 1000  # characters of a document of paragraphs; shorter ones are joined with those that follow
BLOCK_BYTES = 1 << 20  # bytes that are read and decoded at once
BYTE_ORDER_MARK = codecs.BOM_UTF8

_GAP = re.compile(r"\n\s*\n")  # what separates paragraphs: blank lines
_LONGEST_GAP = 1000  # characters of white space that are looked through for the blank line that ends a long piece
_LEAD = re.compile(r"(?:\s*\n)?")  # blank lines before a document
_MARK = re.compile("^\ufeff", re.MULTILINE)  # where another file was put behind the first
_IS_BLANK = re.compile(r"\s*\Z")
_CONTROLS = bytes([*range(9), *range(14, 32), 127])  # those of ASCII but white space
_IS_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_IS_UNDECODED = re.compile(r"[\udc80-\udcff]")  # what `surrogateescape` makes of bytes
_ESCAPE = "surrogateescape"
_BAD = "\udc80"  # stands for what another encoding than UTF-8 could not read

# First and last character, whether the document ends, its text.
_Span = tuple[int, int, bool, str]


def read_text(file: SourceFile, how: Reading, skips: Skips, since: int) -> Iterator[Piece]:
    """Yield the pieces of a file of text; marks are byte offsets, of what is not UTF-8 those of its text as UTF-8.

    Lines that cannot be decoded or hold control characters are counted and left out; the rest goes on. Raises OSError.
    """
    spans, longest = _SPANS[file.unit], how.piece_characters

    def cut(text: str, is_end: bool) -> Iterator[_Span]:
        return spans(text, is_end, longest)

    with open_bytes(file) as raw:
        held: Piece | None = None  # not the last of its document, unless only white space follows
        for piece in _pieces(file, cut, utf8(raw, file.encoding), skips, since):
            if held is not None:
                yield held if piece.content else held._replace(is_last=True)
            held = None if piece.is_last else piece
            if piece.is_last and piece.content:
                yield piece
        if held is not None:
            yield held._replace(is_last=True)


def split_lines(text: str) -> Iterator[str]:
    """Yield documents of a text: paragraphs, which blank lines separate, joined until there are MIN_CHARACTERS."""
    for _, _, _, content in _paragraphs(text, True, PIECE_CHARACTERS):
        if content.strip():
            yield content


def cut_stream(chunks: Iterator[str], longest: int) -> Iterator[tuple[str, bool]]:
    """Yield what `cut_text` makes of all chunks together, each passage with whether it is the last that holds text."""
    rest, held = "", ""
    for chunk in chunks:
        rest += chunk
        start = 0
        while len(rest) - start > longest:
            stop = _cut(rest, start, longest)
            passage, start = rest[start:stop], stop
            if passage.strip():
                if held:
                    yield held, False
                held = passage
        rest = rest[start:]
    if rest.strip():
        if held:
            yield held, False
        held = rest
    if held:
        yield held, True


def utf8(stream: BinaryIO, encoding: str) -> BinaryIO:
    """Return a stream of UTF-8, whatever the encoding; bytes that it does not have become bytes that are no UTF-8."""
    if codecs.lookup(encoding).name in ("utf-8", "ascii", "utf-8-sig"):
        return stream
    return _Transcoded(stream, encoding)  # type: ignore[return-value]  # `read` is all that is used of it


def skip_to(stream: BinaryIO, offset: int) -> None:
    """Go on at a byte offset; where a stream cannot seek, what comes before is read and dropped."""
    if hasattr(stream, "seekable") and stream.seekable():
        stream.seek(offset)
        return
    while offset > 0 and (data := stream.read(min(offset, BLOCK_BYTES))):
        offset -= len(data)


def lost_bytes(file: SourceFile, read_bytes: int) -> int:
    """Return what is known to be lost of a damaged file of which so much could be read; text is larger than packed."""
    return max(0, file.size_bytes - read_bytes)


def _pieces(
    file: SourceFile, cut: Callable[[str, bool], Iterator[_Span]], stream: BinaryIO, skips: Skips, since: int
) -> Iterator[Piece]:
    """Yield pieces in order, blank ones without content; `is_last` as the spans say."""
    rest, is_suspect = "", False
    for begin, block, is_block_suspect, is_end in _blocks(file, stream, skips, since):
        text = rest + block
        at = begin - len(rest.encode(errors=_ESCAPE))  # the byte offset of character `done`
        done = 0
        is_suspect = is_suspect or is_block_suspect
        has_returns, has_marks, is_ascii = "\r" in text, "\ufeff" in text, text.isascii()
        for start, stop, is_last, content in cut(text, is_end):
            at += start - done if is_ascii else len(text[done:start].encode(errors=_ESCAPE))
            done = start
            if is_suspect and content:
                kept = _sifted(file, text[start:stop], at, skips)
                if len(kept) < stop - start:
                    content = _GAP.sub("\n\n", kept).strip("\n") if file.unit == "paragraph" else kept
            if has_returns:
                content = _without_returns(content)
            if has_marks:
                content = _MARK.sub("", content)
            if not content or content.isspace():
                content = ""
            if content or is_last:
                yield Piece(content, at, None, None, is_last)
        rest = text[done:]
        is_suspect = is_suspect and not _is_clean(rest)


def _blocks(file: SourceFile, stream: BinaryIO, skips: Skips, since: int) -> Iterator[tuple[int, str, bool, bool]]:
    """Yield (byte offset, text, whether it may hold what is no text, whether it is the last), cut at line ends.

    What is longer than a block is cut between two characters. The last block may be empty.
    """
    pending, at = b"", since
    is_damaged = False
    try:
        skip_to(stream, since) if since else None
    except DamagedError:
        is_damaged = True
    while True:
        data = b""
        if not is_damaged:
            try:
                data = stream.read(min(BLOCK_BYTES, file.size_bytes + 1) if at == since else BLOCK_BYTES)
            except DamagedError as error:
                lost = lost_bytes(file, at + len(pending))
                skips.add(Reason.DAMAGED, f"{file.url}: {error}", lost)
                is_damaged = True
        is_end = not data
        data = pending + data if pending else data
        if at == 0 and data.startswith(BYTE_ORDER_MARK):
            data, at = data[3:], 3
        stop = len(data) if is_end else data.rfind(b"\n") + 1 or whole_characters(data)
        data, pending = data[:stop], data[stop:]
        is_suspect = len(data.translate(None, _CONTROLS)) < len(data)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text, is_suspect = data.decode(errors=_ESCAPE), True
        yield at, text, is_suspect, is_end
        if is_end:
            return
        at += len(data)


def whole_characters(data: bytes) -> int:
    """Return where the last character of UTF-8 ends that is there as a whole."""
    for back in range(1, min(4, len(data)) + 1):
        if data[-back] < 0x80:
            return len(data)
        if data[-back] >= 0xC0:  # where a character begins: of two, three or four bytes
            needed = 2 if data[-back] < 0xE0 else 3 if data[-back] < 0xF0 else 4
            return len(data) if back >= needed else len(data) - back
    return len(data)


def _sifted(file: SourceFile, text: str, at: int, skips: Skips) -> str:
    """Return the text without the lines that are no text, which are counted; it begins at the byte `at`."""
    kept = []
    for line in text.split("\n"):
        size = len(line.encode(errors=_ESCAPE))
        if (found := _IS_UNDECODED.search(line)) or (found := _IS_CONTROL.search(line)):
            byte = at + len(line[: found.start()].encode(errors=_ESCAPE))
            place = f"{file.url}, byte {byte}"
            if codecs.lookup(file.encoding).name not in ("utf-8", "ascii", "utf-8-sig"):
                place += " of its text as UTF-8"
            is_undecoded = _IS_UNDECODED.match(found[0]) is not None
            advice = "mend that line, or say its encoding with --encoding"
            wrong = f"is not {file.encoding}; {advice}" if is_undecoded else f"the control character {ord(found[0])}"
            reason = Reason.ENCODING if is_undecoded else Reason.TYPE
            skips.add(reason, f"{place}: {wrong}", len(line.strip().encode(errors=_ESCAPE)))
        else:
            kept.append(line)
        at += size + 1
    return "\n".join(kept)


def _without_returns(text: str) -> str:
    """Return a text whose lines end as Unix has it."""
    while "\r\n" in text:
        text = text.replace("\r\n", "\n")
    return text.rstrip("\r")


def _is_clean(text: str) -> bool:
    return not _IS_UNDECODED.search(text) and not _IS_CONTROL.search(text)


def _cut(text: str, start: int, longest: int) -> int:
    """Return where a piece that begins at `start` ends, as `cut_text` has it; more than a piece follows."""
    middle, stop = start + longest // 2, start + longest
    return text.rfind("\n", middle, stop) + 1 or max(0, text.rfind(" ", middle, stop)) or stop


# Each yields the spans of a text that goes on unless `is_end`, and at last an empty one where what is left begins.


def _paragraphs(text: str, is_end: bool, longest: int) -> Iterator[_Span]:
    """Join paragraphs until there are MIN_CHARACTERS; what follows a cut counts as a document of its own for that."""
    has_returns = "\r" in text
    stop = 0
    while True:
        begin = at = _LEAD.match(text, stop).end()  # type: ignore[union-attr]  # it matches everything
        if is_end and _IS_BLANK.match(text, begin):
            begin = len(text)
            break
        counted, parts, limit = 0, [], begin + longest + _LONGEST_GAP
        for gap in _GAP.finditer(text, begin, limit):
            stop = gap.start()
            parts.append(text[at:stop])
            counted += stop + 1 - at
            if has_returns:
                counted -= text.count("\r\n", at, stop + 1)
            at = gap.end()
            if counted >= MIN_CHARACTERS or stop - begin > longest:
                break
        else:  # the document ends nowhere in sight
            if not is_end and len(text) <= limit:
                break
            stop = limit if len(text) > limit else _end_of_lines(text, begin)
            parts += [text[at:stop]] if at < stop else []
        if stop - begin > longest:
            stop = _cut(text, begin, longest)
            yield begin, stop, False, _GAP.sub("\n\n", text[begin:stop])
        else:
            yield begin, stop, True, "\n\n".join(parts)
    yield begin, begin, False, ""


def _end_of_lines(text: str, begin: int) -> int:
    """Return where the last line ends that is not blank."""
    end = text.find("\n", begin + len(text[begin:].rstrip()))
    return len(text) if end < 0 else end


def _lines(text: str, is_end: bool, longest: int) -> Iterator[_Span]:
    lines = text.split("\n")
    open_line = "" if is_end else lines.pop()
    at = 0
    for line in lines:
        if len(line) > longest:
            yield from _long_line(text, at, at + len(line), True, longest)
        elif not at or (line and not line.isspace()):  # the first may end what was cut before
            yield at, at + len(line), True, line
        at += len(line) + 1
    for span in _long_line(text, at, at + len(open_line), False, longest):
        yield span
        at = span[1]
    yield at, at, False, ""


def _long_line(text: str, start: int, end: int, is_whole: bool, longest: int) -> Iterator[_Span]:
    while end - start > longest:
        stop = _cut(text, start, longest)
        yield start, stop, False, text[start:stop]
        start = stop
    if is_whole:
        yield start, end, True, text[start:end]


def _file(text: str, is_end: bool, longest: int) -> Iterator[_Span]:
    start = 0
    for span in _long_line(text, 0, len(text), is_end, longest):
        yield span
        start = span[1]
    yield start, start, False, ""


_SPANS: dict[DocumentUnit, Callable[[str, bool, int], Iterator[_Span]]] = {
    "line": _lines,
    "paragraph": _paragraphs,
    "file": _file,
}


class _Transcoded:
    """A stream of text in another encoding, read as UTF-8."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        codecs.register_error("shoal.mark", _mark)
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("shoal.mark")
        self._pending, self._is_ended = b"", False

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end."""
        while not self._pending and not self._is_ended:
            data = self._stream.read(size)
            self._is_ended = not data
            self._pending = self._decoder.decode(data, self._is_ended).encode(errors=_ESCAPE)
        data, self._pending = self._pending[:size], self._pending[size:]
        return data


def _mark(error: UnicodeError) -> tuple[str, int]:
    """Put `_BAD` where bytes could not be decoded."""
    assert isinstance(error, UnicodeDecodeError)
    return _BAD, error.end
