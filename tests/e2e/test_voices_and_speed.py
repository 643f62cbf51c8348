"""A voice is brought and spoken with, and speech at other speeds is still understood."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import soundfile
import soxr
from openai import AsyncOpenAI
from openai_caller import RATE, calling, plain

from voiceagent.audio.clip import to_wav
from voiceagent.models.step_audio2.speaker import SpeakerEncoder

Samples = np.ndarray[Any, np.dtype[np.float32]]
SENTENCE = "on wednesday we are open from eight to five."
OTHERS = "the chocolate cake costs five dollars. a garden room for one night is one hundred thirty dollars."


def to_int16(samples: Samples) -> np.ndarray[Any, np.dtype[np.int16]]:
    return np.rint(samples * 32767).astype(np.int16)


async def read_aloud(server: str, voice: str, *, text: str = SENTENCE, speed: float = 1.0) -> Samples:
    async with AsyncOpenAI(base_url=f"http://{server}/v1", api_key="none") as openai:
        answer = await openai.audio.speech.create(
            input=text, model="pocket", voice=voice, response_format="flac", speed=speed
        )
    samples, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32")
    assert rate == RATE
    return np.asarray(samples, np.float32)


async def heard(server: str, samples: Samples) -> str:
    async with AsyncOpenAI(base_url=f"http://{server}/v1", api_key="none") as openai:
        data = to_wav(to_int16(samples), rate=RATE)
        return plain((await openai.audio.transcriptions.create(file=("a.wav", data), model="pocket")).text)


class Judge:
    """How alike two voices are, by the checkpoint's own speaker encoder."""

    def __init__(self, folder: Path) -> None:
        self._encoder = SpeakerEncoder(folder / "token2wav" / "campplus.onnx")

    def vector(self, samples: Samples, rate: int = RATE) -> np.ndarray[Any, Any]:
        vector = self._encoder.encode(soxr.resample(samples, rate, 16_000).astype(np.float32))
        return np.asarray(vector / np.linalg.norm(vector))


def recording(path: Path) -> Samples:
    with wave.open(str(path)) as file:
        assert file.getframerate() == RATE
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


async def test_a_voice_is_brought_and_spoken_with(pocket_server: str, pocket_dir: Path) -> None:
    """The checkpoint can speak in two voices only, so the recording is one that it has not heard of one of these."""
    clip = await read_aloud(pocket_server, "default_male", text=OTHERS)
    judge = Judge(pocket_dir)
    models = {"new": judge.vector(clip), "female": judge.vector(recording(pocket_dir / "default_female.wav"))}
    async with aiohttp.ClientSession() as http:
        form = aiohttp.FormData(default_to_multipart=True)
        form.add_field("name", "new")
        form.add_field("audio", io.BytesIO(to_wav(to_int16(clip), rate=RATE)), filename="new.wav")
        async with http.post(f"http://{pocket_server}/v1/voices", data=form) as answer:
            assert answer.status == 200, await answer.text()
        try:
            for name, like in (("new", "new"), ("nobody", "female")):
                said = judge.vector(await read_aloud(pocket_server, name))
                alike = {other: float(said @ vector) for other, vector in models.items()}
                assert max(alike, key=lambda other: alike[other]) == like, alike
                assert abs(alike["new"] - alike["female"]) > 0.1, alike
            async with calling(pocket_server) as caller:
                await caller.configure(audio={"output": {"voice": "new"}, "input": {"turn_detection": None}})
                response = await caller.type("when do you open on wednesday")
                live = judge.vector(caller.samples(response).astype(np.float32) / 32768)
                assert live @ models["new"] > live @ models["female"] + 0.1
        finally:
            async with http.delete(f"http://{pocket_server}/v1/voices/new") as answer:
                assert answer.status == 200


@pytest.mark.parametrize("speed", [0.6, 1.4])
async def test_other_speeds_are_understood_and_as_long_as_they_should_be(
    pocket_server: str, speed: float
) -> None:
    own = await read_aloud(pocket_server, "default_female")
    other = await read_aloud(pocket_server, "default_female", speed=speed)
    assert len(other) / len(own) == pytest.approx(1 / speed, rel=0.2), "the model does not say it twice alike"
    assert await heard(pocket_server, other) == plain(SENTENCE)
