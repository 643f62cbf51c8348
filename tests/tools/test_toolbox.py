"""The tools of a deployment: loading, running, failing, hanging; MCP servers over stdio and HTTP."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from weather_server import STDIO, on_loopback

from voiceagent.config import ToolsConfig
from voiceagent.errors import ConfigError, InputError
from voiceagent.tools import ToolError, tool
from voiceagent.tools.mcp_config import McpServer, read
from voiceagent.tools.toolbox import Toolbox, load

LIMIT = 64 << 10
released = threading.Event()


@tool
async def add(a: int, b: int = 1) -> int:
    """Adds."""
    return a + b


@tool
def slow_add(a: int) -> dict[str, int]:
    """Adds, in a thread."""
    return {"sum": a, "thread": threading.current_thread() is threading.main_thread()}


@tool
async def refuses() -> None:
    """Says why."""
    raise ToolError("The hotel is closed.")


@tool
def breaks() -> None:
    """Breaks."""
    raise ValueError("/secret/path")


@tool
async def leaves() -> None:
    """Wants to end the process."""
    sys.exit(3)


@tool
def ends_its_thread() -> None:
    """The same, in a thread."""
    sys.exit(3)


@tool
async def no_words() -> object:
    """Returns what JSON has no words for."""
    return object()


@tool(timeout_s=0.05)
async def blocks() -> None:
    """An async function that blocks, as none should."""
    released.wait(20.0)


@tool(timeout_s=0.05)
def hangs() -> None:
    """A plain function that takes long."""
    released.wait(20.0)


ALL = ("add", "slow_add", "refuses", "breaks", "leaves", "ends_its_thread", "no_words", "blocks", "hangs")


@asynccontextmanager
async def opened(**config: Any) -> AsyncIterator[Toolbox]:
    box = Toolbox(ToolsConfig(**config))
    released.clear()
    await box.start()
    try:
        await box.ready()
        yield box
    finally:
        released.set()
        await box.stop()


def mine() -> dict[str, Any]:
    return {"functions": tuple(f"test_toolbox:{name}" for name in ALL)}


async def run(box: Toolbox, name: str, *, owner: str = "me", limit: int = LIMIT, **given: Any) -> str:
    return await box.run(box.offers[name], json.dumps(given), owner=owner, limit=limit)


# --- functions ----------------------------------------------------------------------------------------------------


async def test_functions_run_and_return_json() -> None:
    async with opened(**mine()) as box:
        assert await run(box, "add", a=2) == "3"
        assert json.loads(await run(box, "slow_add", a=2)) == {"sum": 2, "thread": False}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("refuses", "The hotel is closed."),
        ("breaks", "The tool failed."),
        ("leaves", "The tool failed."),
        ("ends_its_thread", "The tool failed."),
        ("no_words", "The tool failed."),
        ("add", "`a`"),
        ("hangs", "It took longer than 0.05 s"),
    ],
)
async def test_what_fails_is_told_in_words_for_the_model(name: str, words: str) -> None:
    async with opened(**mine()) as box:
        with pytest.raises(ToolError) as error:
            await run(box, name)
        assert words in error.value.message
        assert "secret" not in str(error.value)
        assert await run(box, "add", a=1) == "2"  # the others go on


@pytest.mark.parametrize("arguments", ["{", "[1]", '"x"', "nonsense"])
async def test_arguments_that_are_no_object_are_told(arguments: str) -> None:
    async with opened(**mine()) as box:
        with pytest.raises(ToolError, match="JSON"):
            await box.run(box.offers["add"], arguments, owner="me", limit=LIMIT)


async def test_a_result_that_is_too_long_is_told_and_not_read() -> None:
    async with opened(**mine()) as box:
        with pytest.raises(ToolError, match="longer than the 20 bytes"):
            await run(box, "slow_add", a=2, limit=20)


async def test_a_tool_that_blocks_its_loop_holds_up_nobody_elses() -> None:
    async with opened(**mine()) as box:
        lag, blocked = 0.0, asyncio.ensure_future(run(box, "blocks"))
        while not blocked.done():
            before = time.monotonic()
            await asyncio.sleep(0.005)
            lag = max(lag, time.monotonic() - before)
        with pytest.raises(ToolError, match="took longer"):
            await blocked
        assert lag < 5.0  # it would have been twenty


async def test_a_session_that_hangs_in_threads_keeps_no_other_from_its_tools() -> None:
    async with opened(**mine()) as box:
        for _ in range(8):
            with pytest.raises(ToolError, match="took longer"):
                await run(box, "hangs", owner="greedy")
        with pytest.raises(ToolError, match="Too many tools"):
            await run(box, "slow_add", a=1, owner="greedy")
        assert await run(box, "slow_add", a=1, owner="other")


async def test_a_call_that_is_given_up_is_cancelled() -> None:
    async with opened(**mine()) as box:
        task = asyncio.ensure_future(run(box, "hangs"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("name", ["nowhere:f", "test_toolbox:nothing", "json:__version__", "no_entry_point"])
def test_a_function_that_cannot_be_loaded_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        load([name])


async def test_two_of_one_name_are_told_apart() -> None:
    async with opened(functions=("test_toolbox:add", "test_toolbox:add")) as box:
        assert list(box.offers) == ["add", "server_add"]


# --- MCP servers --------------------------------------------------------------------------------------------------


def file(folder: Path, **servers: Any) -> str:
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": servers}))
    return str(path)


async def test_an_mcp_server_over_stdio(tmp_path: Path) -> None:
    how = {
        "confirm": ["break_down"],
        "filler": "let me look",
        "tools": ["get_weather", "break_down", "vanish"],
    }
    async with opened(mcp_servers=file(tmp_path, weather={**STDIO, **how})) as box:
        offer = box.offers["get_weather"]
        assert offer.tool.description == "Current weather in a city."
        assert (offer.server.label, offer.server.read_only, offer.server.approval) == ("weather", True, False)
        assert offer.server.filler is not None
        assert box.offers["break_down"].server.approval
        assert "talk_for_ever" not in box.offers
        assert await run(box, "get_weather", city="milan") == (
            '{"weather": "sunny", "temperature": 20, "city": "milan"}'
        )
        with pytest.raises(ToolError, match="'city' is missing"):
            await run(box, "get_weather")
        with pytest.raises(ToolError) as error:
            await run(box, "break_down")
        assert "secret" not in str(error.value)
        with pytest.raises(ToolError, match="cannot be reached"):
            await run(box, "vanish")
        assert "sunny" in await run(box, "get_weather", city="milan")  # it was started anew


async def test_an_mcp_server_over_http_beside_functions(tmp_path: Path) -> None:
    with on_loopback() as url:
        async with opened(**mine(), mcp_servers=file(tmp_path, far={"url": url})) as box:
            assert "sunny" in await run(box, "get_weather", city="milan")
            with pytest.raises(ToolError, match="longer than the"):
                await run(box, "talk_for_ever")
            assert await run(box, "add", a=1) == "2"


async def test_a_server_that_a_session_names_is_reached_only_where_that_is_allowed() -> None:
    with on_loopback() as url:
        async with opened() as box:
            with pytest.raises(InputError, match="may not use tool servers"):
                box.connect("own", url, None)
        async with opened(session_servers=(url,)) as box:
            connection = box.connect("own", url, None)
            with pytest.raises(ToolError) as error:
                await box.tools_of(connection, "own")
            assert error.value.code == "private_address"
            await box.disconnect(connection)
        async with opened(session_servers=(url,), private_networks=("127.0.0.0/8",)) as box:
            connection = box.connect("own", url, "token")
            offers = await box.tools_of(connection, "own")
            (offer,) = (offer for offer in offers if offer.tool.name == "get_weather")
            assert "sunny" in await box.run(offer, '{"city": "milan"}', owner="me", limit=LIMIT)
            await box.disconnect(connection)


async def test_a_server_that_is_not_there_keeps_nobody_waiting(tmp_path: Path) -> None:
    box = Toolbox(ToolsConfig(mcp_servers=file(tmp_path, gone={"command": "/nowhere/at/all"})))
    await box.start()
    assert box.offers == {}
    await box.stop()


def test_the_file_of_servers_is_checked(tmp_path: Path) -> None:
    path = Path(file(tmp_path, a={"url": "https://a.b/", "headers": {"Authorization": "Bearer ${KEY}"}}))
    assert read(path, {"KEY": "secret"})["a"].headers == {"Authorization": "Bearer secret"}
    with pytest.raises(ConfigError, match="KEY"):
        read(path, {})
    assert read(Path(file(tmp_path, a={"command": "x", "disabled": True}))) == {}
    assert isinstance(read(Path(file(tmp_path, a={"command": "x"})))["a"], McpServer)
    for wrong in ({}, {"command": "x", "url": "y"}, {"command": "x", "unknown": 1}):
        with pytest.raises(ConfigError):
            read(Path(file(tmp_path, a=wrong)))
    with pytest.raises(ConfigError):
        read(tmp_path / "none.json")
