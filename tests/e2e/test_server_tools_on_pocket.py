"""The front desk's weather, run by the server: asked aloud, answered aloud, and bridged by words when it takes long."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest_asyncio
from openai_caller import OUR_EVENTS, RATE, Caller, calling, plain, questions
from pocket_tools import answer_now

from voiceagent.config import Config, ServerConfig, ToolsConfig
from voiceagent.engine.client import LocalEngine
from voiceagent.engine.pipe import WorkerSpec
from voiceagent.server.app import Server

MCP_SERVER = Path(__file__).resolve().parent.parent / "tools" / "weather_server.py"
WEATHER = questions()["weather"]
OUR_EVENTS |= {"server_tool.called", "server_tool.returned"}


@pytest_asyncio.fixture
async def engine(pocket_dir: Path) -> AsyncIterator[LocalEngine]:
    spec = WorkerSpec(model=str(pocket_dir), name="pocket", voices=str(pocket_dir), max_sessions=2)
    engine = LocalEngine(spec, hang_s=30.0, load_s=300.0)
    await engine.start()
    yield engine
    await engine.stop()


@asynccontextmanager
async def a_call(engine: LocalEngine, tools: ToolsConfig) -> AsyncIterator[Caller]:
    server = Server(Config(server=ServerConfig(port=0), tools=tools), engine)
    async with AsyncExitStack() as stack:
        _, port = await server.start()
        stack.push_async_callback(server.stop)
        await server.tools.ready()
        caller = await stack.enter_async_context(calling(f"127.0.0.1:{port}"))
        yield caller


async def final(caller: Caller) -> Any:
    """The response that says what the tool returned."""
    await caller.until("server_tool.returned")
    return (await caller.until("response.done", when=lambda event: bool(event.response.output))).response


async def test_the_weather_is_asked_looked_up_and_told(engine: LocalEngine, tmp_path: Path) -> None:
    tool = WEATHER["tool"]
    answer_now.clear()
    async with a_call(engine, ToolsConfig(functions=("pocket_tools:get_weather",))) as caller:
        await caller.configure()
        await caller.ask(WEATHER)
        called = next(event for event in caller.log if event.type == "server_tool.called")
        assert tool["arguments"]["city"] in json.loads(called.arguments)["city"]
        bridge = (await caller.until("response.done")).response
        assert caller.said(bridge) == "one moment please"
        assert RATE / 2 < len(caller.samples(bridge)) < 4 * RATE
        answer_now.set()
        answer = await final(caller)
        assert caller.said(answer) == plain(tool["final"])
        assert len(caller.samples(answer)) > RATE
    servers = {
        "mcpServers": {
            "weather": {"command": sys.executable, "args": [str(MCP_SERVER)], "tools": ["get_weather"]}
        }
    }
    (tmp_path / "mcp.json").write_text(json.dumps(servers))
    async with a_call(engine, ToolsConfig(mcp_servers=str(tmp_path / "mcp.json"))) as caller:
        await caller.configure(output_modalities=["text"])
        await caller.type("what is the weather in milan")
        assert "sunny" in caller.said(await final(caller))
