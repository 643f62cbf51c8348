"""The openai package's Live client: against a scripted engine, and a spoken question answered by the checkpoint."""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import Any

import numpy as np
from live_caller import live
from openai_caller import RATE, plain, questions, spoken

from voiceagent.config import Config, ServerConfig
from voiceagent.engine.fake import Script, numbered
from voiceagent.engine.fake_engine import FakeEngine
from voiceagent.server.app import Server
from voiceagent.units import TOKEN_SAMPLES
from voiceagent.wire.live import TAIL

TOOL = {"type": "function", "name": "get_time", "parameters": {"type": "object"}}


async def test_everything_that_its_methods_can_ask() -> None:
    engine = FakeEngine(Script(speech_ids=10, transcript="what I said"))
    await engine.start()
    server = Server(Config(server=ServerConfig(port=0)), engine)
    host, port = await server.start()
    try:
        async with live(f"{host}:{port}") as call:
            responses: Any = {"type": "responses", "responses": {"model": "pocket", "tools": [TOOL]}}
            started = await call.start(delegation=responses, audio={"output": {"voice": "default_male"}})
            assert started.session.audio.output.voice == "default_male"
            await call.send("session.input_audio.mute", event_id="m")
            assert (await call.until("session.input_audio.muted")).client_event_id == "m"
            await call.send("session.input_audio.unmute")
            await call.until("session.input_audio.unmuted")
            for name in ("instructions", "thinking"):
                await call.send(f"session.{name}.append", content="Be brief.", delegation_id=None)
                appended = await call.until(f"session.{name}.appended")
                assert appended.start_ms == appended.end_ms
            await call.append(np.full(RATE // 2, 8000, np.int16))
            await call.append(np.zeros(RATE, np.int16))
            await call.until("session.usage.updated")
            assert call.text("input") == "what I said"
            whole = numbered(session=1, turn=1, start=0, count=10 * TOKEN_SAMPLES)
            assert np.array_equal(np.frombuffer(bytes(call.audio), "<i2"), np.concatenate([whole, TAIL]))
            fixture = base64.b64encode(bytes(4800)).decode()
            await call.send("session.output_audio.fixture.play", audio=fixture, event_id="f")
            assert (await call.until("session.output_audio.fixture.played")).client_event_id == "f"
            await call.send("response.item.create", item={"role": "user", "content": "use get_time"})
            await call.send("response.create")
            assert (await call.until("session.delegation.created")).delegation.target == "responses"
            await call.send("session.nonsense", event_id="n")
            error = (await call.until("error")).error
            assert (error.code, error.client_event_id) == ("unknown_event_type", "n")
            await call.send("session.close")
            assert (await call.until("session.closed")).reason == "close_requested"
    finally:
        await server.stop()
        await engine.stop()


async def test_a_spoken_question_is_answered(pocket_server: str) -> None:
    question = next(iter(questions().values()))
    async with live(pocket_server) as call:
        await call.start(audio={"format": {"type": "audio/pcm", "rate": RATE}})
        await call.append(spoken(question, silence_s=1.5))
        used = await call.until("session.usage.updated")
        assert plain(call.text("output")) == plain(question["reply"])
        assert 0.0 < used.context_window.usage_ratio < 1.0
        assert len(call.audio) > RATE  # more than half a second of sound
        heard = [e for e in call.log if e.type == "session.output_transcript.delta"]
        assert all(a.start_ms <= a.end_ms <= b.start_ms for a, b in pairwise(heard))
        await call.send("session.close")
        assert (await call.until("session.closed")).usage.seconds > 0.0
