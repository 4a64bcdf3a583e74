from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hivemind.p2p import P2P, PeerID

from configs.errors import StateError
from dht.identity import Identity, peer_id_of, verify


def test_the_file_is_hivemind_s_own_format(
    tmp_path: Path, identity_paths: list[Path], identities: list[Identity]
) -> None:
    assert PeerID.from_identity(identity_paths[0].read_bytes()).to_base58() == identities[0].peer_id
    theirs = tmp_path / "theirs"
    P2P.generate_identity(str(theirs))
    assert Identity.load_or_create(theirs).peer_id == PeerID.from_identity(theirs.read_bytes()).to_base58()


def test_the_key_is_the_owner_s_alone_and_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state" / "identity.key"
    first = Identity.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    path.chmod(0o644)
    assert Identity.load_or_create(path).peer_id == first.peer_id
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_signatures_bind_data_and_peer(identities: list[Identity]) -> None:
    one, other, _ = identities
    signature = one.sign(b"data")
    assert verify(one.peer_id, one.public_key, b"data", signature)
    assert not verify(one.peer_id, one.public_key, b"Data", signature)
    assert not verify(other.peer_id, one.public_key, b"data", signature)
    assert not verify(one.peer_id, other.public_key, b"data", signature)
    assert not verify(one.peer_id, one.public_key, b"data", signature[:-1])


def test_keys_that_are_none_or_dear_to_check_are_refused() -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
    strange = rsa.generate_private_key(public_exponent=3, key_size=2048).public_key()
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    keys = [
        key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        for key in (small, strange, curve)
    ]
    for key in [*keys, b"", b"\x30\x82", bytes(10_000)]:
        assert not verify(peer_id_of(key), key, b"data", bytes(256))


@pytest.mark.parametrize("content", [b"", b"not a key", b"\x08\x00\x12\x03abc"])
def test_a_damaged_file_is_said_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "identity.key"
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"identity\.key is damaged; restore it"):
        Identity.load_or_create(path)


def test_an_unusable_place_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot use the identity file"):
        Identity.load_or_create(tmp_path / "file" / "identity.key")
