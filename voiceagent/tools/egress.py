"""Which addresses a tool may reach that somebody else has named: never one inside the house. Opens no connection.

A name is resolved once for each request, all that it resolves to is checked, and the connection goes to what was
checked: a second answer of the DNS (rebinding) is never asked for. Redirects are requests like others.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from urllib.parse import urlsplit

import httpx2

from voiceagent.errors import InputError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

CONNECT_S = 5.0
BODY_BYTES = 1 << 20  #: of an answer; of a stream of events, of each event
ANY = "*"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PORTS = {"http": 80, "https": 443}


class Guard:
    """What a session may reach.

    Args:
        servers: beginnings of addresses that may be named, `*` = every one that is public and encrypted.
        private: networks in which they may lie although they are not public.
        resolve: addresses of a host; the system's resolver.
    """

    def __init__(
        self, servers: Sequence[str], *, private: Sequence[str] = (), resolve: Resolve | None = None
    ) -> None:
        self._servers = tuple(servers)
        self._private = tuple(ipaddress.ip_network(network) for network in private)
        self._resolve = resolve or _system

    def check_url(self, url: str) -> None:
        """Whether a session may name this address at all; nothing is resolved.

        Raises:
            InputError: it may not, or it is no address of the web.
        """
        try:
            given = urlsplit(url)
            port, host = given.port, given.hostname
        except ValueError:
            port, host, given = None, None, urlsplit("")
        if given.scheme not in _PORTS or not host or given.username is not None or "\\" in url or "%" in host:
            raise InputError(
                "This is not an http or https address of a server.",
                code="invalid_value",
                remedy="Give one such as https://tools.example.com/mcp, without a user in it.",
            )
        wanted = (given.scheme, host, port or _PORTS[given.scheme])
        for server in self._servers:
            if server == ANY:
                if given.scheme == "https":
                    return
                continue
            known = urlsplit(server)
            path = known.path.rstrip("/")
            beneath = given.path == path or given.path.startswith(f"{path}/") or (not path and not given.path)
            straight = not {".", ".."} & set(given.path.split("/"))
            same = (known.scheme, known.hostname, known.port or _PORTS.get(known.scheme))
            if same == wanted and beneath and straight:
                return
        raise InputError(
            "Sessions may not use tools of that server.",
            code="mcp_server_not_allowed",
            remedy="Name one that the deployment allows (tools.session_servers).",
        )

    async def address(self, host: str, port: int) -> str:
        """The checked address to connect to.

        Raises:
            InputError: the host has none, or one that is not public.
        """
        try:
            found = [ipaddress.ip_address(text.partition("%")[0]) for text in await self._resolve(host, port)]
        except (OSError, ValueError, UnicodeError) as error:
            raise InputError(f"{host[:64]} has no address.", code="mcp_server_unreachable") from error
        if not found or not all(map(self.allowed, found)):  # one private address among them is one too many
            raise InputError(
                "The address lies inside a private network, or has no meaning outside of one.",
                code="private_address",
                remedy="Use a public address, or allow the network (tools.private_networks).",
            )
        return str(found[0])

    def allowed(self, address: Address) -> bool:
        """Whether an address may be reached."""
        inner = _inside(address)
        if any(each in network for network in self._private for each in {address, inner}):
            return True
        return all(each.is_global and not each.is_multicast for each in (address, inner))


def _inside(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if it does for any."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if int(address) < 1 << 32:
        return ipaddress.IPv4Address(int(address))
    teredo = None if address.teredo is None else address.teredo[1]
    found = [each for each in (address.ipv4_mapped, address.sixtofour, teredo) if each is not None]
    return found[0] if found else address


async def _system(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Carries requests to checked addresses only, and bounds their answers.

    Args:
        guard: checks them.
        inner: carries what was checked; a plain transport.
    """

    def __init__(self, guard: Guard, inner: httpx2.AsyncBaseTransport | None = None) -> None:
        self._guard = guard
        self._inner = inner or httpx2.AsyncHTTPTransport(trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """As `httpx2.AsyncBaseTransport`.

        Raises:
            InputError: an address that may not be reached.
        """
        url = request.url
        self._guard.check_url(str(url))
        address = await self._guard.address(url.host, url.port or _PORTS[url.scheme])
        # The Host header was made of the name already; TLS has to be told.
        request.extensions = {**request.extensions, "sni_hostname": url.host}
        request.headers["Accept-Encoding"] = (
            "identity"  # a bound on what comes is then one on what it unpacks to
        )
        request.url = url.copy_with(host=address)
        try:
            response = await self._inner.handle_async_request(request)
        finally:
            request.url = url
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise httpx2.ReadError("The answer is packed, which was not asked for.")
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Bounded(response.stream)
        return response

    async def aclose(self) -> None:
        """As `httpx2.AsyncBaseTransport`."""
        await self._inner.aclose()


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        taken = 0
        async for part in self._stream:
            taken += len(part)
            if taken > BODY_BYTES:
                raise httpx2.ReadError("The answer is too long.")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
