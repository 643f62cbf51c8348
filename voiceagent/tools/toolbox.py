"""All tools of a deployment, functions and MCP servers alike, and how a call of one is run. It knows no session.

Everything runs on the host's loop: a tool that fails, blocks or hangs is felt by nobody but who called it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.metadata
import inspect
import logging
import re
import sys
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from voiceagent.config import ToolsConfig
from voiceagent.core.options import Filler, ServerTool, Tool
from voiceagent.errors import ConfigError, InputError
from voiceagent.tools.function import TIMEOUT_S, Function, ToolError, tool
from voiceagent.tools.host import Host
from voiceagent.tools.mcp_config import McpServer, read
from voiceagent.tools.schema import fault

if TYPE_CHECKING:
    from voiceagent.tools.mcp_client import Connection, McpTool

log = logging.getLogger("voiceagent.tools")

GROUP = "voiceagent.tools"  #: of entry points
FUNCTIONS = "server"  #: the label of Python functions
AGAIN_S = (1.0, 5.0, 30.0, 60.0)  #: between attempts to reach an MCP server of the deployment's

Call = Callable[[dict[str, Any], str], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool that sessions may use.

    Attributes:
        tool: as the model sees it.
        call: takes the arguments and the session's name; on the host's loop.
        timeout_s: how long it may take.
    """

    tool: Tool
    call: Call
    timeout_s: float = TIMEOUT_S

    @property
    def server(self) -> ServerTool:
        """How the server runs it."""
        assert self.tool.server is not None
        return self.tool.server


class Toolbox:
    """The tools of one server.

    Args:
        config: which there are.
    """

    def __init__(self, config: ToolsConfig) -> None:
        self._config = config
        self._host = Host()
        self._functions: tuple[Offer, ...] = ()
        self._connections: dict[str, Connection] = {}
        self._listed: dict[str, tuple[Offer, ...]] = {}
        self._opening: list[asyncio.Task[None]] = []

    @property
    def offers(self) -> dict[str, Offer]:
        """What every session may use, by the model's name for it, as of now."""
        found: dict[str, Offer] = {offer.tool.name: offer for offer in self._functions}
        for offers in self._listed.values():
            found.update((offer.tool.name, offer) for offer in renamed(offers, taken=found))
        return found

    async def start(self) -> None:
        """Loads the functions, and begins to connect to the MCP servers, which may take as long as they like.

        Raises:
            ConfigError: a function cannot be found or described, or the file of MCP servers cannot be used.
        """
        functions = [self._function(made) for made in load(self._config.functions)]
        self._functions = tuple(renamed(functions, taken=()))
        if self._config.session_servers:
            _mcp_client("tools.session_servers")  # imported now, for it would hold up every call later
        if not self._config.mcp_servers:
            return
        servers = read(Path(self._config.mcp_servers))
        client = _mcp_client("tools.mcp_servers") if servers else None
        for label, server in servers.items():
            assert client is not None
            if label == FUNCTIONS:
                raise ConfigError(f"An MCP server cannot be called {label!r}.", param="tools.mcp_servers")
            self._connections[label] = client.Connection(label, server)
            self._opening.append(asyncio.create_task(self._keep_open(label, server), name=f"tools {label}"))

    async def ready(self) -> None:
        """Until every MCP server has listed its tools."""
        await asyncio.gather(*self._opening)

    async def stop(self) -> None:
        """Ends everything, programs of MCP servers included."""
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(8.0):
                await asyncio.gather(*(self.disconnect(each) for each in self._connections.values()))
        await self._host.stop()

    async def _keep_open(self, label: str, server: McpServer) -> None:
        connection, attempt = self._connections[label], 0
        while label not in self._listed:
            try:
                tools = await self._host.run(connection.tools)
                self._listed[label] = tuple(mcp_offers(label, server, connection, tools))
            except ToolError:
                await asyncio.sleep(AGAIN_S[min(attempt, len(AGAIN_S) - 1)])
                attempt += 1

    # --- a call -----------------------------------------------------------------------------------------------

    async def run(self, offer: Offer, arguments: str, *, owner: str, limit: int) -> str:
        """What a call returns, as the model is told it.

        Args:
            offer: the tool.
            arguments: JSON text, as the model wrote it.
            owner: name of the session.
            limit: most bytes that the result may have.

        Raises:
            ToolError: it failed, in words for the model.
        """
        try:
            given = msgspec.json.decode(arguments or "{}")
        except msgspec.DecodeError as error:
            raise ToolError("The arguments are not valid JSON.") from error
        if not isinstance(given, dict):
            raise ToolError("The arguments must be a JSON object.")
        try:
            async with asyncio.timeout(offer.timeout_s):
                result = await self._host.run(partial(_call, offer, given, owner))
        except TimeoutError as error:
            raise ToolError(f"It took longer than {offer.timeout_s:g} s, and was given up.") from error
        if len(result.encode(errors="replace")) > limit:
            raise ToolError(f"The result is longer than the {limit} bytes that there is room for.")
        return result

    def _function(self, made: Function) -> Offer:
        filler = None if made.filler is None else Filler(made.filler, self._config.filler_after_ms)
        server = ServerTool(
            FUNCTIONS, made.name, background=made.background, approval=made.confirm, filler=filler
        )
        shown = Tool(made.name, made.description, made.parameters, server)
        return Offer(shown, partial(self._run_function, made), made.timeout_s)

    async def _run_function(self, made: Function, given: dict[str, Any], owner: str) -> Any:
        arguments = made.convert(given)
        if inspect.iscoroutinefunction(made.run):
            return await made.run(**arguments)
        result = await self._host.in_thread(made.run, arguments, owner=owner)
        return await result if inspect.isawaitable(result) else result

    # --- servers of a session ---------------------------------------------------------------------------------

    def connect(self, label: str, url: str, authorization: str | None) -> Connection:
        """A connection for one session to a server that it has named.

        Raises:
            InputError: the address may not be used.
        """
        if not self._config.session_servers:
            raise InputError(
                "Sessions may not use tool servers of their own here.",
                code="mcp_server_not_allowed",
                remedy="The deployment has to allow it (tools.session_servers).",
            )
        client = _mcp_client("tools.session_servers")
        from voiceagent.tools.egress import Guard  # behind the check that the package is there

        guard = Guard(self._config.session_servers, private=self._config.private_networks)
        guard.check_url(url)
        headers = {} if authorization is None else {"Authorization": f"Bearer {authorization}"}
        made: Connection = client.Connection(label, McpServer(url=url, headers=headers), guard=guard)
        return made

    async def tools_of(self, connection: Connection, label: str) -> tuple[Offer, ...]:
        """What such a connection offers; `ToolError` if it cannot be reached."""
        tools = await self._host.run(connection.tools)
        return tuple(mcp_offers(label, McpServer(), connection, tools))

    async def disconnect(self, connection: Connection) -> None:
        """Ends a connection."""
        await self._host.run(connection.close)


async def _call(offer: Offer, given: dict[str, Any], owner: str) -> str:
    """Runs a tool; nothing but a ToolError leaves."""
    try:
        result = await offer.call(given, owner)
        return result if isinstance(result, str) else msgspec.json.encode(result).decode()
    except ToolError:
        raise
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # anything at all, and an exit of a tool's is none of the server's
        log.exception("the tool %s failed", offer.tool.name)
        raise ToolError("The tool failed.") from error


def mcp_offers(
    label: str, server: McpServer, connection: Connection, tools: Iterable[McpTool]
) -> Iterator[Offer]:
    """What an MCP server offers, as far as the deployment allows it."""
    filler = None if server.filler is None else Filler(server.filler)
    for each in tools:
        if server.tools is not None and each.name not in server.tools:
            continue
        how = ServerTool(
            label,
            each.name,
            background=each.name in server.background,
            approval=each.name in server.confirm,
            read_only=each.read_only,
            filler=filler,
        )
        shown = Tool(each.name, each.description, each.parameters, how)
        yield Offer(shown, partial(_run_mcp, connection, each), server.timeout_s)


async def _run_mcp(connection: Connection, each: McpTool, given: dict[str, Any], _: str) -> str:
    wrong = fault(given, each.parameters)
    if wrong is not None:
        raise ToolError(wrong)
    return await connection.call(each.name, given)


def renamed(offers: Iterable[Offer], *, taken: Collection[str]) -> Iterator[Offer]:
    """The offers under names that no other tool has: one that is taken gets its label in front, or a number behind."""
    known = set(taken)
    for offer in offers:
        name = usual = offer.tool.name
        if name in known:
            name = usual = re.sub(r"[^A-Za-z0-9_-]", "_", f"{offer.server.label}_{name}")[:60]
        number = 1
        while name in known:
            number += 1
            name = f"{usual}_{number}"
        known.add(name)
        same = name == offer.tool.name
        yield (
            offer
            if same
            else Offer(
                Tool(name, offer.tool.description, offer.tool.parameters, offer.server),
                offer.call,
                offer.timeout_s,
            )
        )


def load(names: Iterable[str]) -> list[Function]:
    """The functions that a configuration names.

    Args:
        names: MODULE:NAME, the name of an entry point in the group `voiceagent.tools`, or `*` for all of those. Modules
            are looked for in the current folder too.

    Raises:
        ConfigError: one cannot be found or described, or is no function.
    """
    entries = {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    found: list[Function] = []
    for name in [each for given in names for each in (sorted(entries) if given == "*" else [given])]:
        try:
            made = entries[name].load() if name in entries else _imported(name)
        except Exception as error:  # an import runs anything
            raise ConfigError(
                f"The tool {name!r} cannot be loaded: {type(error).__name__}: {error}.",
                remedy="Give MODULE:FUNCTION, or the name of an installed entry point.",
                param="tools.functions",
            ) from error
        if not callable(made):
            raise ConfigError(f"The tool {name!r} is no function.", param="tools.functions")
        found.append(made if isinstance(made, Function) else tool(made))
    return found


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _mcp_client(param: str) -> Any:
    try:
        return importlib.import_module("voiceagent.tools.mcp_client")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "MCP servers need the package mcp, which is not installed.",
            code="mcp_unavailable",
            remedy="pip install 'voiceagent[mcp]'",
            param=param,
        ) from error
