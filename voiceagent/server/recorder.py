"""The flight recorder: a call's journal and the sound of both sides, in a folder of its own. It decides nothing.

Both voices lie on the call's clock: what the person said where it came in, what we said where their player played it.
Files are written by one thread for all calls, and no call waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BufferedRandom, BufferedReader
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from voiceagent.audio.pcm import Int16, float_to_int16, int16_to_bytes, s16_to_float
from voiceagent.audio.resample import ResampleStream
from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import journal
from voiceagent.core.controller import Controller
from voiceagent.units import MODEL_RATE, VOICE_RATE

log = logging.getLogger("voiceagent.recorder")

JOURNAL, SOUND = "journal.jsonl", "call.wav"
HEARD, SAID = "heard.raw", "said.raw"  #: s16le while the call lasts, at 16 and 24 kHz
PART = "call.part"  #: of the sound, until it is whole
BATCH_S = 1.0  #: of a call is given to the thread at once
BEHIND = 256  #: batches that may wait for the disk; a recording that finds so many is given up
BLOCK_S = 10  #: of sound are mixed at once


@dataclass(frozen=True, slots=True)
class Put:
    """These samples begin at sample `at` of a track."""

    track: str
    at: int
    pcm: Int16


@dataclass(frozen=True, slots=True)
class Cut:
    """The track ends at sample `at`, if it is not shorter."""

    track: str
    at: int


@dataclass(slots=True)
class Batch:
    """What is to be written of a call, in order."""

    lines: list[str] = field(default_factory=list)
    sound: list[Put | Cut] = field(default_factory=list)


class Recorder:
    """Notes one call.

    Args:
        opened: how it begins.
        now: the time of its beginning, on the clock of the other methods.
        write: takes a batch, at once; the last one with True.
    """

    def __init__(self, opened: journal.Opened, *, now: float, write: Callable[[Batch, bool], None]) -> None:
        self._write = write
        self._began = self._written = now
        self._ends = {HEARD: 0, SAID: 0}  # samples
        self._batch = Batch(lines=[journal.first_line(opened)])

    def note(self, event: ev.Event | None, now: float) -> None:
        """An event that is handled now; None = only time has passed."""
        at = now - self._began
        self._batch.lines.append(journal.line(journal.Entry(at, event)))
        if isinstance(event, ev.AudioIn):
            pcm = float_to_int16(event.pcm)
            self._put(HEARD, pcm, start=int(at * MODEL_RATE) - len(pcm))
        if now - self._written >= BATCH_S:
            self._hand_over(now, last=False)

    def did(self, action: act.Action, now: float) -> None:
        """What was decided; of it, what the person gets to hear is kept."""
        place = int((now - self._began) * VOICE_RATE)
        if isinstance(action, act.SendAudio):
            self._put(SAID, action.pcm, start=place)
        elif isinstance(action, act.Flush) and place < self._ends[SAID]:
            self._ends[SAID] = place
            self._batch.sound.append(Cut(SAID, place))

    def close(self, now: float) -> None:
        """The call is over."""
        self._hand_over(now, last=True)

    def _put(self, track: str, pcm: Int16, *, start: int) -> None:
        """Behind what there is, or later: a player plays gaplessly while it has anything."""
        start = max(start, self._ends[track])
        self._ends[track] = start + len(pcm)
        self._batch.sound.append(Put(track, start, pcm))

    def _hand_over(self, now: float, *, last: bool) -> None:
        self._write(self._batch, last)
        self._batch, self._written = Batch(), now


class Recorded:
    """A controller whose call is recorded."""

    def __init__(self, controller: Controller, recorder: Recorder) -> None:
        self._controller, self._recorder = controller, recorder
        self.next_deadline = controller.next_deadline

    def handle(self, event: ev.Event, now: float) -> list[act.Action]:
        """As `Controller.handle`."""
        self._recorder.note(event, now)
        return self._did(self._controller.handle(event, now), now)

    def handle_timeout(self, now: float) -> list[act.Action]:
        """As `Controller.handle_timeout`."""
        self._recorder.note(None, now)
        return self._did(self._controller.handle_timeout(now), now)

    def _did(self, made: list[act.Action], now: float) -> list[act.Action]:
        for action in made:
            self._recorder.did(action, now)
        return made


@dataclass(frozen=True, slots=True)
class Found:
    """A recording: its name, when it was last written to (seconds since 1970), and whether its call is over."""

    name: str
    created: int
    complete: bool


class Recordings:
    """The folder of all recordings, each in a folder of its own by the session's name.

    Args:
        folder: made if it is not there; only its owner may look into it.
        keep_s: recordings that ended so long ago are deleted.
    """

    def __init__(self, folder: Path, *, keep_s: float) -> None:
        self.folder, self._keep_s = folder, keep_s
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recorder")
        self._waiting: set[Future[None]] = set()

    def open(self, name: str, opened: journal.Opened, *, now: float) -> Recorder:
        """A recorder for the call of this name."""
        place = self.folder / name
        lost = False

        def write(batch: Batch, last: bool) -> None:
            nonlocal lost
            if len(self._waiting) >= BEHIND and not lost:
                lost = True
                log.error("session %s: the disk is too slow, its recording ends here", name)
            if not lost or last:
                self._submit(lambda: _store(place, Batch() if lost else batch, last=last))

        return Recorder(opened, now=now, write=write)

    def found(self) -> list[Found]:
        """What there is, the newest first; it looks at the disk."""
        places = [place for place in self.folder.iterdir() if (place / JOURNAL).is_file()]
        found = [Found(p.name, int((p / JOURNAL).stat().st_mtime), (p / SOUND).is_file()) for p in places]
        return sorted(found, key=lambda each: -each.created)

    def path(self, name: str, file: str) -> Path | None:
        """A file of a recording; None if there is none."""
        place = self.folder / name
        known = file in (JOURNAL, SOUND) and _within(place, self.folder)
        return place / file if known and (place / file).is_file() else None

    def sweep(self) -> None:
        """Deletes what is old enough."""
        self._submit(lambda: _sweep(self.folder, before=time.time() - self._keep_s))

    async def delete(self, name: str) -> bool:
        """Deletes a recording with all traces; False if there is none of this name."""
        return await asyncio.wrap_future(self._thread.submit(_delete, self.folder / name, self.folder))

    async def close(self) -> None:
        """Waits until all is written."""
        await asyncio.to_thread(self._thread.shutdown)

    def _submit(self, work: Callable[[], None]) -> None:
        job = self._thread.submit(work)
        self._waiting.add(job)
        job.add_done_callback(self._written)

    def _written(self, job: Future[None]) -> None:
        self._waiting.discard(job)
        problem = job.exception()
        if problem is not None:
            log.error("a recording could not be written: %s", problem)


def _store(place: Path, batch: Batch, *, last: bool) -> None:
    """Writes a batch; behind the last one the two sides become one file."""
    place.mkdir(mode=0o700, exist_ok=True)
    with _private(place / JOURNAL) as file:
        file.seek(0, os.SEEK_END)
        file.write("".join(f"{line}\n" for line in batch.lines).encode())
    for track in (HEARD, SAID):
        with _private(place / track) as file:
            for change in batch.sound:
                if change.track != track:
                    continue
                if isinstance(change, Put):
                    file.seek(2 * change.at)
                    file.write(int16_to_bytes(change.pcm))
                else:
                    file.truncate(2 * change.at)
    if last:
        _mix(place)


def _private(path: Path) -> BufferedRandom:
    """The file, for its owner only, made if it is not there."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")


def _mix(place: Path) -> None:
    """The call as one file: the person on the left, we on the right, 24 kHz."""
    upward = ResampleStream(source=MODEL_RATE, target=VOICE_RATE)
    left, right = np.zeros(0, np.float32), np.zeros(0, np.float32)
    with (
        (place / HEARD).open("rb") as heard,
        (place / SAID).open("rb") as said,
        _private(place / PART) as out,
        soundfile.SoundFile(out, "w", VOICE_RATE, 2, "PCM_16", format="WAV") as file,
    ):
        more = True
        while more:
            theirs, ours = _block(heard, MODEL_RATE), _block(said, VOICE_RATE)
            more = bool(len(theirs) or len(ours))
            left = np.concatenate([left, upward.push(theirs) if more else upward.finish()])
            right = np.concatenate([right, ours])
            size = min(len(left), len(right)) if more else max(len(left), len(right))
            both = np.zeros((size, 2), np.float32)
            both[: len(left), 0], both[: len(right), 1] = left[:size], right[:size]
            left, right = left[size:], right[size:]
            file.write(both)
    (place / PART).rename(place / SOUND)
    for track in (HEARD, SAID):
        (place / track).unlink()


def _block(file: BufferedReader, rate: int) -> npt.NDArray[np.float32]:
    """Some seconds of s16le as (n,) float32."""
    return s16_to_float(file.read(2 * BLOCK_S * rate))


def _within(place: Path, folder: Path) -> bool:
    return place.parent == folder and place.name not in ("", ".", "..") and place.is_dir()


def _delete(place: Path, folder: Path) -> bool:
    if not _within(place, folder):
        return False
    shutil.rmtree(place, ignore_errors=True)
    return True


def _sweep(folder: Path, *, before: float) -> None:
    for place in folder.iterdir():
        if place.is_dir() and max(f.stat().st_mtime for f in [place, *place.iterdir()]) < before:
            shutil.rmtree(place, ignore_errors=True)
