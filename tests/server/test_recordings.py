"""A call that asks for it is recorded; its recording is fetched, replayed and deleted by those who may."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import soundfile
from server_helpers import Site, calling, eventually

from voiceagent.cli import main
from voiceagent.config import Config, RecordingConfig, ServerConfig
from voiceagent.core import journal
from voiceagent.core.replay import replay
from voiceagent.engine.fake import Script, numbered
from voiceagent.engine.fake_engine import FakeEngine
from voiceagent.server.app import Server
from voiceagent.units import TOKEN_SAMPLES


@asynccontextmanager
async def recording(folder: Path | None, *, keys: tuple[str, ...] = ()) -> AsyncIterator[Site]:
    engine = FakeEngine(Script(speech_ids=25))
    await engine.start()
    config = Config(
        server=ServerConfig(port=0, api_keys=keys), recording=RecordingConfig(folder=str(folder or ""))
    )
    server = Server(config, engine)
    _, port = await server.start()
    try:
        yield Site(port, engine, server)
    finally:
        await server.stop()
        await engine.stop()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def recorded(site: Site) -> Site:
    """The same site, whose calls ask to be recorded."""

    class Asking(Site):
        @property
        def ws(self) -> str:
            return f"{site.ws}&record=true"

    return Asking(site.port, site.engine, site.server)


async def fetched(site: Site, path: str, *, method: str = "GET", key: str = "") -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.request(method, site.http + path) as answer,
    ):
        json = "json" in answer.content_type and "jsonl" not in answer.content_type
        return answer.status, await (answer.json() if json else answer.read())


async def test_a_recorded_call_can_be_fetched_replayed_and_deleted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "calls"
    async with recording(folder) as site:
        async with calling(recorded(site)) as caller:
            assert caller.log[0]["session"]["recorded"] is True
            await caller.append(np.full(24_000, 8000, np.int16))
            await caller.send("input_audio_buffer.commit")
            await caller.until("input_audio_buffer.committed")
            await caller.ask("hello")
        await eventually(lambda: bool(names_in(folder)))  # it is written when there is time
        (name,) = names_in(folder)
        await eventually(lambda: names_in(folder / name) == {"call.wav", "journal.jsonl"})
        status, listed = await fetched(site, "/v1/recordings")
        assert (status, [each["id"] for each in listed["data"]], listed["data"][0]["complete"]) == (
            200,
            [name],
            True,
        )
        _, raw = await fetched(site, f"/v1/recordings/{name}/call.wav")
        sound, rate = soundfile.read(io.BytesIO(raw))
        assert rate == 24_000
        heard = np.abs(sound[:, 0])
        assert np.median(heard[heard > 0.1]) == pytest.approx(8000 / 32768, abs=0.01)
        ours = np.flatnonzero(sound[:, 1])
        said = numbered(session=1, turn=1, start=0, count=25 * TOKEN_SAMPLES) / 32768
        start = ours[0] - int(np.flatnonzero(said)[0])
        np.testing.assert_allclose(sound[start : start + len(said), 1], said, atol=2 / 32768)
        _, text = await fetched(site, f"/v1/recordings/{name}/journal.jsonl")
        told = [d.what for d in replay(*journal.read(text.decode().splitlines())) if d.what]
        assert told == ["reply 1 begins", "reply 1 is completed"]
        assert (
            main(["replay", str(folder / name), "--set", "lead_ms=500", "--picture", str(tmp_path / "a.svg")])
            == 0
        )
        assert "2 decisions: 0 would be gone, 0 new" in capsys.readouterr().out
        assert "reply 1 begins" in (tmp_path / "a.svg").read_text()
        assert (await fetched(site, f"/v1/recordings/{name}", method="DELETE"))[0] == 200
        assert not names_in(folder)
        for method, path in (
            ("DELETE", name),
            ("GET", f"{name}/call.wav"),
            ("GET", "../x/call.wav"),
            ("GET", "x/y"),
        ):
            status, _ = await fetched(site, f"/v1/recordings/{path}", method=method)
            assert status == 404


async def test_nobody_is_recorded_unasked_and_not_where_nothing_is_kept(tmp_path: Path) -> None:
    async with recording(tmp_path) as site, calling(site) as caller:
        assert "recorded" not in caller.log[0]["session"]
        await caller.ask("hello")
    assert not names_in(tmp_path)
    async with recording(None) as site:
        status, told = await fetched(site, "/v1/realtime?record=true")
        assert (status, told["error"]["code"]) in {(400, "recording_unavailable"), (426, "upgrade_required")}
        with pytest.raises(Exception, match="HTTP 400"):
            async with calling(recorded(site)):
                pass
        assert await fetched(site, "/v1/recordings") == (200, {"object": "list", "data": []})


async def test_a_page_s_key_opens_no_recording(tmp_path: Path) -> None:
    async with recording(tmp_path, keys=("sk",)) as site:
        headers = {"Authorization": "Bearer sk"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.post(f"{site.http}/v1/realtime/client_secrets", json={}) as made,
        ):
            key = (await made.json())["value"]
        for path, method in (("", "GET"), ("/a/call.wav", "GET"), ("/a", "DELETE")):
            assert (await fetched(site, f"/v1/recordings{path}", method=method, key=key))[0] == 401
            assert (await fetched(site, f"/v1/recordings{path}", method=method))[0] == 401
        assert (await fetched(site, "/v1/recordings", key="sk"))[0] == 200


def test_what_is_no_recording_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.jsonl").write_text("hello\n")
    for command, words in (
        ([str(tmp_path)], "There is no journal"),
        ([str(tmp_path / "x.jsonl")], "Line 1 is not of a call's journal"),
        ([str(tmp_path / "x.jsonl"), "--set", "silence"], "Line 1"),
    ):
        assert main(["replay", *command]) == 2
        told = capsys.readouterr().err
        assert words in told
        assert told.count("\n") == 1
