"""Who this peer is: an RSA key in libp2p's file format, its peer id, and signatures that others can check."""

import logging
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hivemind.p2p import PeerID
from hivemind.proto import crypto_pb2

from configs.errors import StateError
from configs.files import write_file

log = logging.getLogger(__name__)

KEY_BITS = 2048
MAX_PUBLIC_KEY_BYTES = 600  # of a 4096-bit key in DER
MAX_SIGNATURE_BYTES = 512
_SHA2_256_MULTIHASH = b"\x12\x20"
_HASH = hashes.SHA256()
_PADDING = padding.PSS(mgf=padding.MGF1(_HASH), salt_length=padding.PSS.DIGEST_LENGTH)


class Identity:
    """A private key. Whoever has its file is this peer: back it up, never share it."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key
        self.public_key: bytes = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.peer_id: str = peer_id_of(self.public_key)

    @classmethod
    def load_or_create(cls, path: Path) -> "Identity":
        """Read the key at `path`, or make one there that only its owner can read.

        Raises StateError when the file is damaged or cannot be read or written.
        """
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_file(path, _new_key_file(), mode=0o600, is_new=True)
            if path.stat().st_mode & 0o077:
                log.warning("%s could be read by other users; it is the owner's alone now", path)
                path.chmod(0o600)
            data = path.read_bytes()
        except OSError as error:
            raise StateError(
                f"cannot use the identity file {path}: {error.strerror}; check its folder and its disk"
            ) from error
        try:
            message = crypto_pb2.PrivateKey.FromString(data)
            key = serialization.load_der_private_key(message.data, password=None)
        except Exception as error:  # protobuf's and OpenSSL's own kinds of error
            raise StateError(
                f"the identity file {path} is damaged; restore it, or move it away for a new one"
            ) from error
        if not isinstance(key, rsa.RSAPrivateKey):
            raise StateError(f"the identity file {path} holds no RSA key; restore it, or move it away for a new one")
        return cls(key)

    def sign(self, data: bytes) -> bytes:
        """Return this peer's signature of `data` (RSA-PSS over SHA-256)."""
        return self._key.sign(data, _PADDING, _HASH)


def verify(peer_id: str, public_key: bytes, data: bytes, signature: bytes) -> bool:
    """Return whether the key belongs to the peer id and has signed `data`. Takes hostile bytes; never raises."""
    key = _load_public_key(public_key)
    if key is None or len(signature) > MAX_SIGNATURE_BYTES or peer_id_of(public_key) != peer_id:
        return False
    try:
        key.verify(signature, data, _PADDING, _HASH)
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=4096)
def peer_id_of(public_key: bytes) -> str:
    """Return the base58 peer id of an RSA public key in DER (libp2p's peer-ids specification)."""
    message = crypto_pb2.PublicKey(key_type=crypto_pb2.KeyType.RSA, data=public_key).SerializeToString()
    return str(PeerID(_SHA2_256_MULTIHASH + sha256(message).digest()).to_base58())


@lru_cache(maxsize=4096)
def _load_public_key(public_key: bytes) -> rsa.RSAPublicKey | None:
    if len(public_key) > MAX_PUBLIC_KEY_BYTES:
        return None
    try:
        key = serialization.load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        return None
    # Sizes and exponents of the peer's choice would make a single verification take seconds.
    if not isinstance(key, rsa.RSAPublicKey) or not KEY_BITS <= key.key_size <= 4096:
        return None
    return key if key.public_numbers().e == 65537 else None


def _new_key_file() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    der = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return bytes(crypto_pb2.PrivateKey(key_type=crypto_pb2.KeyType.RSA, data=der).SerializeToString())
