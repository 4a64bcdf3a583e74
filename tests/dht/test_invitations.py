import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from configs.errors import PeerError, UsageError
from dht.identity import Identity
from dht.invitations import (
    EARLY_S,
    MAX_REVOKED,
    PASS_S,
    Chain,
    Invitation,
    Revocations,
    granted,
    invite,
    packed_chain,
    packed_revocations,
    parse_invitation,
    public_half,
    read_chain,
    read_revocations,
    revoke,
    spelled,
)

KEY = Ed25519PrivateKey.generate()
ADMISSION = public_half(KEY)
NOW, DAY_S = 1_000_000.0, 86_400.0
NOBODY: dict[str, float] = {}


@pytest.fixture
def delegate(identities: list[Identity]) -> Chain:
    """The invitation of the first identity, who may invite others for ten days."""
    return invite(KEY, ADMISSION, identities[0].peer_id, {"invite", "read", "train"}, NOW, NOW + 10 * DAY_S)


def test_a_chain_grants_what_its_last_link_says_until_the_first_ends(
    delegate: Chain, identities: list[Identity]
) -> None:
    guest = invite(identities[0], ADMISSION, identities[1].peer_id, {"train", "read"}, NOW, NOW + 99 * DAY_S, delegate)
    grant = granted(parse_invitation(f"  {spelled(guest)}\n"), ADMISSION)
    assert grant.peer_id == identities[1].peer_id and grant.invited_by == identities[0].peer_id
    assert grant.rights == {"read", "train"} and grant.until == NOW + 10 * DAY_S
    assert grant.holds(NOW, NOBODY) and grant.holds(grant.until - 1, NOBODY) and not grant.holds(grant.until, NOBODY)
    assert grant.holds(NOW - EARLY_S, NOBODY) and not grant.holds(NOW - EARLY_S - 1, NOBODY)


def test_a_guest_cannot_invite(delegate: Chain, identities: list[Identity]) -> None:
    one, two, three = (identity.peer_id for identity in identities)
    with pytest.raises(PeerError, match=f"{one} may not give {two}"):
        granted(invite(identities[0], ADMISSION, two, {"invite", "read"}, NOW, NOW + DAY_S, delegate), ADMISSION)
    guest = invite(identities[0], ADMISSION, two, {"read", "train"}, NOW, NOW + DAY_S, delegate)
    for rights in ({"read", "train"}, {"train"}, {"read", "invite"}):
        with pytest.raises(PeerError, match="may not give"):
            granted(invite(identities[1], ADMISSION, three, rights, NOW, NOW + 60, guest), ADMISSION)


def test_any_member_signs_a_pass_of_an_hour_to_read(delegate: Chain, identities: list[Identity]) -> None:
    three = identities[2].peer_id
    guest = invite(identities[0], ADMISSION, identities[1].peer_id, {"read", "train"}, NOW, NOW + DAY_S, delegate)
    visit = invite(identities[1], ADMISSION, three, {"read"}, NOW, NOW + PASS_S, guest)
    assert granted(visit, ADMISSION).rights == {"read"}
    with pytest.raises(PeerError, match="may not give"):
        granted(invite(identities[1], ADMISSION, three, {"read"}, NOW, NOW + PASS_S + 1, guest), ADMISSION)
    with pytest.raises(PeerError, match="4 links"):
        granted((*visit, visit[-1]), ADMISSION)


@pytest.mark.parametrize("field", [*(name for name in Invitation.model_fields if name != "signature")])
def test_whatever_is_changed_breaks_the_signature(field: str, delegate: Chain, identities: list[Identity]) -> None:
    guest = invite(identities[0], ADMISSION, identities[1].peer_id, {"read"}, NOW, NOW + DAY_S, delegate)
    other = invite(
        identities[1], public_half(Ed25519PrivateKey.generate()), identities[2].peer_id, {"train"}, NOW + 1, NOW + 2
    )[0]
    for index in range(2):
        links = list(guest)
        links[index] = links[index].model_copy(update={field: getattr(other, field)})
        with pytest.raises(PeerError):
            granted(links, ADMISSION)


def test_another_key_s_invitation_is_another_run_s(identities: list[Identity]) -> None:
    other = Ed25519PrivateKey.generate()
    theirs = invite(other, public_half(other), identities[0].peer_id, {"read"}, NOW, NOW + DAY_S)
    with pytest.raises(PeerError, match="another run"):
        granted(theirs, ADMISSION)
    with pytest.raises(PeerError, match="wrong signature"):  # says that it is this run's
        granted(invite(other, ADMISSION, identities[0].peer_id, {"read"}, NOW, NOW + DAY_S), ADMISSION)
    with pytest.raises(PeerError, match="wrong signature"):  # signs for himself
        granted(invite(identities[0], ADMISSION, identities[0].peer_id, {"read"}, NOW, NOW + DAY_S), ADMISSION)


def test_who_is_revoked_is_out_with_all_his_guests_until_the_key_invites_him_anew(
    delegate: Chain, identities: list[Identity]
) -> None:
    one, two = identities[0].peer_id, identities[1].peer_id
    guest = invite(identities[0], ADMISSION, two, {"read"}, NOW, NOW + DAY_S, delegate)
    acts = NOW + 100
    revoked = {one: acts}
    for chain in (delegate, guest):
        assert granted(chain, ADMISSION).holds(acts - 1, revoked)
        assert not granted(chain, ADMISSION).holds(acts, revoked)
    anew = invite(KEY, ADMISSION, one, {"read"}, acts + 1, acts + DAY_S)
    assert granted(anew, ADMISSION).holds(acts + 1, revoked)
    at_once = invite(KEY, ADMISSION, one, {"read"}, acts, acts + DAY_S)
    assert not granted(at_once, ADMISSION).holds(acts + 1, revoked)
    by_a_friend = invite(identities[0], ADMISSION, two, {"read"}, acts + 1, acts + DAY_S, delegate)
    assert not granted(by_a_friend, ADMISSION).holds(acts + 1, {two: acts})


def test_a_list_of_revocations_is_the_key_s_alone(identities: list[Identity]) -> None:
    first = revoke(KEY, Revocations(admission=ADMISSION), {identities[0].peer_id: NOW})
    second = revoke(KEY, first, {identities[1].peer_id: NOW + 1})
    assert second.version == 2 and len(second.revoked) == 2
    assert read_revocations(packed_revocations(second), ADMISSION) == second
    for changed in ({"version": 9}, {"revoked": {}}, {"signature": bytes(64)}, {"admission": "0" * 64}):
        with pytest.raises(PeerError):
            read_revocations(packed_revocations(second.model_copy(update=changed)), ADMISSION)


def test_a_list_has_an_end() -> None:
    digits = "123456789abcdefghijk"
    ids = {f"Qm{'a' * 40}{digits[n // 400]}{digits[n // 20 % 20]}{digits[n % 20]}": NOW for n in range(MAX_REVOKED + 1)}
    most = dict(list(ids.items())[:MAX_REVOKED])
    full = revoke(KEY, Revocations(admission=ADMISSION), most)
    assert read_revocations(packed_revocations(full), ADMISSION) == full
    with pytest.raises(UsageError, match="found a new one"):
        revoke(KEY, full, ids)


@pytest.mark.parametrize("text", ["", "nonsense", "shoal-invitation-", "shoal-invitation-!!!!", "shoal-invitation-kA"])
def test_what_is_no_invitation_is_said_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="is no invitation: it begins with shoal-invitation-"):
        parse_invitation(text)


def test_half_an_invitation_is_none(delegate: Chain) -> None:
    word = spelled(delegate)
    for cut in (len(word) // 2, len(word) - 1):
        with pytest.raises((UsageError, PeerError)):
            granted(parse_invitation(word[:cut]), ADMISSION)


def test_bytes_that_are_no_chain_are_refused(delegate: Chain) -> None:
    data = packed_chain(delegate)
    assert read_chain(data) == delegate
    for nonsense in (b"", b"\x90", b"\xc1", b"\x94" + data[1:] * 4, data + bytes(5000), data[:-1]):
        with pytest.raises(PeerError):
            read_chain(nonsense)
