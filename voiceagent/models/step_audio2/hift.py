"""The vocoder: 50 mel frames a second become 24 kHz samples, whole or in chunks that join without a seam.

It knows mel frames, its weight file and the state of one stream; nothing of tokens, voices or sample formats.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from voiceagent.errors import CheckpointError, InputError
from voiceagent.models.step_audio2.checkpoint import check_finite
from voiceagent.models.step_audio2.hift_net import HOP, MELS, HiftConfig, HiftNet
from voiceagent.models.step_audio2.t2w_graphs import BUCKETS, Recorded, on
from voiceagent.models.step_audio2.t2w_noise import noise as device_noise
from voiceagent.units import VOICE_RATE

# A frame of output depends on 13.1 mel frames to either side, but hardly on the outermost: with these widths a stream
# differs from the whole by -50 dB with trained weights. Each frame less adds 4 dB; beyond 8 and 10 nothing is gained.
LOOKAHEAD = 5
"""Mel frames that a stream holds back (100 ms, 2400 samples): later ones still change them."""
_CONTEXT = 8  # mel frames recomputed to the left of what is emitted
_PITCH_CONTEXT = 5  # and what the pitch network sees beyond those: exactly its reach
_LANE = 2
_END_SIZES = (
    1,
    4,
    16,
)  # batches of ends that are recorded: few streams end at once, and every place takes a recording
_FADE = HOP  # samples over which a chunk takes over from its predecessor's guess


# --------------------------------------------------------------------------------------------------------- streaming


@dataclass(frozen=True, slots=True)
class HiftState:
    """All that one stream must remember; never changed in place, so that keeping it is forking it.

    Attributes:
        seed: of the stream's noise, which depends on nothing else but the place in the stream.
        frames: mel frames taken in so far.
        mel: (80, <= 21) the newest of them.
        pitch_from: the frame at which the next window's excitation begins.
        phase: (1,) float64, cycles of the fundamental up to the centre of the frame before `pitch_from`.
        fade: (<= 480,) what the last window guessed for the samples after the last emitted one.
    """

    seed: int
    frames: int
    mel: Tensor
    pitch_from: int
    phase: Tensor
    fade: Tensor

    @property
    def emitted(self) -> int:
        """Samples given out so far, unless the stream has ended."""
        return HOP * max(0, self.frames - LOOKAHEAD)

    @property
    def nbytes(self) -> int:
        """Bytes held by the tensors."""
        return sum(part.nbytes for part in (self.mel, self.phase, self.fade))


@dataclass(frozen=True, slots=True)
class HiftPart:
    """One stream's part of `Hift.steps`: the arguments of `Hift.step`."""

    mel: Tensor
    state: HiftState
    last: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """Where a chunk lies among the mel frames that are known, in frames from the oldest of them.

    Attributes:
        known: how many frames are known, old and new.
        begin: where the excitation begins.
        done: frames from here on have not been emitted.
        ready: frames before here will be.
        after: where the next window's excitation begins.
        keep: where the next window's known frames begin.
        fade: samples of the last window's guess.
    """

    known: int
    begin: int
    done: int
    ready: int
    after: int
    keep: int
    fade: int

    @classmethod
    def of(cls, part: HiftPart) -> Window:
        """That of a stream's next frames."""
        state, old = part.state, part.state.mel.shape[1]
        first, end = state.frames - old, state.frames + part.mel.shape[1]
        ready = end if part.last else max(0, end - LOOKAHEAD)
        after = max(0, ready - _CONTEXT)
        keep = max(0, after - _PITCH_CONTEXT - first)
        done = state.emitted // HOP - first
        return cls(
            end - first, state.pitch_from - first, done, ready - first, after - first, keep, len(state.fade)
        )


class Hift:
    """A loaded vocoder. It holds no stream's state, so any number of streams may be open at once."""

    def __init__(self, net: HiftNet) -> None:
        self.net: HiftNet = net.to(memory_format=torch.channels_last).requires_grad_(False).eval()  # type: ignore[call-overload]
        self.device = net.conv_pre.weight.device
        fade = 0.5 - 0.5 * np.cos(np.pi * (np.arange(_FADE) + 0.5) / _FADE)
        self._recorded: dict[tuple[int, Window, bool], Recorded[tuple[Tensor, ...]]] = {}  # by batch; of ends
        self._end = -1  # frames that recorded ends of streams have room for; none are recorded
        none = torch.zeros(MELS, 0, device=self.device)
        phase = torch.zeros(1, dtype=torch.float64, device=self.device)
        self._fresh = HiftState(0, 0, none, 0, phase, none[0])
        self._rise = torch.from_numpy(fade).to(self.device, torch.float32)

    @classmethod
    def load(cls, folder: Path | str, *, device: torch.device | str = "cpu") -> Hift:
        """From `hift.pt` and, if it is there, `hift.yaml` in `folder`; always float32.

        Raises:
            CheckpointError: a file is missing or damaged, or a tensor is missing, surplus or of a wrong shape.
        """
        folder = Path(folder)
        net = HiftNet(HiftConfig.from_folder(folder))
        load_weights(net, _read(folder / "hift.pt"), source=str(folder / "hift.pt"))
        return cls(net.to(device))

    def open(self, *, seed: int = 0) -> HiftState:
        """A stream that has not begun."""
        return replace(self._fresh, seed=seed)

    def step(self, mel: Tensor, state: HiftState, *, last: bool = False) -> tuple[Tensor, HiftState]:
        """Take the next mel frames and give out every sample that later frames will not change audibly.

        Args:
            mel: (80, n) natural-log mel, n >= 0.
            last: no more will come; the held-back samples come out too.

        Returns:
            samples: (m,) float32 in [-0.99, 0.99]; all chunks together are 480 x frames long.
            state: to pass with the next frames. The state that was passed in stays valid.

        Raises:
            InputError: mel is not of the shape (80, n).
        """
        return self.steps([HiftPart(mel, state, last)])[0]

    @torch.inference_mode()
    def steps(self, parts: Sequence[HiftPart]) -> list[tuple[Tensor, HiftState]]:
        """`step` for several streams; those that stand alike in their stream share a pass.

        Raises:
            InputError: a mel is not of the shape (80, n).
        """
        results: list[tuple[Tensor, HiftState] | None] = [None] * len(parts)
        passes: dict[tuple[Window, bool], list[int]] = {}
        for i, part in enumerate(parts):
            if part.mel.dim() != 2 or part.mel.shape[0] != MELS:
                raise InputError(f"mel has the shape {tuple(part.mel.shape)}, not (80, n).", param="mel")
            window = Window.of(part)
            if window.ready > window.done:
                padded = self._padded(part)
                passes.setdefault((window, False) if padded is None else (padded, True), []).append(i)
                continue
            known = torch.cat([part.state.mel, part.mel.to(part.state.mel)], dim=1)[:, window.keep :]
            end = part.state.frames + part.mel.shape[1]
            results[i] = known.new_zeros(0), replace(part.state, frames=end, mel=known)
        for (window, ends), members in passes.items():
            # More at once than the largest recorded batch go one pass after the other.
            most = max((b for b, *what in self._recorded if what == [window, ends]), default=len(members))
            for first in range(0, len(members), most):
                group = members[first : first + most]
                with on(self.device):
                    made = self._pass(window, [parts[i] for i in group], ends=ends)
                for i, result in zip(group, made, strict=True):
                    results[i] = result
        return [result for result in results if result is not None]

    @torch.inference_mode()
    def record(self, sizes: Sequence[int], *, more: int = 0, buckets: Sequence[int] = BUCKETS) -> None:
        """Records passes over streams that get chunks of so many frames, the last size again and again, as CUDA graphs.

        The end of a stream may come at any of these places; one recording for each serves ends of all lengths, up to
        the largest size and `more` frames, in a few batch sizes. Other windows are computed launch by launch; in a
        shape that was never seen, cuDNN chooses its algorithms first, and everybody waits for some half a second.
        """
        self._end = max(sizes) + more
        with on(self.device):
            memory = torch.cuda.graph_pool_handle()
            endings = {size for size in buckets if size in _END_SIZES} or set(buckets)
            for batch in sorted(buckets, reverse=True):
                states = [self.open() for _ in range(batch)]
                for frames in [*sizes, sizes[-1], sizes[-1]]:
                    mel = torch.zeros(MELS, frames, device=self.device)
                    parts = [HiftPart(mel, state) for state in states]
                    window = Window.of(parts[0])
                    if window.ready > window.done:
                        self._record(window, batch, frames, memory)
                    ending = self._padded(HiftPart(mel, states[0], last=True))
                    assert ending is not None  # no size is larger than the largest
                    if batch in endings:
                        self._record(ending, batch, self._end, memory, ends=True)
                    states = [state for _, state in self.steps(parts)]
            torch.cuda.empty_cache()  # what choosing algorithms took

    def _record(self, window: Window, batch: int, frames: int, memory: Any, *, ends: bool = False) -> None:
        if (batch, window, ends) in self._recorded:
            return
        inputs = (
            torch.zeros(batch, MELS, window.known - frames, device=self.device),
            torch.zeros(batch, MELS, frames, device=self.device),
            torch.zeros(batch, 1, dtype=torch.float64, device=self.device),
            torch.zeros(batch, window.fade, device=self.device),
            torch.zeros(batch, 3, dtype=torch.int64, device=self.device),
        )
        compute = partial(self._vocode, window, ends=ends)
        self._recorded[batch, window, ends] = Recorded(compute, inputs, memory)

    def _padded(self, part: HiftPart) -> Window | None:
        """The window of the recorded ends that a stream's end fits into."""
        if not part.last or part.mel.shape[1] > self._end:
            return None
        longest = torch.empty(MELS, self._end, device="meta")
        return Window.of(HiftPart(longest, part.state, last=True))

    def _pass(
        self, window: Window, parts: Sequence[HiftPart], *, ends: bool
    ) -> list[tuple[Tensor, HiftState]]:
        """The same window of several streams; if they end, each somewhere in it."""
        states = [part.state for part in parts]
        # A stream ends so many frames behind the place where the window's excitation begins.
        known = [
            state.frames + part.mel.shape[1] - state.pitch_from
            for state, part in zip(states, parts, strict=True)
        ]
        places = torch.tensor(
            [(state.seed % 2**63, state.pitch_from, end) for state, end in zip(states, known, strict=True)]
        )
        mels = [part.mel.to(self.device, torch.float32) for part in parts]
        if ends:
            mels = [F.pad(mel, (0, self._end - mel.shape[1])) for mel in mels]
        columns = (
            [state.mel for state in states],
            mels,
            [state.phase for state in states],
            [state.fade for state in states],
        )
        batch = min(
            (b for b, w, e in self._recorded if (w, e) == (window, ends) and b >= len(parts)), default=0
        )
        recorded = self._recorded.get((batch, window, ends))
        if recorded is not None:
            for target, tensors in zip(recorded.inputs, columns, strict=False):
                torch.stack(tensors, out=target[: len(parts)])
            recorded.inputs[4][: len(parts)].copy_(places.pin_memory(), non_blocking=True)
            made = tuple(output[: len(parts)].clone() for output in recorded())
        else:
            vocode: Callable[..., tuple[Tensor, ...]] = partial(self._vocode, window, ends=ends)
            made = vocode(*map(torch.stack, columns), places.to(self.device))
        return [
            (
                samples[: HOP * (end - window.done + window.begin)] if ends else samples,
                HiftState(
                    seed=state.seed,
                    frames=state.frames + part.mel.shape[1],
                    mel=mel,
                    pitch_from=state.pitch_from + window.after - window.begin,
                    phase=phase,
                    fade=fade,
                ),
            )
            for part, state, end, samples, mel, phase, fade in zip(parts, states, known, *made, strict=True)
        ]

    def _vocode(
        self,
        window: Window,
        old: Tensor,
        new: Tensor,
        phase: Tensor,
        fade: Tensor,
        places: Tensor,
        *,
        ends: bool,
    ) -> tuple[Tensor, ...]:
        """Samples of a window, and what the next needs.

        Args:
            window: of all rows.
            old: (B, 80, ...) mel.
            new: (B, 80, ...) mel; both together have `window.known` frames.
            phase: (B, 1) float64 before `begin`.
            fade: (B, window.fade) the last window's guess.
            places: (B, 3) seed, the frame that `begin` is, and how many frames from there on are known.
            ends: the rows end behind those, each after its own number; the next state means nothing then.

        Returns:
            samples (B, 480 x (ready - done)), and mel, phase (B, 1) and fade of the next state.
        """
        w = window
        known = torch.cat([old, new], dim=2)
        frames = places[:, 2] if ends else None
        f0 = self.net.f0_predictor(known, None if frames is None else frames + w.begin)[:, w.begin :]
        source = self.net.excite(f0, self._noise(places, w.known - w.begin), phase=phase[:, 0])
        wave = self.net.decode(known[:, :, w.begin :], source, frames=frames)[:, HOP * (w.done - w.begin) :]
        blend = min(w.fade, wave.shape[1])
        rise = self._rise[:blend]
        wave[:, :blend] = rise * wave[:, :blend] + (1 - rise) * fade[:, :blend]
        count = HOP * (w.ready - w.done)
        advance = f0[:, : w.after - w.begin].double().sum(1) * (HOP / VOICE_RATE)
        return (
            wave[:, :count],
            known[:, :, w.keep :].clone(),
            ((phase[:, 0] + advance) % 1.0)[:, None],
            wave[:, count : count + _FADE].clone(),  # a view would keep the whole window alive
        )

    def _noise(self, places: Tensor, frames: int) -> Tensor:
        """(B, 480 x frames) unit normal noise of streams with these seeds from these frames on."""
        if self.device.type != "cpu":
            return device_noise(places[:, 0], places[:, 1] * HOP, frames * HOP, lane=_LANE)
        rows = [stream_noise(seed, frame, frames) for seed, frame, *_ in places.tolist()]
        return torch.from_numpy(np.stack(rows))

    @torch.inference_mode()
    def synthesize(self, mel: Tensor, *, seed: int = 0, source: Tensor | None = None) -> Tensor:
        """A whole utterance at once: mel (80, T) to samples (480 T,); `source` (480 T,) replaces the excitation."""
        mel = mel.to(self.device, torch.float32)[None]
        if mel.shape[2] == 0:
            return mel.new_zeros(0)
        if source is None:
            return self.step(mel[0], self.open(seed=seed), last=True)[0]
        with on(self.device):
            return self.net.decode(mel, source.to(mel)[None, None])[0]


def stream_noise(seed: int, frame: int, frames: int) -> NDArray[np.float32]:
    """(480 x frames,) unit normal noise of a stream from mel frame `frame` on; the same however it is cut.

    A counter-based generator needs no state: frame n owns the counters 60 n to 60 n + 59. Box-Muller makes each pair of
    its words a pair of normals.
    """
    words = np.random.Philox(key=seed % 2**64, counter=60 * frame).random_raw(HOP // 2 * frames)
    unit = (words.view(np.uint32).reshape(-1, 2) + np.float32(0.5)) * np.float32(2.0**-32)
    radius = np.sqrt(np.float32(-2.0) * np.log(unit[:, 0]))
    angle = np.float32(2.0 * np.pi) * unit[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1).astype(np.float32)


# ----------------------------------------------------------------------------------------------------------- weights


def load_weights(net: HiftNet, stored: Mapping[str, Tensor], *, source: str) -> None:
    """Copies weights of the published names into `net`, folding weight norm: w = g v / |v|.

    A leading `generator.` is dropped. Half-precision values are widened.

    Raises:
        CheckpointError: a tensor is missing, surplus, of a wrong shape or not finite; it and `source` are named.
    """
    found = {name.removeprefix("generator."): value for name, value in stored.items()}
    expected = stored_shapes(net)
    for name in [*expected, *found]:
        if name not in found:
            raise _damaged(f"{source}: the tensor {name} is missing.")
        if name not in expected:
            raise _damaged(f"{source}: the tensor {name} does not belong to this model.")
        if tuple(found[name].shape) != expected[name]:
            raise _damaged(
                f"{source}: {name} has the shape {tuple(found[name].shape)}, not {expected[name]}."
            )
    check_finite(found, source=source)
    plain: dict[str, Tensor] = {}
    for name, value in found.items():
        if name.endswith(".original0"):
            direction = found[name[:-1] + "1"].float()
            length = direction.flatten(1).norm(dim=1).view(value.shape)
            plain[_plain_name(name)] = direction * (value.float() / length)
        elif not name.endswith(".original1"):
            plain[name] = value.float()
    shapes = {name: value.shape for name, value in net.state_dict().items()}
    net.load_state_dict({name: value.view(shapes[name]) for name, value in plain.items()}, strict=True)


def stored_weights(net: HiftNet) -> dict[str, Tensor]:
    """The weights of `net` under their published names, weight norm applied: g = |w|, v = w."""
    out: dict[str, Tensor] = {}
    for name, weight in net.state_dict().items():
        value = (
            weight.squeeze(2) if weight.dim() == 4 else weight
        )  # published as one-dimensional convolutions
        if _is_normed(name):
            zero, one = (_stored_name(name, end) for end in (".original0", ".original1"))
            out[zero] = value.flatten(1).norm(dim=1).view(-1, 1, 1)
            out[one] = value
        else:
            out[name] = value
    return out


def stored_shapes(net: HiftNet) -> dict[str, tuple[int, ...]]:
    """Published names and shapes of the weights of `net`."""
    return {name: tuple(value.shape) for name, value in stored_weights(net).items()}


def _is_normed(name: str) -> bool:
    """Whether the published files hold this tensor as length and direction."""
    if not name.endswith(".weight"):
        return False
    return not name.startswith(("m_source", "source_downs", "f0_predictor.classifier"))


def _stored_name(name: str, end: str) -> str:
    return name.removesuffix(".weight") + ".parametrizations.weight" + end


def _plain_name(name: str) -> str:
    return name.replace(".parametrizations.weight.original0", ".weight")


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch file, without running what it may contain."""
    if not path.is_file():
        raise _damaged(f"{path} does not exist.")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError, ValueError) as cause:
        raise _damaged(f"{path} is damaged or holds more than tensors: {cause}") from cause
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise _damaged(f"{path} is not a dictionary of tensors.")
    return stored


def _damaged(message: str) -> CheckpointError:
    return CheckpointError(message, remedy="Download or export the checkpoint folder again.")
