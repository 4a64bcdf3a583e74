"""A bucket of S3, or of anything that speaks its language, by boto3: keys, regions and endpoints are found its way."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.content import Buffer
from configs.errors import ConfigError, DataError, NetworkError, ShoalError, UsageError
from configs.files import disk_errors
from configs.outlets import Target
from peer.publish.places import Pace, Paced, check_size

ATTEMPTS, CONNECT_S, READ_S = 5, 10, 60
CONTENT_ID = "shoal-content-id"  # in a model file's metadata
NOT_THERE = ("404", "NoSuchKey", "NotFound")
REFUSED = ("403", "AccessDenied", "Forbidden", "AllAccessDisabled")
BAD_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired")
KEYS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; AWS_ENDPOINT_URL_S3 for another service"


class Bucket:
    """A prefix of a bucket."""

    def __init__(self, target: Target, pace: Pace | None) -> None:
        try:
            import boto3
            from botocore.config import Config
            from s3transfer.utils import signal_not_transferring, signal_transferring
        except ImportError:
            raise ConfigError(f"{target} needs a library; install it with: pip install 'shoal[s3]'") from None
        self._target, self._pace = target, pace
        config = Config(
            retries={"mode": "standard", "max_attempts": ATTEMPTS},
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            request_checksum_calculation="when_required",  # else a part is read once more, and other services refuse it
            response_checksum_validation="when_required",
        )
        with _told(target):
            self._client: Any = boto3.session.Session().client("s3", config=config)  # keys may have changed
        # A body is read to be signed before it is read to be sent, and only then it is to wait.
        self._client.meta.events.register_first("request-created.s3", signal_not_transferring)
        self._client.meta.events.register_last("request-created.s3", signal_transferring)

    def sizes(self, under: str = "") -> dict[str, int]:
        """List the prefix."""
        start = self._target.below(under).prefix
        start += "/" if start else ""
        own = len(self._target.prefix) + 1 if self._target.prefix else 0
        with _told(self._target):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._target.root, Prefix=start)
            return {each["Key"][own:]: each["Size"] for page in pages for each in page.get("Contents", ())}

    def read(self, name: str, most_bytes: int) -> bytes | None:
        """Get an object."""
        try:
            with _told(self._target):
                answer = self._client.get_object(**self._at(name))
                check_size(answer["ContentLength"], most_bytes, f"{self._target}/{name}")
                return bytes(answer["Body"].read())
        except _NotThere:
            return None

    def put(self, name: str, data: Buffer) -> None:
        """Put an object, no faster than it may go."""
        body = bytes(data) if self._pace is None else Paced(data, self._pace)
        with _told(self._target):
            self._client.put_object(**self._at(name), Body=body)

    def put_file(self, name: str, path: Path, content_id: str) -> bool:
        """Upload a file, in several parts if it is large, unless its content id stands there."""
        try:
            with _told(self._target):
                there = self._client.head_object(**self._at(name))
        except _NotThere:
            there = {}
        if there.get("Metadata", {}).get(CONTENT_ID) == content_id:
            return False
        with _told(self._target):
            self._client.upload_file(
                str(path), *self._at(name).values(), ExtraArgs={"Metadata": {CONTENT_ID: content_id}}
            )
        return True

    def fetch(self, name: str, path: Path) -> None:
        """Download an object."""
        try:
            with disk_errors(path), _told(self._target):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._client.download_file(*self._at(name).values(), str(path))
        except _NotThere:
            raise DataError(f"{self._target}/{name} is not there any more; try again") from None

    def commit(self, name: str, data: bytes, gone: Collection[str] = ()) -> None:
        """Put the last object, and delete those that are gone."""
        with _told(self._target):
            if data:
                self._client.put_object(**self._at(name), Body=data)
            for each in gone:
                self._client.delete_object(**self._at(each))

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._target.root, "Key": self._target.below(name).prefix}


class _NotThere(ShoalError):
    """An object does not exist."""


@contextmanager
def _told(target: Target) -> Iterator[None]:
    """Turn what the client raises into one line with a remedy, in which no key stands."""
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    try:
        yield
    except (NoCredentialsError, PartialCredentialsError):
        raise UsageError(f"{target}: no key for it is known; {KEYS}") from None
    except ClientError as error:
        raise _spelled(target, error.response.get("Error", {}).get("Code", ""), str(error)) from None
    except S3UploadFailedError as error:
        codes = (*REFUSED, *BAD_KEYS, "NoSuchBucket")
        raise _spelled(target, next((code for code in codes if f"({code})" in str(error)), ""), str(error)) from None
    except BotoCoreError as error:
        raise NetworkError(
            f"{target} does not answer: {error}; is AWS_ENDPOINT_URL_S3 right, and the network?"
        ) from None


def _spelled(target: Target, code: str, text: str) -> ShoalError:
    if code in NOT_THERE:
        return _NotThere(f"{target}: not there")
    if code == "NoSuchBucket":
        return UsageError(f"there is no bucket {target.root}; make it, or name another")
    if code in REFUSED:
        return UsageError(
            f"{target} refuses: its key lacks a right; it needs s3:ListBucket, s3:GetObject, s3:PutObject and "
            "s3:DeleteObject"
        )
    if code in BAD_KEYS:
        return UsageError(f"{target}: the key is not, or no longer, valid ({code}); {KEYS}")
    return NetworkError(f"{target}: {text}")
