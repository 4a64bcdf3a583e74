import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from status_example import example, pulse

from benchmarks.patience import HANG_S
from configs.errors import ConfigError, NetworkError, StateError
from configs.limits import Limits, told
from configs.load import describe
from configs.machine import PeerConfig
from peer.http.server import MAX_CONNECTIONS
from peer.http.status import Status
from peer.http.status_page import Actions, Shown, _application, open_http
from peer.http.stream import Stream

TOKEN = "a-token-of-24-characters"
JSON = {"Content-Type": "application/json"}


class Asked:
    """Notes what was asked of it; resuming fails."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.limits_now = Limits(up_mbit=5)

    async def leave(self) -> None:
        self.names.append("leave")

    async def pause(self) -> None:
        self.names.append("pause")

    async def revocations(self) -> None:
        self.names.append("revocations")

    async def resume(self) -> None:
        raise StateError("nothing to resume; it trains already")

    def limits(self) -> dict[str, dict[str, Any]]:
        return told(self.limits_now)

    async def limit(self, body: bytes) -> None:
        self.names.append("limits")
        try:
            self.limits_now = self.limits_now.changed(Limits.model_validate_json(body))
        except ValidationError as error:
            raise ConfigError(describe(error, "the limits")) from None

    def actions(self) -> Actions:
        return Actions(self.leave, self.pause, self.resume, self.revocations, self.limits, self.limit)


def with_server(
    check: Callable[[httpx.AsyncClient, str], Awaitable[None]], asked: Asked | None = None, **config: object
) -> None:
    asked = asked or Asked()

    async def main() -> None:
        async with (
            open_http(PeerConfig(**config), Shown(example, pulse), asked.actions()) as url,
            httpx.AsyncClient(trust_env=False, timeout=HANG_S) as client,
        ):
            await check(client, url)

    asyncio.run(asyncio.wait_for(main(), HANG_S))


def test_serves_status_metrics_and_health() -> None:
    async def check(client: httpx.AsyncClient, url: str) -> None:
        answer = await client.get(f"{url}/status")
        assert Status.model_validate_json(answer.content) == example()
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers
        metrics = await client.get(f"{url}/metrics")
        assert metrics.headers["content-type"].startswith("text/plain")
        assert 'shoal_block_holders{block="trunk"} 3.0' in metrics.text
        healthy = await client.get(f"{url}/health")
        assert healthy.status_code == 200
        assert healthy.json() == {"is_healthy": True, "reasons": [], "state": "training", "tick": 412}
        assert (await client.get(f"{url}/live")).json() == {"is_live": True}
        assert (await client.get(url, follow_redirects=True)).json()["run_name"] == "tiny"
        assert (await client.get(f"{url}/nothing")).status_code == 404

    with_server(check)


def test_actions_reach_the_daemon_and_refusals_say_why() -> None:
    asked = Asked()

    async def check(client: httpx.AsyncClient, url: str) -> None:
        for name in ("pause", "leave"):
            assert (await client.post(f"{url}/{name}", json={})).json() == {"done": name}
        failed = await client.post(f"{url}/resume", json={})
        assert failed.status_code == 409
        assert "it trains already" in failed.json()["error"]

    with_server(check, asked)
    assert asked.names == ["pause", "leave"]


def test_limits_are_shown_with_their_meaning_and_changed_by_name() -> None:
    asked = Asked()

    async def check(client: httpx.AsyncClient, url: str) -> None:
        shown = (await client.get(f"{url}/limits")).json()
        assert set(shown) == set(Limits.model_fields)
        assert shown["up_mbit"] == {
            "value": 5.0,
            "unit": "Mbit/s",
            "default": None,
            "meaning": "This peer sends offers, states and text no faster than this.",
        }
        assert all(each["meaning"].endswith(".") for each in shown.values())
        changed = (await client.post(f"{url}/limits", json={"up_mbit": None, "hours": "22:00-07:00"})).json()
        assert (changed["up_mbit"]["value"], changed["hours"]["value"]) == (None, "22:00-07:00")
        for body, code, says in [
            (b'{"up_mbit": 0}', 422, "up_mbit = 0: Input should be greater than 0"),
            (b'{"upload": 1}', 422, "upload: no such key"),
            (b'{"hours": "22-7"}', 422, "hours = '22-7': '22-7' is no span of hours"),
            (b'{"port": 1}', 422, "port: no such key"),
            (b"[]", 422, "the limits"),
            (b"nonsense", 422, "the limits"),
            (b" " * 5000, 413, "at most 4096 bytes"),
        ]:
            refused = await client.post(f"{url}/limits", content=body, headers=JSON)
            assert refused.status_code == code and says in refused.json()["error"], refused.text
        assert (await client.get(f"{url}/limits")).json() == changed

    with_server(check, asked)


@pytest.mark.parametrize(
    "headers",
    [{"Content-Type": "text/plain"}, {**JSON, "Sec-Fetch-Site": "cross-site"}, {**JSON, "Host": "evil.example"}],
)
def test_a_foreign_page_cannot_change_the_limits(headers: dict[str, str]) -> None:
    asked = Asked()

    async def check(client: httpx.AsyncClient, url: str) -> None:
        assert (await client.post(f"{url}/limits", content=b"{}", headers=headers)).status_code == 403

    with_server(check, asked)
    assert asked.names == []


@pytest.mark.parametrize(
    ("method", "headers", "code"),
    [
        ("GET", JSON, 405),
        ("POST", {"Content-Type": "text/plain"}, 403),  # what a foreign page can send without being asked
        ("POST", {**JSON, "Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", {**JSON, "Sec-Fetch-Site": "same-site"}, 403),
        ("POST", {**JSON, "Host": "evil.example"}, 403),  # DNS rebinding
        ("POST", {**JSON, "Host": "[::1].evil.example"}, 403),
        ("POST", {**JSON, "Origin": "http://evil.example"}, 403),
        ("POST", {**JSON, "Origin": "null"}, 403),
        ("POST", {**JSON, "Host": "127.0.0.1", "Origin": "http://127.0.0.1:8080"}, 403),  # another port is another site
        ("POST", {**JSON, "Host": "127.0.0.1:80", "Origin": "http://127.0.0.1:80"}, 200),
        ("POST", {**JSON, "Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_a_foreign_page_cannot_steer_the_daemon(method: str, headers: dict[str, str], code: int) -> None:
    asked = Asked()

    async def check(client: httpx.AsyncClient, url: str) -> None:
        answer = await client.request(method, f"{url}/leave", content=b"{}", headers=headers)
        assert answer.status_code == code

    with_server(check, asked)
    assert asked.names == (["leave"] if code == 200 else [])


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:8080", 200),
        ("seed.example:8080", 200),
        ("other.example", 403),
        ("[::1].other.example", 403),
        ("[::1]other.example:80", 403),
        ("127.0.0.1:80.other.example", 403),
        ("127.0.0.1.other.example", 403),
        ("seed.example@other.example", 403),
        ("", 403),
    ],
)
def test_only_known_host_names_are_answered(host: str, code: int) -> None:
    async def check(client: httpx.AsyncClient, url: str) -> None:
        answer = await client.get(f"{url}/status", headers={"Host": host})
        assert answer.status_code == code
        assert code == 200 or "peer.allowed_hosts" in answer.json()["error"]

    with_server(check, allowed_hosts=("seed.example",))


@pytest.mark.parametrize(
    ("client", "header", "code"),
    [
        ("172.17.0.1", None, 403),  # as a container's published port looks from inside
        ("172.17.0.1", "Bearer wrong-wrong-wrong-wrong", 403),
        ("172.17.0.1", f"Bearer {TOKEN}", 200),
        ("172.17.0.1", TOKEN, 403),
        ("127.0.0.1", None, 200),
    ],
)
def test_from_elsewhere_actions_need_the_token(client: str, header: str | None, code: int) -> None:
    asked = Asked()
    actions = asked.actions()
    headers = JSON if header is None else {**JSON, "Authorization": header}
    shown = Shown(example, pulse)

    async def main() -> None:
        for token, expected in ((TOKEN, code), ("", 200 if client == "127.0.0.1" else 403)):
            transport = httpx.ASGITransport(_application(shown, actions, Stream(example), token), client=(client, 4321))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as page:
                answer = await page.post("/pause", content="{}", headers=headers)
                assert answer.status_code == expected, answer.text
                assert expected == 200 or "peer.status_token" in answer.json()["error"]
                assert (await page.get("/status")).status_code == 200

    asyncio.run(main())


def test_who_only_holds_connections_open_makes_room_for_who_asks() -> None:
    """A page that answers its owner although somebody fills it with silence, and with halves of requests."""

    async def check(client: httpx.AsyncClient, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        held = []
        for number in range(2 * MAX_CONNECTIONS):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"" if number % 2 else b"POST /pause HTTP/1.1\r\nHost: localhost\r\n")
            held.append((reader, writer))
        for _ in range(3):
            async with httpx.AsyncClient(trust_env=False, timeout=HANG_S) as fresh:
                assert (await fresh.get(f"{url}/status")).status_code == 200
        assert await held[0][0].read() == b""  # the oldest are gone
        for _, writer in held:
            writer.transport.abort()

    with_server(check)


def test_a_taken_port_is_named() -> None:
    async def check(client: httpx.AsyncClient, url: str) -> None:
        port = int(url.rsplit(":", 1)[1])
        asked = Asked()
        with pytest.raises(NetworkError, match=f"port {port} is taken; choose another --status-port"):
            async with open_http(
                PeerConfig(status_port=port),
                Shown(example, pulse),
                asked.actions(),
            ):
                pass

    with_server(check)


@pytest.mark.parametrize("host", ["no.such.name.invalid", "203.0.113.7"])
def test_a_host_that_is_not_this_machine_is_named(host: str) -> None:
    async def check(client: httpx.AsyncClient, url: str) -> None:
        raise AssertionError("it must not open")

    with pytest.raises(NetworkError, match="--status-host"):
        with_server(check, status_host=host)


def test_an_open_connection_does_not_hold_up_the_end() -> None:
    async def check(client: httpx.AsyncClient, url: str) -> None:
        port = int(url.rsplit(":", 1)[1])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /status HTTP/1.1\r\n")  # never finished
        await writer.drain()

    with_server(check)
