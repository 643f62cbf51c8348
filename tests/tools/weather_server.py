"""A real MCP server of the official package, for tests: over stdio, or on a loopback port that it prints."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations

app = MCPServer("weather")


@app.tool(annotations=ToolAnnotations(read_only_hint=True))
def get_weather(city: str) -> dict[str, Any]:
    """Current weather in a city."""
    return {"weather": "sunny", "temperature": 20, "city": city}


@app.tool()
def break_down() -> str:
    """Always fails."""
    raise ValueError("a secret of the server's")


@app.tool()
def talk_for_ever() -> str:
    """More than anybody wants to hear."""
    return "word " * 20_000


@app.tool()
async def vanish() -> str:
    """Takes the server with it."""
    os._exit(3)


@contextmanager
def on_loopback() -> Iterator[str]:
    """The server in a thread of this process; gives its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app.streamable_http_app(), log_level="critical", ws="none", loop="asyncio")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


STDIO = {"command": sys.executable, "args": [str(Path(__file__).resolve())]}

if __name__ == "__main__":
    app.run("stdio")
