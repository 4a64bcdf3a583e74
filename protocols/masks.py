"""Hides what one adds to a sum: each pair has a secret; one of the two adds what grows from it, the other subtracts it.

Of the sum of all nothing is left of it, and whoever lacks one pair's secret sees random numbers until all are added up
(Bonawitz et al., 2017, section 4.0: nobody may leave). Keys are made anew for each meeting. It hides nothing from
somebody who knows all other participants' numbers, so nothing where there are two. Pure: no network.
"""

from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from configs.errors import PeerError

KEY_BYTES = 32

Words = NDArray[np.uint32]  # added modulo 2^32


class Masks:
    """What one participant, `me`, hides its numbers with from all `others` (peer id → public key, 32 bytes)."""

    def __init__(self, me: str, key: X25519PrivateKey, others: Mapping[str, bytes], about: bytes) -> None:
        """Agree with each of the others; `about` is what this meeting alone has. Raises PeerError: a key is none."""
        self._secrets = {peer: _secret(key, public, about + _pair(me, peer)) for peer, public in others.items()}
        self._adds = {peer: me < peer for peer in others}

    def masked(self, values: Words, step: int) -> Words:
        """Return the values (N,) as the others may see them; a `step` is used for one set of values alone."""
        hidden = values.copy()
        for peer, secret in self._secrets.items():
            mask = _mask(secret, step, values.size)
            hidden = hidden + mask if self._adds[peer] else hidden - mask
        return hidden


def _pair(one: str, other: str) -> bytes:
    return "\0".join(sorted((one, other))).encode()


def _secret(key: X25519PrivateKey, public: bytes, info: bytes) -> bytes:
    try:
        shared = key.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise PeerError("a participant's public key is none") from None
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"shoal masks 1\0" + info).derive(shared)


def _mask(secret: bytes, step: int, size: int) -> Words:
    """Return numbers that look random, (size,): AES-256 in counter mode, a step a nonce."""
    stream = Cipher(algorithms.AES(secret), modes.CTR(step.to_bytes(8, "big") + bytes(8))).encryptor()
    return np.frombuffer(stream.update(bytes(4 * size)), dtype="<u4").astype(np.uint32)
