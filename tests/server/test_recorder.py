"""A call's recording: both voices where they were heard, the journal, nobody else's to read, gone when it should be."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import journal
from voiceagent.core import options as opt
from voiceagent.server.recorder import BEHIND, Batch, Recorder, Recordings

OPENED = journal.Opened(opt.SessionConfig(), "item_", 1 << 20)


def tone(seconds: float, rate: int, level: float) -> np.ndarray:
    return np.full(round(seconds * rate), level)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_both_voices_lie_where_they_were_heard(tmp_path: Path) -> None:
    recordings = Recordings(tmp_path / "calls", keep_s=60)
    recorder = recordings.open("a", OPENED, now=100.0)
    for number in range(150):  # three seconds, as they come in, 20 ms at a time
        pcm = tone(0.02, 16_000, 0.25).astype(np.float32)
        recorder.note(ev.AudioIn(320 * number, pcm), 100.0 + 0.02 * (number + 1))
    for at, seconds in ((1.0, 0.5), (1.1, 0.5), (3.0, 4.0)):  # the second waits for the first
        recorder.did(act.SendAudio(1, "i", tone(seconds, 24_000, 8192).astype(np.int16)), 100.0 + at)
    recorder.did(act.Flush(1), 103.5)
    recorder.note(None, 104.0)
    recorder.close(104.0)
    await recordings.close()
    place = tmp_path / "calls" / "a"
    sound, rate = soundfile.read(place / "call.wav")
    assert rate == 24_000
    assert len(sound) == pytest.approx(3.5 * rate, abs=2)
    theirs, ours = sound.T
    assert theirs[1000 : 3 * rate - 1000] == pytest.approx(0.25, abs=0.01)
    assert np.abs(theirs[3 * rate + 10 :]).max() == 0.0
    expected = np.zeros(len(ours))
    expected[rate : 2 * rate] = expected[3 * rate :] = 0.25
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    opened, entries = journal.read((place / "journal.jsonl").read_text().splitlines())
    assert opened == OPENED
    assert [round(entry.time, 2) for entry in entries[-2:]] == [3.0, 4.0]
    assert len(entries) == 151
    assert names_in(place) == {"call.wav", "journal.jsonl"}
    for path in (place, *place.iterdir()):
        assert path.stat().st_mode & 0o077 == 0  # nobody else's


async def test_a_call_without_sound_is_a_recording_too(tmp_path: Path) -> None:
    recordings = Recordings(tmp_path, keep_s=60)
    recordings.open("a", OPENED, now=0.0).close(1.0)
    await recordings.close()
    assert len(soundfile.read(tmp_path / "a" / "call.wav")[0]) == 0
    assert journal.read((tmp_path / "a" / "journal.jsonl").read_text().splitlines()) == (OPENED, [])


async def test_old_ones_go_and_one_can_be_deleted(tmp_path: Path) -> None:
    recordings = Recordings(tmp_path, keep_s=60)
    for name in ("old", "new", "mine"):
        recordings.open(name, OPENED, now=0.0).close(1.0)
    assert await recordings.delete("mine")
    for strange in ("mine", "..", "../x", "", "."):
        assert not await recordings.delete(strange)
    long_ago = time.time() - 61
    for path in (tmp_path / "old", *(tmp_path / "old").iterdir()):
        os.utime(path, (long_ago, long_ago))
    recordings.sweep()
    await recordings.close()
    assert names_in(tmp_path) == {"new"}


async def test_a_disk_that_fails_ends_the_recording_not_the_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recordings = Recordings(tmp_path, keep_s=60)
    (tmp_path / "a").write_text("in the way")
    recorder = recordings.open("a", OPENED, now=0.0)
    recorder.note(ev.Commit(), 2.0)
    recorder.close(3.0)
    await recordings.close()
    assert "could not be written" in caplog.text


def test_batches_are_a_second_long() -> None:
    batches: list[tuple[Batch, bool]] = []
    recorder = Recorder(OPENED, now=0.0, write=lambda batch, last: batches.append((batch, last)))
    for number in range(1, 301):
        recorder.note(None, number / 100)
    recorder.close(3.0)
    assert [len(batch.lines) for batch, _ in batches] == [101, 100, 100, 0]
    assert [last for _, last in batches] == [False, False, False, True]
    assert BEHIND > 60
