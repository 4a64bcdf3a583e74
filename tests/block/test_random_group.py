"""What counts as an offer of a random group."""

import pytest
import torch

from configs.content import content_id_of
from configs.errors import PeerError
from peer.block.random_group import _read
from peer.train.mixing import FRAGMENT_CODEC
from protocols.codecs import encode
from protocols.parcels import Offer, OfferHeader

SIZE = 4096
AT = slice(512, 768)
FRAGMENT = 2


def offer(fragment: int | None = FRAGMENT, cut: int = 0) -> Offer:
    values = torch.ones(SIZE)
    payload = encode("float32", values) + encode(FRAGMENT_CODEC, torch.full((AT.stop - AT.start,), 0.5))
    payload = payload[: len(payload) - cut]
    header = OfferHeader(
        run_id="run", block="model", round=1, peer="you", codec="float32", size_bytes=len(payload),
        content_id=content_id_of(payload), tokens=900, norm=64.0, domain="all", fragment=fragment, fresh_tokens=40,
        age=7,
    )  # fmt: skip
    return Offer(header, b"", [], payload, "0" * 64)


def test_an_offer_has_values_and_behind_them_a_fragment_of_the_anchor() -> None:
    mixed = _read(offer(), SIZE, FRAGMENT, AT)
    assert torch.equal(mixed.contribution.values, torch.ones(SIZE))
    assert mixed.contribution.tokens == 40, "what is new counts, not the sum"
    torch.testing.assert_close(mixed.fragment, torch.full((AT.stop - AT.start,), 0.5), atol=0.01, rtol=0)


@pytest.mark.parametrize("bad", [offer(fragment=None), offer(fragment=3), offer(cut=1), offer(cut=400)])
def test_another_fragment_or_half_a_one_is_refused(bad: Offer) -> None:
    with pytest.raises(PeerError):
        _read(bad, SIZE, FRAGMENT, AT)
