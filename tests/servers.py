"""Servers in processes of their own: a store that speaks S3, and a hub."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Server:
    """One that was started for a test."""

    url: str

    def ask(self, path: str, method: str = "GET") -> Any:
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}{path}", method=method), timeout=60) as answer:
            data = answer.read()
        return json.loads(data) if data else None


@contextmanager
def serving(script: str, **environment: str) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        yield Server(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def s3_environment(server: Server) -> dict[str, str]:
    """Return by what programs reach a store, as any other one."""
    return {
        "AWS_ENDPOINT_URL_S3": server.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def s3_client(server: Server) -> Any:
    """Return a client of a store, whatever the environment says."""
    import boto3

    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    return boto3.session.Session().client("s3", endpoint_url=server.url, **keys)


def upload(server: Server, key: str, folder: Path) -> None:
    """Put a folder into the bucket `fish`, below a key."""
    client = s3_client(server)
    for path in filter(Path.is_file, folder.rglob("*")):
        client.upload_file(str(path), "fish", f"{key}/{path.relative_to(folder).as_posix()}")
