"""Makes the picture of the page for the README: a spoken conversation with the real server, caught in the middle.

python3 scripts/screenshot.py [--model DIR] [--out web/screenshot.png] [--dark]

Needs Chromium and espeak-ng, which speaks the questions into the browser's microphone.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
from playwright.async_api import Page, async_playwright

from voiceagent.config import Config, ServerConfig
from voiceagent.engine.client import LocalEngine
from voiceagent.engine.pipe import WorkerSpec
from voiceagent.server.app import Server, find_page

ROOT = Path(__file__).resolve().parent.parent
RATE = 48_000
# Each question with the seconds of silence after it, in which the agent answers.
QUESTIONS = (
    ("when is breakfast", 6.0),
    ("what is the weather in paris", 9.0),
    ("book a table for four on friday at seven", 12.0),
)
ANSWERS = 4  # replies until the picture is taken: the weather takes two
BROWSER_ARGS = (
    "--no-sandbox",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def speak(text: str, *, folder: Path) -> np.ndarray:
    """The text in espeak-ng's voice, mono at `RATE`."""
    path = folder / "question.wav"
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "150", "-w", str(path), text], check=True)
    samples, rate = soundfile.read(path, dtype="float32")
    return 0.7 * soxr.resample(samples, rate, RATE)


def write_questions(folder: Path) -> Path:
    """All questions and pauses in one file, as the browser's microphone will hear them."""
    parts = [np.zeros(RATE, np.float32)]
    for text, pause in QUESTIONS:
        parts += [speak(text, folder=folder), np.zeros(round(pause * RATE), np.float32)]
    path = folder / "questions.wav"
    soundfile.write(path, np.concatenate(parts), RATE, subtype="PCM_16")
    return path


async def converse(page: Page) -> None:
    """Returns in the middle of the last answer."""
    await page.get_by_role("button", name="Talk").click()
    script = """n => document.querySelectorAll(".turn.agent .words").length >= n
        && window.voiceagent.status === "speaking" """
    await page.wait_for_function(script, arg=ANSWERS, timeout=120_000)
    await page.wait_for_timeout(1800)


async def main(args: argparse.Namespace) -> None:
    engine = LocalEngine(WorkerSpec(model=str(args.model)))
    server = Server(Config(server=ServerConfig(port=0)), engine, page=find_page())
    await engine.start()
    try:
        host, port = await server.start()
        with tempfile.TemporaryDirectory() as folder:
            heard = write_questions(Path(folder))
            async with async_playwright() as driver:
                browser = await driver.chromium.launch(
                    executable_path=shutil.which("chromium"),
                    args=[*BROWSER_ARGS, f"--use-file-for-fake-audio-capture={heard}%noloop"],
                )
                page = await browser.new_page(
                    viewport={"width": 1200, "height": 760}, color_scheme="dark" if args.dark else "light"
                )
                await page.goto(f"http://{host}:{port}/")
                await converse(page)
                await page.screenshot(path=args.out)
                await browser.close()
        await server.stop()
    finally:
        await engine.stop()
    print(f"{args.out}: {args.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, default=ROOT / "voiceagent/assets/pocket", help="checkpoint folder"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "web/screenshot.png")
    parser.add_argument("--dark", action="store_true", help="the dark look instead of the light one")
    sys.exit(asyncio.run(main(parser.parse_args())))
