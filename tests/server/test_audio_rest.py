"""The REST audio endpoints, as the openai package uses them, on the scripted engine."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import numpy as np
import pytest
import soundfile
from openai import APIStatusError, AsyncOpenAI
from server_helpers import Site, eventually, serving

from voiceagent.core.actions import Transcribe
from voiceagent.core.dictation import Dictation
from voiceagent.engine.api import EngineEvent
from voiceagent.engine.fake import Script
from voiceagent.engine.fake_engine import FakeSession
from voiceagent.wire.audio_rest import split_sentences

RATE = 16_000


def recording(*stretches: float, pause: float = 1.0, rate: int = RATE, kind: str = "WAV") -> bytes:
    """A file with a tone for each stretch of seconds, and pauses between and around them."""
    rest = np.zeros(int(pause * rate), np.float32)
    parts = [rest]
    for seconds in stretches:
        parts += [0.3 * np.sin(np.arange(int(seconds * rate)) * 0.2).astype(np.float32), rest]
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(parts), rate, format=kind)
    return file.getvalue()


def client(site: Site) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{site.http}/v1", api_key="none", max_retries=0)


async def text(site: Site, data: bytes, name: str = "a.wav", **options: Any) -> Any:
    async with client(site) as openai:
        return await openai.audio.transcriptions.create(file=(name, data), model="fake", **options)


def spied(site: Site) -> list[FakeSession]:
    """The engine's sessions that will be opened."""
    opened, real = list[FakeSession](), site.engine.open_session

    async def opening(on_event: Callable[[EngineEvent], None]) -> FakeSession:
        opened.append(await real(on_event))
        return opened[-1]

    site.engine.open_session = opening  # type: ignore[method-assign]
    return opened


# --- audio to text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "rate"), [("WAV", 16_000), ("FLAC", 44_100), ("MP3", 24_000)])
async def test_every_stretch_of_speech_is_written_down(kind: str, rate: int) -> None:
    async with serving(Script(transcript="hello")) as site:
        found = await text(site, recording(2.0, 1.0, 3.0, rate=rate, kind=kind))
        assert found.text == "hello hello hello"
        assert len(site.engine.sessions) == 0


async def test_what_is_known_of_the_speech_and_how_sure_its_words_are() -> None:
    known: dict[str, Any] = {"language": "English", "prompt": "Ishmael", "include": ["logprobs"]}
    async with serving(Script(transcript="call me")) as site:
        opened = spied(site)
        data = recording(2.0, 1.0)
        found = await text(site, data, **known)
        assert [(each.token, each.bytes) for each in found.logprobs] == [
            ("call", [*b"call"]),
            (" me", [*b" me"]),
        ] * 2
        assert all(each.logprob < 0 for each in found.logprobs)
        asked = [action for action in opened[0].actions if isinstance(action, Transcribe)]
        assert {action.how for action in asked} == {Dictation("en", "Ishmael", scores=True)}
        async with client(site) as openai:
            asking = openai.audio.transcriptions.create(file=("a.wav", data), model="m", stream=True, **known)
            events = [event async for event in await asking]
        assert [len(event.logprobs) for event in events] == [2, 2, 4]
        assert (await text(site, data)).logprobs is None
        verbose = await text(site, data, response_format="verbose_json", language="de-CH")
        assert verbose.language == "german"


async def test_stretches_in_a_script_without_spaces_join_without() -> None:
    async with serving(Script(transcript="\u4f60\u597d")) as site:
        data = recording(2.0, 1.0)
        assert (await text(site, data)).text == "\u4f60\u597d\u4f60\u597d"
        assert await text(site, data, response_format="text") == "\u4f60\u597d\u4f60\u597d\n"


async def test_times_of_long_speech_in_every_format() -> None:
    async with serving(Script(transcript="words")) as site:
        data = recording(2.0, 60.0)
        found = await text(site, data, response_format="verbose_json")
        assert abs(found.duration - 65.0) < 0.01
        spans = [(segment.start, segment.end) for segment in found.segments]
        assert len(spans) == 4  # 60 s in three parts
        assert all(end - start <= 25.0 for start, end in spans)
        assert spans[1][1] == spans[2][0]  # cut without a gap
        assert abs(spans[0][0] - 0.8) < 0.1
        srt = await text(site, data, response_format="srt")
        assert srt.startswith("1\n00:00:00,")
        assert "\nwords\n" in srt
        vtt = await text(site, data, response_format="vtt")
        assert vtt.startswith("WEBVTT\n\n00:00:00.")
        assert await text(site, data, response_format="text") == "words words words words\n"


async def test_words_stream_while_the_file_is_read() -> None:
    async with serving(Script(transcript="words")) as site, client(site) as openai:
        data = recording(1.0, 1.0)
        stream = await openai.audio.transcriptions.create(file=("a.wav", data), model="m", stream=True)
        events = [event async for event in stream]
    assert [event.type for event in events] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
    assert "".join(event.delta for event in events[:2]) == events[2].text == "words words"  # type: ignore[union-attr]


async def test_a_translation_is_a_turn_of_its_own() -> None:
    form = aiohttp.FormData({"model": "m"})
    form.add_field("file", recording(2.0), filename="a.wav")
    async with (
        serving() as site,
        aiohttp.ClientSession() as http,
        http.post(f"{site.http}/v1/audio/translations", data=form) as response,
    ):
        assert (await response.json())["text"].startswith("I heard ")


async def test_silence_says_nothing() -> None:
    async with serving() as site:
        assert (await text(site, recording())).text == ""


@pytest.mark.parametrize(
    ("data", "options", "code"),
    [
        (b"not audio", {}, "unreadable_audio"),
        (b"", {}, "unreadable_audio"),
        (recording(1.0), {"response_format": "diarized_json"}, "invalid_value"),
        (recording(1.0), {"response_format": "text", "include": ["logprobs"]}, "invalid_value"),
        (recording(1.0), {"language": "klingon"}, "invalid_value"),
        (recording(1.0), {"timestamp_granularities": ["word", "segment"]}, "invalid_value"),
    ],
)
async def test_what_cannot_be_written_down_is_told(data: bytes, options: dict[str, Any], code: str) -> None:
    async with serving() as site:
        with pytest.raises(APIStatusError) as refused:
            await text(site, data, **options)
        assert (refused.value.status_code, refused.value.code) == (400, code)


@pytest.mark.parametrize(
    "body",
    [
        {"json": {"file": "x"}},
        {"data": {"model": "m"}},
        {"data": b"--x\r\nbroken", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        {"data": b"", "headers": {"Content-Type": "multipart/form-data"}},
    ],
)
async def test_forms_without_a_file_are_refused(body: dict[str, Any]) -> None:
    async with (
        serving() as site,
        aiohttp.ClientSession() as http,
        http.post(f"{site.http}/v1/audio/transcriptions", **body) as response,
    ):
        assert response.status == 400, await response.text()


# --- text to audio ------------------------------------------------------------------------------------------------


async def spoken(site: Site, **options: Any) -> bytes:
    async with client(site) as openai:
        made = await openai.audio.speech.create(model="m", voice="anything", **options)
        return made.read()


@pytest.mark.parametrize("kind", ["wav", "mp3", "flac", "opus"])
async def test_text_becomes_a_file(kind: str) -> None:
    async with serving(Script(speech_ids=50)) as site:
        data = await spoken(site, input="Hello there.", response_format=kind)
        samples, rate = soundfile.read(io.BytesIO(data))
        assert abs(len(samples) / rate - 2.0) < 0.1


async def test_sentences_follow_each_other() -> None:
    async with serving(Script(speech_ids=25)) as site:
        pcm = await spoken(site, input="One. Two! Three?", response_format="pcm")
        assert len(pcm) == 3 * 25 * 960 * 2


async def test_sound_as_events() -> None:
    async with serving() as site, aiohttp.ClientSession() as http:
        asked = {"input": "Hi.", "model": "m", "voice": "v", "stream_format": "sse", "response_format": "pcm"}
        async with http.post(f"{site.http}/v1/audio/speech", json=asked) as response:
            lines = (await response.text()).strip().split("\n\n")
    kinds = [json.loads(line.removeprefix("data: "))["type"] for line in lines]
    assert kinds[-1] == "speech.audio.done"
    assert set(kinds[:-1]) == {"speech.audio.delta"}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": "  "}, "input"),
        ({"input": "a", "speed": 4.5}, "speed"),
        ({"input": "a", "response_format": "aac"}, "response_format"),
        ({}, "input"),
    ],
)
async def test_speech_that_cannot_be_is_told(asked: dict[str, Any], param: str) -> None:
    async with (
        serving() as site,
        aiohttp.ClientSession() as http,
        http.post(f"{site.http}/v1/audio/speech", json=asked) as response,
    ):
        assert response.status == 400
        assert (await response.json())["error"]["param"] == param


async def test_a_failed_turn_is_an_error_and_frees_its_slot() -> None:
    async with serving() as site, aiohttp.ClientSession() as http:
        for text_ in ("!fail", "!die"):
            async with http.post(f"{site.http}/v1/audio/speech", json={"input": text_}) as response:
                assert response.status in (200, 500, 503)
            await eventually(lambda: len(site.engine.sessions) == 0)


async def test_a_client_that_leaves_frees_its_slot() -> None:
    async with serving(Script(speech_ids=2500, rtf=0.2)) as site:
        async with aiohttp.ClientSession() as http:
            response = await http.post(
                f"{site.http}/v1/audio/speech", json={"input": "Hi.", "response_format": "pcm"}
            )
            await response.content.readany()
            assert len(site.engine.sessions) == 1
            response.close()
        await eventually(lambda: len(site.engine.sessions) == 0)


async def test_a_full_engine_says_so() -> None:
    async with serving() as site, aiohttp.ClientSession() as http:
        held = [await site.engine.open_session(lambda _: None) for _ in range(site.engine.ready.max_sessions)]
        async with http.post(f"{site.http}/v1/audio/speech", json={"input": "Hi."}) as response:
            assert response.status == 503
            assert "Retry-After" in response.headers
        for session in held:
            session.close()
        await asyncio.sleep(0)


def test_sentences_are_parted_without_loss() -> None:
    assert split_sentences("One. Two! It is 3.5 now? Yes") == ["One.", "Two!", "It is 3.5 now?", "Yes"]
    long = ", ".join(f"word{i} and more" for i in range(60)) + " " + "x" * 600
    parts = split_sentences(long)
    assert all(len(part) <= 241 for part in parts)
    assert "".join(parts).replace(" ", "") == long.replace(" ", "")
    assert split_sentences("   ") == []
