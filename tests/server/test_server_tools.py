"""Tools that the server runs, over real sockets: the reply goes on by itself, and no tool can harm a call."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server_helpers import Caller, Event, calling, check_numbers, eventually, serving
from websockets.asyncio.client import connect

from voiceagent.client import RealtimeClient
from voiceagent.config import ToolsConfig
from voiceagent.engine.fake import Script

sys.path.append(str(Path(__file__).resolve().parent.parent / "tools"))
from weather_server import STDIO, on_loopback

SHORT = Script(speech_ids=25)
NAMES = ("get_weather", "ponder", "time_out", "hang", "explode", "gush", "report", "pay")


def functions(*names: str, **config: Any) -> ToolsConfig:
    return ToolsConfig(functions=tuple(f"tools_of_a_test:{name}" for name in names or NAMES), **config)


@asynccontextmanager
async def a_call(config: ToolsConfig, script: Script = SHORT, **session: Any) -> AsyncIterator[Caller]:
    async with serving(script, tools=config) as site:
        await site.server.tools.ready()
        async with calling(site) as caller:
            await caller.manual()
            if session:
                await caller.configure(**session)
            yield caller


async def answered(caller: Caller, text: str) -> tuple[Event, str]:
    """What the server's tool returned, and what is said of it."""
    await caller.say(text)
    returned = await caller.until("server_tool.returned")
    done = await caller.until("response.done", when=lambda event: bool(event["response"]["output"]))
    return returned, caller.responses[done["response"]["id"]].text


async def test_the_reply_goes_on_by_itself() -> None:
    async with a_call(functions()) as caller:
        returned, said = await answered(caller, "get_weather please")
        assert json.loads(returned["output"]) == {"weather": "sunny", "asked": True}
        assert said == f"The tool said: {returned['output']}"
        kinds = [event["type"] for event in caller.log]
        assert "response.function_call_arguments.done" not in kinds  # nobody else is to run it
        shown = [event["item"]["id"] for event in caller.log if event["type"] == "conversation.item.added"]
        before = [
            event["previous_item_id"] for event in caller.log if event["type"] == "conversation.item.added"
        ]
        assert before == [None, shown[0]]  # as if there were no call
        assert (await caller.ask("and so on")).text == "You said: and so on"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("time_out", "longer than 0.1 s"),
        ("hang", "longer than 0.4 s"),
        ("explode", "The tool failed."),
        ("gush", "longer than the 32768 bytes"),
    ],
)
async def test_what_fails_is_told_to_the_model(name: str, words: str) -> None:
    async with a_call(functions()) as caller:
        returned, said = await answered(caller, f"{name} now")
        assert words in json.loads(returned["output"])["error"]
        assert returned["failed"]
        assert "secret" not in returned["output"]
        assert said.startswith("The tool said:")


async def test_the_voice_goes_on_while_a_tool_runs_and_a_hang_up_ends_it() -> None:
    """Another caller's and one's own: every sample is the right one."""
    async with serving(SHORT, tools=functions()) as site:
        async with calling(site) as slow, calling(site) as other:
            await slow.manual()
            await other.manual()
            await slow.say("ponder this")
            await slow.until("server_tool.called")
            await slow.until("response.done")
            for _ in range(3):
                check_numbers(await other.ask("hello"), session=2, whole=24_000)
                heard = await slow.ask("meanwhile")
                check_numbers(heard, session=1, whole=24_000)
                assert heard.text == "You said: meanwhile"
        await eventually(lambda: not [t for t in asyncio.all_tasks() if t.get_name() == "tool"])


async def test_words_for_the_time_until_then() -> None:
    async with a_call(functions(filler="one moment", filler_after_ms=150)) as caller:
        await caller.say("ponder this")
        await caller.until("server_tool.called")
        await caller.until("response.done")
        done = await caller.until("response.done", when=lambda event: bool(event["response"]["output"]))
        filler = caller.responses[done["response"]["id"]]
        assert filler.status == "completed"
        assert len(filler.pcm)
        engine_turn = int(filler.id.rpartition("_")[2])
        assert engine_turn == 2
        item = done["response"]["output"][0]["id"]
        await caller.send("conversation.item.retrieve", item_id=item)
        assert (await caller.until("conversation.item.retrieved"))["item"]["id"] == item


async def test_a_background_tool_reports_when_nobody_speaks() -> None:
    async with a_call(functions()) as caller:
        await caller.say("report back")
        pending = await caller.until("server_tool.returned")
        assert pending["pending"]
        late = await caller.until("server_tool.returned")
        assert (late["output"], late["pending"], late["item_id"]) == ("the report", False, pending["item_id"])
        done = await caller.until("response.done", when=lambda event: bool(event["response"]["output"]))
        assert caller.responses[done["response"]["id"]].text == "The tool said: the report"


async def test_a_session_may_want_fewer_and_its_own_functions_go_first() -> None:
    async with a_call(functions(), server_tools=["report"]) as caller:
        assert (await caller.ask("get_weather please")).text == "You said: get_weather please"
    mine = {"type": "function", "name": "get_weather"}
    async with a_call(functions(), tools=[mine]) as caller:
        await caller.say("get_weather please")
        done = await caller.until("response.function_call_arguments.done")
        assert done["name"] == "get_weather"
        await caller.until("response.done")


async def test_approval_is_asked_of_the_client_and_of_nobody_else() -> None:
    async with a_call(functions()) as caller:
        assert (await caller.ask("pay now")).text == "You said: pay now"  # it is not even offered
    async with a_call(functions(), tools=[{"type": "mcp", "server_label": "server"}]) as caller:
        for approve in (False, True):
            await caller.say("pay now")
            done = await caller.until("response.done")
            (request,) = done["response"]["output"]
            assert (request["type"], request["name"]) == ("mcp_approval_request", "pay")
            item = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": approve}
            await caller.send("conversation.item.create", item=item)
            call = await caller.until(
                "conversation.item.done", when=lambda event: event["item"]["type"] == "mcp_call"
            )
            assert call["item"]["output"] == ("paid" if approve else None)
            assert bool(call["item"]["error"]) is not approve
            await caller.send("response.create")
            done = await caller.until("response.done")
            assert caller.responses[done["response"]["id"]].text.startswith("The tool said:")


async def test_tools_of_an_mcp_server_of_the_deployment(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"weather": {**STDIO, "tools": ["talk_for_ever", "vanish"]}}}))
    async with a_call(ToolsConfig(mcp_servers=str(path))) as caller:
        returned, _ = await answered(caller, "talk_for_ever")
        assert "The arguments" not in returned["output"]
        assert "longer than" in returned["output"]
        returned, _ = await answered(caller, "vanish")
        assert "cannot be reached" in returned["output"]


async def test_a_server_of_the_sessions_own() -> None:
    with on_loopback() as url:
        allowed = ToolsConfig(session_servers=(url,), private_networks=("127.0.0.0/8",))
        own = {"type": "mcp", "server_label": "own", "server_url": url, "require_approval": "never"}
        async with a_call(allowed, tools=[own]) as caller:
            listed = await caller.until(
                "conversation.item.done", when=lambda event: event["item"]["type"] == "mcp_list_tools"
            )
            assert "get_weather" in [tool["name"] for tool in listed["item"]["tools"]]
            await caller.say("get_weather")
            call = await caller.until(
                "conversation.item.done", when=lambda event: event["item"]["type"] == "mcp_call"
            )
            assert "'city' is missing" in call["item"]["error"]["message"]  # the fake knows no schema
            await caller.send("response.create")
            await caller.until("response.done")
            await caller.configure(tools=[])  # it is left, and its tools are gone
            assert (await caller.ask("get_weather")).text == "You said: get_weather"


@pytest.mark.parametrize(
    ("config", "url", "code"),
    [
        ({}, "https://tools.example.com/mcp", "mcp_server_not_allowed"),
        ({"session_servers": ("*",)}, "https://127.0.0.1/mcp", "private_address"),
        ({"session_servers": ("*",)}, "https://169.254.169.254/latest", "private_address"),
        ({"session_servers": ("*",)}, "https://[::ffff:10.0.0.1]/mcp", "private_address"),
        ({"session_servers": ("*",)}, "http://93.184.216.34/mcp", "mcp_server_not_allowed"),
        ({"session_servers": ("*",)}, "file:///etc/passwd", "invalid_value"),
        ({"session_servers": ("http://127.0.0.1:9",), "private_networks": ("127.0.0.0/8",)},
         "http://127.0.0.1:9/mcp", "mcp_server_unreachable"),
    ],
)  # fmt: skip
async def test_a_server_that_may_not_be_reached_is_not(config: dict[str, Any], url: str, code: str) -> None:
    async with a_call(ToolsConfig(**config)) as caller:
        own = {"type": "mcp", "server_label": "own", "server_url": url}
        await caller.send("session.update", session={"type": "realtime", "tools": [own]})
        failed = await caller.until("mcp_list_tools.failed")
        assert failed["error"]["code"] == code
        assert (await caller.ask("hello")).text == "You said: hello"


async def test_a_session_names_four_servers_at_most() -> None:
    with on_loopback() as url:
        allowed = ToolsConfig(session_servers=(url,), private_networks=("127.0.0.0/8",))
        async with a_call(allowed) as caller:
            own = [{"type": "mcp", "server_label": f"own{n}", "server_url": url} for n in range(5)]
            await caller.send("session.update", session={"type": "realtime", "tools": own})
            failed = await caller.until("mcp_list_tools.failed")
            assert failed["error"]["code"] == "too_many_mcp_servers"
            for _ in range(4):
                await caller.until("mcp_list_tools.completed")


async def test_a_person_who_speaks_meanwhile_is_heard_and_answered() -> None:
    async with serving(SHORT, tools=functions()) as site, calling(site) as caller:
        await caller.configure(output_lead_ms=None)
        await caller.say("ponder this")
        await caller.until("server_tool.called")
        tone = (8000 * np.sin(np.arange(24_000) / 8)).astype(np.int16)
        await caller.append(tone)
        await caller.append(np.zeros(24_000, np.int16))
        await caller.until("input_audio_buffer.committed")
        done = await caller.until("response.done", when=lambda event: bool(event["response"]["output"]))
        assert "samples" in caller.responses[done["response"]["id"]].text


async def test_the_python_client_waits_for_what_the_server_looks_up() -> None:
    async with serving(SHORT, tools=functions()) as site, RealtimeClient(site.http) as client:
        answer = await client.ask_text("get_weather please")
        ((name, arguments, output),) = answer.tools
        assert (name, arguments) == ("get_weather", {"said": "You said: get_weather please"})
        assert answer.said == f"The tool said: {output}"
        assert (await client.ask_text("and now")).said == "You said: and now"


async def test_the_live_protocol_has_the_tools_too_and_is_told_of_no_delegation() -> None:
    site_tools = serving(SHORT, tools=functions())
    async with site_tools as site, connect(f"{site.http.replace('http', 'ws')}/v1/live/sessions") as line:

        async def send(kind: str, **fields: Any) -> None:
            await line.send(json.dumps({"type": kind, **fields}))

        delegation = {"type": "responses", "responses": {"model": "fake"}}
        await send("session.start", session={"model": "fake", "delegation": delegation})
        item = {"type": "message", "role": "user", "content": "get_weather"}
        await send("response.item.create", item=item)
        await send("response.create")
        said, seen = "", set()
        while "The tool said" not in said:
            async with asyncio.timeout(20):
                event = json.loads(await line.recv())
            seen.add(event["type"])
            said += event.get("delta", "") if event["type"] == "session.output_transcript.delta" else ""
        assert not {"session.delegation.created", "error"} & seen
