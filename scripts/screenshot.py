"""Makes the picture of the page for the README: a spoken conversation with the real server, caught in the middle.

python3 scripts/screenshot.py [--model DIR] [--out web/screenshot.png] [--dark]

Needs Chromium and espeak-ng, which speaks the questions; a quiet machine, whose waits are in the picture.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import soundfile
import soxr
from playwright.async_api import Page, async_playwright

from voiceagent.config import Config, ServerConfig
from voiceagent.engine.client import LocalEngine
from voiceagent.engine.pipe import WorkerSpec
from voiceagent.server.app import Server, find_page

ROOT = Path(__file__).resolve().parent.parent
RATE = 48_000
WEATHER, BREAKFAST, TABLE = (
    "what is the weather in paris",
    "when is breakfast",
    "book a table for four on friday at seven",
)
HEARD_S = 0.5  # of the answer about breakfast, until it is interrupted
PATIENCE_MS = 120_000
MICROPHONE = """
    const context = new AudioContext();
    const room = context.createMediaStreamDestination();
    navigator.mediaDevices.getUserMedia = async () => room.stream;
    const known = new Map();
    window.learn = (text, samples, sampleRate) => {
        const buffer = new AudioBuffer({ length: samples.length, sampleRate });
        buffer.copyToChannel(Float32Array.from(samples), 0);
        known.set(text, buffer);
    };
    window.speak = async (text) => {
        await context.resume();
        const source = new AudioBufferSourceNode(context, { buffer: known.get(text) });
        source.connect(room);
        source.start();
    };
"""
BROWSER_ARGS = (
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def speech(text: str) -> list[float]:
    """The text in espeak-ng's voice, mono at `RATE`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "question.wav"
        subprocess.run(["espeak-ng", "-v", "en-us", "-s", "150", "-w", str(path), text], check=True)
        samples, rate = soundfile.read(path, dtype="float32")
    found: list[float] = (0.7 * soxr.resample(samples, rate, RATE)).round(4).tolist()
    return found


async def ask(page: Page, text: str, *, replies: int) -> None:
    """Speaks, and waits until there are so many replies and the last of them is to be heard."""
    await page.evaluate("text => window.speak(text)", text)
    script = """n => document.querySelectorAll(".turn.agent .words").length >= n
        && window.voiceagent.status === "speaking" """
    await page.wait_for_function(script, arg=replies, timeout=PATIENCE_MS)


async def hear(page: Page, seconds: float) -> None:
    """Waits until so much more was played."""
    until = await page.evaluate("() => window.voiceagent.played") + 24_000 * seconds
    await page.wait_for_function("n => window.voiceagent.played >= n", arg=until, timeout=PATIENCE_MS)


async def converse(page: Page) -> None:
    """Returns in the middle of the last answer, for which another was interrupted."""
    for text in (WEATHER, BREAKFAST, TABLE):
        await page.evaluate("given => window.learn(...given)", [text, speech(text), RATE])
    await page.get_by_role("button", name="Talk").click()
    await page.wait_for_function("() => window.voiceagent.status === 'listening'")
    await ask(page, WEATHER, replies=2)  # the words before the tool, and those behind it
    await page.wait_for_function("() => window.voiceagent.status === 'listening'", timeout=PATIENCE_MS)
    await ask(page, BREAKFAST, replies=3)
    await hear(page, HEARD_S)
    await ask(page, TABLE, replies=4)
    await hear(page, 1.2)
    await page.locator(".latency summary").last.click()


async def main(args: argparse.Namespace) -> None:
    engine = LocalEngine(WorkerSpec(model=str(args.model)))
    server = Server(Config(server=ServerConfig(port=0)), engine, page=find_page())
    await engine.start()
    try:
        host, port = await server.start()
        async with async_playwright() as driver:
            browser = await driver.chromium.launch(
                executable_path=shutil.which("chromium"), args=BROWSER_ARGS
            )
            page = await browser.new_page(
                viewport={"width": args.width, "height": args.height},
                color_scheme="dark" if args.dark else "light",
            )
            await page.add_init_script(MICROPHONE)
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
    parser.add_argument("--width", type=int, default=1200, help="of the window, in pixels")
    parser.add_argument("--height", type=int, default=860)
    sys.exit(asyncio.run(main(parser.parse_args())))
