"""The published streaming rule by rule, for whoever must have the reference's own samples instead of better ones.

It knows the flow's and the vocoder's networks and the published rules; nothing of scheduling, batches or graphs. What
the rules cost is measured in tests/models/test_compat.py: seams are up to 0.7 dB too loud, every chunk after the first
few repeats the same noise, most of the voice's recording is forgotten, and a stream ends after 100 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from voiceagent.errors import InputError
from voiceagent.models.step_audio2.conformer import ConformerCache
from voiceagent.models.step_audio2.dit import BlockPast, Modulation
from voiceagent.models.step_audio2.flow import Flow, VoicePrompt, frame_noise
from voiceagent.models.step_audio2.flow_config import MEL_BANDS
from voiceagent.models.step_audio2.hift import Hift, stream_noise
from voiceagent.models.step_audio2.hift_net import HARMONICS, HOP, HiftNet
from voiceagent.units import VOICE_RATE

CHUNK = 25
"""Ids that every chunk but the last speaks; the flow's 3 ids of look-ahead come on top."""
KEPT = 100
"""Frames that a trim keeps from the end of the history, besides as many as the prompt has from its beginning."""
LONGEST_HISTORY = 1000
"""Frames that the published buffers hold: prompt, kept history and chunk."""
LONGEST_STREAM = 2500
"""Tokens, the prompt's included, that the published table of positions reaches: 100 s."""

_OVERLAP = 8  # mel frames that the vocoder sees again
_FADE = _OVERLAP * HOP
_NOISE_SEED = 0
_PROMPTS_KEPT = 16
_SINE, _HISS, _UNVOICED_HISS, _VOICED_HZ = 0.1, 0.003, 0.1 / 3, 10.0

Pcm = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class History:
    """What the velocity network remembers of a stream, newest chunk first until it is trimmed; never changed in place.

    Attributes:
        kv: (ODE steps, blocks, 2, 2, heads, T, head size) keys and values of the guidance pair.
        tails: (ODE steps, blocks, 2, 2, 2, width) input tails of the two convolutions.
    """

    kv: Tensor
    tails: Tensor

    @property
    def frames(self) -> int:
        """T."""
        return self.kv.shape[-2]

    def trimmed(self, prompt: int) -> History:
        """Cut as the reference cuts: the first `prompt` and the last KEPT frames of what is newest first.

        That was meant to be the prompt and the newest frames. It is the newest frames and the end of the prompt.
        """
        if self.frames <= prompt + KEPT:
            return self
        return History(torch.cat([self.kv[..., :prompt, :], self.kv[..., -KEPT:, :]], dim=-2), self.tails)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A voice as the networks remember it: made once, shared by its streams."""

    tokens: int
    speaker: Tensor
    conformer: ConformerCache
    history: History


@dataclass(slots=True)
class ReferenceState:
    """One stream. `ReferenceSpeech.step` replaces its tensors and never writes into them, so a shallow copy forks it.

    Attributes:
        prompt: the voice.
        conformer: all tokens since the prompt's first; grows.
        history: of the velocity network.
        mel, source, speech: the newest 8 frames, and the excitation and samples that belong to them.
        seed: of the excitation's noise.
        lookahead: ids at the end of every chunk but the last that are only looked at.
        tokens: ids spoken so far.
        waiting: ids that came too early for their chunk, or are the look-ahead of the last one.
        finished: the last chunk has been made.
    """

    prompt: Prompt
    conformer: ConformerCache
    history: History
    mel: Tensor
    source: Tensor
    speech: Tensor
    seed: int
    lookahead: int
    tokens: int = 0
    waiting: tuple[int, ...] = ()
    finished: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that only this stream holds; grows with the stream."""
        parts = (self.history.kv, self.history.tails, self.mel, self.source, self.speech)
        return self.conformer.nbytes + sum(part.nbytes for part in parts)

    @property
    def wanted(self) -> int:
        """How many more ids the stream needs before its next chunk can be spoken."""
        return max(1, CHUNK + self.lookahead - len(self.waiting))

    def fork(self) -> ReferenceState:
        """A stream with the same past and a future of its own."""
        return replace(self)

    def close(self) -> None:
        """Ends the stream; closing twice does nothing."""
        self.finished = True


class ReferenceSpeech:
    """Streams as the published Token2wav makes them, over loaded networks; holds no stream's state."""

    def __init__(self, flow: Flow, hift: Hift, *, noise: Tensor | None = None) -> None:
        """`noise` (LONGEST_HISTORY, 80) replaces the buffer that all streams share; the reference draws it anew in
        every process."""
        self.flow, self.hift = flow, hift
        self._prompts: dict[
            int, tuple[VoicePrompt, Prompt]
        ] = {}  # the voice is held, so its id stays its own
        buffer = frame_noise(_NOISE_SEED, 0, LONGEST_HISTORY) if noise is None else noise
        self._noise = buffer.to(flow.device, torch.float32)
        ramp = torch.from_numpy(np.hamming(2 * _FADE)).to(hift.device)
        self._rise, self._fall = ramp[:_FADE], ramp[_FADE:]
        times = 1 - torch.cos(torch.linspace(0, 1, flow.steps + 1, device=flow.device) * (0.5 * torch.pi))
        self._spans: list[float] = times.diff().tolist()
        with torch.inference_mode():
            self._modulation = flow.net.decoder.estimator.modulation(times[:-1])

    @torch.inference_mode()
    def prepare(self, voice: VoicePrompt) -> Prompt:
        """Runs a voice's prompt through the networks.

        Raises:
            InputError: the prompt is longer than the published buffers allow, or its mel does not fit its tokens.
        """
        flow, net = self.flow, self.flow.net
        ids = torch.as_tensor(voice.tokens).to(flow.device, torch.int64)
        mel = torch.as_tensor(voice.mel).to(flow.device, flow.dtype)
        frames = flow.stride * len(ids)
        if tuple(mel.shape) != (frames, MEL_BANDS):
            raise InputError(
                f"the voice's mel has the shape {tuple(mel.shape)}, not ({frames}, {MEL_BANDS})."
            )
        longest = LONGEST_HISTORY - KEPT - flow.stride * (CHUNK + flow.lookahead)
        if not flow.lookahead <= len(ids) or frames > longest:
            raise InputError(
                f"a voice prompt of {len(ids)} tokens does not fit the reference's buffers "
                f"({flow.lookahead} to {longest // flow.stride}).",
                code="audio_too_long",
                remedy="Use a prompt recording of 3 to 10 s, or do not ask for reference_compatible.",
            )
        mu, conformer = net.mu(torch.cat([ids, ids[: flow.lookahead]])[None], last=False)
        vector = torch.as_tensor(voice.speaker).to(flow.device, flow.dtype)
        speaker = net.speaker(vector[None])[0]
        _, history = self._solve(mu[0], speaker, mel, None)
        return Prompt(len(ids), speaker, conformer, history)

    def open(self, voice: VoicePrompt, *, seed: int = 0) -> ReferenceState:
        """A stream that has not begun. The newest voices are remembered as the networks see them.

        Raises:
            InputError: as of `prepare`.
        """
        key = id(voice)
        if key not in self._prompts:
            if len(self._prompts) >= _PROMPTS_KEPT:
                del self._prompts[next(iter(self._prompts))]
            self._prompts[key] = (voice, self.prepare(voice))
        prompt = self._prompts[key][1]
        none = torch.zeros(MEL_BANDS, 0, device=self.hift.device)
        return ReferenceState(
            prompt, prompt.conformer, prompt.history, none, none[0], none[0], seed, self.flow.lookahead
        )

    @torch.inference_mode()
    def step(self, ids: Sequence[int], state: ReferenceState, *, last: bool = False) -> Pcm:
        """Take ids and speak every whole chunk that they complete; `state` is changed in place.

        Raises:
            InputError: the stream has ended, or its tokens would pass the published table of positions.
        """
        if state.finished:
            raise InputError("this speech stream has ended.", remedy="Open a new one.")
        state.waiting += tuple(ids)
        sound = [np.zeros(0, np.int16)]
        while len(state.waiting) >= CHUNK + self.flow.lookahead:
            sound.append(self._chunk(state, CHUNK, last=False))
        if last:
            if state.waiting:
                sound.append(self._chunk(state, len(state.waiting), last=True))
            state.finished = True
        return np.concatenate(sound)

    @torch.inference_mode()
    def mel(self, ids: Sequence[int], state: ReferenceState, *, last: bool) -> tuple[Tensor, ReferenceState]:
        """The flow's part of a chunk, as `Flow.step`: ids with their look-ahead to (80, 2 n) frames."""
        count = len(ids) - (0 if last else self.flow.lookahead)
        if state.prompt.tokens + state.tokens + count > LONGEST_STREAM:
            raise InputError(
                f"the reference's streams end after {LONGEST_STREAM} tokens (100 s), the prompt's included.",
                code="speech_too_long",
                remedy="Speak in shorter turns, or do not ask for reference_compatible.",
            )
        chunk = torch.tensor([ids], device=self.flow.device)
        mu, state.conformer = self.flow.net.mu(chunk, cache=state.conformer, last=last)
        silent = torch.zeros_like(mu[0])
        mel, history = self._solve(mu[0], state.prompt.speaker, silent, state.history)
        state.history = history.trimmed(state.prompt.history.frames)
        state.tokens += count
        return mel.T, state

    def _chunk(self, state: ReferenceState, count: int, *, last: bool) -> Pcm:
        """The samples of the next `count` waiting ids; those after them are the look-ahead."""
        ahead = 0 if last else self.flow.lookahead
        first = self.flow.stride * state.tokens
        mel, _ = self.mel(state.waiting[: count + ahead], state, last=last)
        state.waiting = state.waiting[count:]
        samples = self._vocode(mel, first, state, last=last)
        # Samples are cut off towards zero, not rounded.
        clipped = samples.clamp(-1.0, 1.0).mul(32767.0).to(torch.int16).cpu().numpy()
        return np.asarray(clipped, np.int16)

    def _solve(
        self, mu: Tensor, speaker: Tensor, condition: Tensor, past: History | None
    ) -> tuple[Tensor, History]:
        """Euler's method with guidance, from the slice of the noise at the history's length; all (T, 80)."""
        frames, guidance = mu.shape[0], self.flow.net.config.guidance
        inputs = mu.new_zeros(2, frames, 4 * MEL_BANDS)
        inputs[0, :, MEL_BANDS:] = torch.cat([mu, speaker.expand_as(mu), condition], dim=1)
        start = past.frames if past else 0
        x = self._noise[start : start + frames]
        kept: list[tuple[Tensor, Tensor]] = []
        for k, span in enumerate(self._spans):
            inputs[:, :, :MEL_BANDS] = x
            velocity, *memory = self._velocity(inputs, self._modulation.row(k), past, k)
            kept.append((memory[0], memory[1]))
            velocity = velocity.float()
            x = x + span * ((1 + guidance) * velocity[0] - guidance * velocity[1])
        kv, tails = (torch.stack(part) for part in zip(*kept, strict=True))
        return x, History(kv, tails)

    def _velocity(
        self, inputs: Tensor, modulation: Modulation, past: History | None, step: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One call of the network: (2, T, 80), and keys with values and tails of all blocks."""
        net = self.flow.net.decoder.estimator
        x, frames = net.in_proj(inputs), inputs.shape[1]
        kvs, tails = [], []
        for i, block in enumerate(net.blocks):
            before = None
            if past is not None:
                before = BlockPast((past.kv[step, i],), past.tails[step, i, 0], past.tails[step, i, 1])
            x, seen = block(x, modulation.blocks[i], past=before, mask=None)
            kv = torch.cat(seen.kv, dim=-2)
            old = kv.shape[-2] - frames
            kvs.append(torch.cat([kv[..., old:, :], kv[..., :old, :]], dim=-2))  # newest first
            tails.append(torch.stack([seen.tail1, seen.tail2]))
        return net.final_layer(x, modulation.final), torch.stack(kvs), torch.stack(tails)

    def _vocode(self, mel: Tensor, start: int, state: ReferenceState, *, last: bool) -> Tensor:
        """(80, n) frames from `start` on to samples.

        The newest 8 frames are made again and faded in; the samples of what will be made again are held back.
        """
        net = self.hift.net
        known = torch.cat([state.mel, mel.to(state.mel)], dim=1)
        first = start - state.mel.shape[1]
        noise = torch.from_numpy(stream_noise(state.seed, first, known.shape[1])).to(known)
        source = excitation(net, net.f0_predictor(known[None])[0], noise)
        source[: len(state.source)] = state.source
        samples = net.decode(known[None], source[None, None])[0]
        if len(state.speech):
            blend = samples[:_FADE] * self._rise + state.speech * self._fall
            samples[:_FADE] = blend.to(samples)
        state.mel = known[:, -_OVERLAP:].clone()
        state.source, state.speech = source[-_FADE:].clone(), samples[-_FADE:].clone()
        return samples if last else samples[:-_FADE]


def excitation(net: HiftNet, f0: Tensor, noise: Tensor) -> Tensor:
    """The excitation of one window as the reference makes it: its phase starts anew and stands still at the edges.

    Args:
        net: for the mix of the sines.
        f0: (T,) Hz per frame.
        noise: (480 T,) unit normal.

    Returns:
        (480 T,) in (-1, 1).
    """
    cycles = (f0.double() * (HOP / VOICE_RATE)).cumsum(0)
    # Known at the centres of the frames, linear between them, constant before the first and after the last.
    between = (torch.arange(HOP, device=f0.device, dtype=torch.float64) + 0.5) / HOP
    edges = torch.cat([cycles[:1], cycles, cycles[-1:]])
    phase = (edges[:-1, None] + edges.diff()[:, None] * between).flatten()[HOP // 2 : -HOP // 2].frac()
    orders = torch.arange(1, HARMONICS + 1, device=f0.device)
    sines = torch.sin(phase.to(noise.dtype) * (orders[:, None] * (2 * torch.pi)))
    voiced = (f0 > _VOICED_HZ).to(noise.dtype).repeat_interleave(HOP)
    weight, bias = net.m_source.l_linear.weight, net.m_source.l_linear.bias
    hiss = (_HISS * voiced + _UNVOICED_HISS * (1 - voiced)) * noise
    return torch.tanh(_SINE * voiced * (weight[0] @ sines) + weight.norm() * hiss + bias)
