"""A bucket and a hub for the pages that publish: with what a client needs."""

from collections.abc import Iterator
from contextlib import contextmanager

from servers import s3_client, s3_environment, serving


@contextmanager
def stores() -> Iterator[dict[str, str]]:
    """Serve the bucket `fish` and a hub where `me` may write; yields the environment by which they are reached."""
    with serving("s3_server.py") as bucket, serving("hub_server.py") as hub:
        s3_client(bucket).create_bucket(Bucket="fish")
        yield s3_environment(bucket) | {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": "may-write",
            "HF_HUB_DISABLE_XET": "1",  # the hub's own protocol for large files has no server here
        }
