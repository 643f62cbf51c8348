"""The page's pure modules, run in the browser that runs them: resampler, playing queue, tools, loudness."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser
from web_helpers import ServerThread, visit

from voiceagent.engine.fake_engine import FakeEngine

Evaluate = Callable[..., Any]

RESAMPLE = """async ([from, to, samples, pieces]) => {
    const { Resampler } = await import("/web/resample.js");
    const resampler = new Resampler(from, to);
    const out = [];
    let at = 0;
    for (let n = 0; at < samples.length; n++) {
        const size = pieces[n % pieces.length];
        out.push(...resampler.push(Float32Array.from(samples.slice(at, at + size))));
        at += size;
    }
    out.push(...resampler.finish());
    return out;
}"""

PLAYOUT = """async ([rate, steps]) => {
    const { Playout } = await import("/web/playout.js");
    const playout = new Playout(rate);
    const log = [];
    for (const [what, ...given] of steps) {
        if (what === "push") playout.push(given[0], Float32Array.from(given[1]));
        else if (what === "end") playout.end(given[0]);
        else if (what === "flush") log.push(playout.flush());
        else if (what === "pause") playout.pause();
        else if (what === "resume") playout.resume();
        else if (what === "place") log.push({ place: playout.place, silent: playout.silent });
        else {
            const block = new Float32Array(given[0]).fill(9);
            log.push({ events: playout.fill(block), block: [...block] });
        }
    }
    return { log, played: playout.played, underruns: playout.underruns };
}"""


@pytest.fixture(scope="module")
def evaluate(browser: Browser) -> Iterator[Evaluate]:
    server = ServerThread(FakeEngine)
    try:
        with visit(browser, server.url) as v:
            yield v.page.evaluate
    finally:
        server.stop()


def tone(hertz: float, rate: int, samples: int) -> np.ndarray[Any, Any]:
    return np.sin(2 * np.pi * hertz * np.arange(samples) / rate)


# --- resampler ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "to"), [(48_000, 24_000), (44_100, 24_000), (24_000, 44_100), (16_000, 24_000)]
)
def test_a_tone_stays_the_same_tone(evaluate: Evaluate, rate: int, to: int) -> None:
    given = tone(1000, rate, rate // 5)
    got = np.array(evaluate(RESAMPLE, [rate, to, given.tolist(), [128]]))
    assert abs(len(got) - to // 5) <= 1
    wanted = tone(1000, to, len(got))
    middle = slice(200, -200)
    assert np.abs(got[middle] - wanted[middle]).max() < 2e-4


def test_the_cut_into_pieces_does_not_matter(evaluate: Evaluate) -> None:
    given = np.random.default_rng(1).uniform(-1, 1, 3000)
    whole = evaluate(RESAMPLE, [44_100, 24_000, given.tolist(), [3000]])
    assert evaluate(RESAMPLE, [44_100, 24_000, given.tolist(), [128]]) == whole
    assert evaluate(RESAMPLE, [44_100, 24_000, given.tolist(), [1, 7, 300]]) == whole


def test_what_the_lower_rate_cannot_carry_is_removed(evaluate: Evaluate) -> None:
    given = tone(15_000, 48_000, 9600)
    got = np.array(evaluate(RESAMPLE, [48_000, 24_000, given.tolist(), [128]]))
    assert np.abs(got[200:-200]).max() < 1e-3


def test_equal_rates_change_nothing(evaluate: Evaluate) -> None:
    given = [0.5, -0.25, 0.125]
    assert evaluate(RESAMPLE, [24_000, 24_000, given, [2]]) == given


# --- playing queue: at 1000 Hz the pre-buffer is 60 samples and the fade 5 ------------------------------------------


def play(evaluate: Evaluate, *steps: list[Any]) -> dict[str, Any]:
    return dict(evaluate(PLAYOUT, [1000, list(steps)]))


def ramp(start: int, stop: int) -> list[float]:
    return [n / 1024 for n in range(start, stop)]


def test_items_play_in_order_without_a_gap(evaluate: Evaluate) -> None:
    got = play(
        evaluate,
        ["push", "a", ramp(1, 71)],
        ["push", "a", ramp(71, 101)],
        ["end", "a"],
        ["push", "b", ramp(101, 201)],
        ["end", "b"],
        ["fill", 128],
        ["fill", 128],
    )
    first, second = got["log"]
    assert first["block"] + second["block"] == ramp(1, 201) + [0.0] * 56
    assert [(e["type"], e["id"], e["offset"]) for e in first["events"] + second["events"]] == [
        ("start", "a", 0),
        ("end", "a", 100),
        ("start", "b", 100),
        ("end", "b", 72),
    ]
    assert (got["played"], got["underruns"]) == (200, 0)


def test_an_item_waits_for_its_prebuffer_unless_it_is_complete(evaluate: Evaluate) -> None:
    got = play(evaluate, ["push", "a", ramp(1, 31)], ["fill", 10], ["push", "a", ramp(31, 61)], ["fill", 10])
    assert [entry["block"] for entry in got["log"]] == [[0.0] * 10, ramp(1, 11)]
    short = play(evaluate, ["push", "a", ramp(1, 6)], ["end", "a"], ["fill", 10])
    assert short["log"][0]["block"] == ramp(1, 6) + [0.0] * 5


def test_running_dry_is_counted_and_buffers_again(evaluate: Evaluate) -> None:
    got = play(
        evaluate,
        ["push", "a", ramp(1, 61)],
        ["fill", 70],
        ["push", "a", ramp(61, 71)],
        ["fill", 10],
        ["push", "a", ramp(71, 121)],
        ["fill", 60],
    )
    blocks = [entry["block"] for entry in got["log"]]
    assert blocks == [ramp(1, 61) + [0.0] * 10, [0.0] * 10, ramp(61, 121)]
    assert (got["played"], got["underruns"]) == (120, 1)


def test_a_flush_tells_what_was_heard_and_fades(evaluate: Evaluate) -> None:
    got = play(
        evaluate,
        ["push", "a", [1.0] * 100],
        ["push", "b", [1.0] * 100],
        ["fill", 40],
        ["flush"],
        ["fill", 10],
        ["push", "c", ramp(1, 61)],
        ["fill", 10],
    )
    _, cut, tail, after = got["log"]
    assert cut == [{"id": "a", "played": 40, "dropped": 60}, {"id": "b", "played": 0, "dropped": 100}]
    assert tail["block"] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0] + [0.0] * 5)
    assert after["block"] == ramp(1, 11)
    assert got["played"] == 50  # the fade is not counted


def test_a_pause_fades_and_what_follows_goes_on_at_the_next_sample(evaluate: Evaluate) -> None:
    got = play(
        evaluate,
        ["push", "a", [1.0] * 30 + ramp(31, 101)],
        ["fill", 10],
        ["pause"],
        ["fill", 10],
        ["place"],
        ["push", "a", ramp(101, 121)],
        ["end", "a"],
        ["fill", 50],
        ["resume"],
        ["fill", 128],
    )
    _, pausing, place, pause, after = got["log"]
    assert pausing["block"] == pytest.approx([0.8, 0.6, 0.4, 0.2] + [0.0] * 6)
    assert place == {"place": {"id": "a", "played": 15}, "silent": True}
    assert pause["block"] == [0.0] * 50
    assert after["block"][:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])  # samples 15 to 19
    assert after["block"][5:] == [1.0] * 10 + ramp(31, 121) + [0.0] * 23
    assert after["events"] == [{"type": "end", "id": "a", "played": 120, "offset": 105}]
    assert (got["played"], got["underruns"]) == (120, 0)


def test_a_pause_before_anything_plays_holds_it_and_a_flush_ends_the_pause(evaluate: Evaluate) -> None:
    got = play(
        evaluate,
        ["pause"],
        ["push", "a", ramp(1, 101)],
        ["fill", 10],
        ["flush"],
        ["push", "b", ramp(1, 101)],
        ["fill", 10],
    )
    held, cut, after = got["log"]
    assert held["block"] == [0.0] * 10
    assert cut == [{"id": "a", "played": 0, "dropped": 100}]
    assert after["block"] == ramp(1, 11)


# --- decisions ------------------------------------------------------------------------------------------------------

DECISIONS = "async ([name, event]) => (await import('/web/decisions.js'))[name](event)"


@pytest.mark.parametrize(
    ("name", "event", "words"),
    [
        ("turnEnd", {"reason": "silence", "silence_ms": 512}, "0.51 s of silence"),
        ("turnEnd", {"reason": "spelled", "silence_ms": 1216}, "numbers or letters, so it waited 1.22 s"),
        ("turnEnd", {"reason": "committed", "silence_ms": 0}, ""),
        (
            "interruption",
            {"status": "confirmed", "reason": "length", "voice_ms": 608},
            "because you spoke on for 0.61 s",
        ),
        (
            "interruption",
            {"status": "dismissed", "reason": "noise", "voice_ms": 96},
            "went on: that was a noise",
        ),
        ("interruption", {"status": "dismissed", "reason": "request", "voice_ms": 96}, ""),
        ("guess", {"saved_ms": 240.2}, "begun on a guess, 240 ms sooner"),
        ("guess", {"saved_ms": 0}, ""),
        ("guess", None, ""),
    ],
)
def test_decisions_in_words(evaluate: Evaluate, name: str, event: dict[str, Any] | None, words: str) -> None:
    assert evaluate(DECISIONS, [name, event]) == words


# --- tools ----------------------------------------------------------------------------------------------------------


def call(evaluate: Evaluate, name: str, arguments: str) -> dict[str, Any]:
    script = """async ([name, json]) => (await import("/web/tools.js"))
        .answer(name, json, new Date("2026-01-15T12:30:00Z"))"""
    return dict(evaluate(script, [name, arguments]))


@pytest.mark.parametrize(
    ("city", "clock"),
    [("Tokyo", "21:30"), ("new york", "07:30"), ("San Francisco", "04:30"), ("Delhi", "18:00")],
)
def test_the_time_of_a_city(evaluate: Evaluate, city: str, clock: str) -> None:
    assert call(evaluate, "get_time", json.dumps({"city": city}))["output"] == {"city": city, "time": clock}


def test_an_unknown_city_gets_no_invented_time(evaluate: Evaluate) -> None:
    assert "error" in call(evaluate, "get_time", '{"city": "Atlantis"}')["output"]


def test_weather_is_made_up_and_says_so(evaluate: Evaluate) -> None:
    first = call(evaluate, "get_weather", '{"city": "Paris"}')
    assert set(first["output"]) == {"city", "weather", "temperature"}
    assert "made-up" in first["note"]
    assert call(evaluate, "get_weather", '{"city": "Paris"}') == first


@pytest.mark.parametrize(("name", "arguments"), [("get_time", "{"), ("get_weather", "{}"), ("launch", "{}")])
def test_bad_calls_get_an_error_as_their_result(evaluate: Evaluate, name: str, arguments: str) -> None:
    assert "error" in call(evaluate, name, arguments)["output"]


def test_loudness_is_in_decibels(evaluate: Evaluate) -> None:
    script = """async (levels) => { const { height } = await import("/web/strip.js"); return levels.map(height); }"""
    low, middle, high = evaluate(script, [0.001, 0.05, 0.9])
    assert low == 0
    assert 0.4 < middle < 0.8
    assert high == 1


WATERFALL = """async ([measured, server]) => {
    const { waterfall } = await import("/web/waterfall.js");
    return waterfall(measured, server ?? undefined);
}"""


@pytest.mark.parametrize(
    ("server", "names"),
    [
        (None, ["endpoint", "speech", "play"]),
        ({"total_ms": 700, "parts": {"endpoint": 500, "encode": 0, "speech": 200}},
         ["endpoint", "speech", "way", "play"]),
        ({"total_ms": 990, "parts": {"endpoint": 540, "speech": 450}}, ["endpoint", "speech", "play"]),
    ],
)  # fmt: skip
def test_the_parts_of_a_wait_add_up_to_what_the_page_measured(
    evaluate: Evaluate, server: dict[str, Any] | None, names: list[str]
) -> None:
    measured = {"typed": False, "total": 1000, "detect": 520, "answer": 400, "play": 80}
    parts = evaluate(WATERFALL, [measured, server])
    assert [part["name"] for part in parts] == names
    assert sum(part["ms"] for part in parts) == pytest.approx(1000)
    assert [part["from"] for part in parts] == pytest.approx(
        [sum(before["ms"] for before in parts[:n]) for n in range(len(parts))]
    )
