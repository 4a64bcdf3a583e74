import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from status_example import PEERS, example

from configs.errors import NetworkError, StateError, UsageError
from peer.http import local


@contextmanager
def answering(body: bytes, code: int = 200, after_s: float = 0.0) -> Iterator[str]:
    """Serve one answer to everything on a port of its own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(after_s)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_daemon_is_found_by_its_state_directory(tmp_path: Path) -> None:
    state_dir = tmp_path / "new" / "state"
    with answering(example().model_dump_json().encode()) as url, local.hold_state_dir(state_dir):
        with pytest.raises(StateError, match="still starting"):
            local.find_daemon(state_dir)
        local.announce_daemon(state_dir, f"{url}/", PEERS[0])
        assert local.find_daemon(state_dir).url == url
        assert local.fetch_status(state_dir) == example()
        assert local.fetch_status(url) == example()
        local.post_action(state_dir, "pause")
        assert state_dir.stat().st_mode & 0o077 == 0
    with pytest.raises(StateError, match="no daemon runs in"):
        local.fetch_status(state_dir)
    local.wait_until_gone(state_dir)


def test_one_daemon_for_one_state_directory(tmp_path: Path) -> None:
    with local.hold_state_dir(tmp_path):
        local.announce_daemon(tmp_path, "http://127.0.0.1:1", PEERS[0])
        refusal = r"process \d+, http://127.0.0.1:1\) uses .* another with --state-dir"
        with pytest.raises(StateError, match=refusal), local.hold_state_dir(tmp_path):
            pass
        assert local.find_daemon(tmp_path)  # the second has not removed what the first wrote
    with local.hold_state_dir(tmp_path):
        pass


def test_a_killed_daemon_is_not_found(tmp_path: Path) -> None:
    with local.hold_state_dir(tmp_path):
        local.announce_daemon(tmp_path, "http://127.0.0.1:1", PEERS[0])
        left_behind = (tmp_path / local.DAEMON_FILE).read_bytes()
    (tmp_path / local.DAEMON_FILE).write_bytes(left_behind)
    with pytest.raises(StateError, match="no daemon runs in"):
        local.find_daemon(tmp_path)
    with local.hold_state_dir(tmp_path), pytest.raises(StateError, match="still starting"):
        local.find_daemon(tmp_path)


def test_a_state_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="choose another with --state-dir"), local.hold_state_dir(tmp_path / "file"):
        pass


@pytest.mark.parametrize("where", ["ftp://127.0.0.1", "http://", "file:///etc/passwd"])
def test_an_address_that_is_none_is_refused(where: str) -> None:
    with pytest.raises(UsageError, match="is not an address of a daemon"):
        local.fetch_status(where)


def test_whatever_answers_is_checked() -> None:
    with answering(b'{"hello": 1}') as url, pytest.raises(NetworkError, match="not a Shoal daemon of this version"):
        local.fetch_status(url)
    with answering(b"<html>", 500) as url, pytest.raises(NetworkError, match="may not be a Shoal daemon"):
        local.fetch_status(url)
    with answering(b'{"error": "not now"}', 409) as url, pytest.raises(NetworkError, match="refuses: not now"):
        local.post_action(url, "pause")
    with pytest.raises(NetworkError, match="no daemon answers at"):
        local.fetch_status(url)


def test_a_pause_waits_for_a_step_that_takes_longer_than_a_status_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "TIMEOUT_S", 0.2)
    with answering(b"{}", after_s=1.0) as url:
        with pytest.raises(NetworkError, match=r"did not answer within 0\.2 s"):
            local.fetch_status(url)
        local.post_action(url, "pause")


def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with answering(example().model_dump_json().encode()) as url:
        assert local.fetch_status(url) == example()


def test_what_ends_a_daemon_is_not_hidden_by_what_its_disk_refuses_then(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="the cause"), local.hold_state_dir(tmp_path):
        (tmp_path / "daemon.json").mkdir()  # which cannot be removed as a file, as nothing can on a disk gone read-only
        raise StateError("the cause")
