"""A call that outgrows its room, on the real engine: what is left out, what it costs, and what cannot be answered."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from voiceagent.audio import wavio
from voiceagent.client.conn import RealtimeClient

QUESTIONS = Path(__file__).resolve().parents[1] / "data" / "questions"


def room(tokens: int, ratio: float = 0.8) -> dict[str, Any]:
    limits = {"post_instructions": tokens}
    return {"type": "retention_ratio", "retention_ratio": ratio, "token_limits": limits}


async def ask(client: RealtimeClient, text: str) -> dict[str, Any]:
    """One typed question; the last event of its answer."""
    await client.say(text)
    while True:
        event = await client.receive()
        assert event["type"] != "error", event
        if event["type"] == "response.done":
            return event


async def test_old_turns_are_left_out_and_usage_adds_up(pocket_server: str) -> None:
    async with RealtimeClient(f"ws://{pocket_server}") as client:
        await client.update(output_modalities=["text"], truncation=room(150), temperature=0.0)
        dropped: list[str] = []
        for _ in range(8):
            done = await ask(client, "What is two plus three? Please say it in one short sentence.")
            assert done["response"]["status"] == "completed"
            usage, context = done["response"]["usage"], done["context"]
            read, cached = usage["input_token_details"], usage["input_token_details"]["cached_tokens_details"]
            assert read["text_tokens"] + read["audio_tokens"] == usage["input_tokens"]
            assert cached["text_tokens"] + cached["audio_tokens"] == read["cached_tokens"]
            assert read["cached_tokens"] < usage["input_tokens"]
            assert context["tokens"] == usage["total_tokens"] <= context["limit"] == 16_384
            dropped += context["dropped_items"]
        assert len(dropped) >= 4
        await client.update(truncation=room(3))
        failed = (await ask(client, "And three plus four?"))["response"]
        assert failed["status"] == "failed"
        assert failed["status_details"]["error"]["code"] == "context_length_exceeded"
        await client.update(truncation="auto", max_output_tokens=2)
        cut = (await ask(client, "And four plus five?"))["response"]
        assert (cut["status"], cut["status_details"]["reason"]) == ("incomplete", "max_output_tokens")
        assert cut["usage"]["output_tokens"] == 2
        await client.update(max_output_tokens="inf")
        assert (await ask(client, "And five plus six?"))["response"]["status"] == "completed"


async def test_old_sound_is_read_as_words_and_every_turn_stays_cheap(pocket_server: str) -> None:
    """Spoken questions and answers in a room of eight exchanges: little is read anew."""
    samples, rate = wavio.read(QUESTIONS / "count.flac")
    async with RealtimeClient(f"ws://{pocket_server}") as client:
        await client.update(
            audio={"input": {"turn_detection": None, "transcription": None}},
            output_lead_ms=None,
            truncation=room(800, 0.8),
            max_output_tokens=60,
            temperature=0.0,
        )
        steps, read, computed = list[dict[str, Any]](), list[int](), list[int]()
        for _ in range(10):
            await client.append(samples, rate)
            await client.send("input_audio_buffer.commit")
            await client.send("response.create")
            while (event := await client.receive())["type"] != "response.done":
                assert event["type"] != "error", event
                assert "transcription" not in event["type"], "words that nobody asked for"
                steps += [event] if event["type"] == "conversation.condensed" else []
            usage = event["response"]["usage"]
            read.append(usage["input_tokens"])
            computed.append(usage["input_tokens"] - usage["input_token_details"]["cached_tokens"])
        assert steps
        assert all(step["form"] == "text" and step["reason"] == "context_full" for step in steps)
        assert all(step["tokens_after"] * 3 < step["tokens_before"] for step in steps)
        assert max(read) <= 850
        assert min(computed) < 60, "what was read stays good from turn to turn"
        await client.send("conversation.item.retrieve", item_id=steps[0]["item_ids"][0])
        while (event := await client.receive())["type"] != "conversation.item.retrieved":
            pass
        (part,) = event["item"]["content"]
        assert part["audio"], "the item itself is as it was"
        assert part["transcript"] is None


def test_a_chat_that_does_not_fit_is_refused_with_its_code(pocket_server: str) -> None:
    messages = [{"role": "user", "content": "one two three " * 15_000}]
    request = urllib.request.Request(
        f"http://{pocket_server}/v1/chat/completions",
        data=json.dumps({"messages": messages}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    with caught.value as answer:
        error = json.load(answer)["error"]
    assert answer.code == 400
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
