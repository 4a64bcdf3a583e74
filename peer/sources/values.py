"""What the columns of a record say, and why one cannot be used. Pure."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from peer.sources.skips import Reason

SHOWN_COLUMNS = 8

Record = Mapping[str, Any]

_NOTHING = object()


class Refusal(NamedTuple):
    """Why a record is not used."""

    reason: Reason
    words: str  # what is wrong and which option helps
    size_bytes: int | None = None  # of its text; None: that is not known


class RefusedError(Exception):
    """A record cannot be used. Never leaves `fields.py`, which returns the refusal."""

    def __init__(self, reason: Reason, words: str, size_bytes: int | None = None) -> None:
        super().__init__(words)
        self.refusal = Refusal(reason, words, size_bytes)


def value_in(record: Record, column: str, option: str) -> Any:
    """Return what a column says; `a.b` is b in a unless a column is called so."""
    if column in record:
        return record[column]
    if "." in column and has_column(record, column):
        return look_up(record, column)
    words = f"has no column '{column}'; the columns are: {listed(names_in(record))}; name one with {option}"
    raise RefusedError(Reason.COLUMN, words)


def has_column(record: Record, column: str) -> bool:
    """Return whether there is a column, `a.b` for b in a."""
    return look_up(record, column) is not _NOTHING


def look_up(record: Any, column: str) -> Any:
    """Return what a column says, or an object that is in no record."""
    if isinstance(record, Mapping):
        if column in record:
            return record[column]
        first, _, rest = column.partition(".")
        if rest and first in record:
            return look_up(record[first], rest)
    return _NOTHING


def filled(record: Record, column: str, option: str) -> str:
    """Return a text of an example, which must hold something."""
    text = text_of_value(value_in(record, column, option), column)
    if not text.strip():
        raise RefusedError(
            Reason.INCOMPLETE, f"'{column}' is empty; fill it or remove the record", strings_size(record)
        )
    return text


def text_of_value(value: object, column: str) -> str:
    """Return the text that a column says; nothing if it is null. Raises RefusedError: it is no text."""
    if isinstance(value, str):
        return checked(value, column)
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            return checked(value.decode(), column)
        except UnicodeDecodeError:
            raise RefusedError(Reason.ENCODING, f"'{column}' holds bytes that are not UTF-8", len(value)) from None
    raise RefusedError(Reason.TYPE, f"'{column}' holds {type_name(value)}, not text; name another with --text-column")


def shown(value: object, column: str) -> str:
    """Return what a prompt says of a column."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    text = text_of_value(value, column)
    if not text.strip():
        raise RefusedError(Reason.INCOMPLETE, f"'{column}', which the prompt names, is empty; fill it")
    return text


def texts_in(record: Record, column: str) -> tuple[str, ...]:
    """Return the list of texts in a column; nothing if there is none."""
    values = record.get(column)
    if values is None:
        return ()
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise RefusedError(Reason.TYPE, f"'{column}' holds no list of texts; mend or remove it")
    return tuple(checked(value, column) for value in values)


def checked(text: str, column: str) -> str:
    """Return a text that can be written as UTF-8 and is no binary data."""
    if "\0" in text:
        size = len(text.strip().encode(errors="surrogatepass"))
        raise RefusedError(Reason.TYPE, f"'{column}' has the control character 0 at {text.index(chr(0))}", size)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            size = len(text.strip().encode(errors="surrogatepass"))
            raise RefusedError(Reason.TYPE, f"'{column}' has half a character at {error.start}", size) from None
    return text


def strings_size(value: object) -> int:
    """Return the bytes of all texts in a record."""
    if isinstance(value, str):
        return len(value.strip().encode(errors="surrogatepass"))
    if isinstance(value, Mapping):
        return sum(map(strings_size, value.values()))
    return sum(map(strings_size, value)) if isinstance(value, list | tuple) else 0


def column_in(name: str, columns: Collection[str]) -> str:
    """Return which column of a table holds the column `name`, which may be `a.b`."""
    return name if name in columns else name.split(".")[0]


def names_in(record: Record) -> list[str]:
    """Return the columns, those inside of others as `a.b`."""
    names: list[str] = []
    for name, value in record.items():
        inside = [f"{name}.{each}" for each in value] if isinstance(value, Mapping) else []
        names += inside or [name]
    return names


def listed(names: Collection[str]) -> str:
    """Return names as a message shows them."""
    return ", ".join(list(map(str, names))[:SHOWN_COLUMNS]) or "none"


def type_name(value: object) -> str:
    """Return what a message calls the type of a value."""
    return "nothing" if value is None else type(value).__name__
