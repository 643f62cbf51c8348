from pathlib import Path

import numpy as np
import pytest
import soundfile

from voiceagent.audio import wavio
from voiceagent.errors import InputError


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_written_file_reads_back(tmp_path: Path, name: str) -> None:
    samples = np.array([0, 100, -32768, 32767], np.int16)
    wavio.write(tmp_path / name, samples, rate=24000)
    back, rate = wavio.read(tmp_path / name)
    assert rate == 24000
    assert (back * 32768).astype(np.int16).tolist() == samples.tolist()


def test_channels_become_their_mean(tmp_path: Path) -> None:
    soundfile.write(
        tmp_path / "s.wav", np.array([[0.5, 0.0], [0.25, 0.25]], np.float32), 44100, subtype="FLOAT"
    )
    mono, rate = wavio.read(tmp_path / "s.wav")
    assert (mono.tolist(), rate) == ([0.25, 0.25], 44100)


def test_each_bad_file_is_named_with_its_cause(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is not audio at all")
    soundfile.write(tmp_path / "zero.wav", np.zeros(0, np.float32), 16000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan], np.float32), 16000, subtype="FLOAT")
    expected = {
        "missing.wav": "file_not_found", "empty.wav": "empty_audio", "text.wav": "unreadable_audio",
        "zero.wav": "empty_audio", "nan.wav": "audio_not_finite",
    }  # fmt: skip
    for name, code in expected.items():
        with pytest.raises(InputError, match=name) as caught:
            wavio.read(tmp_path / name)
        assert caught.value.code == code
        assert caught.value.remedy


def test_an_unwritable_place_is_an_input_error(tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "folder.wav", tmp_path / "name.unknown"):
        with pytest.raises(InputError, match=path.name):
            wavio.write(path, np.zeros(3, np.float32), rate=16000)
