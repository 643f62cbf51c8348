"""No address inside the house is reached, however it is written, resolved or redirected to (OWASP's SSRF vectors)."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2
import pytest

from voiceagent.errors import InputError
from voiceagent.tools.egress import ANY, BODY_BYTES, Guard, GuardedTransport

PUBLIC = "93.184.216.34"
INSIDE = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "192.0.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::", "2001:0:0:0:0:0:80ff:fffe", "fe80::1", "fc00::1",
    "fd00:ec2::254", "ff02::1", "2001:db8::1", "100::1",
]  # fmt: skip
FORBIDDEN_URLS = [
    "http://tools.example.com/mcp", "ftp://tools.example.com/", "file:///etc/passwd", "gopher://127.0.0.1:25/",
    "dict://x/", "https://", "https:///x", "//tools.example.com", "https://user@tools.example.com/mcp",
    "https://tools.example.com@127.0.0.1/", "https://tools.example.com\\@127.0.0.1/mcp", "https://[::1/", "https://x:99999/",
    "https://tools.example.com:70000/", "javascript:alert(1)", "", "https://[fe80::1%25eth0]/", "data:text/plain,x",
]  # fmt: skip


class Wire(httpx2.AsyncBaseTransport):
    """What would have been connected to; answers with what it is given."""

    def __init__(self, *answers: httpx2.Response) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.answers = list(answers)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        sni = request.extensions.get("sni_hostname")
        self.requests.append((str(request.url), request.headers["host"], sni))
        return self.answers.pop(0) if self.answers else httpx2.Response(200, text="hello")


def guard(*answers: Sequence[str], servers: Sequence[str] = (ANY,), private: Sequence[str] = ()) -> Guard:
    """A guard whose resolver gives these answers one after the other, the last one for ever."""
    given = list(answers)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return given.pop(0) if len(given) > 1 else given[0]

    return Guard(servers, private=private, resolve=resolve)


def client(found: Guard, wire: Wire) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=GuardedTransport(found, wire))


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_not_allowed(address: str) -> None:
    assert not Guard([ANY]).allowed(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", [PUBLIC, "2606:2800:220:1::1", "::ffff:93.184.216.34", "2002:5db8:d822::"]
)
def test_public_ones_are(address: str) -> None:
    assert Guard([ANY]).allowed(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_networks_that_are_configured_are(address: str) -> None:
    assert Guard([ANY], private=["127.0.0.0/8"]).allowed(ipaddress.ip_address(address))
    assert not Guard([ANY], private=["10.0.0.0/8"]).allowed(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", INSIDE)
async def test_no_request_goes_inside_whatever_the_name_is(address: str) -> None:
    wire = Wire()
    async with client(guard([PUBLIC, address]), wire) as web:
        with pytest.raises(InputError, match="private"):
            await web.get("https://tools.example.com/mcp")
    assert wire.requests == []


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "2130706433",
        "0177.0.0.1",
        "0x7f.1",
        "127.1",
        "localhost",
        "[::1]",
        "[::ffff:7f00:1]",
        "0",
    ],
)
async def test_the_ways_to_write_loopback_are_all_found_out(host: str) -> None:
    """With the system's resolver, which knows them all."""
    wire = Wire()
    async with client(Guard([ANY]), wire) as web:
        with pytest.raises((InputError, httpx2.InvalidURL)):
            await web.get(f"https://{host}/mcp")
    assert wire.requests == []


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    """A name that answers otherwise the second time (DNS rebinding) is not asked a second time, or refused."""
    wire = Wire()
    async with client(guard([PUBLIC], ["127.0.0.1"]), wire) as web:
        await web.get("https://tools.example.com/mcp")
        with pytest.raises(InputError, match="private"):
            await web.get("https://tools.example.com/mcp")
    assert wire.requests == [(f"https://{PUBLIC}/mcp", "tools.example.com", "tools.example.com")]


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://127.0.0.1/",
        "https://evil.example.com/",
        "file:///x",
    ],
)
async def test_redirects_are_checked_like_requests(location: str) -> None:
    wire = Wire(httpx2.Response(307, headers={"location": location}))
    found = guard([PUBLIC], ["127.0.0.1"], servers=["https://tools.example.com"])
    async with client(found, wire) as web:
        with pytest.raises((InputError, httpx2.UnsupportedProtocol)):
            await web.get("https://tools.example.com/mcp", follow_redirects=True)
    assert len(wire.requests) == 1


@pytest.mark.parametrize("url", FORBIDDEN_URLS)
def test_other_addresses_than_https_are_refused(url: str) -> None:
    with pytest.raises(InputError):
        Guard([ANY]).check_url(url)


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://tools.example.com/a/mcp", True),
        ("https://TOOLS.example.com:443/a", True),
        ("https://tools.example.com/ab", False),
        ("https://tools.example.com/a/../b", False),
        ("https://tools.example.com/b", False),
        ("https://tools.example.com:444/a", False),
        ("http://tools.example.com/a", False),
        ("https://tools.example.com.evil.org/a", False),
        ("https://evil.org/?https://tools.example.com/a", False),
        ("https://evil.org#https://tools.example.com/a", False),
        ("http://10.1.2.3:9000/mcp", True),
    ],
)
def test_only_servers_that_are_listed_may_be_named(url: str, good: bool) -> None:
    found = Guard(["https://tools.example.com/a", "http://10.1.2.3:9000"])
    if good:
        found.check_url(url)
    else:
        with pytest.raises(InputError):
            found.check_url(url)
    with pytest.raises(InputError):
        Guard([]).check_url(url)


async def flood() -> AsyncIterator[bytes]:
    for _ in range(BODY_BYTES // 65_536 + 1):
        yield bytes(65_536)


@pytest.mark.parametrize(
    ("headers", "cut"),
    [({}, True), ({"content-type": "text/event-stream"}, False), ({"content-encoding": "gzip"}, True)],
)
async def test_an_answer_without_end_is_cut(headers: dict[str, str], cut: bool) -> None:
    """Of a stream of events, which lasts, the client bounds each event."""
    async with client(guard([PUBLIC]), Wire(httpx2.Response(200, headers=headers, content=flood()))) as web:
        if cut:
            with pytest.raises(httpx2.ReadError):
                await web.get("https://tools.example.com/mcp")
        else:
            assert len((await web.get("https://tools.example.com/mcp")).content) > BODY_BYTES


async def test_a_name_without_an_address_is_an_error_in_our_words() -> None:
    async with client(guard([]), Wire()) as web:
        with pytest.raises(InputError, match="private"):
            await web.get("https://tools.example.com/mcp")
    with pytest.raises(InputError, match="no address"):
        await Guard([ANY]).address("nowhere.invalid", 443)
