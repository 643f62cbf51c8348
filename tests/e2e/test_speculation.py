"""Replies that are begun before it is sure that the person has finished, on the pocket checkpoint."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from openai_caller import RATE, plain, questions, spoken

from voiceagent.client.conn import RealtimeClient

ASKED = questions()
SILENCE_MS = 3000  # longer than any machine needs for the beginning of a reply


def paused(samples: np.ndarray[Any, Any], *, silence_s: float) -> np.ndarray[Any, Any]:
    """With a silence in the middle of it, where it is quietest."""
    third = len(samples) // 3
    loudness = np.convolve(np.abs(samples[third : 2 * third]), np.ones(RATE // 20), "same")
    cut = third + int(np.argmin(loudness))
    silence = np.zeros(int(silence_s * RATE), samples.dtype)
    return np.concatenate([samples[:cut], silence, samples[cut:]])


async def ask(
    address: str, sound: np.ndarray[Any, Any], *, speculation: bool, silence_ms: int
) -> dict[str, Any]:
    """Speaks in real time until the answer is there; the events by their type, the last of each."""
    vad = {"type": "server_vad", "silence_duration_ms": silence_ms}
    order: list[str] = []
    found: dict[str, Any] = {"order": order}
    async with RealtimeClient(f"ws://{address}") as client:
        await client.update(speculation=speculation, audio={"input": {"turn_detection": vad}})
        heard = sound.astype(np.float32) / 32768
        microphone = asyncio.create_task(client.append(heard, RATE, realtime=True))
        try:
            async with asyncio.timeout(120):
                async for event in client.events():
                    order.append(event["type"])
                    found[event["type"]] = event
                    if event["type"] == "response.done":
                        break
        finally:
            microphone.cancel()
            await asyncio.gather(microphone, return_exceptions=True)
    return found


def with_silence(samples: np.ndarray[Any, Any], seconds: float) -> np.ndarray[Any, Any]:
    return np.concatenate([samples, np.zeros(int(seconds * RATE), samples.dtype)])


async def test_a_right_guess_is_heard_at_the_decision(pocket_server: str) -> None:
    question = ASKED["hours"]
    sound = with_silence(spoken(question), 30)
    found = await ask(pocket_server, sound, speculation=True, silence_ms=SILENCE_MS)
    assert plain(found["response.output_audio_transcript.done"]["transcript"]) == plain(question["reply"])
    latency = found["response.latency"]
    assert latency["total_ms"] == latency["parts"]["endpoint"], "it was there when it was decided"
    assert latency["speculation"]["hits"] == latency["speculation"]["guesses"] == 1
    assert latency["speculation"]["saved_ms"] > 0
    assert latency["speculation"]["wasted_tokens"] == 0
    order = found["order"]
    assert order.index("input_audio_buffer.speech_stopped") < order.index("response.created")


async def test_who_pauses_and_goes_on_is_answered_to_the_whole_question_and_neighbours_are_unharmed(
    pocket_server: str,
) -> None:
    question, other = ASKED["price"], ASKED["room_price"]
    sound = with_silence(paused(spoken(question), silence_s=0.8), 30)
    mine, neighbour = await asyncio.gather(
        ask(pocket_server, sound, speculation=True, silence_ms=SILENCE_MS),
        ask(pocket_server, with_silence(spoken(other), 30), speculation=False, silence_ms=500),
    )
    assert plain(mine["response.output_audio_transcript.done"]["transcript"]) == plain(question["reply"])
    assert mine["order"].count("response.created") == 1
    assert mine["order"].count("input_audio_buffer.committed") == 1
    guesses = mine["response.latency"]["speculation"]
    assert guesses["guesses"] == 2
    assert guesses["hits"] == 1
    assert plain(neighbour["response.output_audio_transcript.done"]["transcript"]) == plain(other["reply"])
    assert "speculation" not in neighbour["response.latency"]
