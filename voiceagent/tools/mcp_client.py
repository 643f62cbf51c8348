"""Connections to MCP servers through the official `mcp` package: their tools, and calls of them. Knows no session.

Imported only where an MCP server is named: the package is an extra, and takes most of a second to import.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import msgspec
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent, Tool

from voiceagent.errors import InputError
from voiceagent.tools.egress import BODY_BYTES, CONNECT_S, Guard, GuardedTransport
from voiceagent.tools.function import ToolError
from voiceagent.tools.mcp_config import McpServer
from voiceagent.tools.schema import brief

log = logging.getLogger("voiceagent.tools")

OPENING_S = 20.0  #: for a server to start, to shake hands and to list its tools
CLOSING_S = 5.0  #: for a server to say goodbye, or a program to exit
MAX_TOOLS = 128  #: of one server
MAX_PAGES = 16  #: of its list
MAX_SCHEMA_BYTES = 32 << 10
MAX_DESCRIPTION = 4096
CLOSED = -32000  #: the package's code for a connection that is gone
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class McpTool:
    """A tool as its server describes it."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    read_only: bool


class Connection:
    """One MCP server. All methods run on one loop, which is the tools'.

    Args:
        label: what the server is called here.
        server: where it is.
        guard: of an address that a session has named; None = the deployment's own, which may be anywhere.
    """

    def __init__(self, label: str, server: McpServer, *, guard: Guard | None = None) -> None:
        self._label, self._server, self._guard = label, server, guard
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._client: asyncio.Future[tuple[Client, tuple[McpTool, ...]]] | None = None

    async def tools(self) -> tuple[McpTool, ...]:
        """What it offers, as of its last beginning; connects if need be.

        Raises:
            ToolError: it cannot be reached, or does not answer.
        """
        return (await self._connected())[1]

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """What a tool returns, as text.

        Raises:
            ToolError: it failed, in the server's words, or the server is gone. The next call connects anew.
        """
        client, _ = await self._connected()
        try:
            result = await client.call_tool(name, arguments)
        except MCPError as error:
            if error.error.code == CLOSED:
                await self.close()
                raise _unreachable(self._label) from error
            raise ToolError(error.error.message[:1000]) from error
        text = _text(result)
        if result.is_error:
            raise ToolError(text or "The tool failed.")
        return text

    async def close(self) -> None:
        """Ends the connection, and the program behind it; a later call makes another."""
        task, self._task, self._client = self._task, None, None
        self._closing.set()
        if task is not None:
            _, late = await asyncio.wait([task], timeout=CLOSING_S)
            for each in late:  # a server that does not answer is not waited for
                each.cancel()

    async def _connected(self) -> tuple[Client, tuple[McpTool, ...]]:
        if self._client is None or self._task is None or self._task.done():
            self._closing = asyncio.Event()
            self._client = asyncio.get_running_loop().create_future()
            live = self._live(self._client, self._closing)
            self._task = asyncio.create_task(live, name=f"mcp {self._label}")
        return await asyncio.shield(self._client)

    async def _live(
        self, ready: asyncio.Future[tuple[Client, tuple[McpTool, ...]]], closing: asyncio.Event
    ) -> None:
        """Connects, and stays so until told: what the package opens has to be closed by the task that opened it."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(OPENING_S):
                    client = await stack.enter_async_context(Client(self._transport()))
                    tools = await _list(client)
                ready.set_result((client, tools))
                log.info("MCP server %s: %d tools", self._label, len(tools))
                await closing.wait()
        except Exception as error:  # whatever a program or an address of somebody else's does
            refused = _cause(error, InputError)
            told = ToolError(str(refused), code=refused.code) if refused else _unreachable(self._label)
            log.warning("MCP server %s: %s", self._label, refused or type(_innermost(error)).__name__)
            if not ready.done():
                ready.set_exception(told)
        finally:
            if not ready.done():
                ready.cancel()
            elif not ready.cancelled():
                ready.exception()  # whether or not anybody still waits for it

    def _transport(self) -> AbstractAsyncContextManager[Any]:
        server = self._server
        if server.url:
            return _http(server, self._guard)
        return stdio_client(
            StdioServerParameters(
                command=server.command, args=list(server.args), env=server.env or None, cwd=server.cwd
            )
        )


@asynccontextmanager
async def _http(server: McpServer, guard: Guard | None) -> AsyncIterator[Any]:
    transport = None if guard is None else GuardedTransport(guard)
    timeout = httpx2.Timeout(30.0, connect=CONNECT_S, read=300.0)
    async with (
        httpx2.AsyncClient(headers=server.headers, timeout=timeout, transport=transport) as client,
        streamable_http_client(server.url, http_client=client, max_sse_event_size=BODY_BYTES) as streams,
    ):
        yield streams


async def _list(client: Client) -> tuple[McpTool, ...]:
    """The tools, as far as a model can be told of them."""
    found: list[McpTool] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += [_described(tool) for tool in page.tools if _usable(tool)]
        cursor = page.next_cursor
        if cursor is None or len(found) >= MAX_TOOLS:
            break
    return tuple(found[:MAX_TOOLS])


def _usable(tool: Tool) -> bool:
    small = len(msgspec.json.encode(tool.input_schema)) <= MAX_SCHEMA_BYTES
    if not small or _NAME.fullmatch(tool.name) is None:
        log.warning("an MCP tool is passed over: its name or its schema cannot be used")
        return False
    return True


def _described(tool: Tool) -> McpTool:
    read_only = tool.annotations is not None and bool(tool.annotations.read_only_hint)
    return McpTool(tool.name, (tool.description or "")[:MAX_DESCRIPTION], brief(tool.input_schema), read_only)


def _text(result: CallToolResult) -> str:
    """The result in words: JSON without the spaces that people like and models pay for."""
    parts = [part.text if isinstance(part, TextContent) else f"[{part.type}]" for part in result.content]
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    text = "\n".join(parts)
    if text[:1] in ("{", "["):
        with contextlib.suppress(ValueError):
            return json.dumps(json.loads(text), ensure_ascii=False)
    return text


def _unreachable(label: str) -> ToolError:
    return ToolError(f"The tool server {label} cannot be reached now.", code="mcp_server_unreachable")


def _cause(error: BaseException, kind: type[InputError]) -> InputError | None:
    """The error of this kind among those that led to one, and among those of a group."""
    seen: list[BaseException | None] = [error]
    for each in seen:
        if isinstance(each, kind):
            return each
        if each is not None and len(seen) < 64:
            seen += [each.__cause__, each.__context__, *(getattr(each, "exceptions", None) or ())]
    return None


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
