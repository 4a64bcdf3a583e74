import asyncio
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from configs.errors import DataError, StateError, UsageError
from configs.machine import PeerConfig
from configs.run import RunSpec
from dht.admission import Admission
from dht.identity import Identity
from dht.invitations import granted, invite, parse_invitation, public_half, spelled
from peer.member.backup import back_up, restore
from peer.member.invited import (
    ALL,
    DAY_S,
    IDENTITY_FILE,
    INVITATION_FILE,
    KEY_FILE,
    OWN_DAYS,
    REVOCATIONS_FILE,
    SOON_S,
    Home,
    end_of_invitation,
    invite_peer,
    open_admission,
    open_visitor,
    own_chain,
    revoke_peers,
    take_up_revocations,
)

TICK_S = 2.0


@pytest.fixture(scope="module")
def spec(smallest_run: Callable[..., RunSpec]) -> RunSpec:
    return smallest_run()


def identity_in(folder: Path) -> Identity:
    folder.mkdir(exist_ok=True)
    return Identity.load_or_create(folder / IDENTITY_FILE)


def closed(spec: RunSpec, admission: str | None) -> RunSpec:
    return spec.model_copy(update={"admission": admission})


@pytest.fixture
def founder(tmp_path: Path) -> tuple[Path, Identity, Admission]:
    """A state directory in which a closed run was founded."""
    folder = tmp_path / "founder"
    identity = identity_in(folder)
    admission = open_admission(PeerConfig(state_dir=folder, closed=True), identity, None)
    assert admission is not None
    return folder, identity, admission


def test_founding_a_closed_run_makes_a_key_and_the_founder_s_invitation(
    founder: tuple[Path, Identity, Admission], spec: RunSpec
) -> None:
    folder, identity, admission = founder
    assert {path.name for path in folder.iterdir()} == {IDENTITY_FILE, KEY_FILE, INVITATION_FILE}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
    assert admission.grant.rights == ALL and admission.allows(identity.peer_id, "train")
    again = open_admission(PeerConfig(state_dir=folder), identity, closed(spec, admission.key))
    assert again is not None and again.own == admission.own  # not signed anew at each start


def test_the_owner_of_the_key_renews_his_own_invitation(
    founder: tuple[Path, Identity, Admission], spec: RunSpec
) -> None:
    folder, identity, admission = founder
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex((folder / KEY_FILE).read_text()))
    for left_days, is_renewed in ((OWN_DAYS / 2 - 1, True), (OWN_DAYS / 2 + 1, False), (-1, True)):
        now = time.time()
        old = invite(key, admission.key, identity.peer_id, ALL, now - DAY_S, now + left_days * DAY_S)
        (folder / INVITATION_FILE).write_text(spelled(old))
        opened = open_admission(PeerConfig(state_dir=folder), identity, closed(spec, admission.key))
        assert opened is not None and (opened.own != old) == is_renewed


def test_an_open_run_needs_nothing_and_stays_open(tmp_path: Path, spec: RunSpec) -> None:
    identity = identity_in(tmp_path / "open")
    assert open_admission(PeerConfig(state_dir=tmp_path / "open"), identity, None) is None
    assert open_admission(PeerConfig(state_dir=tmp_path / "open"), identity, spec) is None
    with pytest.raises(UsageError, match="stays so"):
        open_admission(PeerConfig(state_dir=tmp_path / "open", closed=True), identity, spec)


def test_an_invitation_is_taken_kept_and_replaced(
    founder: tuple[Path, Identity, Admission], tmp_path: Path, spec: RunSpec
) -> None:
    folder, _, admission = founder
    guest = identity_in(tmp_path / "guest")
    word = invite_peer(folder, guest.peer_id, {"read", "train"}, 5.0)
    config = PeerConfig(state_dir=tmp_path / "guest", invitation=word, initial_peers=("x",))
    opened = open_admission(config, guest, None)
    assert opened is not None and opened.key == admission.key
    assert (tmp_path / "guest" / INVITATION_FILE).stat().st_mode & 0o777 == 0o600
    later = PeerConfig(state_dir=tmp_path / "guest")
    kept = open_admission(later, guest, closed(spec, admission.key))
    assert kept is not None and kept.own == opened.own
    newer = invite_peer(folder, guest.peer_id, {"read", "train"}, 50.0)
    open_admission(config.model_copy(update={"invitation": newer}), guest, closed(spec, admission.key))
    assert spelled(own_chain(tmp_path / "guest") or ()) == newer


def test_an_invitation_that_does_not_fit_is_refused(
    founder: tuple[Path, Identity, Admission], tmp_path: Path, spec: RunSpec
) -> None:
    folder, founding, admission = founder
    guest = identity_in(tmp_path / "guest")

    def open_with(word: str, saved: RunSpec | None = None) -> None:
        open_admission(PeerConfig(state_dir=tmp_path / "guest", invitation=word, initial_peers=("x",)), guest, saved)

    with pytest.raises(UsageError, match=f"is for peer {founding.peer_id}, and this is {guest.peer_id}"):
        open_with((folder / INVITATION_FILE).read_text())
    word = invite_peer(folder, guest.peer_id, {"read", "train"}, 5.0)
    with pytest.raises(UsageError, match="another run"):
        open_with(word, closed(spec, "0" * 64))
    with pytest.raises(UsageError, match="another run"):
        open_with(word, spec)
    with pytest.raises(UsageError, match="to read"):
        open_with(invite_peer(folder, guest.peer_id, {"read"}, 5.0))
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex((folder / KEY_FILE).read_text()))
    ended = invite(key, admission.key, guest.peer_id, {"train"}, time.time() - 9, time.time() - 1)
    with pytest.raises(UsageError, match="does not hold now"):
        open_with(spelled(ended))


def test_a_closed_run_without_its_invitation_says_how_to_get_one(
    founder: tuple[Path, Identity, Admission], spec: RunSpec
) -> None:
    folder, identity, admission = founder
    saved = closed(spec, admission.key)
    (folder / KEY_FILE).unlink()
    (folder / INVITATION_FILE).write_text("shoal-invitation-kA")
    with pytest.raises(StateError, match=r"invitation is damaged; paste it again with --invitation"):
        open_admission(PeerConfig(state_dir=folder), identity, saved)
    (folder / INVITATION_FILE).unlink()
    with pytest.raises(StateError, match=r"is missing.*shoal identity show.*--invitation"):
        open_admission(PeerConfig(state_dir=folder), identity, saved)


def test_who_may_invite_does_so_once(founder: tuple[Path, Identity, Admission], tmp_path: Path) -> None:
    folder, _, admission = founder
    one, two = identity_in(tmp_path / "one"), identity_in(tmp_path / "two")
    (tmp_path / "one" / INVITATION_FILE).write_text(invite_peer(folder, one.peer_id, ALL, 5.0))
    word = invite_peer(tmp_path / "one", two.peer_id, {"read", "train"}, 99.0)
    grant = granted(parse_invitation(word), admission.key)
    assert grant.invited_by == one.peer_id and grant.until < time.time() + 6 * DAY_S
    with pytest.raises(UsageError, match="leave out --may-invite"):
        invite_peer(tmp_path / "one", two.peer_id, ALL, 1.0)
    (tmp_path / "two" / INVITATION_FILE).write_text(word)
    with pytest.raises(UsageError, match="may not invite"):
        invite_peer(tmp_path / "two", one.peer_id, {"read"}, 1.0)
    with pytest.raises(UsageError, match="no admission key"):
        revoke_peers(tmp_path / "one", [two.peer_id], TICK_S)
    with pytest.raises(UsageError, match="in no closed run"):
        invite_peer(tmp_path / "nowhere", two.peer_id, {"read"}, 1.0)


def test_a_revocation_acts_two_ticks_later_and_an_invitation_after_it_counts(
    founder: tuple[Path, Identity, Admission], tmp_path: Path
) -> None:
    folder, _, admission = founder
    guest = identity_in(tmp_path / "guest")
    old = invite_peer(folder, guest.peer_id, {"read"}, 1.0)
    now = time.time()
    acts = revoke_peers(folder, [guest.peer_id], TICK_S)
    assert now + 2 * TICK_S <= acts <= time.time() + 2 * TICK_S
    assert (folder / REVOCATIONS_FILE).stat().st_mode & 0o777 == 0o600
    asyncio.run(take_up_revocations(admission, folder))
    revoked = admission.revocations.revoked
    grant = granted(parse_invitation(old), admission.key)
    assert grant.holds(acts - 0.1, revoked) and not grant.holds(acts, revoked)
    with pytest.raises(UsageError, match="is being revoked; invite it again in"):
        invite_peer(folder, guest.peer_id, {"read"}, 1.0)
    # Somebody who is out already is not let in again for two ticks by being revoked once more.
    assert revoke_peers(folder, [guest.peer_id], TICK_S) > acts
    asyncio.run(take_up_revocations(admission, folder))
    assert admission.revocations.version == 2
    assert not grant.holds(acts + 1, admission.revocations.revoked)
    assert granted(parse_invitation(invite_peer(folder, guest.peer_id, {"read"}, 1.0)), admission.key).holds(
        acts + 1, admission.revocations.revoked
    )


def test_a_damaged_list_of_revocations_is_said(founder: tuple[Path, Identity, Admission]) -> None:
    folder = founder[0]
    (folder / REVOCATIONS_FILE).write_bytes(b"nonsense")
    with pytest.raises(StateError, match="move it away, the other peers have it"):
        revoke_peers(folder, [founder[1].peer_id], TICK_S)


def test_a_command_visits_with_a_pass_under_another_key(
    founder: tuple[Path, Identity, Admission], tmp_path: Path
) -> None:
    folder, identity, _ = founder
    visitor = identity_in(tmp_path / "visitor")
    opened = open_visitor(Home(folder), visitor)
    assert opened is not None and opened.is_visiting and opened.grant.rights == {"read"}
    assert opened.grant.invited_by == identity.peer_id
    assert open_visitor(Home(tmp_path / "nobody"), visitor) is None
    assert not (tmp_path / "nobody").exists()  # looking makes nothing
    guest = identity_in(tmp_path / "guest")
    word = invite_peer(folder, guest.peer_id, {"read"}, 1.0)
    by_word = open_visitor(Home(tmp_path / "guest", word), visitor)
    assert by_word is not None and by_word.grant.invited_by == guest.peer_id
    assert open_visitor(Home(tmp_path / "guest"), visitor) is not None  # it was kept


def test_an_end_that_is_near_is_told(founder: tuple[Path, Identity, Admission]) -> None:
    admission = founder[2]
    until = admission.grant.until
    assert end_of_invitation(admission, until - SOON_S - 1) == ""
    assert f"shoal invite {admission.grant.peer_id}" in end_of_invitation(admission, until - SOON_S)


def test_a_backup_makes_another_directory_the_same_peer(
    founder: tuple[Path, Identity, Admission], tmp_path: Path
) -> None:
    folder, identity, admission = founder
    file = tmp_path / "backup.json"
    modes: list[int] = []
    sync = os.fsync

    def look(descriptor: int) -> None:
        mode = os.fstat(descriptor).st_mode
        modes.extend([mode & 0o777] if stat.S_ISREG(mode) else [])
        sync(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", look)
        assert back_up(folder, file) == identity.peer_id
    assert set(modes) == {0o600}, "at no time may somebody else read it"
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(DataError, match="already exists"):
        back_up(folder, file)
    assert restore(file, tmp_path / "new") == identity.peer_id
    for name in (IDENTITY_FILE, KEY_FILE, INVITATION_FILE):
        assert (tmp_path / "new" / name).read_bytes() == (folder / name).read_bytes()
        assert (tmp_path / "new" / name).stat().st_mode & 0o777 == 0o600
    assert restore(file, folder) == identity.peer_id  # the same peer: nothing is lost
    other = identity_in(tmp_path / "other")
    with pytest.raises(StateError, match=f"another peer's already .{other.peer_id}"):
        restore(file, tmp_path / "other")
    for nonsense in (b"{}", b'{"files": {}, "peer_id": "x"}', b'{"files": {"identity.key": "!"}, "peer_id": "x"}'):
        (tmp_path / "bad").write_bytes(nonsense)
        with pytest.raises(DataError, match="no backup of an identity"):
            restore(tmp_path / "bad", tmp_path / "empty")
    with pytest.raises(StateError, match="no identity yet"):
        back_up(tmp_path / "empty", tmp_path / "b2.json")
    assert public_half(Ed25519PrivateKey.from_private_bytes(bytes.fromhex((folder / KEY_FILE).read_text()))) == (
        admission.key
    )
