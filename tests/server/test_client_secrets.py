"""Ephemeral keys and TLS, as the openai package and a browser use them."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import APIStatusError, AsyncOpenAI
from openai.types.realtime import ClientSecretCreateResponse
from self_signed import certificate
from server_helpers import serving
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from voiceagent.config import Config, ServerConfig
from voiceagent.engine.fake_engine import FakeEngine
from voiceagent.errors import CapacityError, ConfigError
from voiceagent.server import ephemeral
from voiceagent.server.app import Server
from voiceagent.server.ephemeral import EphemeralKeys

OURS = "sk-server"
SHORT: dict[str, Any] = {"anchor": "created_at", "seconds": 30}

MCP = {"type": "mcp", "server_label": "own", "server_url": "https://tools.example.com/mcp"}


def openai(http: str, key: str = OURS) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{http}/v1", api_key=key, max_retries=0)


async def first_session(ws: str, key: str) -> dict[str, Any]:
    """The session that a page sees which connects with this key."""
    protocols = ["realtime", f"openai-insecure-api-key.{key}"]
    async with connect(ws, subprotocols=protocols) as line:  # type: ignore[arg-type]
        created = json.loads(await line.recv())
    assert created["type"] == "session.created"
    session: dict[str, Any] = created["session"]
    return session


async def test_a_key_opens_sessions_with_its_settings() -> None:
    async with serving(keys=(OURS,)) as site, openai(site.http) as client:
        audio: Any = {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "high"}}}
        asked: Any = {"type": "realtime", "instructions": "Be brief.", "audio": audio}
        made = await client.realtime.client_secrets.create(session=asked, expires_after=SHORT)  # type: ignore[arg-type]
        ClientSecretCreateResponse.model_validate(made.to_dict(), strict=True)
        assert made.value.startswith("ek_")
        for _ in range(2):  # one key may open several sessions
            session = await first_session(site.ws, made.value)
            assert session["instructions"] == "Be brief."
            assert session["audio"]["input"]["turn_detection"]["eagerness"] == "high"


async def test_a_key_alone_makes_no_further_keys_and_opens_nothing_else() -> None:
    async with serving(keys=(OURS,)) as site, openai(site.http) as client:
        made = await client.realtime.client_secrets.create()
        async with openai(site.http, made.value) as page:
            with pytest.raises(APIStatusError) as refused:
                await page.realtime.client_secrets.create()
        assert refused.value.status_code == 401


@pytest.mark.parametrize("key", ["ek_never_made", "ek_"])
@pytest.mark.parametrize("keys", [(OURS,), ()])
async def test_forged_keys_are_refused_with_and_without_server_keys(key: str, keys: tuple[str, ...]) -> None:
    async with serving(keys=keys) as site:
        with pytest.raises(InvalidStatus) as refused:
            await first_session(site.ws, key)
        assert refused.value.response.status_code == 401
        assert json.loads(refused.value.response.body)["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"expires_after": {"seconds": 5}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "later", "seconds": 50}}, "expires_after.anchor"),
        ({"session": {"type": "realtime", "instructions": 3}}, "session.instructions"),
        ({"session": {"type": "realtime", "tools": [{"type": "web_search"}]}}, "session.tools[0].type"),
        ({"session": {"type": "realtime", "tools": [MCP]}}, "session.tools"),
        ({"session": [1]}, "session"),
    ],
)
async def test_what_cannot_be_met_names_the_field(body: dict[str, Any], param: str) -> None:
    async with (
        serving() as site,
        aiohttp.ClientSession() as client,
        client.post(f"{site.http}/v1/realtime/client_secrets", json=body) as response,
    ):
        error = (await response.json())["error"]
    assert (response.status, error["param"]) == (400, param)


@pytest.mark.parametrize(
    "body", ["{", "[" * 100_000, "\ud800", '{"session":' + '{"a":' * 70 + "1" + "}" * 71]
)
async def test_broken_bodies_are_refused(body: str) -> None:
    async with serving() as site, aiohttp.ClientSession() as client:
        raw = body.encode(errors="surrogatepass")
        async with client.post(f"{site.http}/v1/realtime/client_secrets", data=raw) as response:
            assert response.status == 400
            assert (await response.json())["error"]["type"] == "invalid_request_error"


def test_keys_expire_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    keys = EphemeralKeys(lambda: now[0])
    first = keys.issue(seconds=10)
    assert keys.find(first.value) == first
    now[0] = 1010.0
    assert keys.find(first.value) is None
    monkeypatch.setattr(ephemeral, "MOST", 2)
    keys.issue(), keys.issue()
    with pytest.raises(CapacityError, match="ephemeral"):
        keys.issue()
    now[0] += ephemeral.DEFAULT_S  # the old ones make room
    keys.issue()


async def test_two_lines_of_configuration_make_it_speak_tls(tmp_path: Path) -> None:
    cert, key = map(str, certificate(tmp_path))
    engine = FakeEngine()
    await engine.start()
    server = Server(Config(server=ServerConfig(port=0, tls_cert=cert, tls_key=key)), engine)
    _, port = await server.start()
    trust = ssl.create_default_context(cafile=cert)
    try:
        async with connect(f"wss://localhost:{port}/v1/realtime?model=m", ssl=trust) as line:
            assert json.loads(await line.recv())["type"] == "session.created"
        async with aiohttp.ClientSession() as client:
            async with client.get(f"https://localhost:{port}/healthz", ssl=trust) as response:
                assert response.status == 200
            with pytest.raises(aiohttp.ClientError):
                await client.get(f"http://localhost:{port}/healthz")
    finally:
        await server.stop()
        await engine.stop()


async def test_half_a_certificate_and_a_wrong_pair_are_told(tmp_path: Path) -> None:
    cert, key = map(str, certificate(tmp_path))
    other = str(certificate(tmp_path, "other")[1])
    wrong = {
        "server.tls_key": ServerConfig(port=0, tls_cert=cert),
        "server.tls_cert": ServerConfig(port=0, tls_key=key),
        "cannot be used": ServerConfig(port=0, tls_cert=cert, tls_key=other),
        "does-not-exist": ServerConfig(port=0, tls_cert=str(tmp_path / "does-not-exist"), tls_key=key),
    }
    for words, config in wrong.items():
        with pytest.raises(ConfigError, match=words):
            await Server(Config(server=config), FakeEngine()).start()
