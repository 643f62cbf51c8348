"""A person's whole path: a question spoken into the browser's microphone, answered aloud by the pocket checkpoint."""

from __future__ import annotations

import subprocess
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from playwright.sync_api import Playwright, expect
from web_helpers import RATE, ServerThread, chromium, listening_to, quiet, visit, write_wav

from voiceagent.engine.client import LocalEngine
from voiceagent.engine.pipe import WorkerSpec


@pytest.fixture(scope="module")
def pocket(pocket_dir: Path) -> Iterator[ServerThread]:
    server = ServerThread(lambda: LocalEngine(WorkerSpec(model=str(pocket_dir))))
    yield server
    server.stop()


def spoken(text: str, folder: Path) -> np.ndarray[Any, Any]:
    path = folder / "spoken.wav"
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "150", "-w", str(path), text], check=True)
    with wave.open(str(path)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    return 0.7 * soxr.resample(samples, rate, RATE)


def test_a_spoken_question_gets_the_right_answer_aloud(
    driver: Playwright, pocket: ServerThread, tmp_path: Path
) -> None:
    wav = write_wav(tmp_path / "question.wav", quiet(1), spoken("when is breakfast", tmp_path), quiet(20))
    with chromium(driver, *listening_to(wav)) as browser, visit(browser, pocket.url) as v:
        v.page.get_by_role("button", name="Talk").click()
        answer = v.page.locator(".turn.agent .words")
        expect(answer).to_contain_text("breakfast is from seven to ten", ignore_case=True, timeout=30_000)
        expect(v.page.locator(".turn.user")).to_contain_text(
            "when is breakfast", ignore_case=True, timeout=30_000
        )
        v.wait_status("listening", timeout=30_000)
        heard = v.heard()
        assert heard["played"] > 24_000  # more than a second
        assert heard["peak"] > 0.05
        assert len(heard["latencies"]) == 1
        assert v.complaints == []


def test_the_agent_uses_the_clock_of_the_page(
    driver: Playwright, pocket: ServerThread, tmp_path: Path
) -> None:
    wav = write_wav(tmp_path / "question.wav", quiet(1), spoken("what time is it", tmp_path), quiet(20))
    with chromium(driver, *listening_to(wav)) as browser, visit(browser, pocket.url) as v:
        v.page.get_by_role("button", name="Talk").click()
        expect(v.page.locator(".tool")).to_contain_text("by this device's clock", timeout=30_000)
        expect(v.page.locator(".turn.agent .words").last).to_contain_text(
            "it is", ignore_case=True, timeout=30_000
        )
        assert v.complaints == []
