"""A look at a run from outside, where there is nobody."""

import asyncio

import pytest

from configs.errors import NetworkError, UsageError
from peer.visit.visit import open_visit

NOBODY = "/ip4/127.0.0.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"


@pytest.mark.parametrize(
    ("address", "error"),
    [(NOBODY, NetworkError), ("127.0.0.1:4001", UsageError), ("/ip4/127.0.0.1/tcp/4001", UsageError)],
)
def test_an_address_at_which_nobody_is_is_one_line(address: str, error: type[Exception]) -> None:
    async def look() -> None:
        async with open_visit([address]):
            pytest.fail("somebody was there")

    with pytest.raises(error) as raised:
        asyncio.run(look())
    assert "\n" not in str(raised.value)
