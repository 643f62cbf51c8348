"""A call that outgrows its room, on the real engine: what is left out, what it costs, and what cannot be answered."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from voiceagent.client.conn import RealtimeClient


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
