"""Somebody speaks for over a minute: in blocks, cut in pauses, and every word is written down once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import jiwer
import numpy as np

from voiceagent.audio import wavio
from voiceagent.audio.resample import resample
from voiceagent.client.conn import RealtimeClient
from voiceagent.units import MODEL_RATE

QUESTIONS = Path(__file__).resolve().parents[1] / "data" / "questions"
PAUSE = np.zeros(MODEL_RATE // 2, np.float32)
SECONDS = 70


def speech() -> tuple[np.ndarray, str]:
    """The questions one after the other, over and over, and their words."""
    listed = json.loads((QUESTIONS / "questions.json").read_text(encoding="utf-8"))["questions"]
    sound, words = [np.zeros(0, np.float32)], list[str]()
    while sum(map(len, sound)) < SECONDS * MODEL_RATE:
        question = listed[len(words) % len(listed)]
        samples, rate = wavio.read(QUESTIONS / question["file"])
        sound += [resample(samples, source=rate, target=MODEL_RATE), PAUSE]
        words.append(question["text"])
    return np.concatenate(sound), " ".join(words)


async def test_over_a_minute_of_speech_is_written_down_whole(pocket_server: str) -> None:
    sound, words = speech()
    async with RealtimeClient(f"ws://{pocket_server}") as client:
        await client.update(audio={"input": {"turn_detection": None, "transcription": {"model": "builtin"}}})
        await client.append(sound, MODEL_RATE)
        await client.send("input_audio_buffer.commit")
        written = ""
        async with asyncio.timeout(120):
            while True:
                event = await client.receive()
                assert event["type"] != "error", event
                if event["type"] == "conversation.item.input_audio_transcription.delta":
                    written += event["delta"]
                if event["type"] == "conversation.item.input_audio_transcription.completed":
                    break
    assert event["transcript"] == written, "the parts are what the whole is"
    assert event["usage"]["seconds"] > SECONDS - 1
    assert jiwer.wer(words, event["transcript"]) <= 0.05
