"""Where a corpus lies that is not on this machine: any URL that fsspec knows. Read only; its files are `remote.py`'s.

S3 is read by pyarrow's client, which is there in any case: s3fs ties botocore to versions older than boto3's, with
which checkpoints are published.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from configs.errors import ConfigError, DataError, NetworkError, ShoalError, UsageError
from configs.files import disk_errors

PIECE_BYTES = 1 << 22  # of a file that is fetched: each is a request to most stores
CONNECT_S, READ_S = 10.0, 30.0  # until S3 is asked again
SILENT_S = 60.0  # until any store counts as away: some clients ask again for ever
PACKAGES = {
    "hdfs": "hdfs-native",
    "webhdfs": "requests",
    "hf": "huggingface_hub",
    "http": "aiohttp",
    "https": "aiohttp",
}
S3_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; AWS_ENDPOINT_URL_S3 for another service"
KEYS = {"s3": S3_KEYS, "hf": "use `hf auth login`, or set HF_TOKEN"}
REFUSALS = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "Forbidden", "401", "403")
T = TypeVar("T")
OnPiece = Callable[[int], object]  # hears of bytes that have come, waits for its turn, and raises to end the fetch


class AbsentError(DataError):
    """A store answers, and a file that should be in it is not."""


class Store:
    """A folder at a URL. Every method may take long: call it in a thread."""

    def __init__(self, url: str) -> None:
        """Open nothing yet but the client. Raises ConfigError: no such kind of store, or its library is not here."""
        self.url = url.rstrip("/")
        self._scheme = urlsplit(url).scheme
        self._files, self._root = filesystem_of(self.url)

    def read(self, name: str, most_bytes: int) -> bytes:
        """Return a small file. Raises AbsentError, DataError (larger), UsageError (keys), NetworkError."""
        with self._told(name):
            data = _in_time(lambda: self._read(name, most_bytes + 1))
        if len(data) > most_bytes:
            raise DataError(f"{self.url}/{name} has more than {most_bytes} bytes; it is none of ours: name a corpus")
        return data

    def fetch(self, name: str, path: Path, on_piece: OnPiece = lambda size: None) -> None:
        """Write a file of the store to `path`, piece by piece. Raises as `read`, and StateError: the disk is full."""
        with path.open("wb") as out:
            for piece in self._pieces(name):
                on_piece(len(piece))
                with disk_errors(path):
                    out.write(piece)
            with disk_errors(path):
                out.flush()
                os.fsync(out.fileno())

    def _read(self, name: str, most_bytes: int) -> bytes:
        with self._files.open(f"{self._root}/{name}", "rb") as file:
            return bytes(file.read(most_bytes))

    def _pieces(self, name: str) -> Iterator[bytes]:
        with self._told(name):
            file = _in_time(lambda: self._files.open(f"{self._root}/{name}", "rb"))
        try:
            while True:
                with self._told(name):
                    piece = _in_time(lambda: file.read(PIECE_BYTES))
                if not piece:
                    return
                yield piece
        finally:
            file.close()

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Turn what the client raises into one line with a remedy."""
        where = f"{self.url}/{name}"
        try:
            yield
        except ShoalError:
            raise
        except FileNotFoundError:
            raise AbsentError(
                f"{where} is not there; name the folder of a whole corpus, or put that file back"
            ) from None
        except TimeoutError:
            raise NetworkError(
                f"{where}: the store has not answered for {SILENT_S:.0f} s; see whether it is up, and the network"
            ) from None
        except PermissionError as error:
            raise UsageError(f"{where} may not be read ({_line(error)}); give a key: {self._keys}") from None
        except Exception as error:  # each client has errors of its own
            text = _line(error)
            if any(word in text for word in REFUSALS) or "redential" in text:
                raise UsageError(f"{where} may not be read ({text}); give a key: {self._keys}") from None
            raise NetworkError(
                f"{where} cannot be read: {text}; see whether the store is up, and the network"
            ) from None

    @property
    def _keys(self) -> str:
        return KEYS.get(self._scheme, "as is usual for such a store")


def filesystem_of(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path in it.

    Raises ConfigError: a kind of store that nobody knows, or whose library is not installed.
    """
    scheme = urlsplit(url).scheme
    try:
        if scheme == "s3":
            return _s3(), url.partition("://")[2]
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url)
        return files, str(path).rstrip("/")
    except ImportError:
        package = PACKAGES.get(scheme, f"the one that fsspec names for {scheme}://")
        raise ConfigError(f"{url} needs a library; install it with: pip install {package}") from None
    except ValueError as error:
        raise ConfigError(
            f"{url} is no place that is known ({_line(error)}); give a folder, or a URL such as s3://BUCKET/PATH"
        ) from None
    except Exception as error:  # a client that looks for its server, or its settings, at once
        raise NetworkError(
            f"{url} cannot be opened: {_line(error)}; see whether the store is up, and the network"
        ) from None


def _s3() -> Any:
    """Return S3 as the environment has it; boto3's way of naming another endpoint is known, too."""
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import S3FileSystem

    told = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options: dict[str, Any] = {"connect_timeout": CONNECT_S, "request_timeout": READ_S}
    if told:
        endpoint = urlsplit(told)
        options |= {"endpoint_override": endpoint.netloc + endpoint.path.rstrip("/"), "scheme": endpoint.scheme}
    if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        options["region"] = region
    return ArrowFSWrapper(S3FileSystem(**options))


def _in_time(work: Callable[[], T]) -> T:
    """Return what a client's call does. Raises TimeoutError, and lets it go on in its thread, if it does not end."""
    future: Future[T] = Future()

    def do() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=do, name="store", daemon=True).start()
    return future.result(SILENT_S)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
