"""Turn ends by what was said, on the pocket checkpoint and a real socket, spoken as fast as people speak.

Where the engine's verdict comes too late, a turn ends by its silence, and says so (`reason`): on a machine that is that
busy the question is asked again.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from openai_caller import RATE, Caller, calling, plain, questions, spoken

ASKED = questions()
FRAME = RATE // 50
ATTEMPTS = 4


def with_pause(
    question: dict[str, Any], *, near: float, pause_s: float
) -> np.ndarray[Any, np.dtype[np.int16]]:
    """A question in which somebody stops to think, where it is quietest near this share of it."""
    voice = spoken(question)
    loudness = np.convolve(np.abs(voice.astype(np.float64)), np.ones(RATE // 50), "same")
    middle, reach = int(near * len(voice)), RATE * 3 // 20
    cut = middle - reach + int(np.argmin(loudness[middle - reach : middle + reach]))
    return np.concatenate([voice[:cut], np.zeros(int(pause_s * RATE), np.int16), voice[cut:]])


async def speak(caller: Caller, pcm: np.ndarray[Any, np.dtype[np.int16]]) -> None:
    """Sends it in frames of 20 ms, each when it is due, and silence behind it until it is over."""
    loop = asyncio.get_running_loop()
    began, sent = loop.time(), 0
    pcm = np.concatenate([np.zeros(RATE // 4, np.int16), pcm, np.zeros(6 * RATE, np.int16)])
    while sent < len(pcm) and "response.done" not in caller.kinds:
        await asyncio.sleep(began + sent / RATE - loop.time())
        await caller.append(pcm[sent : sent + FRAME])
        sent += FRAME


async def ask(
    address: str, pcm: np.ndarray[Any, np.dtype[np.int16]], *, eagerness: str = "medium"
) -> tuple[list[Any], str, str]:
    """The ends of turns, what was heard in the first, and what was answered first."""
    async with calling(address) as caller:
        vad = {"type": "semantic_vad", "eagerness": eagerness}
        transcription = {"model": "builtin"}
        await caller.configure(
            output_lead_ms=200, audio={"input": {"turn_detection": vad, "transcription": transcription}}
        )
        speaking = asyncio.create_task(speak(caller, pcm))
        response = (await caller.until("response.done")).response
        await speaking
        heard = "conversation.item.input_audio_transcription.completed"
        transcript = next((e.transcript for e in caller.log if e.type == heard), None)
        if transcript is None:
            transcript = (await caller.until(heard)).transcript
        ends = [event for event in caller.log if event.type == "input_audio_buffer.speech_stopped"]
        return ends, plain(transcript), caller.said(response)


async def patiently(
    address: str, pcm: np.ndarray[Any, np.dtype[np.int16]], **how: str
) -> tuple[list[Any], str, str]:
    """As `ask`, until the engine was in time with what it had to say."""
    for _ in range(ATTEMPTS):
        found = await ask(address, pcm, **how)
        if all(end.reason != "silence" for end in found[0]):
            break
    return found


async def test_a_complete_question_is_over_soon(pocket_server: str) -> None:
    question = ASKED["hours"]
    (end, *more), heard, answer = await patiently(pocket_server, spoken(question))
    assert not more
    assert (end.reason, heard, answer) == ("complete", plain(question["text"]), plain(question["reply"]))
    assert end.silence_ms < 1000  # a quarter of a second, where nothing else runs


async def test_who_stops_to_think_is_not_cut_off(pocket_server: str) -> None:
    question = ASKED["sum"]
    pcm = with_pause(question, near=0.75, pause_s=0.9)
    ends, heard, answer = await patiently(pocket_server, pcm)
    assert len(ends) == 1
    assert ends[0].reason in ("complete", "incomplete")
    assert heard.startswith("good morning calculate eight plus")
    assert answer == plain(question["reply"])


async def test_a_number_that_is_being_said_has_time(pocket_server: str) -> None:
    question = ASKED["order"]
    pcm = with_pause(question, near=0.62, pause_s=0.9)
    (end, *more), heard, _ = await patiently(pocket_server, pcm)
    assert not more
    assert end.reason in ("spelled", "longest_wait")
    assert end.silence_ms >= 900
    assert heard.startswith("check order")
