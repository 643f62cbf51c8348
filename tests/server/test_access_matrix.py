"""R27: who may come in: host × origin × key, all combinations, and every route that there is with every kind of key."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from raw_socket import UPGRADE, RawSocket, request
from server_helpers import Site, serving

from voiceagent.config import ServerConfig
from voiceagent.server.auth import KEY_PREFIX, OF_EPHEMERAL_KEYS, Gatekeeper, Refused
from voiceagent.server.ephemeral import EphemeralKeys

RIGHT, OTHER = "sk-the-right-one", "sk-another"
FORGED = "ek_Zm9yZ2VkZm9yZ2VkZm9yZ2VkZm9yZ2VkZm9yZ2Vk"
ALLOWED = ("https://shop.example", "https://xn--bcher-kva.example")


@dataclass(frozen=True)
class Case:
    """A way to say something, and whether it is good."""

    name: str
    value: str | None
    good: bool


LOOPBACK_HOSTS = (
    *(
        Case(h, h, True)
        for h in ("127.0.0.1:8080", "localhost:8080", "LOCALHOST:8080", "[::1]:8080", "127.0.0.1")
    ),
    Case("rebound", "evil.example:8080", False),
    Case("address as prefix", "127.0.0.1.evil.example", False),
    Case("name as prefix", "localhost.evil.example:8080", False),
    Case("name as user", "127.0.0.1@evil.example", False),
    Case("metadata service", "169.254.169.254", False),
    Case("any address", "0.0.0.0:8080", False),
    Case("half an address", "[::1", False),
    Case("empty", "", False),
    Case("none", None, False),
)
PUBLIC_HOSTS = tuple(Case(h, h, True) for h in ("voice.example", "voice.example:8080", "10.0.0.5:8080"))


def origins(host: str) -> Iterator[Case]:
    """Origins as seen by a server that was asked by the name `host`."""
    yield Case("no origin", None, True)
    yield Case("own", f"http://{host}", host != "")
    yield Case("own by TLS", f"https://{host}", host != "")
    yield Case("listed", ALLOWED[0], True)
    yield Case("listed, international", ALLOWED[1], True)
    for name, value in {
        "null": "null",
        "empty": "",
        "foreign": "https://evil.example",
        "suffix": "https://shop.example.evil.example",
        "prefix": "https://evilshop.example",
        "sub-domain": "https://a.shop.example",
        "other port": "https://shop.example:444",
        "other scheme": "http://shop.example",
        "other case": "https://Shop.Example",
        "international, decoded": "https://bücher.example",
        "look-alike": "https://shop.exаmple",  # with a Cyrillic letter
        "path": "https://shop.example/",
        "user": f"http://{host}@evil.example",
        "user of ours": f"http://evil.example@{host}",
        "own by file": f"file://{host}",
        "own with a dot": f"http://{host}.",
        "half an address": "http://[",
        "two": f"http://{host} https://evil.example",
    }.items():
        yield Case(name, value, False)


def keys(live: str, dead: str) -> Iterator[tuple[Case, dict[str, str], tuple[str, ...]]]:
    """Headers and subprotocols: with a key of the server, an ephemeral one, none, or something like one."""
    for name, value, good in (
        ("right", f"Bearer {RIGHT}", True),
        ("second", f"Bearer {OTHER}", True),
        ("lower case", f"bearer {RIGHT}", True),
        ("spaces", f"Bearer   {RIGHT} ", True),
        ("ephemeral", f"Bearer {live}", True),
        ("basic", f"Basic {RIGHT}", False),
        ("bare", RIGHT, False),
        ("wrong", "Bearer sk-nobody", False),
        ("beginning", f"Bearer {RIGHT[:-1]}", False),
        ("more", f"Bearer {RIGHT}x", False),
        ("other case", f"Bearer {RIGHT.upper()}", False),
        ("nothing", "Bearer ", False),
        ("expired", f"Bearer {dead}", False),
        ("forged", f"Bearer {FORGED}", False),
        ("ephemeral, cut", f"Bearer {live[:-1]}", False),
        ("ephemeral, bare", "Bearer ek_", False),
        ("no text", "Bearer k\udcff", False),
    ):
        yield Case(name, None, good), {"Authorization": value}, ()
    yield Case("none", None, False), {}, ()
    yield Case("none, subprotocol", None, False), {}, ("realtime",)
    yield Case("subprotocol", None, True), {}, ("realtime", KEY_PREFIX + RIGHT)
    yield Case("subprotocol, ephemeral", None, True), {}, ("realtime", KEY_PREFIX + live)
    yield Case("subprotocol, wrong", None, False), {}, ("realtime", KEY_PREFIX + "sk-nobody")
    yield Case("subprotocol, prefix missing", None, False), {}, ("realtime", RIGHT)


def verdict(gate: Gatekeeper, headers: dict[str, str], subprotocols: tuple[str, ...]) -> str:
    try:
        gate.check(headers, subprotocols=subprotocols)
    except Refused as refused:
        told = [secret for secret in (RIGHT, OTHER, "sk-nobody", "ek_") if secret in str(refused)]
        return f"it tells {told}" if told else refused.code
    return "ok"


@pytest.mark.parametrize(
    ("listens", "hosts"),
    [("127.0.0.1", LOOPBACK_HOSTS), ("0.0.0.0", PUBLIC_HOSTS)],
    ids=["loopback", "public"],
)
def test_every_combination_of_host_origin_and_key(listens: str, hosts: tuple[Case, ...]) -> None:
    now = [1000.0]
    ephemeral = EphemeralKeys(lambda: now[0])
    dead = ephemeral.issue(seconds=10)
    now[0] += 10
    live = ephemeral.issue(seconds=10)
    config = ServerConfig(host=listens, api_keys=(RIGHT, OTHER), allowed_origins=ALLOWED)
    gate = Gatekeeper(config, ephemeral)
    wrong, count = [], 0
    for host in hosts:
        for origin, (key, extra, subprotocols) in itertools.product(
            origins(host.value or ""), keys(live.value, dead.value)
        ):
            given = {"Host": host.value, "Origin": origin.value}
            headers = {name: value for name, value in given.items() if value is not None} | extra
            expected = (
                "forbidden_host" if not host.good else "forbidden_origin" if not origin.good
                else "ok" if key.good else "invalid_api_key"
            )  # fmt: skip
            found = verdict(gate, headers, subprotocols)
            count += 1
            if found != expected:
                wrong.append(f"{host.name} / {origin.name} / {key.name}: {found}, not {expected}")
    assert not wrong
    assert count > 1000


def test_an_ephemeral_key_lasts_to_the_second() -> None:
    now = [1000.0]
    gate = Gatekeeper(ServerConfig(api_keys=(RIGHT,)), EphemeralKeys(lambda: now[0]))
    key = gate.ephemeral.issue(seconds=10).value
    headers = {"Host": "localhost", "Authorization": f"Bearer {key}"}
    for after, expected in (
        (0, "ok"),
        (9, "ok"),
        (9.999, "ok"),
        (10, "invalid_api_key"),
        (11, "invalid_api_key"),
    ):
        now[0] = 1000.0 + after
        assert verdict(gate, headers, ()) == expected, after


def test_every_key_is_compared_whole_and_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """`hmac.compare_digest`, with each of the keys, whichever is right."""
    seen: list[bytes] = []

    def compare(a: bytes, b: bytes) -> bool:
        seen.append(b)
        return hmac_compare(a, b)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    gate = Gatekeeper(ServerConfig(api_keys=(RIGHT, OTHER)))
    for given in (RIGHT, OTHER, "x", ""):
        verdict(gate, {"Host": "localhost", "Authorization": f"Bearer {given}"}, ())
        assert seen == [RIGHT.encode(), OTHER.encode()]
        seen.clear()


# --- every route ------------------------------------------------------------------------------------------------------

OPEN = ("/healthz", "/readyz", "/", "/web/{name}")  #: without a key


def routes(site: Site) -> list[tuple[str, str]]:
    """All that the application has, so that a new one cannot be forgotten here."""
    assert site.server._runner is not None
    found = {
        (route.method, route.resource.canonical)
        for route in site.server._runner.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert {("GET", "/v1/realtime"), ("GET", "/v1/live/sessions"), ("POST", "/v1/chat/completions")} < found
    return sorted(found)


async def asked(site: Site, head: bytes) -> tuple[int, bytes]:
    """Status and whole answer to a request that is sent as it stands."""
    line = await RawSocket.open(site.port)
    try:
        line.send(head)
        async with asyncio.timeout(20):
            answer = await line.reader.readuntil(b"\r\n\r\n")
            status = int(answer.split()[1])
            if status != 101:
                answer += await line.reader.read()
        return status, answer
    finally:
        await line.gone()


@asynccontextmanager
async def keyed(caplog: pytest.LogCaptureFixture) -> AsyncIterator[tuple[Site, str, str]]:
    """A server with a key, a live and an expired ephemeral one; none of them may be in its log."""
    caplog.set_level(logging.DEBUG)
    async with serving(keys=(RIGHT,)) as site:
        keys = site.server._gate.ephemeral
        live, dead = keys.issue(seconds=60).value, keys.issue(seconds=-1).value
        yield site, live, dead
    for secret in (RIGHT, live, dead, FORGED):
        assert secret not in caplog.text


async def test_every_route_with_every_kind_of_key(caplog: pytest.LogCaptureFixture) -> None:
    async with keyed(caplog) as (site, live, dead):
        wrong = []
        for method, path in routes(site):
            for name, key in {"none": "", "right": RIGHT, "wrong": "sk-nobody", "live": live, "dead": dead,
                              "forged": FORGED}.items():  # fmt: skip
                headers = (
                    UPGRADE if path in ("/v1/realtime", "/v1/live/sessions") else {"Content-Length": "0"}
                )
                if key:
                    headers = headers | {"Authorization": f"Bearer {key}"}
                concrete = path.replace("{", "").replace("}", "")
                status, answer = await asked(site, request(concrete, headers, method=method))
                reads = method == "GET" and path in OF_EPHEMERAL_KEYS
                let_in = path in OPEN or name == "right" or (name == "live" and reads)
                if (status not in (401, 403)) is not let_in or status == 500:
                    wrong.append(f"{method} {path} with {name}: {status}")
                if status == 401:
                    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_api_key"
                assert not key or key.encode() not in answer
        assert not wrong


async def test_every_route_but_health_refuses_foreign_pages_and_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with keyed(caplog) as (site, _, _):
        wrong = []
        for method, path in routes(site):
            for headers, code in (
                ({"Host": "evil.example"}, b"forbidden_host"),
                ({"Origin": "https://evil.example"}, b"forbidden_origin"),
                ({"Origin": "null"}, b"forbidden_origin"),
            ):
                known = UPGRADE | {"Authorization": f"Bearer {RIGHT}", "Content-Length": "0"}
                concrete = path.replace("{", "").replace("}", "")
                status, answer = await asked(site, request(concrete, known | headers, method=method))
                let_in = path in ("/healthz", "/readyz")
                if (status == 403 and code in answer) is let_in:
                    wrong.append(f"{method} {path} with {headers}: {status}")
        assert not wrong


async def test_a_key_in_an_address_is_no_key_and_is_not_written_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with keyed(caplog) as (site, live, _):
        for name in ("api_key", "key", "token", "access_token", "authorization"):
            for key in (RIGHT, live):
                status, answer = await asked(site, request(f"/v1/realtime?model=m&{name}={key}", UPGRADE))
                assert status == 401
                assert key.encode() not in answer


async def test_bytes_in_headers_are_refused_like_anything_else(caplog: pytest.LogCaptureFixture) -> None:
    async with keyed(caplog) as (site, _, _):
        for field in (
            b"Authorization: Bearer \xff\xfe",
            b"Origin: http://\xff",
            b"Origin: http://[",
            b"Host: [::1",
        ):
            lines = [b"GET /v1/models HTTP/1.1", field]
            if not field.startswith(b"Host"):
                lines.append(b"Host: localhost")
            status, _ = await asked(site, b"\r\n".join([*lines, b"", b""]))
            assert status in (400, 401, 403), field


async def test_what_is_no_http_is_refused_without_a_traceback_or_a_key_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with keyed(caplog) as (site, _, _):
        for lines in (
            f"GET /v1/models HTTP/9.9\r\nAuthorization: Bearer {RIGHT}",
            f"GET /v1/models HTTP/1.1\r\nAuthorization Bearer {RIGHT}",
            f"GET /v1/models HTTP/1.1\r\n\x00Authorization: Bearer {RIGHT}",
            f"Bearer {RIGHT}",
        ):
            status, _ = await asked(site, f"{lines}\r\nHost: localhost\r\n\r\n".encode())
            assert status == 400
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_key_opens_two_sessions_at_once_and_they_share_nothing() -> None:
    """By a key of the server and by an ephemeral one: documented, and no accident."""
    async with serving(keys=(RIGHT,)) as site:
        live = site.server._gate.ephemeral.issue(
            seconds=60, session='{"type":"realtime","instructions":"Hi"}'
        ).value
        lines = []
        for key in (RIGHT, RIGHT, live, live):
            lines.append(await RawSocket.upgraded(site.port, headers={"Authorization": f"Bearer {key}"}))
        ids = set()
        for line in lines:
            got = await line.receive()
            assert got is not None
            ids.add(json.loads(got[1])["session"]["id"])
        assert len(ids) == 4
        lines[0].say(type="session.update", session={"instructions": "mine"})
        got = await lines[0].receive()
        assert got is not None
        assert json.loads(got[1])["session"]["instructions"] == "mine"
        lines[1].say(type="session.update", session={})
        got = await lines[1].receive()
        assert got is not None
        assert json.loads(got[1])["session"]["instructions"] != "mine"
        for line in lines:
            await line.gone()
