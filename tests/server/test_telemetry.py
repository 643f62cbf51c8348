"""Metrics and traces of a server, over real sockets: they tell what happened, and nothing of what was said."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from server_helpers import Caller, Site, calling, eventually, serving
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from voiceagent.audio import wavio
from voiceagent.config import TelemetryConfig, ToolsConfig
from voiceagent.core.waterfall import Waterfall
from voiceagent.engine.fake import Script
from voiceagent.engine.fake_engine import FakeEngine
from voiceagent.errors import ConfigError
from voiceagent.server import metrics as metrics_module
from voiceagent.server.observer import Answer, Guessed, Heard, Interrupted
from voiceagent.server.telemetry import OTLP_VARIABLES
from voiceagent.server.tracing import Traces

PAGE = Path(metrics_module.__file__).with_name("TELEMETRY.md")
SHORT = Script(speech_ids=25)
CANARY = "canaryphrase"
LOUD = (np.sin(np.arange(2_400) / 20) * 12_000).astype(np.int16)
SILENT = np.zeros(2_400, np.int16)


class Page:
    """What /metrics says."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def sum(self, name: str, **labels: str) -> float:
        """Of all series with these labels."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


async def get(site: Site, path: str = "/metrics", **headers: str) -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as client,
        client.get(site.http + path, headers=headers) as response,
    ):
        return response.status, response.headers["Content-Type"], await response.text()


async def read(site: Site) -> Page:
    status, kind, text = await get(site)
    assert (status, kind) == (200, metrics_module.CONTENT_TYPE)
    return Page(text)


async def speak(caller: Caller, *, loud: int = 0, silent: int = 0) -> None:
    """Tenths of a second of voice, and of silence behind it."""
    for _ in range(loud):
        await caller.append(LOUD)
    for _ in range(silent):
        await caller.append(SILENT)


async def listen(caller: Caller, **session: Any) -> None:
    detection = {"type": "server_vad", "silence_duration_ms": 300}
    await caller.configure(audio={"input": {"turn_detection": detection}}, output_lead_ms=100, **session)


# --- metrics ----------------------------------------------------------------------------------------------------------


async def test_turns_show_up_and_the_parts_of_their_time_add_up() -> None:
    async with serving(Script(speech_ids=25, first_delay_s=0.02)) as site, calling(site) as caller:
        await caller.manual()
        for _ in range(3):
            await caller.ask("Hello?")
        await caller.configure(output_modalities=["text"])
        await caller.ask("Hello?")
        page = await read(site)
    told = [event for event in caller.log if event["type"] == "response.latency"]
    assert page.sum("voiceagent_turns_total", status="completed", reason="none") == 4
    assert page.sum("voiceagent_first_output_seconds_count", cause="request", output="audio") == 3
    assert page.sum("voiceagent_first_output_seconds_count", cause="request", output="text") == 1
    assert len(told) == 4
    for output in ("audio", "text"):
        total = page.sum("voiceagent_first_output_seconds_sum", output=output)
        assert total > 0
        assert page.sum("voiceagent_part_seconds_sum", output=output) == pytest.approx(total, abs=1e-9)
    for part in Waterfall(1, "request").parts:
        assert page.sum("voiceagent_part_seconds_count", part=part) == 4
        shown = sum(event["parts"][part] for event in told) / 1000
        assert page.sum("voiceagent_part_seconds_sum", part=part) == pytest.approx(shown, abs=0.004)
    assert page.sum("voiceagent_tokens_total", direction="made") > 75


async def test_sessions_are_counted_while_they_are_open_and_after() -> None:
    async with serving(SHORT) as site:
        async with calling(site), calling(site):
            page = await read(site)
            assert page.sum("voiceagent_sessions_open") == page.sum("voiceagent_slots_used") == 2
            assert page.sum("voiceagent_slots") == 64
            assert page.sum("voiceagent_session_seconds_count") == 0
        await eventually(lambda: not site.engine.sessions)
        page = await read(site)
        assert page.sum("voiceagent_sessions_open") == page.sum("voiceagent_slots_used") == 0
        assert page.sum("voiceagent_sessions_opened_total", protocol="realtime") == 2
        assert page.sum("voiceagent_session_seconds_count", protocol="realtime") == 2
        assert page.sum("voiceagent_loop_lag_seconds_count") > 0


async def refused(site: Site, query: str = "", **headers: str) -> None:
    with pytest.raises(InvalidStatus):
        async with connect(site.ws + query, additional_headers=headers):
            pass


async def test_refused_sessions_are_counted_by_their_reason() -> None:
    engine = FakeEngine(SHORT, max_sessions=1)
    await engine.start()
    async with serving(engine, keys=("sk-right",)) as site:
        right = {"Authorization": "Bearer sk-right"}
        await refused(site)
        await refused(site, Authorization="Bearer sk-wrong")
        await refused(site, Origin="https://evil.example")
        await refused(site, "&record=true", **right)
        await refused(site, "&intent=nonsense", **right)
        await get(site, "/v1/realtime", **right)
        async with calling(site, additional_headers=right):
            await refused(site, **right)
        engine.die()
        await refused(site, **right)
        page = Page((await get(site, **right))[2])
    await engine.stop()
    found = {
        sample.labels["reason"]: sample.value
        for sample in page.samples
        if sample.name == "voiceagent_sessions_refused_total"
    }
    assert found == {
        "invalid_api_key": 2, "forbidden_origin": 1, "recording_unavailable": 1, "invalid_request": 1,
        "upgrade_required": 1, "overloaded": 1, "engine_down": 1,
    }  # fmt: skip
    assert page.sum("voiceagent_sessions_opened_total") == 1


async def test_an_interruption_a_cough_and_what_was_not_heard() -> None:
    async with serving(Script(speech_ids=100)) as site, calling(site) as caller:
        await listen(caller)
        await speak(caller, loud=6, silent=6)
        await caller.until("response.output_audio.delta")
        await speak(caller, loud=1, silent=4)  # a cough
        await caller.until("response.interruption", when=lambda event: event["status"] == "dismissed")
        await speak(caller, loud=9)
        await caller.until("response.done")
        heard = await caller.until("response.heard")
        page = await read(site)
    assert page.sum("voiceagent_interruptions_total", outcome="dismissed") == 1
    assert page.sum("voiceagent_interruptions_total", outcome="confirmed") == 1
    assert page.sum("voiceagent_turns_total", status="cancelled", reason="turn_detected") == 1
    assert page.sum("voiceagent_user_turns_total") >= 1
    lost = (heard["generated_ms"] - heard["heard_ms"]) / 1000
    assert lost > 0
    assert page.sum("voiceagent_drift_seconds_sum", acknowledged="no") == pytest.approx(lost)
    assert page.sum("voiceagent_drift_words_total") == heard["words"] - heard["heard_words"]
    assert page.sum("voiceagent_first_output_seconds_count", cause="speech") == 1
    assert page.sum("voiceagent_part_seconds_sum", part="endpoint") > 0.1


async def test_the_players_word_is_counted_as_a_correction() -> None:
    async with serving(Script(speech_ids=100)) as site, calling(site) as caller:
        await caller.manual(lead_ms=1000)
        await caller.say("Hello?")
        await caller.until("response.output_audio.delta")
        await caller.send("response.cancel")
        done = await caller.until("response.done")
        await caller.until("response.heard")
        item = done["response"]["output"][0]["id"]
        await caller.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=0)
        await caller.until("conversation.item.truncated", when=lambda event: event["audio_end_ms"] == 0)
        page = await read(site)
    assert page.sum("voiceagent_drift_correction_seconds_count") == 1
    assert page.sum("voiceagent_drift_seconds_count") == 1


async def test_guesses_are_counted_with_what_they_brought() -> None:
    async with serving(Script(speech_ids=25, first_delay_s=0.001)) as site, calling(site) as caller:
        await listen(caller)
        await speak(caller, loud=6, silent=2)
        await asyncio.sleep(0)  # the guess is begun, and the person goes on
        await speak(caller, loud=6, silent=8)
        await caller.until("response.done")
        told = [event for event in caller.log if event["type"] == "response.latency"][-1]["speculation"]
        page = await read(site)
    assert page.sum("voiceagent_guesses_total") == told["guesses"]
    assert page.sum("voiceagent_guesses_total", outcome="right") == told["hits"]
    assert page.sum("voiceagent_guesses_total", outcome="went_on") == told["guesses"] - told["hits"] > 0
    assert page.sum("voiceagent_guess_saved_seconds_total") * 1000 == pytest.approx(
        told["total_saved_ms"], abs=1
    )


TOOLS = ToolsConfig(functions=("tools_of_a_test:get_weather", "tools_of_a_test:explode"))


async def test_tools_are_counted_by_who_runs_them_and_what_came_of_it() -> None:
    async with serving(SHORT, tools=TOOLS) as site, calling(site) as caller:
        await site.server.tools.ready()
        await caller.manual()
        for name in ("get_weather", "explode"):
            await caller.say(f"{name} please")
            await caller.until("server_tool.returned")
            await caller.until("response.done", when=lambda event: bool(event["response"]["output"]))
        await caller.configure(
            tools=[{"type": "function", "name": "clock", "parameters": {"type": "object"}}]
        )
        await caller.ask("clock please")
        page = await read(site)
    assert page.sum("voiceagent_tool_calls_total", runs="server") == 2
    assert page.sum("voiceagent_tool_calls_total", runs="client") == 1
    assert page.sum("voiceagent_tool_results_total", outcome="ok") == 1
    assert page.sum("voiceagent_tool_results_total", outcome="failed") == 1


async def test_plain_requests_are_counted_by_route_and_outcome(tmp_path: Path) -> None:
    wav = tmp_path / "a.wav"
    wavio.write(wav, np.full(36_000, 8000, np.int16), rate=24_000)
    async with serving(SHORT, keys=("k",)) as site, aiohttp.ClientSession(site.http) as client:
        key = {"Authorization": "Bearer k"}
        form = aiohttp.FormData({"model": "fake"})
        form.add_field("file", wav.read_bytes(), filename="a.wav")
        audio = {"voice": "default_male", "format": "wav"}
        chat = {
            "model": "fake",
            "messages": [{"role": "user", "content": "hi"}],
            "modalities": ["text", "audio"],
            "audio": audio,
        }
        said = {"model": "fake", "input": "good morning"}
        for path, body in (
            ("/v1/audio/transcriptions", {"data": form}),
            ("/v1/chat/completions", {"json": chat}),
            ("/v1/audio/speech", {"json": said}),
            ("/v1/audio/speech", {"json": {}}),
            ("/v1/canaryphrase", {"json": {}}),
        ):
            async with client.post(path, headers=key, **body) as reply:  # type: ignore[arg-type]
                await reply.read()
        await client.get("/v1/models")
        await client.delete("/v1/voices/canaryphrase", headers=key)
        await client.get("/healthz")
        _, _, text = await get(site, Authorization="Bearer k")
    page = Page(text)
    total, sound = "voiceagent_requests_total", "voiceagent_request_audio_seconds_total"
    assert page.sum(total, route="audio/transcriptions", status="200") == 1
    assert page.sum(total, route="chat/completions", status="200") == 1
    assert page.sum(total, route="audio/speech", status="200") == 1
    assert page.sum(total, route="audio/speech", status="400") == 1
    assert page.sum(total, route="models", status="401") == 1
    assert page.sum(total, route="voices/{name}", status="404") == 1
    assert page.sum(total, route="other", status="404") == 1
    assert page.sum(total) == page.sum("voiceagent_request_seconds_count") == 7
    assert page.sum(sound, route="audio/transcriptions", direction="heard") == 1.5
    assert page.sum(sound, route="chat/completions", direction="spoken") == 1.0
    assert page.sum(sound, route="audio/speech", direction="spoken") == 1.0
    assert CANARY not in text


async def test_answers_that_end_early_are_no_successes() -> None:
    script = Script(speech_ids=2_000, chunk_ids=5, rtf=0.5)
    said = {"model": "fake", "input": "a long story", "response_format": "pcm"}
    async with serving(script) as site, aiohttp.ClientSession(site.http) as client:
        reply = await client.post("/v1/audio/speech", json=said)
        await reply.content.readexactly(100)
        reply.close()
        counts = site.server.telemetry.metrics.registry.get_sample_value

        def ended(status: str) -> bool:
            return counts("voiceagent_requests_total", {"route": "audio/speech", "status": status}) == 1

        await eventually(lambda: ended("left"))
        reply = await client.post("/v1/audio/speech", json=said)
        await reply.content.readexactly(100)
        site.engine.die()
        await eventually(lambda: ended("broken"))
        reply.close()


async def test_the_engines_restarts_show() -> None:
    async with serving(SHORT) as site:
        assert (await read(site)).sum("voiceagent_engine_up") == 1
        site.engine.die()
        page = await read(site)
        assert page.sum("voiceagent_engine_up") == page.sum("voiceagent_slots") == 0
        site.engine.revive()
        page = await read(site)
        assert (page.sum("voiceagent_engine_up"), page.sum("voiceagent_engine_restarts_total")) == (1, 1)


async def test_who_may_read_them_is_a_switch() -> None:
    async with serving(SHORT, keys=("sk-right",)) as site:
        live = site.server._gate.ephemeral.issue(seconds=60).value
        assert (await get(site))[0] == 401
        assert (await get(site, Authorization=f"Bearer {live}"))[0] == 401
        assert (await get(site, Authorization="Bearer sk-right"))[0] == 200
    async with serving(SHORT, keys=("sk-right",), telemetry=TelemetryConfig(metrics="open")) as site:
        assert (await get(site))[0] == 200
        assert (await get(site, Host="evil.example"))[0] == 403
        assert (await get(site, "/v1/models"))[0] == 401
    async with serving(SHORT, telemetry=TelemetryConfig(metrics="off")) as site:
        assert (await get(site))[0] == 404


async def test_two_servers_of_one_process_count_apart() -> None:
    async with serving(SHORT) as one, serving(SHORT) as other:
        async with calling(one):
            pass
        assert (await read(other)).sum("voiceagent_sessions_opened_total") == 0


async def test_a_fault_of_ours_in_counting_ends_no_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("no counting today")

    async with serving(SHORT) as site, calling(site) as caller:
        monkeypatch.setattr(site.server.telemetry.metrics, "take", explode)
        await caller.manual()
        assert (await caller.ask("Hello?")).status == "completed"
    assert "could not count TurnClosed" in caplog.text


async def test_the_page_on_them_lists_them_all() -> None:
    async with serving(SHORT) as site:
        families = {
            family.name + ("_total" if family.type == "counter" else ""): (family.type, family.documentation)
            for family in (await read(site)).families
            if family.name.startswith("voiceagent_")
        }
    labels = {f"{name}_total": known for name, (known, _) in metrics_module.COUNTERS.items()}
    labels |= {name: known for name, (known, _, _) in metrics_module.HISTOGRAMS.items()}
    rows = re.findall(
        r"^\| `(voiceagent_\w+)` \| (\w+) \|([^|]*)\| ([^|]*) \|$", PAGE.read_text(), re.MULTILINE
    )
    described = {name: (kind, tuple(re.findall(r"`(\w+)`", known)), text) for name, kind, known, text in rows}
    assert described == {name: (kind, labels.get(name, ()), text) for name, (kind, text) in families.items()}
    for part in Waterfall(1, "request").parts:
        assert f"`{part}`" in PAGE.read_text()


# --- traces -----------------------------------------------------------------------------------------------------------


class Collector:
    """An OpenTelemetry collector that keeps what it is sent."""

    def __init__(self) -> None:
        self.address = ""
        self.bodies: list[bytes] = []

    @property
    def spans(self) -> list[Any]:
        found = []
        for body in self.bodies:
            request = ExportTraceServiceRequest.FromString(body)
            found += [span for r in request.resource_spans for s in r.scope_spans for span in s.spans]
        return found

    async def take(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        return web.Response(content_type="application/x-protobuf")


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()


async def test_a_call_is_a_trace_whose_parts_lie_end_to_end() -> None:
    async with collecting() as collector:
        telemetry = TelemetryConfig(otlp=collector.address)
        slow = Script(speech_ids=25, first_delay_s=0.02)
        async with serving(slow, telemetry=telemetry) as site, calling(site) as caller:
            await caller.manual()
            for _ in range(2):
                await caller.ask("Hello?")
    told = [event for event in caller.log if event["type"] == "response.latency"]
    spans = collector.spans
    assert len({span.trace_id for span in spans}) == 1
    (call,) = [span for span in spans if span.name == "call"]
    turns = sorted((s for s in spans if s.name == "turn"), key=lambda span: span.start_time_unix_nano)
    assert [turn.parent_span_id for turn in turns] == [call.span_id] * 2
    for turn, latency in zip(turns, told, strict=True):
        below = sorted(
            (s for s in spans if s.parent_span_id == turn.span_id), key=lambda s: s.start_time_unix_nano
        )
        assert below[-1].name == "reply"
        edges = [turn.start_time_unix_nano, *(span.end_time_unix_nano for span in below)]
        assert [span.start_time_unix_nano for span in below] == edges[:-1]
        assert edges[-1] == turn.end_time_unix_nano
        for span in below[:-1]:
            length_ms = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
            assert length_ms == pytest.approx(latency["parts"][span.name], abs=1.01)
        first_ms = (below[-1].start_time_unix_nano - turn.start_time_unix_nano) / 1e6
        assert first_ms == pytest.approx(latency["total_ms"], abs=0.51)
        assert call.start_time_unix_nano <= turn.start_time_unix_nano
        assert turn.end_time_unix_nano <= call.end_time_unix_nano


def answer(**changes: Any) -> Answer:
    known: dict[str, Any] = {
        "status": "completed", "reason": "none", "output": "audio", "began": 10.0, "closed": 12.0, "error": "",
        "latency": Waterfall(1, "speech", endpoint=300_000, prefill=200_000, sent=10.5),
        "tokens_read": 5, "tokens_made": 7, "tools": 0,
    }  # fmt: skip
    return Answer(**known | changes)


def test_records_become_spans_and_events() -> None:
    kept = InMemorySpanExporter()
    traces = Traces(kept, unix_ns=lambda: 1_000_000_000_000)
    call = traces.call("realtime", 9.0)
    call.take(answer(), 12.0)
    call.take(answer(status="failed", reason="error", error="kv_full", latency=None), 12.0)
    call.take(Interrupted("confirmed", "length", 0.6), 12.5)
    call.take(Guessed("went_on", 0.0, 0.1, 9), 12.5)
    call.take(Heard(0.4, 2, acknowledged=True), 12.5)
    call.take(Heard(0.0, 0, acknowledged=True), 12.5)
    call.end(13.0)
    traces.close()
    spans = kept.get_finished_spans()
    assert [span.name for span in spans] == ["endpoint", "prefill", "reply", "turn", "turn", "call"]
    endpoint, prefill, reply, turn, failed, root = spans
    assert (endpoint.start_time, endpoint.end_time) == (1_001_000_000_000, 1_001_300_000_000)
    assert (prefill.start_time, prefill.end_time) == (1_001_300_000_000, 1_001_500_000_000)
    assert (reply.start_time, reply.end_time) == (1_001_500_000_000, 1_003_000_000_000)
    assert (turn.start_time, turn.end_time) == (endpoint.start_time, reply.end_time)
    assert turn.attributes is not None
    assert turn.attributes["voiceagent.first_output_seconds"] == 0.5
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "kv_full"
    assert not failed.status.is_ok
    assert Counter(event.name for event in root.events) == {"interruption": 1, "guess": 1, "drift": 1}
    assert (root.start_time, root.end_time) == (1_000_000_000_000, 1_004_000_000_000)


async def test_the_environment_asks_for_traces_as_of_any_program(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting() as collector:
        monkeypatch.setenv(OTLP_VARIABLES[0], collector.address)
        async with serving(SHORT) as site, calling(site) as caller:
            await caller.manual()
        assert [span.name for span in collector.spans] == ["call"]
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        async with serving(SHORT) as site, calling(site) as caller:
            await caller.manual()
        assert len(collector.spans) == 1


async def test_without_the_packages_only_who_asks_for_traces_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr("voiceagent.server.tracing")
    monkeypatch.setitem(sys.modules, "voiceagent.server.tracing", None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="OpenTelemetry"):
        async with serving(SHORT, telemetry=TelemetryConfig(otlp="http://127.0.0.1:4318")):
            pass
    monkeypatch.setenv(OTLP_VARIABLES[0], "http://127.0.0.1:4318")
    async with serving(SHORT) as site, calling(site) as caller:
        await caller.manual()
        assert (await caller.ask("Hello?")).status == "completed"
    assert "voiceagent[otel]" in caplog.text


# --- nothing of what was said -----------------------------------------------------------------------------------------


async def test_a_canary_phrase_is_in_neither() -> None:
    """Said, typed, written down, as an instruction, a name, an id, an argument and a tool's result."""
    async with collecting() as collector:
        script = Script(speech_ids=25, transcript=f"{CANARY} was said")
        tools = ToolsConfig(functions=("tools_of_a_test:get_weather",))
        telemetry = TelemetryConfig(otlp=collector.address)
        async with serving(script, tools=tools, telemetry=telemetry) as site, calling(site) as caller:
            await site.server.tools.ready()
            await listen(caller, instructions=CANARY)
            await speak(caller, loud=6, silent=6)
            await caller.until("response.output_audio.delta")
            await speak(caller, loud=9, silent=1)
            await caller.until("response.done")
            await caller.manual()
            await caller.say(f"get_weather {CANARY}")
            await caller.until("server_tool.returned")
            await caller.until("response.done", when=lambda event: bool(event["response"]["output"]))
            tool = {"type": "function", "name": CANARY, "parameters": {"type": "object"}}
            await caller.configure(tools=[tool])
            await caller.ask(f"{CANARY} please")
            await caller.ask("!fail")
            await caller.send("response.create", event_id=CANARY, response={"metadata": {CANARY: CANARY}})
            await caller.until("response.done")
            await refused(site, f"&intent={CANARY}", Authorization=f"Bearer {CANARY}")
            page = await read(site)
        assert CANARY in str(caller.log)
        assert page.sum("voiceagent_turns_total") >= 5
        assert {span.name for span in collector.spans} >= {"call", "turn", "reply"}
        session = caller.log[0]["session"]["id"]
        ids = {session.removeprefix("sess_"), *caller.responses}
        for text in (page.text, *(body.decode("latin-1") for body in collector.bodies)):
            assert CANARY not in text
            assert not any(each in text for each in ids)
