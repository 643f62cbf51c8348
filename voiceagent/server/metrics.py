"""Counts and times of one server in Prometheus' text format. It knows records, and neither calls nor what is in them.

TELEMETRY.md lists every name; a test holds it to what stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from voiceagent.server.observer import (
    Answer,
    Guessed,
    Heard,
    Interrupted,
    PersonFinished,
    Record,
    ToolCall,
    ToolResult,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
LAG_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
REQUEST_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
CALL_SECONDS = (1.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0)

COUNTERS: dict[str, tuple[tuple[str, ...], str]] = {
    "voiceagent_sessions_opened": (("protocol",), "Calls that were opened."),
    "voiceagent_sessions_refused": (("reason",), "Requests for a call that got none."),
    "voiceagent_resumptions": (("outcome",), "What became of calls whose line was lost."),
    "voiceagent_turns": (("status", "reason"), "Replies of the assistant that are over."),
    "voiceagent_user_turns": (("reason",), "Turns of persons, by what decided that they were over."),
    "voiceagent_interruptions": (("outcome", "reason"), "Voices over ours that were weighed."),
    "voiceagent_guesses": (("outcome",), "Replies that were begun on a guess."),
    "voiceagent_guess_saved_seconds": ((), "First sounds came so much earlier because of guesses."),
    "voiceagent_guess_wasted_seconds": ((), "Work of the engine on guesses that were wrong."),
    "voiceagent_guess_wasted_tokens": ((), "Tokens of guesses that were wrong."),
    "voiceagent_drift_words": ((), "Words that were made and not heard."),
    "voiceagent_tokens": (("direction",), "Tokens that the model read and made."),
    "voiceagent_tool_calls": (("runs",), "Calls of tools, by who is to run them."),
    "voiceagent_tool_results": (("outcome",), "What came of the tools that the server runs."),
    "voiceagent_requests": (("route", "status"), "Plain requests that are over."),
    "voiceagent_request_audio_seconds": (("route", "direction"), "Sound in requests and in their answers."),
}
"""Labels and meaning; in the text, `_total` stands behind every name."""

HISTOGRAMS: dict[str, tuple[tuple[str, ...], str, tuple[float, ...]]] = {
    "voiceagent_session_seconds": (("protocol",), "How long calls lasted.", CALL_SECONDS),
    "voiceagent_first_output_seconds": (
        ("cause", "output"),
        "From the last word, or the request, to the first audio or text that was sent.",
        SECONDS,
    ),
    "voiceagent_part_seconds": (
        ("cause", "output", "part"),
        "The parts of that time; they add up to it.",
        SECONDS,
    ),
    "voiceagent_drift_seconds": (
        ("acknowledged",),
        "Sound of a reply that was made and not heard.",
        SECONDS,
    ),
    "voiceagent_drift_correction_seconds": (
        (),
        "How far the player's word moved what we took for heard.",
        SECONDS,
    ),
    "voiceagent_request_seconds": (
        ("route",),
        "How long plain requests took, all of the answer included.",
        REQUEST_SECONDS,
    ),
    "voiceagent_loop_lag_seconds": ((), "How late the event loop rings its timers.", LAG_SECONDS),
}
"""Labels, meaning and upper bounds of the buckets."""


@dataclass(frozen=True, slots=True)
class State:
    """How the server is at this moment.

    Attributes:
        up: turns can begin.
        slots: of the engine, 0 while it is down.
        used: of them.
        restarts: of the engine, so far.
        open: calls.
        parked: calls that wait for their clients to come back.
    """

    up: bool
    slots: int
    used: int
    restarts: int
    open: int
    parked: int


class _Now(Collector):
    """What is looked up when somebody asks."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """The families, with their values of now."""
        now = self._state()
        yield GaugeMetricFamily("voiceagent_sessions_open", "Calls that there are.", now.open)
        yield GaugeMetricFamily(
            "voiceagent_sessions_parked",
            "Calls whose line was lost and whose clients may come back.",
            now.parked,
        )
        yield GaugeMetricFamily(
            "voiceagent_slots_used", "Sessions on the engine, requests included.", now.used
        )
        yield GaugeMetricFamily("voiceagent_slots", "Sessions that the engine has room for.", now.slots)
        yield GaugeMetricFamily("voiceagent_engine_up", "1 while turns can begin.", now.up)
        yield CounterMetricFamily(
            "voiceagent_engine_restarts", "How often the engine came back after it was lost.", now.restarts
        )


class _Lean(Collector):
    """A registry without the times at which each series began, which double their number and which nobody reads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """The families with what was counted alone."""
        for family in self._registry.collect():
            family.samples = [each for each in family.samples if not each.name.endswith("_created")]
            yield family


class Metrics:
    """The metrics of one server, in a registry of its own.

    Args:
        state: asked whenever somebody reads them.
    """

    def __init__(self, state: Callable[[], State]) -> None:
        self.registry = CollectorRegistry()
        self._counters = {
            name: Counter(name, meaning, labels, registry=self.registry)
            for name, (labels, meaning) in COUNTERS.items()
        }
        self._histograms = {
            name: Histogram(name, meaning, labels, registry=self.registry, buckets=buckets)
            for name, (labels, meaning, buckets) in HISTOGRAMS.items()
        }
        self.registry.register(_Now(state))
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(_Lean(self.registry))

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Adds to a counter."""
        counter = self._counters[name]
        (counter.labels(*labels) if labels else counter).inc(by)

    def time(self, name: str, seconds: float, *labels: str) -> None:
        """Adds a time to a histogram."""
        histogram = self._histograms[name]
        (histogram.labels(*labels) if labels else histogram).observe(seconds)

    def take(self, record: Record) -> None:
        """Counts what happened in a call."""
        match record:
            case Answer():
                self._answer(record)
            case PersonFinished(reason):
                self.count("voiceagent_user_turns", reason)
            case Interrupted(outcome, reason):
                self.count("voiceagent_interruptions", outcome, reason)
            case Guessed():
                self.count("voiceagent_guesses", record.outcome)
                self.count("voiceagent_guess_saved_seconds", by=record.saved_s)
                self.count("voiceagent_guess_wasted_seconds", by=record.wasted_s)
                self.count("voiceagent_guess_wasted_tokens", by=record.wasted_tokens)
            case Heard():
                self._heard(record)
            case ToolCall(runs):
                self.count("voiceagent_tool_calls", runs)
            case ToolResult(result):
                self.count("voiceagent_tool_results", result)

    def _answer(self, answer: Answer) -> None:
        self.count("voiceagent_turns", answer.status, answer.reason)
        self.count("voiceagent_tokens", "read", by=answer.tokens_read)
        self.count("voiceagent_tokens", "made", by=answer.tokens_made)
        if answer.latency is None:
            return
        cause = answer.latency.cause
        self.time("voiceagent_first_output_seconds", answer.latency.total / 1e6, cause, answer.output)
        for part, passed in answer.latency.parts.items():
            self.time("voiceagent_part_seconds", passed / 1e6, cause, answer.output, part)

    def _heard(self, heard: Heard) -> None:
        """What is told again only corrects what was counted."""
        if heard.corrected_s is not None:
            self.time("voiceagent_drift_correction_seconds", heard.corrected_s)
            return
        self.time("voiceagent_drift_seconds", heard.drift_s, "yes" if heard.acknowledged else "no")
        self.count("voiceagent_drift_words", by=heard.drift_words)
