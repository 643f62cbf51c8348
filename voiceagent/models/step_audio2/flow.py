"""Token2Wav's flow: 25 Hz speech tokens to a 50 Hz mel in a prompt's voice, whole utterances or live streams.

It owns guidance, the ODE, noise and the state of a stream. It knows nothing of waveforms, files of voices or clocks.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from voiceagent.errors import CheckpointError, InputError
from voiceagent.models.step_audio2.checkpoint import load_strictly
from voiceagent.models.step_audio2.conformer import Conformer, ConformerCache
from voiceagent.models.step_audio2.dit import DiT, DiTCache, DiTConfig
from voiceagent.models.step_audio2.flow_config import MEL_BANDS, FlowConfig

RECENT_TOKENS = 250
"""How many tokens before a chunk the encoder still attends to, besides the prompt: 10 s."""
RECENT_FRAMES = 100
"""How many mel frames before a chunk the DiT still attends to, besides the prompt: 2 s."""
ODE_STEPS = 10

_PROMPT_SEED = 0
_NOISE_BLOCK = 64


class VoicePrompt(Protocol):
    """What the flow needs of a voice: an utterance as tokens and as mel, and who speaks it."""

    @property
    def tokens(self) -> Tensor | NDArray[Any]:
        """(T,) integers"""

    @property
    def mel(self) -> Tensor | NDArray[Any]:
        """(2 T, 80) natural-log mel"""

    @property
    def speaker(self) -> Tensor | NDArray[Any]:
        """(192,)"""


class FlowNet(nn.Module):
    """The weights of flow.pt, under their names there."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.input_embedding = nn.Embedding(config.vocab_size, config.input_size)
        self.spk_embed_affine_layer = nn.Linear(config.speaker_size, MEL_BANDS)
        self.encoder = Conformer(config.encoder)
        self.encoder_proj = nn.Linear(config.encoder.width, MEL_BANDS)
        self.decoder = _Decoder(config.dit)

    def mu(
        self,
        tokens: Tensor,
        *,
        cache: ConformerCache | None = None,
        last: bool = True,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, ConformerCache]:
        """(B, T) tokens -> (B, 2 T', 80), a first guess at the mel; arguments as of `Conformer.forward`."""
        hidden, cache = self.encoder(self.input_embedding(tokens), cache=cache, last=last, mask=mask)
        return self.encoder_proj(hidden), cache

    def speaker(self, vector: Tensor) -> Tensor:
        """(B, 192) of any length -> (B, 80)"""
        y: Tensor = self.spk_embed_affine_layer(F.normalize(vector, dim=1))
        return y


class _Decoder(nn.Module):
    """Gives the DiT its name in the checkpoint."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.estimator = DiT(config)


@dataclass(frozen=True, slots=True)
class FlowPrompt:
    """A voice as the networks remember it: made once, shared by all its streams, never written."""

    tokens: int
    speaker: Tensor
    conformer: ConformerCache
    dit: DiTCache

    @property
    def frames(self) -> int:
        """Mel frames of the prompt."""
        return self.dit.filled

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return self.speaker.nbytes + self.conformer.nbytes + self.dit.nbytes


@dataclass(slots=True)
class FlowState:
    """One stream. It belongs to whoever called `open`; `Flow.step` changes it in place, so fork to keep the old one.

    Attributes:
        prompt: the voice; shared.
        conformer: encoder history, the prompt and at most RECENT_TOKENS tokens.
        dit: DiT history, at most RECENT_FRAMES frames besides the shared prompt.
        seed: of the noise, a function of the seed and a frame's position alone.
        frames: mel frames made so far.
        finished: the last chunk has been made.
    """

    prompt: FlowPrompt
    conformer: ConformerCache
    dit: DiTCache
    seed: int
    frames: int = 0
    finished: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes that this stream owns; does not grow once RECENT_TOKENS tokens have passed."""
        return self.conformer.nbytes + self.dit.nbytes

    def fork(self) -> FlowState:
        """A stream with the same past and a future of its own."""
        return FlowState(
            self.prompt, self.conformer.fork(), self.dit.fork(), self.seed, self.frames, self.finished
        )


class Flow:
    """A loaded flow. It holds weights and the ODE schedule and no stream's state: open as many streams as you like."""

    def __init__(self, net: FlowNet, *, steps: int = ODE_STEPS) -> None:
        self.net = net.requires_grad_(False).eval()
        self.steps = steps
        self.dtype = net.encoder_proj.weight.dtype
        self.device = net.encoder_proj.weight.device
        # Cosine schedule: t_k = 1 - cos(pi k / 2 N), fine steps first.
        times = 1 - torch.cos(torch.linspace(0, 1, steps + 1, device=self.device) * (0.5 * math.pi))
        self._spans: list[float] = times.diff().tolist()
        with torch.inference_mode():
            self._modulation = net.decoder.estimator.modulation(times[:-1])

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        steps: int = ODE_STEPS,
    ) -> Flow:
        """Reads flow.yaml and flow.pt of a token2wav folder; nothing in either is executed.

        Raises:
            CheckpointError: a file is missing or damaged, or a size or a tensor is not as it must be.
        """
        folder = Path(folder)
        net = FlowNet(FlowConfig.from_file(folder / "flow.yaml"))
        load_strictly(net, _read(folder / "flow.pt"), source=str(folder / "flow.pt"))
        return cls(net.to(device=device, dtype=dtype), steps=steps)

    @property
    def lookahead(self) -> int:
        """Tokens at the end of every chunk but the last that are only looked at."""
        return self.net.config.encoder.lookahead

    @property
    def stride(self) -> int:
        """Mel frames per token."""
        return self.net.config.encoder.stride

    @torch.inference_mode()
    def prepare(self, voice: VoicePrompt) -> FlowPrompt:
        """Runs a voice's prompt through the networks: about as much work as speaking it. Do it once per voice.

        Raises:
            InputError: the prompt is shorter than the look-ahead, or its mel does not fit its tokens.
        """
        tokens = self._tokens(torch.as_tensor(voice.tokens))
        count = tokens.shape[1]
        if count < self.lookahead:
            raise InputError(
                f"a voice prompt of {count} tokens is too short.",
                code="audio_too_short",
                remedy="Use a prompt recording of at least one second.",
            )
        mel = self._prompt_mel(voice, count)
        # What follows the prompt is not known yet; its own beginning stands in for the look-ahead, as in the reference.
        ahead = torch.cat([tokens, tokens[:, : self.lookahead]], dim=1)
        mu, conformer = self.net.mu(ahead, last=False)
        speaker = self.net.speaker(self._vector(voice))[0]
        frames = mel.shape[0]
        dit = DiTCache.empty(self.net.config.dit, steps=self.steps, room=frames, like=mu)
        self._solve(mu[0], speaker, mel, frame_noise(_PROMPT_SEED, 0, frames), dit)
        return FlowPrompt(count, speaker, conformer, dit)

    @torch.inference_mode()
    def open(self, voice: VoicePrompt | FlowPrompt, *, seed: int = 0) -> FlowState:
        """A new stream. Given a prepared prompt it costs one small copy; given a voice it prepares it first."""
        prompt = voice if isinstance(voice, FlowPrompt) else self.prepare(voice)
        return FlowState(prompt, prompt.conformer, prompt.dit.stream(room=RECENT_FRAMES), seed)

    @torch.inference_mode()
    def step(
        self, tokens: Tensor | Sequence[int], state: FlowState, *, last: bool, noise: Tensor | None = None
    ) -> tuple[Tensor, FlowState]:
        """The next mel frames of a stream.

        A chunk that is not the last holds n new tokens and then `lookahead` more, which give no frames now and must be
        the first of the next call: with a look-ahead of 3, feed tokens[0:28], then [25:53], ... Chunks may differ in
        size. The last chunk is all that remains, any number, and needs no look-ahead.

        Args:
            tokens: (n + lookahead,) integers, or (n,) for the last chunk.
            state: of this stream; changed in place.
            last: no more tokens follow.
            noise: (2 n, 80) to use instead of the stream's own.

        Returns:
            mel (80, 2 n) float32, and the state.

        Raises:
            InputError: a token outside the vocabulary, too few tokens, or the stream has ended.
        """
        if state.finished:
            raise InputError("this speech stream has ended.", remedy="Open a new one.")
        chunk = self._tokens(torch.as_tensor(tokens, dtype=torch.int64))
        count = chunk.shape[1] - (0 if last else self.lookahead)
        if count < (0 if last else 1):
            raise InputError(f"a chunk that is not the last needs more than {self.lookahead} tokens.")
        state.finished = last
        if count == 0:
            return torch.zeros(MEL_BANDS, 0, device=self.device), state
        mu, conformer = self.net.mu(chunk, cache=state.conformer, last=last)
        frames = mu.shape[1]
        if noise is None:
            noise = frame_noise(state.seed, state.prompt.frames + state.frames, frames)
        mel = self._solve(mu[0], state.prompt.speaker, torch.zeros_like(mu[0]), noise, state.dit)
        state.conformer = conformer.trimmed(prompt=state.prompt.tokens, recent=RECENT_TOKENS)
        state.frames += frames
        return mel.T, state

    @torch.inference_mode()
    def infer(
        self,
        tokens: Tensor | Sequence[int],
        voice: VoicePrompt,
        *,
        seed: int = 0,
        noise: Tensor | None = None,
    ) -> Tensor:
        """A whole utterance at once: every frame sees every other. Differs a little from the same tokens streamed.

        Args:
            tokens: (n,) integers.
            voice: the prompt that the utterance continues.
            seed: of the noise; the same frames get the same noise as in a stream with this seed.
            noise: (2 (prompt + n), 80) to use instead.

        Returns:
            mel (80, 2 n) float32.

        Raises:
            InputError: a token outside the vocabulary, or the prompt's mel does not fit its tokens.
        """
        prompt = self._tokens(torch.as_tensor(voice.tokens))
        chunk = self._tokens(torch.as_tensor(tokens, dtype=torch.int64))
        if chunk.shape[1] == 0:
            return torch.zeros(MEL_BANDS, 0, device=self.device)
        mu, _ = self.net.mu(torch.cat([prompt, chunk], dim=1))
        condition = torch.zeros_like(mu[0])
        mel = self._prompt_mel(voice, prompt.shape[1])
        start = mel.shape[0]
        condition[:start] = mel
        if noise is None:
            noise = torch.cat(
                [frame_noise(_PROMPT_SEED, 0, start), frame_noise(seed, start, mu.shape[1] - start)]
            )
        speaker = self.net.speaker(self._vector(voice))[0]
        return self._solve(mu[0], speaker, condition, noise, None)[start:].T

    def _solve(
        self, mu: Tensor, speaker: Tensor, condition: Tensor, noise: Tensor, cache: DiTCache | None
    ) -> Tensor:
        """Euler's method with classifier-free guidance; all (T, 80) but speaker (80,). Returns mel (T, 80) float32."""
        frames, guidance = mu.shape[0], self.net.config.guidance
        # Row 0 knows mu, speaker and condition; row 1 sees zeros in their place.
        inputs = mu.new_zeros(2, frames, 4 * MEL_BANDS)
        inputs[0, :, MEL_BANDS:] = torch.cat([mu, speaker.expand_as(mu), condition], dim=1)
        x = noise.to(device=self.device, dtype=torch.float32)
        for k, span in enumerate(self._spans):
            inputs[:, :, :MEL_BANDS] = x
            velocity = self.net.decoder.estimator(
                inputs, self._modulation.row(k), cache=cache, step=k
            ).float()
            x = x + span * ((1 + guidance) * velocity[0] - guidance * velocity[1])
        if cache is not None:
            cache.advance(frames)
        return x

    def _tokens(self, tokens: Tensor) -> Tensor:
        """(n,) on any device -> (1, n) int64 on ours."""
        vocabulary = self.net.config.vocab_size
        # An id outside the table would be a device-side assert on a GPU, which ends the process.
        if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= vocabulary):
            raise InputError(f"a speech token is outside 0 to {vocabulary - 1}.", param="tokens")
        return tokens.to(device=self.device, dtype=torch.int64)[None]

    def _prompt_mel(self, voice: VoicePrompt, tokens: int) -> Tensor:
        mel = torch.as_tensor(voice.mel)
        if tuple(mel.shape) != (tokens * self.stride, MEL_BANDS):
            raise InputError(
                f"the voice's mel has the shape {tuple(mel.shape)}, not ({tokens * self.stride}, {MEL_BANDS}).",
                param="voice",
            )
        return mel.to(device=self.device, dtype=self.dtype)

    def _vector(self, voice: VoicePrompt) -> Tensor:
        """(1, 192)"""
        vector = torch.as_tensor(voice.speaker).to(device=self.device, dtype=self.dtype)
        if tuple(vector.shape) != (self.net.config.speaker_size,):
            raise InputError(
                f"the voice's speaker vector has the shape {tuple(vector.shape)}.", param="voice"
            )
        return vector[None]


def frame_noise(seed: int, start: int, frames: int) -> Tensor:
    """Standard normal noise (frames, 80) float32 of the frames from `start` on.

    A frame's noise depends on the seed and its position only, not on how a stream was cut into chunks.
    """
    first, last = start // _NOISE_BLOCK, (start + frames - 1) // _NOISE_BLOCK
    blocks = [torch.empty(0, MEL_BANDS)]
    for block in range(first, last + 1):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + block) % 2**63)
        blocks.append(torch.randn(_NOISE_BLOCK, MEL_BANDS, generator=generator))
    return torch.cat(blocks)[start - first * _NOISE_BLOCK :][:frames]


def _read(path: Path) -> dict[str, Tensor]:
    """A flow.pt: a plain dictionary of tensors."""
    if not path.is_file():
        raise _damaged(f"{path} does not exist.")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError, ValueError) as cause:
        raise _damaged(f"{path} is truncated or not a plain dictionary of tensors: {cause}.") from cause
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise _damaged(f"{path} does not hold a plain dictionary of tensors.")
    return stored


def _damaged(message: str) -> CheckpointError:
    return CheckpointError(message, remedy="Download or export the checkpoint folder again.")
