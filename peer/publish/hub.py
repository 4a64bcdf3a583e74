"""A repository of the Hugging Face hub, by its own client, with whatever token that finds (HF_TOKEN, `hf auth login`).

What belongs together appears in one commit. A repository that is made here is private.
"""

import logging
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.content import Buffer
from configs.errors import DataError, NetworkError, ShoalError, StateError, UsageError
from configs.files import disk_errors
from configs.outlets import Target
from peer.publish.places import Pace, Paced, check_size

TOKEN = "set HF_TOKEN to a token that may write, or say `hf auth login`"
CARD = "README.md"
MESSAGE = "From a Shoal swarm"


class Hub:
    """A folder of a repository."""

    def __init__(self, target: Target, pace: Pace | None) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()  # there is one for all files, where anybody looks
        self._target, self._pace, self._api = target, pace, HfApi()
        self._pending: list[Any] = []  # that the next commit adds
        self._exists = False

    def sizes(self, under: str = "") -> dict[str, int]:
        """List the folder; nothing lies in a repository that does not exist."""
        own = len(self._target.prefix) + 1 if self._target.prefix else 0
        where = self._target.below(under).prefix
        try:
            with _told(self._target):
                tree = self._api.list_repo_tree(self._target.root, where or None, recursive=True)
                return {each.path[own:]: each.size for each in tree if hasattr(each, "size")}
        except _NotThere:
            return {}

    def read(self, name: str, most_bytes: int) -> bytes | None:
        """Download a file into memory."""
        with tempfile.TemporaryDirectory() as folder:
            path = self._download(name, Path(folder), most_bytes)
            return None if path is None else path.read_bytes()

    def put(self, name: str, data: Buffer) -> None:
        """Upload a part; it appears with the commit. Behind a cap it goes by plain HTTP, which can be made to wait."""
        if self._pace is None:
            self._add(name, bytes(data))
            return
        body = Paced(data, self._pace)
        logger = logging.getLogger("huggingface_hub._commit_api")  # it says of each part that Xet does not take it
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            self._add(name, body)
        finally:
            logger.setLevel(level)

    def put_file(self, name: str, path: Path, content_id: str) -> bool:
        """Upload a file; what the hub has by its hash is not sent again."""
        self._add(name, str(path))
        return True

    def fetch(self, name: str, path: Path) -> None:
        """Download a file."""
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".hub-") as folder:
                found = self._download(name, Path(folder), None)
                if found is None:
                    raise DataError(f"{self._target}/{name} is not there any more; try again")
                found.replace(path)

    def commit(self, name: str, data: bytes, gone: Collection[str] = ()) -> None:
        """Add all that was put, and this, and remove what is gone, at once."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        if not data:  # nothing is ever half there
            return
        self._make()
        last = [CommitOperationAdd(self._target.below(name).prefix, data)]
        deletions = [CommitOperationDelete(self._target.below(each).prefix) for each in gone]
        with _told(self._target):
            self._api.create_commit(self._target.root, [*self._pending, *last, *deletions], commit_message=MESSAGE)
        self._pending.clear()

    def _add(self, name: str, data: Any) -> None:
        from huggingface_hub import CommitOperationAdd

        self._make()
        addition = CommitOperationAdd(self._target.below(name).prefix, data)
        if isinstance(data, Paced):
            data.signal_transferring()
        with _told(self._target):
            self._api.preupload_lfs_files(self._target.root, [addition])
        self._pending.append(addition)

    def _make(self) -> None:
        if not self._exists:
            with _told(self._target):
                self._api.create_repo(self._target.root, private=True, exist_ok=True)
            self._exists = True

    def _download(self, name: str, folder: Path, most_bytes: int | None) -> Path | None:
        where = self._target.below(name).prefix
        try:
            with _told(self._target):
                if most_bytes is not None:
                    (found,) = self._api.get_paths_info(self._target.root, [where]) or (None,)
                    if found is None:
                        return None
                    check_size(getattr(found, "size", 0), most_bytes, f"{self._target}/{name}")
                return Path(self._api.hf_hub_download(self._target.root, where, local_dir=folder))
        except _NotThere:
            return None


class _NotThere(ShoalError):
    """A file or a repository does not exist."""


@contextmanager
def _told(target: Target) -> Iterator[None]:
    """Turn what the client raises into one line with a remedy."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        RepositoryNotFoundError,
    )

    http_error: Any = HfHubHTTPError.__bases__[0]  # of the HTTP library that the client has in this version
    try:
        yield
    except LocalTokenNotFoundError:
        raise UsageError(f"{target}: no token is known; {TOKEN}") from None
    except LocalEntryNotFoundError:  # it was not there before, and nobody answers
        raise NetworkError(_AWAY) from None
    except (EntryNotFoundError, RepositoryNotFoundError) as error:
        if getattr(getattr(error, "response", None), "status_code", 404) == 401:
            raise UsageError(f"{target}: the hub does not know who asks; {TOKEN}") from None
        raise _NotThere(f"{target} is not there, or not for this token") from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status in (401, 403):
            raise UsageError(f"{target}: the token may not do that ({status}); {TOKEN}") from None
        raise NetworkError(f"{target}: {' '.join(str(error).split())[:300]}") from None
    except http_error as error:
        raise NetworkError(f"{_AWAY} ({type(error).__name__}: {error})") from None
    except RuntimeError as error:  # what fails in one of its threads
        raise NetworkError(f"{target}: {error}{f' ({error.__cause__})' if error.__cause__ else ''}") from None
    except OSError as error:
        raise StateError(f"{target}: {error.strerror or error}") from None


_AWAY = "the hub does not answer; is the network there, and HF_ENDPOINT right? try again later"
