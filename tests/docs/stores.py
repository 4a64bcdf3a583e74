"""A bucket and a hub for the pages that publish: the servers of the tests of publishing, with what a client needs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from blocks import ROOT

sys.path.append(str(ROOT / "tests" / "publish"))
from pushing import serving


@contextmanager
def stores() -> Iterator[dict[str, str]]:
    """Serve the bucket `fish` and a hub where `me` may write; yields the environment by which they are reached."""
    import boto3

    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}
    with serving("s3_server.py") as bucket, serving("hub_server.py") as hub:
        client = boto3.session.Session().client(
            "s3", endpoint_url=bucket.url, aws_access_key_id="key", aws_secret_access_key="secret"
        )
        client.create_bucket(Bucket="fish")
        yield keys | {
            "AWS_ENDPOINT_URL_S3": bucket.url,
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": "may-write",
            "HF_HUB_DISABLE_XET": "1",  # the hub's own protocol for large files has no server here
        }
