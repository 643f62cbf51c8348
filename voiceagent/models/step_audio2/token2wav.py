"""Speech ids to 24 kHz sound in a voice: the flow and the vocoder behind one stream, cut into chunks for low latency.

It knows the checkpoint's token2wav folder and the order of the parts; nothing of text, turns or the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from voiceagent.errors import CapacityError, InputError
from voiceagent.models.step_audio2.compat import ReferenceSpeech, ReferenceState
from voiceagent.models.step_audio2.flow import Flow, FlowChunk, FlowPrompt, FlowState
from voiceagent.models.step_audio2.flow_config import FlowConfig
from voiceagent.models.step_audio2.hift import Hift, HiftPart, HiftState
from voiceagent.models.step_audio2.t2w_graphs import BUCKETS
from voiceagent.models.step_audio2.t2w_room import SpeechRoom
from voiceagent.models.step_audio2.voice import Voice, load_voices, new_voice

CHUNKS = (12, 16, 25)
"""Ids that each chunk of a stream speaks; the last number holds from there on.

The first is short, so that sound begins early: 12 ids and the flow's 3 of look-ahead give 380 ms of sound, during which
the next 16 must be generated and spoken: with
20, one in a hundred came late at 96 callers. The flow was trained on chunks of 25.
"""
WHOLE = 1000
"""Up to this many ids (40 s) `synthesize` lets every frame see every other; longer ones are made as a stream."""

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
        """A stream with the same past and a future of its own.

        Raises:
            CapacityError: as many streams are open as there is room for.
        """
        return replace(self, flow=self.flow.fork())

    def close(self) -> None:
        """Gives the stream's memory back before its last chunk; closing twice does nothing."""
        self.flow.close()


@dataclass(frozen=True, slots=True)
class Speak:
    """One stream's part of `Token2Wav.steps`: the arguments of `Token2Wav.step`."""

    ids: Sequence[int]
    state: Stream
    last: bool = False


@dataclass(slots=True)
class _Turn:
    """A part of `Token2Wav.steps` while it is worked on."""

    state: SpeechState
    waiting: tuple[int, ...]
    last: bool
    sound: list[Tensor] = field(default_factory=list)


Stream = SpeechState | ReferenceState
"""A stream of `Token2Wav`: of the second kind if it was loaded as reference_compatible."""


class Token2Wav:
    """A loaded speech decoder. It holds no stream's state, so any number of streams may be open at once.

    Attributes:
        voices: by name, those that were added behind the checkpoint's own; the first one is the default.
    """

    def __init__(
        self,
        flow: Flow,
        hift: Hift,
        voices: dict[str, Voice],
        *,
        chunks: Sequence[int] = CHUNKS,
        reference_compatible: bool = False,
        folder: Path | None = None,
    ) -> None:
        if not chunks or min(chunks) < 1:
            raise ValueError(f"chunks must be positive: {chunks!r}")
        self.flow, self.hift, self.voices = flow, hift, voices
        self._folder = folder  # of the networks that make voices
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
        bytes: int | None = None,
        progress: Callable[[str], None] = lambda stage: None,
    ) -> Token2Wav:
        """From the token2wav folder of a checkpoint.

        Args:
            folder: holds flow.yaml, flow.pt, hift.pt and the two ONNX files.
            device: of flow and vocoder; voices are prepared on the CPU.
            dtype: of the flow; the vocoder is always float32.
            recordings: folder of the default_*.wav files; by default the one above `folder`.
            chunks: ids per chunk of a stream.
            reference_compatible: streams follow the published rules (see `compat`), with chunks of 25; for comparisons.
            bytes: memory for streams and voices' prompts; by default enough for 16 streams and 60 s of prompts.
            progress: takes what is being done: "weights", "voices", "kernels and graphs".

        Raises:
            CheckpointError: a file is missing or damaged; it is named.
            ConfigError: `bytes` is not enough for one stream and the prompts.
        """
        folder = Path(folder)
        config = FlowConfig.from_file(folder / "flow.yaml")
        room = {} if bytes is None else SpeechRoom.of(config, dtype).divide(bytes)
        progress("weights")
        flow = Flow.load(folder, device=device, dtype=dtype, **room)
        hift = Hift.load(folder, device=device)
        progress("voices")
        voices = load_voices(folder, recordings=Path(recordings) if recordings else folder.parent)
        decoder = cls(
            flow, hift, voices, chunks=chunks, reference_compatible=reference_compatible, folder=folder
        )
        if flow.device.type == "cuda" and not reference_compatible:
            progress("kernels and graphs")
            decoder.record()
        return decoder

    def record(self, *, buckets: Sequence[int] = BUCKETS) -> None:
        """Records the passes of this chunk schedule as CUDA graphs, for batches of these sizes and the known voices."""
        self.flow.record(self._chunks, buckets=buckets)
        frames = [self.flow.stride * size for size in self._chunks]
        self.hift.record(frames, more=self.flow.stride * self.flow.lookahead, buckets=buckets)

    def add(self, name: str, samples: npt.NDArray[np.float32], rate: int) -> None:
        """Makes a voice of a recording; streams may go on meanwhile, but no other voice may be made.

        Args:
            name: of the voice; one of that name is replaced.
            samples: (L,) float32 in [-1, 1], mono.
            rate: Hz.

        Raises:
            InputError: the recording cannot be used.
            CapacityError: there is no room for its prompt.
        """
        assert self._folder is not None, "only one that was loaded can make voices"
        voice = new_voice(samples, rate, name=name, folder=self._folder)
        prompt = self.flow.prepare(voice)
        self._prompts[voice] = prompt
        self.voices[name] = voice

    def remove(self, name: str) -> None:
        """Forgets a voice; streams that speak with it go on. A name that is not there is fine."""
        voice = self.voices.pop(name, None)
        if voice is not None:
            self._prompts.pop(voice, None)

    def open(self, voice: Voice, *, seed: int = 0) -> Stream:
        """A stream that has not begun; streams with one seed and the same ids sound the same.

        Raises:
            CapacityError: as many streams are open as there is room for, or the voice's prompt finds none.
        """
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
        (pcm,) = self.steps([Speak(ids, state, last)])
        if isinstance(pcm, Exception):
            raise pcm
        return pcm, state

    def steps(self, parts: Sequence[Speak]) -> list[Pcm | Exception]:
        """`step` for many streams at once: chunks of one size share a pass, whatever their voices and pasts.

        Returns:
            For every part its samples, or the error that `step` would raise; the other parts do not notice.
        """
        results: list[Pcm | Exception | None] = [
            self._refuse(part, parts[:i]) for i, part in enumerate(parts)
        ]
        live: dict[int, _Turn] = {}
        for i, part in enumerate(parts):
            if results[i] is None and isinstance(part.state, ReferenceState):
                results[i] = self._by_reference(part, part.state)
            elif results[i] is None and isinstance(part.state, SpeechState):
                live[i] = _Turn(part.state, part.state.waiting + tuple(part.ids), part.last)
        self._speak(list(live.values()))
        for i, pcm in zip(live, to_pcm([turn.sound for turn in live.values()]), strict=True):
            results[i] = pcm
        return [result for result in results if result is not None]

    def _speak(self, turns: Sequence[_Turn]) -> None:
        """Speaks every chunk that is complete, one of each stream at a time."""
        while going := [(turn, chunk) for turn in turns if (chunk := self._next(turn)) is not None]:
            mels = self.flow.advance([chunk for _, chunk in going])
            windows = [
                HiftPart(mel, turn.state.hift, chunk.last)
                for mel, (turn, chunk) in zip(mels, going, strict=True)
            ]
            for (turn, _), (wave, hift) in zip(going, self.hift.steps(windows), strict=True):
                state = turn.state
                state.hift = hift
                turn.sound.append(wave)
                turn.waiting = turn.waiting[self._size(state) :]
                state.chunks += 1
        for turn in turns:
            turn.state.waiting = () if turn.state.flow.finished else turn.waiting

    def _next(self, turn: _Turn) -> FlowChunk | None:
        """The chunk that a stream's ids complete, if they do."""
        if turn.state.flow.finished:
            return None
        size = self._size(turn.state) + self.flow.lookahead
        if len(turn.waiting) >= size:
            return FlowChunk(turn.waiting[:size], turn.state.flow, last=False)
        return FlowChunk(turn.waiting, turn.state.flow, last=True) if turn.last else None

    def _refuse(self, part: Speak, before: Sequence[Speak]) -> InputError | None:
        """Why a part cannot go on."""
        finished = part.state.finished if isinstance(part.state, ReferenceState) else part.state.flow.finished
        if finished:
            return InputError("this speech stream has ended.", remedy="Open a new one.")
        if any(other.state is part.state for other in before):
            return InputError("a speech stream can take part in a step only once.", param="parts")
        try:
            self._check(part.ids)
        except InputError as error:
            return error
        return None

    def _by_reference(self, part: Speak, state: ReferenceState) -> Pcm | Exception:
        assert self._reference is not None  # only a Token2Wav that has one opens such a stream
        try:
            return self._reference.step(part.ids, state, last=part.last)
        except InputError as error:
            return error

    def synthesize(self, ids: Sequence[int], voice: Voice, *, seed: int = 0) -> Pcm:
        """A whole utterance: int16 samples at 24 kHz, 960 for every id.

        Raises:
            InputError: an id outside the vocabulary.
        """
        self._check(ids)
        if len(ids) > WHOLE:
            return self.step(ids, self.open(voice, seed=seed), last=True)[0]
        return to_pcm([[self.hift.synthesize(self.flow.infer(ids, voice, seed=seed), seed=seed)]])[0]

    def _size(self, state: SpeechState) -> int:
        return self._chunks[min(state.chunks, len(self._chunks) - 1)]

    def _check(self, ids: Sequence[int]) -> None:
        vocabulary = self.flow.net.config.vocab_size
        if ids and not 0 <= min(ids) <= max(ids) < vocabulary:
            raise InputError(f"a speech id is outside 0 to {vocabulary - 1}.", param="ids")

    def _prompt(self, voice: Voice) -> FlowPrompt:
        """The voice as the flow remembers it: made once; the oldest of the not built-in ones make room for others."""
        while voice not in self._prompts:
            foreign = [known for known in self._prompts if known not in self.voices.values()]
            try:
                self._prompts[voice] = self.flow.prepare(voice)
            except CapacityError:
                if not foreign:
                    raise
                del self._prompts[foreign[0]]
        return self._prompts[voice]


def to_pcm(streams: Sequence[Sequence[Tensor]]) -> list[Pcm]:
    """Every stream's pieces of float samples as int16: clipped to [-1, 1], times 32767, rounded; read back at once."""
    pieces = [piece for stream in streams for piece in stream]
    if not pieces:
        return [np.zeros(0, np.int16) for _ in streams]
    scaled = torch.cat(pieces).clamp(-1.0, 1.0).mul(32767.0).round()
    pcm: Pcm = scaled.to(torch.int16).cpu().numpy()
    ends = np.cumsum([sum(len(piece) for piece in stream) for stream in streams])
    return [np.array(part) for part in np.split(pcm, ends[:-1])]
