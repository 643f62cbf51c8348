"""How far the word times of a checkpoint's replies are from where an independent aligner hears the words.

    PYTHONPATH=. python3 scripts/bench/word_times.py [--model DIR]

Three ways to tell a word's beginning: the place of its token among the speech tokens, the pace of the voice (what a
transcript delta says, before its sound exists), and its share of the voiced sound (what is said once the reply is
whole). Needs pocketsphinx, and replies in English.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from scripts.pocket.recogniser import word_starts
from voiceagent.audio.resample import resample
from voiceagent.core import events
from voiceagent.core import options as opt
from voiceagent.core.actions import EncodePiece, StartTurn
from voiceagent.core.captions import Captions, Pace
from voiceagent.core.history import AudioContent, Piece, TextContent, UserItem
from voiceagent.engine.client import LocalEngine
from voiceagent.engine.pipe import WorkerSpec
from voiceagent.units import MODEL_RATE, TOKEN_RATE, VOICE_RATE

ROOT = Path(__file__).resolve().parents[2]
TYPED = (
    "what are your opening hours", "my name is nick", "spell king", "count from one to ten",
    "what is seven plus five", "how much is a double room", "i want to book a table for four",
    "tell me about yourself", "what can you do", "good morning",
    "repeat after me the quick brown fox jumps over the lazy dog",
)  # fmt: skip
LATE_S = 0.1  #: a caption this much behind its word is late

Item = tuple[UserItem, Piece | None]


def questions() -> list[Item]:
    """The recorded test questions and some typed ones."""
    asked: list[Item] = []
    for number, path in enumerate(sorted((ROOT / "tests/data/questions").glob("*.flac"))):
        samples, rate = soundfile.read(path, dtype="float32")
        piece = Piece(number, resample(samples, source=rate, target=MODEL_RATE))
        asked.append((UserItem(path.stem, (AudioContent((piece,)),)), piece))
    return asked + [(UserItem(text, (TextContent(text),)), None) for text in TYPED]


async def replies(model: Path) -> list[tuple[list[tuple[events.TextOut, int]], NDArray[np.int16]]]:
    """Of each reply its texts, each with the number of speech ids before it, and its sound."""
    log: list[events.Event] = []
    ended = asyncio.Event()

    def on_event(event: events.Event) -> None:
        log.append(event)
        if isinstance(event, events.TurnEnded | events.TurnFailed):
            ended.set()

    engine = LocalEngine(WorkerSpec(model=str(model), threads=1, speech_dtype="float32"))
    await engine.start()
    session = await engine.open_session(on_event)
    made = []
    try:
        for turn, (item, piece) in enumerate(questions()):
            log.clear()
            ended.clear()
            if piece is not None:
                session.send(EncodePiece(piece))
            session.send(StartTurn(turn, (item,), opt.TurnOptions(temperature=0.0)))
            await ended.wait()
            texts = [event for event in log if isinstance(event, events.TextOut)]
            sound = [event.pcm for event in log if isinstance(event, events.AudioOut)]
            end = log[-1]
            if sound and isinstance(end, events.TurnEnded):
                made.append((places(texts, end.raw_ids), np.concatenate(sound)))
    finally:
        await engine.stop()
    return made


def places(texts: list[events.TextOut], raw_ids: tuple[int, ...]) -> list[tuple[events.TextOut, int]]:
    """Each text with the number of ids that are no text in front of it."""
    found, at = [], 0
    for number, text in enumerate(texts):
        at = raw_ids.index(text.ids[0], at) + 1
        found.append((text, at - 1 - number))
    return found


def measure(model: Path) -> dict[str, list[float]]:
    """Seconds by which each way's times are behind the truth, over all words."""
    pace = Pace()
    behind: dict[str, list[float]] = {"token": [], "pace (deltas)": [], "share (words)": []}
    for texts, pcm in asyncio.run(replies(model)):
        captions = Captions(pace)
        told = [(text.text, captions.write(text.text), ids / TOKEN_RATE) for text, ids in texts]
        captions.sound(pcm)
        words = captions.finish()
        begins = [entry for n, entry in enumerate(told) if n == 0 or entry[0].startswith(" ")]
        heard = resample((pcm / 32768).astype(np.float32), source=VOICE_RATE, target=MODEL_RATE)
        try:
            truth = word_starts((heard * 32767).astype(np.int16), "".join(text.text for text, _ in texts))
        except ValueError:
            continue  # a word that is none, or none that the aligner knows
        if len(truth) == len(begins) == len(words):
            for (_, true), (_, delta, token), word in zip(truth, begins, words, strict=True):
                for way, time in zip(behind, (token, delta, word.start), strict=True):
                    behind[way].append(time - true)
    return behind


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=ROOT / "voiceagent/assets/pocket")
    behind = measure(parser.parse_args().model)
    print("| way | words | median distance | 90 % within | mean | late |\n|---|---|---|---|---|---|")
    for way, seconds in behind.items():
        gap = np.array(seconds)
        print(
            f"| {way} | {len(gap)} | {np.median(np.abs(gap)):.2f} s | {np.percentile(np.abs(gap), 90):.2f} s "
            f"| {gap.mean():+.2f} s | {np.mean(gap > LATE_S):.0%} |"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
