"""The page in a real browser, against the real server on a scripted engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Playwright, expect
from web_helpers import (
    MICROPHONE_ARGS,
    ServerThread,
    appended,
    babble,
    chromium,
    listening_to,
    quiet,
    visit,
    write_wav,
)

from voiceagent.engine.fake import Script

Serve = Callable[..., ServerThread]
LONG = Script(speech_ids=500)  # 20 seconds
PLAYED = "output_audio_buffer.played"


def ask(page: Page, text: str) -> None:
    page.get_by_label("Type instead of speaking").fill(text)
    page.get_by_role("button", name="Send").click()


def test_a_spoken_question_is_captioned_answered_and_heard(
    driver: Playwright, serve: Serve, tmp_path: Path
) -> None:
    wav = write_wav(tmp_path / "question.wav", quiet(0.8), babble(1.2), quiet(6))
    server = serve(Script(speech_ids=25, transcript="when do you open"))
    with chromium(driver, *listening_to(wav)) as browser, visit(browser, server.url) as v:
        v.page.get_by_role("button", name="Talk").click()
        expect(v.page.locator(".turn.user .words")).to_have_text("You: when do you open")
        expect(v.page.locator(".turn.agent .words")).to_contain_text("I heard")
        v.wait_played(25 * 960)
        v.wait_status("listening")
        heard = v.heard()
        assert heard["played"] == pytest.approx(25 * 960, abs=2)  # all of it, once
        assert heard["peak"] > 0.1
        assert heard["underruns"] == 0
        (latency,) = heard["latencies"]
        assert latency["total"] == pytest.approx(latency["detect"] + latency["answer"] + latency["play"])
        assert latency["detect"] >= 300  # the pause that ends a turn is part of the wait
        expect(v.page.locator(".turn.agent .latency")).to_be_visible()
        v.page.locator(".latency summary").click()
        expect(v.page.locator(".latency li").first).to_contain_text(
            "until it was clear that you had finished"
        )
        (told,) = [event for event in v.received if event["type"] == "response.latency"]
        assert told["cause"] == "speech"
        assert told["total_ms"] == sum(told["parts"].values())
        assert told["parts"]["endpoint"] >= 300
        v.page.get_by_role("button", name="End the conversation").click()
        v.wait_status("off")
        assert all(len(appended(event)) == 960 for event in v.of("input_audio_buffer.append"))
        assert v.complaints == []


def test_speaking_over_the_agent_stops_it_at_once(driver: Playwright, serve: Serve, tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "two.wav", quiet(0.8), babble(1.0), quiet(2.2), babble(1.0), quiet(6))
    server = serve(LONG)
    with chromium(driver, *listening_to(wav)) as browser, visit(browser, server.url) as v:
        v.page.get_by_role("button", name="Talk").click()
        expect(v.page.locator(".turn.agent.cut")).to_contain_text("stopped after", timeout=15_000)
        (cut,) = v.of("conversation.item.truncate")
        created = [
            event["item"]["id"] for event in v.received if event["type"] == "response.output_item.added"
        ]
        assert cut["item_id"] == created[0]
        assert 200 < cut["audio_end_ms"] < 4000
        expect(v.page.locator(".turn.agent.cut .confirmed")).to_contain_text("because you")
        expect(v.page.locator(".turn.user")).to_have_count(2)
        expect(v.page.locator(".turn.agent")).to_have_count(2, timeout=15_000)
        assert v.complaints == []


def test_what_is_kept_ends_where_the_page_had_played(
    driver: Playwright, serve: Serve, tmp_path: Path
) -> None:
    wav = write_wav(tmp_path / "two.wav", quiet(0.8), babble(1.0), quiet(2.2), babble(1.2), quiet(6))
    server = serve(LONG)
    with chromium(driver, *listening_to(wav)) as browser, visit(browser, server.url) as v:
        v.page.get_by_role("button", name="Talk").click()
        expect(v.page.locator(".turn.agent.cut")).to_be_visible(timeout=15_000)
        weighed = [e for e in v.received if e["type"] == "response.interruption"]
        assert [e["status"] for e in weighed[:2]] == ["pending", "confirmed"]
        response = weighed[0]["response_id"]
        places = [e["audio_end_ms"] for e in v.of(PLAYED) if e["response_id"] == response]
        assert places[0] == 0
        assert places == sorted(places)
        assert len(places) >= places[-1] / 160  # ten times a second, on a machine that is busy
        # The page stood still from the first sign on: what it said last is where it was cut.
        (cut,) = v.of("conversation.item.truncate")
        assert cut["audio_end_ms"] == pytest.approx(places[-1], abs=2)
        v.wait_until(lambda: any(e["type"] == "response.heard" for e in v.received))
        heard = [e for e in v.received if e["type"] == "response.heard" and e["response_id"] == response]
        assert heard[-1]["acknowledged"]
        assert 0 <= cut["audio_end_ms"] - heard[-1]["heard_ms"] <= 41
        assert v.complaints == []


def test_a_cough_only_pauses_the_reply(driver: Playwright, serve: Serve, tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "cough.wav", quiet(0.8), babble(1.0), quiet(1.7), babble(0.13), quiet(8))
    server = serve(Script(speech_ids=100, transcript="a question"))
    with chromium(driver, *listening_to(wav)) as browser, visit(browser, server.url) as v:
        v.page.get_by_role("button", name="Talk").click()
        v.page.wait_for_function("() => window.voiceagent.paused", timeout=15_000)
        v.wait_status("weighing")
        stood = v.heard()["played"]
        expect(v.page.locator(".turn.agent .dismissed")).to_contain_text("went on")
        assert 0 < stood < 100 * 960
        v.wait_status("listening")
        v.wait_played(100 * 960 - 2)
        heard = v.heard()
        assert heard["played"] == pytest.approx(100 * 960, abs=2)  # no sample lost, and none twice
        assert not heard["paused"]
        assert v.of("conversation.item.truncate") == []
        (response,) = [e["response"]["id"] for e in v.received if e["type"] == "response.created"]
        v.wait_until(lambda: any(e["type"] == "response.heard" for e in v.received))
        (told,) = [e for e in v.received if e["type"] == "response.heard"]
        assert (told["response_id"], told["heard_ms"], told["generated_ms"]) == (response, 4000, 4000)
        assert v.complaints == []


def test_a_typed_question_needs_no_microphone(browser: Browser, serve: Serve) -> None:
    server = serve(Script(speech_ids=20))
    with visit(browser, server.url) as v:
        ask(v.page, "hello there")
        expect(v.page.locator(".turn.user")).to_have_text("You: hello there")
        expect(v.page.locator(".turn.agent .words")).to_have_text("Agent: You said: hello there")
        v.wait_played(20 * 960)
        v.wait_status("typing")
        assert v.of("input_audio_buffer.append") == []
        assert v.heard()["latencies"][0]["detect"] == pytest.approx(0, abs=1)
        assert v.complaints == []


@pytest.mark.parametrize("by", ["button", "key"])
def test_stop_silences_the_reply_and_tells_how_far_it_was_heard(
    browser: Browser, serve: Serve, by: str
) -> None:
    server = serve(LONG)
    with visit(browser, server.url) as v:
        stop = v.page.get_by_role("button", name="Stop speaking")
        expect(stop).to_be_disabled()
        ask(v.page, "go on for long")
        v.wait_played(12_000)
        if by == "button":
            stop.click()
        else:
            v.page.keyboard.press("Escape")
        v.wait_status("typing")
        expect(v.page.locator(".turn.agent.cut")).to_contain_text("stopped after")
        expect(stop).to_be_disabled()
        (cut,) = v.of("conversation.item.truncate")
        heard_ms = v.heard()["played"] / 24
        assert 300 <= cut["audio_end_ms"] <= heard_ms + 1
        assert not [e for e in v.received if e["type"] == "error"]
        ask(v.page, "and now")  # the session goes on
        expect(v.page.locator(".turn.agent .words").last).to_contain_text("You said: and now")
        assert v.complaints == []


def test_a_new_question_takes_the_place_of_the_running_answer(browser: Browser, serve: Serve) -> None:
    server = serve(LONG)
    with visit(browser, server.url) as v:
        ask(v.page, "first")
        v.wait_played(4800)
        ask(v.page, "second")
        expect(v.page.locator(".turn.agent.cut")).to_contain_text("first")
        expect(v.page.locator(".turn.agent:not(.cut) .words")).to_contain_text("second")
        assert [len(v.of("response.create")), len(v.of("response.cancel"))] == [2, 1]
        assert v.complaints == []


def test_words_are_text_whatever_they_say(browser: Browser, serve: Serve) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script> & <b>bold</b>"
    server = serve(Script(speech_ids=5))
    with visit(browser, server.url) as v:
        ask(v.page, evil)
        expect(v.page.locator(".turn.user .words")).to_have_text(f"You: {evil}")
        expect(v.page.locator(".turn.agent .words")).to_have_text(f"Agent: You said: {evil}")
        assert v.page.locator("#log img, #log script, #log b").count() == 0
        assert v.complaints == []


def test_the_page_answers_tool_calls_and_says_what_is_made_up(browser: Browser, serve: Serve) -> None:
    server = serve(Script(speech_ids=5))
    with visit(browser, server.url, timezone_id="Europe/Berlin") as v:
        ask(v.page, "please use get_weather")
        expect(v.page.locator(".tool")).to_contain_text("get_weather")
        expect(v.page.locator(".turn.agent .words").last).to_contain_text("The tool said:")
        (result,) = [e["item"] for e in v.of("conversation.item.create") if "output" in e["item"]]
        assert result["call_id"]
        ask(v.page, "please use get_time")
        expect(v.page.locator(".tool").last).to_contain_text("by this device's clock")
        assert v.complaints == []


def test_the_page_shows_what_the_server_looks_up_as_text(browser: Browser, serve: Serve) -> None:
    server = serve(Script(speech_ids=5), functions=("web_tools:look_up",))
    with visit(browser, server.url) as v:
        ask(v.page, "please look_up this")
        expect(v.page.locator(".tool")).to_contain_text("look_up")
        expect(v.page.locator(".tool")).to_contain_text("at the server: <img")
        expect(v.page.locator(".turn.agent .words").last).to_contain_text("The tool said:")
        assert v.page.locator("#log img").count() == 0
        assert len(v.of("response.create")) == 1  # the server goes on by itself
        assert v.complaints == []


def test_muted_frames_are_silent_and_m_toggles(driver: Playwright, serve: Serve, tmp_path: Path) -> None:
    server = serve()
    wav = write_wav(tmp_path / "noise.wav", babble(20))
    with chromium(driver, *listening_to(wav)) as browser, visit(browser, server.url) as v:
        v.page.keyboard.press("m")
        expect(v.page.get_by_role("button", name="Unmute")).to_be_visible()
        v.page.get_by_role("button", name="Talk").click()
        v.wait_status("muted")
        v.wait_until(lambda: len(v.of("input_audio_buffer.append")) >= 10)
        assert all(not appended(event).any() for event in v.of("input_audio_buffer.append"))
        v.page.keyboard.press("m")
        v.wait_until(lambda: any(np.abs(appended(e)).max() > 1000 for e in v.of("input_audio_buffer.append")))
        v.page.get_by_label("Type instead of speaking").press("m")  # typing is not a shortcut
        expect(v.page.locator("#mute-label")).to_have_text("Mute")
        assert v.complaints == []


def test_space_held_down_lets_the_muted_speak(driver: Playwright, serve: Serve, tmp_path: Path) -> None:
    server = serve()
    wav = write_wav(tmp_path / "noise.wav", babble(20))
    with chromium(driver, *listening_to(wav)) as browser, visit(browser, server.url) as v:
        v.page.keyboard.press("m")
        v.page.get_by_role("button", name="Talk").click()
        v.wait_status("muted")
        v.page.locator("body").click(
            position={"x": 5, "y": 400}
        )  # the button has the focus, and space presses it
        v.page.keyboard.down(" ")
        v.wait_until(lambda: any(appended(e).any() for e in v.of("input_audio_buffer.append")))
        v.page.keyboard.up(" ")
        v.wait_status("muted")
        expect(v.page.locator("#mute-label")).to_have_text("Unmute")
        assert v.complaints == []


def test_a_microphone_that_is_switched_off_is_told(driver: Playwright, serve: Serve, tmp_path: Path) -> None:
    server = serve()
    wav = write_wav(tmp_path / "nothing.wav", quiet(20))
    with chromium(driver, *listening_to(wav)) as browser, visit(browser, server.url) as v:
        v.page.get_by_role("button", name="Talk").click()
        expect(v.page.get_by_role("alert")).to_contain_text("gives no sound at all", timeout=15_000)
        v.wait_status("listening")


def test_the_conversation_can_be_kept_as_text(browser: Browser, serve: Serve) -> None:
    server = serve(Script(speech_ids=5))
    with visit(browser, server.url) as v:
        ask(v.page, "hello")
        v.wait_played(4800)
        v.page.get_by_role("button", name="Settings").click()
        with v.page.expect_download() as saved:
            v.page.get_by_role("button", name="Save text").click()
        assert saved.value.suggested_filename.endswith(".txt")
        assert saved.value.path().read_text() == "You: hello\nAgent: You said: hello\n"
        assert v.complaints == []


def test_settings_are_sent_and_kept(browser: Browser, serve: Serve) -> None:
    server = serve(Script(speech_ids=5))
    with visit(browser, server.url) as v:
        ask(v.page, "hello")
        v.wait_played(4800)
        v.page.get_by_role("button", name="Settings").click()
        v.page.get_by_label("Voice", exact=True).select_option(label="Male")
        v.page.get_by_label("Instructions").fill("Be brief.")
        v.page.get_by_label("Sensitivity").fill("70")
        v.page.get_by_label("Volume").fill("40")
        v.page.get_by_label("Demo tools").uncheck()
        v.page.get_by_role("button", name="Done").click()
        session = v.of("session.update")[-1]["session"]
        assert session["audio"]["output"]["voice"] == "default_male"
        assert session["instructions"] == "Be brief."
        assert session["audio"]["input"]["turn_detection"]["threshold"] == 0.3
        assert session["tools"] == []
        v.page.reload()
        ask(v.page, "again")
        v.wait_played(4800)
        assert v.of("session.update")[-1]["session"] == session
        v.page.get_by_role("button", name="Settings").click()
        expect(v.page.get_by_label("Volume")).to_have_value("40")
        v.page.get_by_label("Your turn ends").select_option(label="when it sounds complete")
        v.wait_until(lambda: len(v.of("session.update")) > 2)
        detection = v.of("session.update")[-1]["session"]["audio"]["input"]["turn_detection"]
        assert (detection["type"], detection["eagerness"]) == ("semantic_vad", "medium")
        expect(v.page.get_by_label("Sensitivity")).to_be_disabled()
        v.wait_until(lambda: sum(e["type"] == "session.updated" for e in v.received) > 2)
        assert not [e for e in v.received if e["type"] == "error"]
        assert v.complaints == []


def test_it_says_that_the_server_is_gone_and_comes_back_by_itself(browser: Browser, serve: Serve) -> None:
    server = serve(Script(speech_ids=5))
    with visit(browser, server.url) as v:
        ask(v.page, "hello")
        v.wait_played(4800)
        server.hang_up()
        expect(v.page.get_by_role("alert")).to_contain_text("Trying again by itself")
        v.wait_status("waiting", "connecting")
        server.listen()
        v.wait_status("typing")
        expect(v.page.get_by_role("alert")).to_be_hidden()
        expect(v.page.locator(".rule")).to_contain_text("new conversation")
        ask(v.page, "still there")
        expect(v.page.locator(".turn.agent .words").last).to_contain_text("still there")


def test_a_lost_line_costs_neither_the_conversation_nor_a_sample(browser: Browser, serve: Serve) -> None:
    server = serve(Script(speech_ids=75))
    with visit(browser, server.url) as v:
        ask(v.page, "hello")
        v.wait_played(12_000)
        server.break_lines()
        v.wait_status("waiting", "connecting")
        v.wait_until(lambda: any(e["type"] == "session.resumed" for e in v.received))
        v.wait_status("typing")
        v.wait_played(75 * 960 - 2)
        assert v.heard()["played"] == pytest.approx(75 * 960, abs=2)
        expect(v.page.locator(".rule")).to_have_count(0)
        expect(v.page.get_by_role("alert")).to_be_hidden()
        assert len([e for e in v.received if e["type"] == "session.created"]) == 1
        v.wait_until(lambda: any(e["type"] == "response.heard" for e in v.received))
        (told,) = [e for e in v.received if e["type"] == "response.heard"]
        assert (told["heard_ms"], told["acknowledged"]) == (3000, True)
        ask(v.page, "still there")
        expect(v.page.locator(".turn.agent .words").last).to_contain_text("You said: still there")


def test_it_asks_for_the_key_that_the_server_wants(browser: Browser, serve: Serve) -> None:
    server = serve(Script(speech_ids=5), keys=("open-sesame",))
    with visit(browser, server.url) as v:
        ask(v.page, "hello")
        expect(v.page.get_by_role("alert")).to_contain_text("asks for an API key")
        v.page.get_by_label("API key").fill("open-sesame")
        v.page.get_by_role("button", name="Done").click()
        expect(v.page.locator(".turn.agent .words")).to_contain_text("You said: hello")  # it was not lost


def test_a_failed_reply_is_said_and_the_session_goes_on(browser: Browser, serve: Serve) -> None:
    server = serve(Script(speech_ids=5))
    with visit(browser, server.url) as v:
        ask(v.page, "!fail")
        expect(v.page.get_by_role("alert")).to_contain_text("The reply failed")
        ask(v.page, "hello")
        expect(v.page.get_by_role("alert")).to_be_hidden()
        expect(v.page.locator(".turn.agent .words")).to_contain_text("You said: hello")
        assert v.complaints == []


def test_it_says_why_there_is_no_microphone(driver: Playwright, serve: Serve) -> None:
    server = serve(Script(speech_ids=5))
    with chromium(driver) as browser, visit(browser, server.url, permissions=["microphone"]) as v:
        v.page.get_by_role("button", name="Talk").click()
        expect(v.page.get_by_role("alert")).to_contain_text("No microphone was found")
        ask(v.page, "typing still works")
        expect(v.page.locator(".turn.agent .words")).to_contain_text("typing still works")


def test_it_says_that_the_microphone_is_blocked(driver: Playwright, serve: Serve) -> None:
    server = serve()
    with chromium(driver, MICROPHONE_ARGS[1]) as browser, visit(browser, server.url) as v:
        v.page.get_by_role("button", name="Talk").click()
        expect(v.page.get_by_role("alert")).to_contain_text("The microphone is blocked")
        v.wait_status("off")
        assert v.complaints == []


def test_every_control_has_a_name(browser: Browser, serve: Serve) -> None:
    server = serve()
    with visit(browser, server.url) as v:
        nameless = v.page.evaluate(
            """() => [...document.querySelectorAll("button, input, select, textarea")].filter((control) =>
                !control.getAttribute("aria-label") && !control.textContent.trim() && !control.labels?.length
            ).map((control) => control.outerHTML)"""
        )
        assert nameless == []
        expect(v.page.locator("html")).to_have_attribute("lang", "en")
        v.page.keyboard.press("Tab")
        expect(v.page.get_by_role("link", name="Skip to the text box")).to_be_focused()
