import pytest

from voiceagent.config import ServerConfig
from voiceagent.errors import ConfigError
from voiceagent.server.auth import Gatekeeper, Refused, is_loopback

LOCAL = Gatekeeper(ServerConfig())
PUBLIC = Gatekeeper(
    ServerConfig(host="0.0.0.0", api_keys=("k1", "k2"), allowed_origins=("https://shop.example",))
)
KEY = {"Authorization": "Bearer k2", "Host": "voice.example:8080"}


def code(gate: Gatekeeper, headers: dict[str, str], *subprotocols: str) -> str:
    try:
        gate.check(headers, subprotocols=subprotocols)
    except Refused as refused:
        return refused.code
    return "ok"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_no_open_door_off_loopback() -> None:
    with pytest.raises(ConfigError, match="API_KEYS"):
        Gatekeeper(ServerConfig(host="0.0.0.0"))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Host": "127.0.0.1:8080"}, "ok"),
        ({"Host": "localhost:8080", "Origin": "http://localhost:8080"}, "ok"),
        ({"Host": "[::1]:8080"}, "ok"),
        ({"Host": "evil.example:8080"}, "forbidden_host"),
        ({"Host": ""}, "forbidden_host"),
        ({"Host": "127.0.0.1:8080", "Origin": "http://evil.example"}, "forbidden_origin"),
        ({"Host": "127.0.0.1:8080", "Origin": "null"}, "forbidden_origin"),
        ({"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:8080.evil.example"}, "forbidden_origin"),
        ({"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:9090"}, "forbidden_origin"),
    ],
)
def test_loopback_origin_matrix(headers: dict[str, str], expected: str) -> None:
    assert code(LOCAL, headers) == expected


@pytest.mark.parametrize(
    ("headers", "subprotocols", "expected"),
    [
        (KEY, (), "ok"),
        ({"Host": "h"}, ("realtime", "openai-insecure-api-key.k1"), "ok"),
        ({"Host": "h"}, ("realtime",), "invalid_api_key"),
        ({"Host": "h", "Authorization": "Bearer k"}, (), "invalid_api_key"),
        ({"Host": "h", "Authorization": "Basic k1"}, (), "invalid_api_key"),
        ({"Host": "h", "Authorization": "Bearer "}, (), "invalid_api_key"),
        ({**KEY, "Origin": "https://shop.example"}, (), "ok"),
        ({**KEY, "Origin": "https://shop.example.evil.example"}, (), "forbidden_origin"),
        ({**KEY, "Origin": "https://voice.example:8080"}, (), "ok"),
    ],
)
def test_key_and_origin_matrix(headers: dict[str, str], subprotocols: tuple[str, ...], expected: str) -> None:
    assert code(PUBLIC, headers, *subprotocols) == expected


def test_refusals_do_not_echo_keys() -> None:
    with pytest.raises(Refused) as refused:
        PUBLIC.check({"Host": "h", "Authorization": "Bearer wrong-key"})
    assert not any(key in str(refused.value) for key in ("k1", "k2", "wrong-key"))
