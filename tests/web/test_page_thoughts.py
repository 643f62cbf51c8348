"""Thoughts on the page: folded, small, only where the model can think and the person asked for them."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Browser, Page, expect
from web_helpers import ServerThread, visit

from voiceagent.engine.fake import Script

Serve = Callable[..., ServerThread]


def ask(page: Page, text: str) -> None:
    page.get_by_label("Type instead of speaking").fill(text)
    page.get_by_role("button", name="Send").click()


def test_a_thought_is_shown_folded_and_apart_from_the_answer(browser: Browser, serve: Serve) -> None:
    server = serve(Script(speech_ids=20, thought="let me see <b>now</b>"))
    with visit(browser, server.url) as v:
        ask(v.page, "first")
        expect(v.page.locator(".turn.agent")).to_have_count(1)
        expect(v.page.locator(".thought")).to_have_count(0)  # nobody asked for it
        v.page.get_by_role("button", name="Settings").click()
        v.page.get_by_label("Think first").check()
        v.page.get_by_role("button", name="Done").click()
        ask(v.page, "second")
        expect(v.page.locator(".thought summary")).to_have_text("Thought")
        expect(v.page.locator(".turn.agent .words").nth(1)).to_contain_text("You said: second")
        words = v.page.locator(".thought p")
        expect(words).to_be_hidden()
        v.page.locator(".thought summary").click()
        expect(words).to_be_visible()
        expect(words).to_have_text("let me see <b>now</b>")
        assert v.complaints == []


def test_a_model_that_cannot_think_is_not_asked_to(browser: Browser, serve: Serve) -> None:
    with visit(browser, serve(Script(speech_ids=5)).url) as v:
        ask(v.page, "hello")
        expect(v.page.locator(".turn.agent")).to_have_count(1)
        v.page.get_by_role("button", name="Settings").click()
        expect(v.page.locator("#think-row")).to_be_hidden()
        assert all("think" not in update["session"] for update in v.of("session.update"))
        assert v.complaints == []
