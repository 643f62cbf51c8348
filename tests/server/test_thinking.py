"""Thinking through a real socket: its own events, no part of the call's memory, and the client's field for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI
from server_helpers import calling, check_numbers, serving

from voiceagent.cli import main
from voiceagent.client.conn import ClientError, RealtimeClient
from voiceagent.core.actions import CancelTurn, StartTurn
from voiceagent.engine.fake import Script
from voiceagent.units import TOKEN_SAMPLES

QUESTION = Path(__file__).parent.parent / "data" / "questions" / "hours.flac"
THINKER = Script(speech_ids=10, thought="let me see")
SLOW = Script(speech_ids=10, thought=" ".join(["hm"] * 500), rtf=1.0)


async def test_a_thought_comes_before_the_reply_and_stays_out_of_everything_else() -> None:
    async with serving(THINKER) as site, calling(site) as caller:
        await caller.manual()
        await caller.configure(think="on")
        heard = await caller.ask("hello")
        check_numbers(heard, session=1, whole=10 * TOKEN_SAMPLES)
        assert heard.text == "You said: hello"
        kinds = [event["type"] for event in caller.log]
        done = next(event for event in caller.log if event["type"] == "response.thought.done")
        assert done["text"] == "let me see "
        assert kinds.count("response.thought.delta") == 3
        assert kinds.index("response.thought.done") < kinds.index("response.output_item.added")
        usage = caller.log[-1]["response"]["usage"]["output_token_details"]
        assert usage["reasoning_tokens"] == 3
        await caller.ask("again")
        starts = [a for a in site.engine.sessions[1].actions if isinstance(a, StartTurn)]
        assert "let me see" not in repr(starts[1].items)


async def test_who_does_not_ask_for_thoughts_never_sees_one() -> None:
    async with serving(THINKER) as site, calling(site) as caller:
        await caller.manual()
        await caller.ask("hello")
        assert not any("thought" in event["type"] for event in caller.log)
        assert "reasoning_tokens" not in caller.log[-1]["response"]["usage"]["output_token_details"]


async def test_a_thought_is_cancelled_like_any_reply() -> None:
    async with serving(SLOW) as site, calling(site) as caller:
        await caller.manual()
        await caller.configure(think="on")
        await caller.say("hello")
        await caller.until("response.thought.delta")
        await caller.send("response.cancel")
        done = await caller.until("response.done")
        assert (done["response"]["status"], done["response"]["output"]) == ("cancelled", [])
        assert any(isinstance(action, CancelTurn) for action in site.engine.sessions[1].actions)
        await caller.configure(think="off")
        site.engine.script = Script(speech_ids=10)
        heard = await caller.ask("now?")
        check_numbers(heard, session=1, whole=10 * TOKEN_SAMPLES)


async def test_a_model_that_cannot_think_names_the_field() -> None:
    async with serving() as site, RealtimeClient(site.ws) as client:
        assert client.session["think"] is None
        with pytest.raises(ClientError) as caught:
            await client.update(think="on")
        assert (caught.value.code, caught.value.param) == ("think_unavailable", "session.think")


async def test_the_python_client_hands_the_thought_over() -> None:
    async with serving(THINKER) as site, RealtimeClient(site.ws) as client:
        await client.update(think="on", audio={"input": {"turn_detection": None}})
        answer = await asyncio.wait_for(client.ask(np.zeros(8000, np.float32), 16_000), 20)
        assert answer.thought == "let me see "
        assert "let me see" not in answer.said


async def test_a_stock_client_passes_over_thoughts() -> None:
    async with serving(THINKER) as site:
        client = AsyncOpenAI(
            api_key="none", base_url=f"{site.http}/v1", websocket_base_url=f"ws://127.0.0.1:{site.port}/v1"
        )
        async with client, client.realtime.connect(model="fake") as connection:
            session: Any = {"type": "realtime", "think": "on", "output_modalities": ["text"]}
            await connection.session.update(session=session)
            content: Any = [{"type": "input_text", "text": "hello"}]
            await connection.conversation.item.create(
                item={"type": "message", "role": "user", "content": content}
            )
            await connection.response.create()
            said, kinds = "", []
            async with asyncio.timeout(20):
                async for event in connection:
                    kinds.append(event.type)
                    if event.type == "response.output_text.delta":
                        said += event.delta
                    if event.type == "response.done":
                        break
        assert said == "You said: hello"
        assert kinds.count("response.thought.done") == 1


async def test_the_command_line_shows_a_thought(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    async with serving(THINKER) as site:
        argv = ["ask", str(QUESTION), "--url", site.ws, "--think", "-o", str(tmp_path / "answer.wav")]
        assert await asyncio.to_thread(main, argv) == 0
        out = capsys.readouterr().out.splitlines()
        assert "thought:  let me see" in out
        site.engine.script = Script(speech_ids=10)
        assert await asyncio.to_thread(main, argv) == 2
        assert "cannot think" in capsys.readouterr().err
