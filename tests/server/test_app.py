"""Everything before and around a call: the page, health, who is let in, starting and stopping."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re

import aiohttp
import pytest
from server_helpers import PATIENCE_S, Caller, Site, calling, eventually, serving
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from voiceagent.config import Config, ServerConfig
from voiceagent.engine.fake_engine import FakeEngine
from voiceagent.errors import ConfigError
from voiceagent.server.app import Server

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


async def get(
    site: Site, path: str, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], str]:
    async with (
        aiohttp.ClientSession() as client,
        client.get(site.http + path, headers=headers) as response,
    ):
        return response.status, dict(response.headers), await response.text()


async def refused(site: Site, headers: dict[str, str] | None = None, protocols: tuple[str, ...] = ()) -> str:
    """Status and code of a refused handshake, "ok" if it is let in."""
    try:
        async with connect(site.ws, additional_headers=headers, subprotocols=protocols or None):  # type: ignore[arg-type]
            return "ok"
    except InvalidStatus as error:
        body = json.loads(error.response.body)
        assert set(body["error"]) == {"type", "code", "message", "param"}
        return f"{error.response.status_code} {body['error']['code']}"


async def test_the_openapi_document_names_every_plain_route() -> None:
    async with serving() as site:
        document = json.loads((await get(site, "/openapi.json"))[2])
        assert site.server._runner is not None
        routes = {
            (route.resource.canonical, route.method.lower())
            for route in site.server._runner.app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    sockets = {"/v1/realtime", "/v1/realtime/translations", "/v1/live/sessions"}
    assert described == {r for r in routes if r[0].startswith(("/v1/", "/metrics")) and r[0] not in sockets}
    text = json.dumps(document)
    for name in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert name in document["components"]["schemas"]


# --- the page and the plain requests ------------------------------------------------------------------------------


async def test_the_page_and_its_files_are_served_with_their_guards() -> None:
    async with serving() as site:
        status, headers, text = await get(site, "/")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "<html" in text
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        status, headers, _ = await get(site, "/web/app.js")
        assert (status, headers["Content-Type"]) == (200, "text/javascript; charset=utf-8")


@pytest.mark.parametrize(
    "path",
    [
        "/web/nothing.js",
        "/web/..%2Fpyproject.toml",
        "/web/%2Fetc%2Fpasswd",
        "/web/..%2Fvoiceagent%2Fassets%2Fa.png",
        "/web/%00.js",
        "/web/",
        "/favicon.ico",
        "/v1/nothing",
    ],
)
async def test_nothing_else_is_served(path: str) -> None:
    async with serving() as site:
        status, _, _ = await get(site, path)
        assert status == 404


async def test_health_models_and_readiness() -> None:
    async with serving(FakeEngine(max_sessions=1)) as site:
        assert (await get(site, "/healthz"))[0] == 200
        status, headers, text = await get(site, "/readyz")
        assert (status, json.loads(text)) == (503, {"status": "loading"})
        assert "Retry-After" in headers
        assert json.loads((await get(site, "/v1/models"))[2]) == {"object": "list", "data": []}
        assert await refused(site) == "503 engine_down"
        await site.engine.start()
        assert json.loads((await get(site, "/readyz"))[2])["status"] == "ready"
        (model,) = json.loads((await get(site, "/v1/models"))[2])["data"]
        assert (model["id"], model["object"]) == ("fake", "model")
        assert json.loads((await get(site, "/v1/models/fake"))[2]) == model
        status, _, text = await get(site, "/v1/models/other")
        assert (status, json.loads(text)["error"]["code"]) == (404, "model_not_found")
        async with calling(site):
            assert json.loads((await get(site, "/readyz"))[2]) == {"status": "full"}
            assert await refused(site) == "503 overloaded"
        await eventually(lambda: not site.engine.sessions)  # the slot comes back with the hang-up
        async with calling(site):
            pass
        await site.engine.stop()


async def test_a_storm_on_a_full_server_is_refused_and_the_call_goes_on() -> None:
    engine = FakeEngine(max_sessions=1)
    await engine.start()
    async with serving(engine) as site, calling(site) as caller:
        await caller.manual()
        answers = await asyncio.gather(caller.ask("hello"), *(refused(site) for _ in range(100)))
        assert answers[0].status == "completed"
        assert set(answers[1:]) == {"503 overloaded"}
    await engine.stop()


async def test_the_socket_address_speaks_websocket_only() -> None:
    async with serving() as site:
        status, _, text = await get(site, "/v1/realtime")
        assert (status, json.loads(text)["error"]["code"]) == (426, "upgrade_required")
        assert (await get(site, "/v1/realtime", {**UPGRADE, "Sec-WebSocket-Key": "short"}))[0] == 426
        assert not site.engine.sessions


# --- who is let in --------------------------------------------------------------------------------------------------


async def test_keys_origins_and_hosts_before_the_upgrade() -> None:
    async with serving(keys=("k1", "k2")) as site:
        key = {"Authorization": "Bearer k2"}
        by_protocol = ("realtime", "openai-insecure-api-key.k1", "openai-beta.realtime-v1")
        assert await refused(site) == "401 invalid_api_key"
        assert await refused(site, {"Authorization": "Bearer no"}) == "401 invalid_api_key"
        assert await refused(site, protocols=("realtime",)) == "401 invalid_api_key"
        assert await refused(site, {**key, "Origin": "http://evil.example"}) == "403 forbidden_origin"
        assert await refused(site, {**key, "Origin": "null"}) == "403 forbidden_origin"
        assert not site.engine.sessions
        assert await refused(site, key) == "ok"
        assert await refused(site, {**key, "Origin": site.http}) == "ok"
        assert await refused(site, protocols=by_protocol) == "ok"  # type: ignore[arg-type]
        status, headers, text = await get(site, "/v1/models")
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "k1" not in text
        assert (await get(site, "/v1/models", key))[0] == 200
        for path in ("/", "/web/app.js", "/healthz", "/readyz"):  # no secret there
            assert (await get(site, path))[0] == 200
        assert (await get(site, "/", {"Host": "evil.example"}))[0] == 403


async def test_the_subprotocol_is_chosen_when_it_is_offered() -> None:
    async with serving() as site:
        async with connect(site.ws, subprotocols=["realtime", "openai-insecure-api-key.x"]) as socket:  # type: ignore[list-item]
            assert socket.subprotocol == "realtime"
        async with connect(site.ws) as socket:
            assert socket.subprotocol is None


async def test_any_model_name_is_taken_and_echoed() -> None:
    async with serving() as site:
        for query, shown in (("?model=gpt-realtime", "gpt-realtime"), ("", "fake"), ("?model=", "fake")):
            async with connect(f"ws://127.0.0.1:{site.port}/v1/realtime{query}") as socket:
                created = await Caller(socket).next()
                assert (created["type"], created["session"]["model"]) == ("session.created", shown)


# --- sockets that say little -----------------------------------------------------------------------------------------


async def until_hung_up(site: Site, *, first: bytes) -> bytes:
    """Sends `first` and then, if that was not empty, a byte at a time; what the server had sent when it hung up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)

    async def drip() -> None:
        with contextlib.suppress(ConnectionError):
            while first:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)

    writer.write(first)
    dripping = asyncio.create_task(drip())
    try:
        async with asyncio.timeout(PATIENCE_S):
            received = b""
            with contextlib.suppress(ConnectionError):
                while chunk := await reader.read(4096):
                    received += chunk
        return received
    finally:
        dripping.cancel()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_request_that_drips_in_is_cut_off() -> None:
    async with serving(handshake_s=0.3) as site:
        assert await until_hung_up(site, first=b"GET /v1/realtime HTTP/1.1\r\nHost: local") == b""
        assert await until_hung_up(site, first=b"") == b""


async def test_a_second_request_cannot_drip_in_either() -> None:
    async with serving(handshake_s=0.3) as site:
        for path in (b"/healthz", b"/nothing"):
            first = b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\nGET /"
            received = await until_hung_up(site, first=first)
            assert received.count(b"HTTP/1.1 ") == 1


async def test_a_call_outlives_the_handshake_time() -> None:
    async with serving(handshake_s=0.1) as site, calling(site) as caller:
        await asyncio.sleep(0.3)
        await caller.manual()
        assert (await caller.ask("hello")).text == "You said: hello"


# --- start and stop ---------------------------------------------------------------------------------------------------


async def test_a_port_in_use_is_named_with_a_remedy() -> None:
    async with serving() as site:
        with pytest.raises(ConfigError, match=str(site.port)) as caught:
            async with serving(port=site.port):
                pass
        assert caught.value.code == "port_in_use"
        assert "--port" in str(caught.value)
        async with calling(site):
            pass


async def test_an_address_of_another_machine_is_refused() -> None:
    engine = FakeEngine()
    server = Server(Config(server=ServerConfig(host="192.0.2.1", port=0, api_keys=("k",))), engine)
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        await server.start()


async def test_stopping_tells_every_call_and_frees_the_port() -> None:
    async with serving() as site:
        callers = [await stack_call(site) for _ in range(3)]
        await callers[0].manual(lead_ms=20)
        await callers[0].say("a long answer")
        await callers[0].until("response.output_audio.delta")
        await site.server.stop()
        for caller in callers:
            assert await caller.closed() == (1012, "server is stopping")
            await caller.socket.close()
        assert not site.engine.sessions
        async with serving(port=site.port) as again, calling(again) as caller:
            await caller.manual()
            assert (await caller.ask("hi")).text == "You said: hi"


async def stack_call(site: Site) -> Caller:
    caller = Caller(await connect(site.ws))
    await caller.next()
    return caller
