"""Traces of calls for an OpenTelemetry collector, made of records after the fact; the only user of opentelemetry.

A call is a trace: its root span is the call, under it lies a span for every reply, under that one for every part of
its latency that took time, and one for the rest of it. Voices over ours, guesses and drift are events of the root.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, Status, StatusCode, Tracer, set_span_in_context

from voiceagent import __version__
from voiceagent.server.observer import Answer, Guessed, Heard, Interrupted, Record

NAME = "voiceagent"
TRACES_PATH = "/v1/traces"


def exporter(address: str) -> SpanExporter:
    """To a collector at this address; an empty one = where the OTEL_EXPORTER_OTLP_ variables say."""
    return OTLPSpanExporter(endpoint=address.rstrip("/") + TRACES_PATH) if address else OTLPSpanExporter()


class Traces:
    """The traces of one server.

    Args:
        to: takes spans that are over, on a thread of its own.
        unix_ns: the time of day.
    """

    def __init__(self, to: SpanExporter, *, unix_ns: Callable[[], int]) -> None:
        about = {SERVICE_VERSION: __version__}
        if not os.environ.get("OTEL_SERVICE_NAME"):
            about[SERVICE_NAME] = NAME
        self._provider = TracerProvider(resource=Resource.create(dict(about)), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(to))
        self._tracer = self._provider.get_tracer(NAME, __version__)
        self._unix_ns = unix_ns

    def call(self, protocol: str, now: float) -> CallTrace:
        """The trace of a call that begins `now`, on the call's clock."""
        return CallTrace(self._tracer, protocol, now, began_ns=self._unix_ns())

    def close(self) -> None:
        """Sends what is left; it may wait for the collector."""
        self._provider.shutdown()


class CallTrace:
    """The trace of one call; times are seconds of the call's clock, which is set by the time of day once."""

    def __init__(self, tracer: Tracer, protocol: str, now: float, *, began_ns: int) -> None:
        self._tracer, self._began, self._began_ns = tracer, now, began_ns
        self._root = tracer.start_span(
            "call", Context(), start_time=began_ns, attributes={"voiceagent.protocol": protocol}
        )
        self._inside = set_span_in_context(self._root, Context())

    def take(self, record: Record, now: float) -> None:
        """What happened in the call."""
        match record:
            case Answer():
                self._answer(record)
            case Interrupted(outcome, reason, voice_s):
                self._event("interruption", now, outcome=outcome, reason=reason, voice_seconds=voice_s)
            case Guessed(outcome, saved_s, wasted_s, tokens):
                self._event(
                    "guess",
                    now,
                    outcome=outcome,
                    saved_seconds=saved_s,
                    wasted_seconds=wasted_s,
                    wasted_tokens=tokens,
                )
            case Heard() if record.drift_s or record.corrected_s is not None:
                self._event("drift", now, seconds=record.drift_s, words=record.drift_words)
            case _:
                pass

    def end(self, now: float) -> None:
        """The call is over."""
        self._root.end(self._ns(now))

    def _answer(self, answer: Answer) -> None:
        span = self._tracer.start_span(
            "turn", self._inside, start_time=self._ns(answer.began), attributes=_attributes(answer)
        )
        if answer.status == "failed":
            span.set_status(Status(StatusCode.ERROR))
        if answer.latency is not None:
            self._parts(answer, set_span_in_context(span, Context()))
        span.end(self._ns(answer.closed))

    def _parts(self, answer: Answer, inside: Context) -> None:
        assert answer.latency is not None
        passed = 0
        for name, part in answer.latency.parts.items():
            if part:
                start = self._ns(answer.began, passed)
                self._span(name, inside, start, self._ns(answer.began, passed + part))
            passed += part
        self._span("reply", inside, self._ns(answer.began, passed), self._ns(answer.closed))

    def _span(self, name: str, inside: Context, start_ns: int, end_ns: int) -> Span:
        span = self._tracer.start_span(name, inside, start_time=start_ns)
        span.end(max(start_ns, end_ns))
        return span

    def _event(self, name: str, now: float, **facts: str | float) -> None:
        named = {f"voiceagent.{key}": value for key, value in facts.items()}
        self._root.add_event(name, named, timestamp=self._ns(now))

    def _ns(self, at: float, later_us: int = 0) -> int:
        return self._began_ns + round((at - self._began) * 1e9) + later_us * 1000


def _attributes(answer: Answer) -> dict[str, str | int | float]:
    facts: dict[str, str | int | float] = {
        "voiceagent.status": answer.status,
        "voiceagent.reason": answer.reason,
        "voiceagent.output": answer.output,
        "voiceagent.tokens_read": answer.tokens_read,
        "voiceagent.tokens_made": answer.tokens_made,
        "voiceagent.tools": answer.tools,
    }
    if answer.latency is not None:
        facts["voiceagent.cause"] = answer.latency.cause
        facts["voiceagent.first_output_seconds"] = answer.latency.total / 1e6
        facts["voiceagent.saved_seconds"] = answer.latency.saved / 1e6
    if answer.error:
        facts["error.type"] = answer.error
    return facts
