"""Chat completions, as the openai package uses them, on the scripted engine."""

from __future__ import annotations

import base64
import io
from typing import Any

import aiohttp
import numpy as np
import pytest
import soundfile
from openai import APIStatusError, AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from server_helpers import Site, eventually, serving

from voiceagent.engine.fake import Script

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello there"}]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "lookup", "description": "", "parameters": {}},
}


def sound(seconds: float) -> str:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(int(16_000 * seconds)) + 0.1, 16_000, format="WAV")
    return base64.b64encode(file.getvalue()).decode()


def client(site: Site) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{site.http}/v1", api_key="none", max_retries=0)


async def ask(site: Site, messages: list[dict[str, Any]], **options: Any) -> ChatCompletion:
    async with client(site) as openai:
        create: Any = openai.chat.completions.create
        made: ChatCompletion = await create(model="m", messages=messages, **options)
    ChatCompletion.model_validate(made.to_dict(), strict=True)
    return made


async def stream(site: Site, messages: list[dict[str, Any]], **options: Any) -> list[ChatCompletionChunk]:
    async with client(site) as openai:
        create: Any = openai.chat.completions.create
        chunks = await create(model="m", messages=messages, stream=True, **options)
        return [chunk async for chunk in chunks]


async def test_text_in_text_out() -> None:
    async with serving() as site:
        made = await ask(site, HELLO)
        choice = made.choices[0]
        assert choice.finish_reason == "stop"
        assert choice.message.content == "You said: Hello there"
        assert made.usage is not None
        assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens
        assert len(site.engine.sessions) == 0


async def test_sound_in_is_heard_whole_also_when_it_is_long() -> None:
    async with serving() as site:
        parts = [{"type": "input_audio", "input_audio": {"data": sound(60.0), "format": "wav"}}]
        made = await ask(site, [{"role": "user", "content": parts}])
        assert made.choices[0].message.content == f"I heard {60 * 16_000} samples."


@pytest.mark.parametrize("kind", ["wav", "mp3", "flac", "opus", "pcm16"])
async def test_a_spoken_answer_is_a_file_with_its_words(kind: str) -> None:
    async with serving(Script(speech_ids=50)) as site:
        made = await ask(site, HELLO, modalities=["text", "audio"], audio={"voice": "x", "format": kind})
        audio = made.choices[0].message.audio
        assert audio is not None
        assert audio.transcript == "You said: Hello there"
        data = base64.b64decode(audio.data)
        if kind == "pcm16":
            assert len(data) == 50 * 960 * 2
        else:
            samples, rate = soundfile.read(io.BytesIO(data))
            assert abs(len(samples) / rate - 2.0) < 0.1


async def test_words_and_sound_stream() -> None:
    async with serving(Script(speech_ids=50)) as site:
        chunks = await stream(site, HELLO, stream_options={"include_usage": True})
        assert (
            "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "You said: Hello there"
        )
        assert chunks[-1].usage is not None
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        spoken = await stream(
            site, HELLO, modalities=["text", "audio"], audio={"voice": "x", "format": "pcm16"}
        )
        deltas: list[Any] = [c.choices[0].delta.to_dict().get("audio") or {} for c in spoken]
        assert "".join(d.get("transcript", "") for d in deltas) == "You said: Hello there"
        assert sum(len(base64.b64decode(d.get("data", ""))) for d in deltas) == 50 * 960 * 2


async def test_a_thought_comes_apart_from_the_answer_and_only_when_asked_for() -> None:
    async with serving(Script(thought="they greet me")) as site:
        made = await ask(site, HELLO, reasoning_effort="low")
        told = made.choices[0].message.to_dict()
        assert told["reasoning_content"] == "they greet me "
        assert told["content"] == "You said: Hello there"
        assert made.usage is not None
        assert made.usage.completion_tokens_details is not None
        assert made.usage.completion_tokens_details.reasoning_tokens == 3
        chunks = [
            chunk.choices[0].delta.to_dict() for chunk in await stream(site, HELLO, reasoning_effort="high")
        ]
        thoughts = [at for at, delta in enumerate(chunks) if "reasoning_content" in delta]
        words = [at for at, delta in enumerate(chunks) if delta.get("content")]
        assert "".join(str(chunks[at]["reasoning_content"]) for at in thoughts) == "they greet me "
        assert max(thoughts) < min(words)
        for silent in ({}, {"reasoning_effort": "none"}):
            assert "reasoning_content" not in (await ask(site, HELLO, **silent)).choices[0].message.to_dict()


async def test_a_tool_is_called_and_its_result_answered() -> None:
    async with serving() as site:
        question = [{"role": "user", "content": "please lookup this"}]
        made = await ask(site, question, tools=[TOOL])
        assert made.choices[0].finish_reason == "tool_calls"
        (call,) = made.choices[0].message.tool_calls or []
        assert call.function.name == "lookup"  # type: ignore[union-attr]
        result = {"role": "tool", "tool_call_id": call.id, "content": "42"}
        told = made.choices[0].message.to_dict()
        answered = await ask(site, [*question, told, result], tools=[TOOL])
        assert answered.choices[0].message.content == "The tool said: 42"
        chunks = await stream(site, question, tools=[TOOL])
        calls: list[Any] = [c.choices[0].delta.tool_calls for c in chunks if c.choices[0].delta.tool_calls]
        assert calls[0][0].to_dict()["function"]["name"] == "lookup"
        assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "owner", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "%"}}]}
                ]
            },
            "messages[0].content[0].input_audio.data",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA"}}]}
                ]
            },
            "messages[0].content[0].input_audio.data",
        ),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].tool_call_id"),
        ({"n": 2}, "n"),
        ({"stop": ["a"]}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": False, "top_logprobs": 2}, "top_logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"temperature": 9}, "temperature"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"stream": True, "modalities": ["audio"], "audio": {"voice": "a", "format": "mp3"}}, "audio.format"),
    ],
)
async def test_what_cannot_be_met_names_the_field(change: dict[str, Any], param: str) -> None:
    async with (
        serving() as site,
        aiohttp.ClientSession() as http,
        http.post(f"{site.http}/v1/chat/completions", json={"messages": HELLO} | change) as response,
    ):
        assert response.status == 400
        assert (await response.json())["error"]["param"] == param


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_failed_turn_is_an_error_and_frees_its_slot(streamed: bool) -> None:
    async with serving() as site:
        with pytest.raises(APIStatusError):
            await (stream if streamed else ask)(site, [{"role": "user", "content": "!fail"}])
        await eventually(lambda: not site.engine.sessions)


async def test_voices_are_listed() -> None:
    async with (
        serving() as site,
        aiohttp.ClientSession() as http,
        http.get(f"{site.http}/v1/voices") as response,
    ):
        data = (await response.json())["data"]
    assert [voice["id"] for voice in data] == ["default_female", "default_male"]
