"""Speech ids to 24 kHz sound in a voice: the flow and the vocoder behind one stream, cut into chunks for low latency.

It knows the checkpoint's token2wav folder and the order of the parts; nothing of text, turns or the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from voiceagent.errors import InputError
from voiceagent.models.step_audio2.compat import ReferenceSpeech, ReferenceState
from voiceagent.models.step_audio2.flow import Flow, FlowPrompt, FlowState
from voiceagent.models.step_audio2.hift import Hift, HiftState
from voiceagent.models.step_audio2.voice import Voice, load_voices

CHUNKS = (12, 20, 25)
"""Ids that each chunk of a stream speaks; the last number holds from there on.

The first is short, so that sound begins early: 12 ids and the flow's 3 of look-ahead give 380 ms of sound, during which
the next 20 must be generated and spoken. The flow was trained on chunks of 25.
"""
WHOLE = 1000
"""Up to this many ids (40 s) `synthesize` lets every frame see every other; longer ones are made as a stream."""

_PROMPTS_KEPT = 16

Pcm = npt.NDArray[np.int16]


@dataclass(slots=True)
class SpeechState:
    """One stream. `Token2Wav.step` changes it in place and returns it; fork it to keep the old one.

    Attributes:
        flow: of the flow.
        hift: of the vocoder.
        waiting: ids that came too early for their chunk, or are the look-ahead of the last one.
        chunks: chunks spoken so far.
    """

    flow: FlowState
    hift: HiftState
    waiting: tuple[int, ...] = ()
    chunks: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that this stream owns; bounded however long it grows."""
        return self.flow.nbytes + self.hift.nbytes

    def fork(self) -> SpeechState:
        """A stream with the same past and a future of its own."""
        return replace(self, flow=self.flow.fork())


Stream = SpeechState | ReferenceState
"""A stream of `Token2Wav`: of the second kind if it was loaded as reference_compatible."""


class Token2Wav:
    """A loaded speech decoder. It holds no stream's state, so any number of streams may be open at once.

    Attributes:
        voices: by name; the first one is the default.
    """

    def __init__(
        self,
        flow: Flow,
        hift: Hift,
        voices: dict[str, Voice],
        *,
        chunks: Sequence[int] = CHUNKS,
        reference_compatible: bool = False,
    ) -> None:
        if not chunks or min(chunks) < 1:
            raise ValueError(f"chunks must be positive: {chunks!r}")
        self.flow, self.hift, self.voices = flow, hift, voices
        self._chunks = tuple(chunks)
        self._reference = ReferenceSpeech(flow, hift) if reference_compatible else None
        self._prompts: dict[Voice, FlowPrompt] = {}
        for voice in voices.values():
            self._prompt(voice)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        recordings: Path | str | None = None,
        chunks: Sequence[int] = CHUNKS,
        reference_compatible: bool = False,
    ) -> Token2Wav:
        """From the token2wav folder of a checkpoint.

        Args:
            folder: holds flow.yaml, flow.pt, hift.pt and the two ONNX files.
            device: of flow and vocoder; voices are prepared on the CPU.
            dtype: of the flow; the vocoder is always float32.
            recordings: folder of the default_*.wav files; by default the one above `folder`.
            chunks: ids per chunk of a stream.
            reference_compatible: streams follow the published rules (see `compat`), with chunks of 25; for comparisons.

        Raises:
            CheckpointError: a file is missing or damaged; it is named.
        """
        folder = Path(folder)
        flow = Flow.load(folder, device=device, dtype=dtype)
        hift = Hift.load(folder, device=device)
        voices = load_voices(folder, recordings=Path(recordings) if recordings else folder.parent)
        return cls(flow, hift, voices, chunks=chunks, reference_compatible=reference_compatible)

    def open(self, voice: Voice, *, seed: int = 0) -> Stream:
        """A stream that has not begun; streams with one seed and the same ids sound the same."""
        if self._reference is not None:
            return self._reference.open(voice, seed=seed)
        return SpeechState(self.flow.open(self._prompt(voice), seed=seed), self.hift.open(seed=seed))

    def wanted(self, state: Stream) -> int:
        """How many more ids the stream needs before its next chunk can be spoken."""
        if isinstance(state, ReferenceState):
            return state.wanted
        return max(1, self._size(state) + self.flow.lookahead - len(state.waiting))

    def step(self, ids: Sequence[int], state: Stream, *, last: bool = False) -> tuple[Pcm, Stream]:
        """Take ids and speak every whole chunk that they complete.

        Args:
            ids: the next speech ids, 0..6560, any number; audio pads must be gone.
            state: of this stream; changed in place, and returned for symmetry with the parts.
            last: no more ids follow; everything is spoken.

        Returns:
            int16 samples at 24 kHz; all steps of a stream together give 960 for every id.

        Raises:
            InputError: an id outside the vocabulary (the stream can go on without the ids of this call), or the
                stream has ended.
        """
        self._check(ids)
        if isinstance(state, ReferenceState):
            assert self._reference is not None  # only a Token2Wav that has one opens such a stream
            return self._reference.step(ids, state, last=last), state
        if state.flow.finished:
            raise InputError("this speech stream has ended.", remedy="Open a new one.")
        waiting = state.waiting + tuple(ids)
        ahead = self.flow.lookahead
        sound: list[Tensor] = []
        while len(waiting) >= (size := self._size(state)) + ahead:
            mel, state.flow = self.flow.step(waiting[: size + ahead], state.flow, last=False)
            waiting = waiting[size:]
            state.chunks += 1
            samples, state.hift = self.hift.step(mel, state.hift)
            sound.append(samples)
        state.waiting = () if last else waiting
        if last:
            mel, state.flow = self.flow.step(waiting, state.flow, last=True)
            samples, state.hift = self.hift.step(mel, state.hift, last=True)
            sound.append(samples)
        return to_pcm(torch.cat(sound)) if sound else np.zeros(0, np.int16), state

    def synthesize(self, ids: Sequence[int], voice: Voice, *, seed: int = 0) -> Pcm:
        """A whole utterance: int16 samples at 24 kHz, 960 for every id.

        Raises:
            InputError: an id outside the vocabulary.
        """
        self._check(ids)
        if len(ids) > WHOLE:
            return self.step(ids, self.open(voice, seed=seed), last=True)[0]
        return to_pcm(self.hift.synthesize(self.flow.infer(ids, voice, seed=seed), seed=seed))

    def _size(self, state: SpeechState) -> int:
        return self._chunks[min(state.chunks, len(self._chunks) - 1)]

    def _check(self, ids: Sequence[int]) -> None:
        vocabulary = self.flow.net.config.vocab_size
        if ids and not 0 <= min(ids) <= max(ids) < vocabulary:
            raise InputError(f"a speech id is outside 0 to {vocabulary - 1}.", param="ids")

    def _prompt(self, voice: Voice) -> FlowPrompt:
        """The voice as the flow remembers it: made once, the oldest of the not built-in ones forgotten."""
        if voice not in self._prompts:
            foreign = [known for known in self._prompts if known not in self.voices.values()]
            if len(foreign) >= _PROMPTS_KEPT:
                del self._prompts[foreign[0]]
            self._prompts[voice] = self.flow.prepare(voice)
        return self._prompts[voice]


def to_pcm(samples: Tensor) -> Pcm:
    """Float samples as int16: clipped to [-1, 1], times 32767, rounded."""
    scaled = samples.clamp(-1.0, 1.0).mul(32767.0).round()
    pcm: Pcm = scaled.to(torch.int16).cpu().numpy()
    return pcm
