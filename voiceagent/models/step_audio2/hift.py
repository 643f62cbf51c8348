"""The vocoder: 50 mel frames a second become 24 kHz samples, whole or in chunks that join without a seam.

It knows mel frames, its weight file and the state of one stream; nothing of tokens, voices or sample formats.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voiceagent.errors import CheckpointError, InputError
from voiceagent.models.step_audio2.hift_net import HOP, MELS, HiftConfig, HiftNet
from voiceagent.units import VOICE_RATE

# A frame of output depends on 13.1 mel frames to either side, but hardly on the outermost: with these widths a stream
# differs from the whole by -50 dB with trained weights. Each frame less adds 4 dB; beyond 8 and 10 nothing is gained.
LOOKAHEAD = 5
"""Mel frames that a stream holds back (100 ms, 2400 samples): later ones still change them."""
_CONTEXT = 8  # mel frames recomputed to the left of what is emitted
_PITCH_CONTEXT = 5  # and what the pitch network sees beyond those: exactly its reach
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


class Hift:
    """A loaded vocoder. It holds no stream's state, so any number of streams may be open at once."""

    def __init__(self, net: HiftNet) -> None:
        self.net: HiftNet = net.to(memory_format=torch.channels_last).requires_grad_(False).eval()  # type: ignore[call-overload]
        self.device = net.conv_pre.weight.device
        fade = 0.5 - 0.5 * np.cos(np.pi * (np.arange(_FADE) + 0.5) / _FADE)
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
        none = torch.zeros(MELS, 0, device=self.device)
        return HiftState(seed, 0, none, 0, torch.zeros(1, dtype=torch.float64, device=self.device), none[0])

    @torch.inference_mode()
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
        if mel.dim() != 2 or mel.shape[0] != MELS:
            raise InputError(f"mel has the shape {tuple(mel.shape)}, not (80, n).", param="mel")
        known = torch.cat([state.mel, mel.to(state.mel)], dim=1)
        first = state.frames - state.mel.shape[1]  # the frame that known[:, 0] is
        end = state.frames + mel.shape[1]
        done, ready = state.emitted // HOP, end if last else max(0, end - LOOKAHEAD)
        after = max(0, ready - _CONTEXT)  # where the next window begins
        if ready == done:
            keep = known[:, max(0, after - _PITCH_CONTEXT - first) :]
            return known.new_zeros(0), replace(state, frames=end, mel=keep)
        begin = state.pitch_from
        f0 = self.net.f0_predictor(known[None])[:, begin - first :]
        noise = stream_noise(state.seed, begin, end - begin)
        source = self.net.excite(f0, torch.from_numpy(noise).to(known)[None], phase=state.phase)
        wave = self.net.decode(known[None, :, begin - first :], source)[0, HOP * (done - begin) :]
        blend = min(len(state.fade), len(wave))
        rise = self._rise[:blend]
        wave[:blend] = rise * wave[:blend] + (1 - rise) * state.fade[:blend]
        count = HOP * (ready - done)
        advance = f0[:, : after - begin].double().sum(1) * (HOP / VOICE_RATE)
        following = HiftState(
            seed=state.seed,
            frames=end,
            mel=known[:, max(0, after - _PITCH_CONTEXT - first) :].clone(),
            pitch_from=after,
            phase=(state.phase + advance) % 1.0,
            fade=wave[count : count + _FADE].clone(),  # a view would keep the whole window alive
        )
        return wave[:count], following

    @torch.inference_mode()
    def synthesize(self, mel: Tensor, *, seed: int = 0, source: Tensor | None = None) -> Tensor:
        """A whole utterance at once: mel (80, T) to samples (480 T,); `source` (480 T,) replaces the excitation."""
        mel = mel.to(self.device, torch.float32)[None]
        if mel.shape[2] == 0:
            return mel.new_zeros(0)
        if source is None:
            return self.step(mel[0], self.open(seed=seed), last=True)[0]
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
        CheckpointError: a tensor is missing, surplus or of a wrong shape; it is named, and `source` with it.
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
