"""A conversation by microphone: with files for devices, with a sound card that is not there, and event by event."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from server_helpers import serving

from voiceagent.audio import wavio
from voiceagent.cli import main
from voiceagent.client import (
    Done,
    Event,
    Failed,
    Heard,
    Interrupted,
    Interruption,
    RealtimeClient,
    Reconnected,
    Said,
    Sound,
    SpeechStopped,
    ToolCall,
    ToolResult,
)
from voiceagent.client.events import Raw
from voiceagent.client.mic import BLOCK, DeviceError, microphone, speaker
from voiceagent.client.playing import FADE, Block, Place, PlayQueue, blocks_behind
from voiceagent.client.talk import Conversation, Line, talk
from voiceagent.engine.fake import Script, numbered
from voiceagent.units import TOKEN_SAMPLES, VOICE_RATE


@pytest.fixture
def question(tmp_path: Path) -> Path:
    """Half a second that the scripted engine takes for speech."""
    path = tmp_path / "question.wav"
    wavio.write(path, np.full(12_000, 8000, np.int16), rate=24_000)
    return path


async def test_the_command_talks_from_file_to_file(
    question: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = tmp_path / "heard.wav"
    async with serving(Script(speech_ids=10, transcript="what I said")) as site:
        argv = ["talk", "--url", site.ws, "--from-file", str(question), "--to-file", str(heard)]
        assert await asyncio.to_thread(main, [*argv, "--answers", "1"]) == 0
        lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["you:", "what", "I", "said"] for line in lines)
    assert any(line.startswith("agent:") and line.endswith(" s)") for line in lines)
    samples, rate = wavio.read(heard)
    whole = numbered(session=1, turn=1, start=0, count=10 * TOKEN_SAMPLES)
    assert rate == 24_000
    assert whole.tobytes() in np.round(samples * 32768).astype("<i2").tobytes()


async def test_the_last_question_is_shown_although_its_transcript_comes_after_the_answer() -> None:
    class Slow:
        """Stands for a connection: the answer is over before what was asked is written down."""

        def __init__(self) -> None:
            self.events = iter(
                [SpeechStopped(900), Said("r", "at eight.", final=True), Done("r", "completed")]
            )
            self.late = iter([Heard("i", "when do you open", final=True)])

        async def stream(self) -> AsyncIterator[Event]:
            for event in self.events:
                yield event
            await asyncio.sleep(0.01)
            for event in self.late:
                yield event

    async def nothing() -> AsyncIterator[Block]:
        await asyncio.Event().wait()
        yield np.zeros(0, np.int16)

    shown: list[Line] = []
    await talk(cast(RealtimeClient, Slow()), nothing(), PlayQueue(), shown.append, answers=1)
    assert [(line.who, line.text) for line in shown] == [("agent", "at eight."), ("you", "when do you open")]


# --- devices ------------------------------------------------------------------------------------------------------


class Card:
    """Stands for sounddevice: a card that hears what the test says and keeps what it is given to play."""

    PortAudioError = RuntimeError

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.callbacks: dict[str, Any] = {}
        self.closed: list[str] = []

    def InputStream(self, **options: Any) -> Any:
        return self._stream("in", **options)

    def OutputStream(self, **options: Any) -> Any:
        return self._stream("out", **options)

    def _stream(self, way: str, *, samplerate: int, channels: int, callback: Any, **_: Any) -> Any:
        assert (samplerate, channels) == (24_000, 1)
        if self.broken:
            raise RuntimeError("no default device")
        self.callbacks[way] = callback
        return SimpleNamespace(start=lambda: None, close=lambda: self.closed.append(way))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    made = Card()
    monkeypatch.setitem(sys.modules, "sounddevice", made)  # type: ignore[arg-type]
    return made


async def test_a_microphone_is_heard_in_blocks_and_closed(card: Card) -> None:
    async with microphone() as heard:
        for value in range(60):  # more than may wait: the oldest are dropped
            card.callbacks["in"](np.full((BLOCK, 1), value, np.int16), BLOCK, None, None)
        await asyncio.sleep(0)
        block = await anext(heard)
        assert block.shape == (BLOCK,)
        assert block[0] == 10
    assert card.closed == ["in"]


async def test_a_loudspeaker_plays_in_order_and_forgets_what_it_is_told_to(card: Card) -> None:
    async with speaker() as loud:
        loud.play(np.arange(5, dtype=np.int16))
        loud.play(np.arange(5, 10, dtype=np.int16))
        out = np.zeros((6, 1), np.int16)
        card.callbacks["out"](out, 6, None, None)
        assert out[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
        assert loud.busy
        loud.drop()
        assert not loud.busy
        card.callbacks["out"](out, 6, None, None)
        assert not out.any()
    assert card.closed == ["out"]


async def test_what_is_missing_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(DeviceError, match=r"voiceagent\[mic\]") as caught:
        await microphone().__aenter__()
    assert caught.value.code == "package_missing"
    monkeypatch.setitem(sys.modules, "sounddevice", Card(broken=True))  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="Cannot open a loudspeaker: no default device") as caught:
        await speaker().__aenter__()
    assert caught.value.code == "no_loudspeaker"


def test_the_command_without_a_device_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["talk", "--url", "ws://127.0.0.1:1"]) == 2
    assert "sounddevice is not installed" in capsys.readouterr().err


# --- interruptions ------------------------------------------------------------------------------------------------


class Witness(RealtimeClient):
    """A client that keeps what it was told."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.log: list[Raw] = []

    async def receive(self) -> Raw:
        raw = await super().receive()
        self.log.append(raw)
        return raw

    def of(self, kind: str) -> list[Raw]:
        return [raw for raw in self.log if raw["type"] == kind]


def said(path: Path, *parts: tuple[float, int]) -> Path:
    """Seconds at a level, one after the other."""
    wavio.write(
        path, np.concatenate([np.full(round(s * VOICE_RATE), v, np.int16) for s, v in parts]), rate=VOICE_RATE
    )
    return path


async def converse(url: str, question: Path, heard: Path, *, answers: int) -> Witness:
    async with speaker(heard) as loud, microphone(question) as ear, Witness(url) as client:
        await talk(client, ear, loud, lambda _: None, answers=answers)
    return client


async def test_a_cough_pauses_the_answer_and_costs_not_a_sample(tmp_path: Path) -> None:
    cough = said(tmp_path / "cough.wav", (0.5, 8000), (1.3, 0), (0.1, 8000), (1.0, 0))
    async with serving(Script(speech_ids=100)) as site:
        client = await converse(site.ws, cough, tmp_path / "heard.wav", answers=1)
    weighed = [(raw["status"], raw["reason"]) for raw in client.of("response.interruption")]
    assert weighed == [("pending", None), ("dismissed", "noise")]
    samples, _ = wavio.read(tmp_path / "heard.wav")
    pcm = np.round(samples * 32768).astype(np.int16)
    whole = numbered(session=1, turn=1, start=0, count=100 * TOKEN_SAMPLES)
    start = int(np.flatnonzero(pcm)[0])
    (gap,) = gaps(pcm, start)
    before = gap[0] - start
    assert np.array_equal(pcm[start : gap[0] - FADE], whole[: before - FADE])
    rest = whole[before + FADE :]
    assert np.array_equal(pcm[gap[1] + FADE : gap[1] + FADE + len(rest)], rest)
    assert not pcm[gap[1] + FADE + len(rest) :].any()


def gaps(pcm: Block, start: int) -> list[tuple[int, int]]:
    """Silences of 100 ms and more between sounds, from one on."""
    sounds = np.flatnonzero(pcm[start:]) + start
    wide = np.flatnonzero(np.diff(sounds) > VOICE_RATE // 10)
    return [(int(sounds[n]) + 2, int(sounds[n + 1])) for n in wide]  # the last sample of a fade is silent


async def test_who_speaks_on_cuts_the_answer_where_it_was_heard(tmp_path: Path) -> None:
    over = said(tmp_path / "over.wav", (0.5, 8000), (1.5, 0), (1.2, 8000), (1.0, 0))
    async with serving(Script(speech_ids=60)) as site:
        client = await converse(site.ws, over, tmp_path / "heard.wav", answers=1)
    weighed = [raw["status"] for raw in client.of("response.interruption")]
    assert weighed == ["pending", "confirmed"]
    cut = client.of("response.heard")[0]
    assert cut["acknowledged"]
    samples, _ = wavio.read(tmp_path / "heard.wav")
    pcm = np.round(samples * 32768).astype(np.int16)
    start = int(np.flatnonzero(pcm)[0])
    first_gap = gaps(pcm, start)[0]
    played_ms = (first_gap[0] - start) * 1000 // VOICE_RATE
    assert 0 <= played_ms - cut["heard_ms"] <= 41


def test_a_queue_says_what_was_heard_and_pauses_between_two_samples() -> None:
    queue = PlayQueue(behind=blocks_behind(0.07, 0.04))
    assert queue.place is None
    queue.play(np.full(500, 1000, np.int16), "a")
    assert queue.place == Place("a", 0)
    queue.take(100)
    queue.take(100)
    assert queue.place == Place("a", 0)  # two blocks on the way to the ear
    queue.take(100)
    assert queue.place == Place("a", 100)
    queue.pause()
    fading = queue.take(200)
    assert fading[: FADE - 1].all()
    assert not fading[FADE - 1 :].any()
    assert queue.busy
    for _ in range(3):
        assert not queue.take(100).any()
    assert queue.place == Place("a", 300 + FADE)
    queue.resume()
    rest = queue.take(200)
    assert np.count_nonzero(rest) == 200 - FADE
    assert rest[0] < 100
    assert not queue.busy
    queue.play(np.ones(10, np.int16), "b")
    queue.pause()
    queue.drop()
    queue.play(np.ones(10, np.int16), "c")
    assert queue.take(10).tolist() == [1] * 10
    assert Place("c", 36).ms == 1


# --- event by event -----------------------------------------------------------------------------------------------


def test_captions_latency_and_interruptions() -> None:
    lines: list[Line] = []
    queue, now = PlayQueue(), [0.0]
    conversation = Conversation(queue, lines.append, lambda: now[0])
    conversation.take(SpeechStopped(900))
    now[0] = 0.5
    conversation.take(Sound("r", np.ones(10, np.int16)))
    assert queue.busy
    conversation.take(Interruption("r", "pending", None, 96))
    assert not queue.take(4).all()
    assert queue.busy
    conversation.take(Interruption("r", "dismissed", "noise", 120))
    conversation.take(Interrupted())
    assert not queue.busy
    conversation.take(Heard("q", "is it", final=False))
    conversation.take(Heard("q", "is it open", final=True))
    conversation.take(Said("r", "yes", final=True))
    conversation.take(Done("r", "cancelled"))
    call = ToolCall("c", "get_time", {})
    conversation.take(Done("r", "completed", (call,)))
    conversation.take(ToolResult("c", "10:30"))
    conversation.take(Done("r", "failed", (), ("kv_full", "No room.")))
    conversation.take(Failed("conversation_already_has_active_response", "busy"))
    conversation.take(Failed("overloaded", "Too much."))
    conversation.take(Reconnected("1012", 1))
    assert conversation.answers == 0
    conversation.take(Done("r", "completed"))
    assert conversation.answers == 1
    assert lines == [
        Line("you", "is it open"),
        Line("agent", "yes", 0.5),
        Line("tool", "get_time({}) -> 10:30"),
        Line("system", "No room."),
        Line("system", "Too much."),
        Line("system", "connected again"),
    ]
