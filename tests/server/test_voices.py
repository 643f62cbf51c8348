"""Voices over REST: enrolled, listed, spoken with, deleted, kept; and everything that is refused."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from openai import AsyncOpenAI
from server_helpers import Site, calling, serving

from voiceagent.audio.clip import to_wav
from voiceagent.config import ServerConfig
from voiceagent.engine.fake import Script
from voiceagent.engine.fake_engine import FakeEngine
from voiceagent.server.voice_book import VoiceBook


def tone(seconds: float = 4.0) -> bytes:
    wave = 8000 * np.sin(np.arange(int(seconds * 24_000)) * 0.1)
    return to_wav(wave.astype(np.int16), rate=24_000)


async def ask(
    site: Site, method: str, path: str, *, form: dict[str, Any] | None = None, key: str = ""
) -> tuple[int, dict[str, Any]]:
    """A request, with a multipart form if there is one."""
    data = None
    if form is not None:
        data = aiohttp.FormData(default_to_multipart=True)
        for name, value in form.items():
            kind = {"filename": "a.wav"} if isinstance(value, bytes) else {}
            data.add_field(name, io.BytesIO(value) if kind else value, **kind)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, site.http + path, data=data, headers=headers) as answer,
    ):
        return answer.status, json.loads(await answer.read())


async def enrol(site: Site, name: str = "anna", **form: Any) -> tuple[int, dict[str, Any]]:
    return await ask(site, "POST", "/v1/voices", form={"name": name, "audio": tone(), **form})


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[Site, list[str]]]:
    """A server, and the voices of all turns in order."""
    engine, used = FakeEngine(Script(speech_ids=10)), list[str]()
    play = engine.start_turn
    engine.start_turn = lambda session, action: (used.append(action.options.voice), play(session, action))[1]  # type: ignore[method-assign]
    await engine.start()
    async with serving(engine) as site:
        yield site, used
    await engine.stop()


async def test_a_voice_is_there_at_once_for_everybody_and_gone_when_it_is_deleted() -> None:
    async with watched() as (site, used), calling(site) as caller:
        status, voice = await enrol(site, consent="She agreed by letter.")
        assert status == 200
        assert {"id": "anna", "custom": True, "seconds": 4.0, "persistent": False}.items() <= voice.items()
        _, listed = await ask(site, "GET", "/v1/voices")
        assert [each["id"] for each in listed["data"]] == ["default_female", "default_male", "anna"]
        assert [each["custom"] for each in listed["data"]] == [False, False, True]
        assert listed["data"][2]["consent"] == "She agreed by letter."
        assert "anna" in (await ask(site, "GET", "/v1/models"))[1]["data"][0]["voices"]
        async with AsyncOpenAI(base_url=f"{site.http}/v1", api_key="x", max_retries=0) as openai:
            await openai.audio.speech.create(input="Hi.", model="m", voice="anna", response_format="pcm")
            await openai.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": "hi"}],
                modalities=["text", "audio"],
                audio={"voice": "anna", "format": "wav"},
            )
            assert used == ["anna", "anna"]
            assert await ask(site, "DELETE", "/v1/voices/anna") == (
                200,
                {"id": "anna", "object": "voice.deleted", "deleted": True},
            )
            await openai.audio.speech.create(input="Hi.", model="m", voice="anna", response_format="pcm")
        assert used[2] == ""
        assert len((await ask(site, "GET", "/v1/voices"))[1]["data"]) == 2
        assert (await ask(site, "DELETE", "/v1/voices/anna"))[0] == 404
        assert (await caller.ask("hello")).status == "completed"


@pytest.mark.parametrize(
    ("form", "status", "code", "param"),
    [
        ({"name": "anna"}, 400, "missing_required_parameter", "audio"),
        ({"audio": tone()}, 400, "missing_required_parameter", "name"),
        ({"name": "", "audio": tone()}, 400, "invalid_value", "name"),
        ({"name": "a/b", "audio": tone()}, 400, "invalid_value", "name"),
        ({"name": "..", "audio": tone()}, 400, "invalid_value", "name"),
        ({"name": "é", "audio": tone()}, 400, "invalid_value", "name"),
        ({"name": "a" * 65, "audio": tone()}, 400, "invalid_value", "name"),
        ({"name": "Default_Female", "audio": tone()}, 409, "voice_exists", "name"),
        ({"name": "ANNA", "audio": tone()}, 409, "voice_exists", "name"),
        ({"name": "bert", "audio": tone(2.0)}, 400, "audio_too_short", "audio"),
        ({"name": "bert", "audio": tone(11.0)}, 400, "audio_too_long", "audio"),
        ({"name": "bert", "audio": b"hello"}, 400, "unsupported_format", "audio"),
        ({"name": "bert", "audio": tone(), "consent": "x" * 3000}, 400, "invalid_value", "consent"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(
    form: dict[str, Any], status: int, code: str, param: str
) -> None:
    async with serving() as site:
        await enrol(site)
        got, body = await ask(site, "POST", "/v1/voices", form=form)
        assert (got, body["error"]["code"], body["error"]["param"]) == (status, code, param)
        assert site.engine.voices.names == ("anna",)


async def test_a_file_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voiceagent.server.voices.CLIP_BYTES", 100_000)
    async with serving() as site:
        status, body = await enrol(site)
        assert (status, body["error"]["code"], body["error"]["param"]) == (413, "file_too_large", "audio")
        assert site.engine.voices.names == ()


async def test_the_models_own_voices_stay_and_json_is_no_form() -> None:
    async with serving() as site:
        status, body = await ask(site, "DELETE", "/v1/voices/default_male")
        assert (status, body["error"]["code"]) == (403, "built_in_voice")
        status, body = await ask(site, "POST", "/v1/voices")
        assert (status, body["error"]["code"]) == (400, "invalid_content_type")
        async with (
            aiohttp.ClientSession() as http,
            http.post(
                f"{site.http}/v1/voices",
                data=b"--x\r\nbroken",
                headers={"Content-Type": "multipart/form-data; boundary=x"},
            ) as answer,
        ):
            assert answer.status == 400


async def test_an_ephemeral_key_lists_and_changes_nothing() -> None:
    async with serving(keys=("sk-ours",)) as site:
        _, secret = await ask(site, "POST", "/v1/realtime/client_secrets", key="sk-ours")
        key = secret.get("value", "")
        if not key:  # an empty body is no request for one
            async with AsyncOpenAI(base_url=f"{site.http}/v1", api_key="sk-ours") as openai:
                key = (await openai.realtime.client_secrets.create()).value
        assert (await ask(site, "GET", "/v1/voices", key=key))[0] == 200
        for method, path, status in (("POST", "/v1/voices", 403), ("DELETE", "/v1/voices/anna", 401)):
            assert (await ask(site, method, path, key=key))[0] == status
            assert (await ask(site, method, path))[0] == 401


async def test_there_are_as_many_as_there_may_be() -> None:
    engine = FakeEngine()
    await engine.start()
    book = VoiceBook(engine, ServerConfig(max_custom_voices=2))
    await book.enrol("anna", tone())
    results = await asyncio.gather(
        *(book.enrol(name, tone()) for name in ("bert", "carl")), return_exceptions=True
    )
    assert [getattr(result, "code", "made") for result in results] == ["made", "too_many_voices"]
    await book.remove("anna")
    await book.enrol("carl", tone())
    assert list(book) == ["default_female", "default_male", "bert", "carl"]
    assert len(book) == 4
    await engine.stop()


@pytest.mark.parametrize(
    ("host", "switch", "allowed"),
    [
        ("127.0.0.1", "auto", True),
        ("0.0.0.0", "auto", False),
        ("0.0.0.0", "on", True),
        ("127.0.0.1", "off", False),
    ],
)
async def test_off_loopback_they_must_be_asked_for(host: str, switch: str, allowed: bool) -> None:
    engine = FakeEngine()
    await engine.start()
    book = VoiceBook(engine, ServerConfig(host=host, api_keys=("k",), custom_voices=switch))
    if allowed:
        assert (await book.enrol("anna", tone())).name == "anna"
    else:
        with pytest.raises(Exception, match="takes no voices"):
            await book.enrol("anna", tone())
    await engine.stop()


async def test_a_folder_keeps_them_when_the_server_stops(tmp_path: Path) -> None:
    folder = tmp_path / "voices"
    config = ServerConfig(voice_folder=str(folder))
    engine = FakeEngine()
    await engine.start()
    book = VoiceBook(engine, config)
    await book.restore()
    for name in ("anna", "bert"):
        assert (await book.enrol(name, tone(), consent="yes")).persistent
    await book.remove("bert")
    assert {path.name for path in folder.iterdir()} == {"anna.wav", "anna.json"}
    await engine.stop()
    (folder / "broken.wav").write_bytes(b"x")
    (folder / "noise.wav").write_bytes(b"x")
    (folder / "noise.json").write_text('{"created_at": 1, "seconds": 4.0}')

    engine = FakeEngine()
    book = VoiceBook(engine, config)
    await book.restore()
    await engine.start()
    for _ in range(5):
        await asyncio.sleep(0)  # the engine answers soon
    assert [voice.name for voice in book.custom] == ["anna"], "what is no recording is left out"
    assert book.custom[0].consent == "yes"
    await engine.stop()


async def test_a_voice_of_an_engine_that_dies_and_comes_back() -> None:
    async with serving() as site, calling(site) as caller:
        await enrol(site)
        site.engine.die()
        status, body = await enrol(site, "bert")
        assert (status, body["error"]["code"]) == (503, "engine_down")
        site.engine.revive()
        assert (await enrol(site, "bert"))[0] == 200
        assert [v["id"] for v in (await ask(site, "GET", "/v1/voices"))[1]["data"]][2:] == ["anna", "bert"]
        assert (await caller.ask("hello")).status == "completed"
