"""Silero voice activity detection with the state outside the network; it decides probabilities, never turns."""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from voiceagent.audio.pcm import level_db
from voiceagent.errors import CheckpointError
from voiceagent.units import MODEL_RATE

WINDOW = 512  #: samples at 16 kHz that one probability covers (32 ms)
CONTEXT = 64  #: samples of the previous window that the network sees in front of each window

Float = npt.NDArray[np.float32]


def _zero_state() -> Float:
    return np.zeros((2, 1, 128), np.float32)


@dataclass(frozen=True, slots=True)
class VadState:
    """What one stream has heard so far; a new one is returned by each step, so copies are forks."""

    recurrent: Float = field(default_factory=_zero_state)  #: (2, 1, 128) hidden and cell of the LSTM
    context: Float = field(default_factory=lambda: np.zeros(CONTEXT, np.float32))  #: (64,) last samples


def find_model() -> Path:
    """The ONNX file inside the installed silero-vad distribution, found without importing that package.

    Importing it pulls torchaudio in and sets torch's thread count for the whole process.

    Raises:
        CheckpointError: the distribution or its file is not installed.
    """
    spec = importlib.util.find_spec("silero_vad")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "data" / "silero_vad.onnx"
        if path.is_file():
            return path
    raise CheckpointError(
        "The weights of the voice activity detector (silero_vad/data/silero_vad.onnx) are not installed.",
        code="vad_missing",
        remedy="Run: pip install --no-deps 'silero-vad>=6'.",
    )


class Silero:
    """The network, shared by any number of streams; 16 kHz only.

    Args:
        path: the ONNX file; by default the one of the installed silero-vad.

    Raises:
        CheckpointError: the file is missing or is not a model that onnxruntime can run.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = (
            1  # 60 us a window; more threads only wait
        )
        options.log_severity_level = 3
        path = Path(path) if path else find_model()
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base class but Exception
            raise CheckpointError(
                f"The file {path} is not a usable VAD model: {error}", remedy="Reinstall silero-vad."
            ) from error
        self._rate = np.array(MODEL_RATE, np.int64)

    def open(self) -> VadStream:
        """What is heard of a new session."""
        return VadStream(self)

    def step(self, window: Float, state: VadState) -> tuple[float, VadState]:
        """Probability of speech in one window (512,) float32 at 16 kHz, and the state after it; see `steps`."""
        return self.steps([window], [state])[0]

    def steps(self, windows: Sequence[Float], states: Sequence[VadState]) -> list[tuple[float, VadState]]:
        """The same for one window of each of several streams, in one pass.

        A window that is not finite counts as silence, and a network that answers NaN is reset: the recurrent
        state would stay poisoned for many windows otherwise.
        """
        found = [(0.0, VadState())] * len(windows)
        sound = [at for at, window in enumerate(windows) if np.isfinite(window).all()]
        if not sound:
            return found
        rows = np.stack([np.concatenate([states[at].context, windows[at]]) for at in sound])
        before = np.concatenate([states[at].recurrent for at in sound], axis=1)
        inputs = {"input": rows.astype(np.float32, copy=False), "state": before, "sr": self._rate}
        output, after = self._session.run(None, inputs)
        for row, at in enumerate(sound):
            probability, recurrent = float(output[row, 0]), after[:, row : row + 1].copy()
            if np.isfinite(probability) and np.isfinite(recurrent).all():
                found[at] = probability, VadState(recurrent, windows[at][-CONTEXT:].copy())
        return found

    def hear(self, streams: Sequence[VadStream]) -> list[tuple[int, float, float]]:
        """The next window of each of these streams, all of which are ready: (end, probability, level in dB)."""
        taken = [stream.take() for stream in streams]
        found = self.steps([window for _, window in taken], [stream.state for stream in streams])
        for stream, (_, state) in zip(streams, found, strict=True):
            stream.state = state
        return [(end, p, level_db(window)) for (end, window), (p, _) in zip(taken, found, strict=True)]


class VadStream:
    """Cuts one stream of samples into windows and keeps their state and their place.

    Positions count 16 kHz samples since the session began. A gap or a jump in the positions (the engine was
    away, input was dropped) starts the stream afresh at the new place.

    Attributes:
        state: behind the last window that was taken.
    """

    def __init__(self, silero: Silero) -> None:
        self.state = VadState()
        self._silero = silero
        self._windows: deque[tuple[int, Float, bool]] = (
            deque()
        )  # end, samples, whether the stream starts there
        self._rest = np.zeros(0, np.float32)
        self._next = 0  # position of the next sample that is due
        self._fresh = True

    @property
    def ready(self) -> bool:
        """Whether a whole window waits."""
        return bool(self._windows)

    def feed(self, at: int, samples: Float) -> None:
        """Take samples (n,) that begin at position `at`."""
        if at != self._next:
            self._fresh, self._rest = True, np.zeros(0, np.float32)
        self._next = at + len(samples)
        pending = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        start = self._next - len(pending)
        whole = len(pending) // WINDOW * WINDOW
        for offset in range(0, whole, WINDOW):
            self._windows.append((start + offset + WINDOW, pending[offset : offset + WINDOW], self._fresh))
            self._fresh = False
        self._rest = pending[whole:].copy()

    def take(self) -> tuple[int, Float]:
        """The next window, and where it ends; there must be one."""
        end, window, fresh = self._windows.popleft()
        self.state = VadState() if fresh else self.state
        return end, window

    def push(self, at: int, samples: Float) -> list[tuple[int, float, float]]:
        """Take samples, and hear at once what is whole: (end of the window, probability, level in dB)."""
        self.feed(at, samples)
        heard = []
        while self.ready:
            heard += self._silero.hear([self])
        return heard
