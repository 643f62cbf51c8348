"""The published speech decoder (the `step-audio2` wheel) on the same weights, timed where it is installed.

It is called as its own streaming loop calls it: batch 1, prompt cache first, then chunks of ids with three of
look-ahead, its cut of the history, its vocoder with 8 frames and 3840 samples of overlap, samples on the host.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from scripts.bench.gpu_parts.measure import Clock, Figure
from scripts.bench.gpu_parts.shapes import MINI, Shape
from voiceagent.models.step_audio2.voice import Voice

STEPS, LOOKAHEAD, KEPT = 10, 3, 100
HELD_FRAMES, HOP = 8, 480
MODES = ("fp32", "tf32", "fp16", "graphs")
"""Its default; TF32 in matrix products too; its float16 flag; its own captured graphs, for chunks of 15 or 24 ids."""
GRAPH_IDS = 24


@dataclass(frozen=True, slots=True)
class Reference:
    """One mode's times for a chunk of `ids` ids in a stream whose history is full."""

    mode: str
    ids: int
    flow: Figure
    hift: Figure
    whole: Figure


def missing() -> str | None:
    """Which module the reference lacks here; None if it can run."""
    for name in ("cosyvoice2", "flashcosyvoice", "einops", "scipy", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            return name
    return None


def time_reference(
    folder: Path, shape: Shape, voice: Voice, clock: Clock, *, mode: str, ids: int, repeat: int
) -> Reference:
    """Times one mode; nothing of it remains on the device."""
    with _settings(mode):
        stream = Stream.open(folder, shape, voice, device=clock.device, mode=mode)
        generator = torch.Generator().manual_seed(5)
        chunk = torch.randint(0, 6561, (1, ids + LOOKAHEAD), generator=generator).to(clock.device)
        for _ in range(4):
            check_sound(stream.step(chunk))
        mel = stream.flow_step(chunk)
        flow = clock.figure(lambda: stream.flow_step(chunk, keep=False), repeat=repeat)
        hift = clock.figure(lambda: stream.hift_step(mel, keep=False), repeat=repeat)
        whole = clock.figure(lambda: stream.step(chunk, keep=False), repeat=repeat)
    return Reference(mode, ids, flow, hift, whole)


def check_sound(samples: Tensor) -> None:
    """Raises ValueError unless samples are finite and not all alike: nothing is timed that computes nothing."""
    if not bool(torch.isfinite(samples).all()) or float(samples.float().std()) == 0.0:
        raise ValueError("the vocoder's samples are constant or not finite")


@contextlib.contextmanager
def _settings(mode: str) -> Iterator[None]:
    """Number formats of the mode; the one traced function of the wheel runs as it is written (nothing recompiles)."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = mode == "tf32"
    torch.backends.cudnn.allow_tf32 = True  # torch's own default, which the wheel leaves as it is
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@dataclass(slots=True)
class Stream:
    """One stream of the reference."""

    flow: Any
    hift: Any
    speaker: Tensor
    prompt_frames: int
    half: bool
    cache: dict[str, Tensor]
    past: dict[str, Tensor]
    window: Tensor

    @classmethod
    @torch.inference_mode()
    def open(cls, folder: Path, shape: Shape, voice: Voice, *, device: str, mode: str) -> Stream:
        """Loads the networks and reads the prompt."""
        flow = _flow(folder / "token2wav", shape, half=mode == "fp16").to(device)
        if mode == "graphs":
            with contextlib.redirect_stdout(io.StringIO()):
                flow.scatter_cuda_graph(True)
        hift = _hift(folder / "token2wav", shape).to(device)
        held = HELD_FRAMES * HOP
        past = {
            "mel": torch.zeros(1, 80, 0, device=device),
            "source": torch.zeros(1, 1, 0, device=device),
            "speech": torch.zeros(1, 0, device=device),
        }
        window = torch.hamming_window(2 * held, periodic=False, dtype=torch.float64, device=device)
        speaker = voice.speaker[None].to(device)
        stream = cls(flow, hift, speaker, len(voice.mel), mode == "fp16", {}, past, window)
        tokens = voice.tokens[None].to(device)
        with stream._autocast():
            stream.cache = flow.setup_cache(
                torch.cat([tokens, tokens[:, :LOOKAHEAD]], dim=1), voice.mel[None].to(device), speaker, STEPS
            )
        return stream

    @torch.inference_mode()
    def step(self, tokens: Tensor, *, keep: bool = True) -> Tensor:
        """Samples (1, n) on the host for (1, ids + 3) tokens; `keep` moves the stream on."""
        return self.hift_step(self.flow_step(tokens, keep=keep), keep=keep).cpu()

    @torch.inference_mode()
    def flow_step(self, tokens: Tensor, *, keep: bool = True) -> Tensor:
        """(1, 80, frames)"""
        with self._autocast():
            mel, cache = self.flow.inference_chunk(
                token=tokens, spk=self.speaker, cache=self.cache, last_chunk=False, n_timesteps=STEPS
            )
        held, room = cache["estimator_att_cache"], self.prompt_frames + KEPT
        if held.shape[4] > room:
            kept = [held[:, :, :, :, : self.prompt_frames], held[:, :, :, :, -KEPT:]]
            cache["estimator_att_cache"] = torch.cat(kept, dim=4)
        if keep:
            self.cache = cache
        return mel  # type: ignore[no-any-return]

    @torch.inference_mode()
    def hift_step(self, mel: Tensor, *, keep: bool = True) -> Tensor:
        """(1, n) samples that the stream gives out now."""
        mel = torch.cat([self.past["mel"], mel], dim=2)
        speech, source = self.hift(mel, self.past["source"])
        before, held = self.past["speech"], HELD_FRAMES * HOP
        if before.shape[1]:
            rise, fall = self.window[:held], self.window[held:]
            speech = speech.clone()
            speech[:, :held] = speech[:, :held] * rise + before[:, -held:] * fall
        if keep:
            self.past = {
                "mel": mel[..., -HELD_FRAMES:].clone(),
                "source": source[..., -held:].clone(),
                "speech": speech[:, -held:].clone(),
            }
        return speech[:, :-held]  # type: ignore[no-any-return]

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if not self.half:
            return contextlib.nullcontext()
        return torch.autocast(self.speaker.device.type, dtype=torch.float16)


# Reads a `!new:` mapping of flow.yaml as its arguments.
_Arguments: Any = type("_Arguments", (yaml.SafeLoader,), {})
_Arguments.add_multi_constructor(
    "!new:", lambda loader, _tag, node: loader.construct_mapping(node, deep=True)
)


def _flow(folder: Path, shape: Shape, *, half: bool) -> Any:
    """Its flow with the weights of flow.pt. The cache buffers of other sizes than the published are made to fit."""
    from cosyvoice2.flow.decoder_dit import DiT
    from cosyvoice2.flow.flow import CausalMaskedDiffWithXvec
    from cosyvoice2.flow.flow_matching import CausalConditionalCFM
    from cosyvoice2.transformer.upsample_encoder_v2 import UpsampleConformerEncoderV2

    arguments = yaml.load((folder / "flow.yaml").read_text(), Loader=_Arguments)["flow"]
    decoder = arguments.pop("decoder")
    sizes = decoder.pop("estimator")
    encoder = UpsampleConformerEncoderV2(**arguments.pop("encoder"))
    estimator = DiT(**sizes)
    if shape.flow == MINI.flow:
        solver = CausalConditionalCFM(estimator, **decoder)
    else:
        solver = CausalConditionalCFM.__new__(CausalConditionalCFM)  # its constructor takes 2 GB
        nn.Module.__init__(solver)
        solver.estimator, solver.inference_cfg_rate = estimator, decoder["inference_cfg_rate"]
        depth, heads, head = sizes["depth"], sizes["num_heads"], sizes["head_dim"]
        solver.rand_noise = torch.randn(1, 80, 2000)
        estimator.att_cache_buffer = torch.zeros(depth, 2, heads, 1000, 2 * head)
        estimator.cnn_cache_buffer = torch.zeros(depth, 2, 2 * sizes["hidden_size"], 2)
        solver.att_cache_buffer = torch.zeros(STEPS, depth, 2, heads, 1000, 2 * head)
        solver.cnn_cache_buffer = torch.zeros(STEPS, depth, 2, 2 * sizes["hidden_size"], 2)
    flow = CausalMaskedDiffWithXvec(**arguments, encoder=encoder, decoder=solver)
    if half:
        flow.half()
    flow.load_state_dict(torch.load(folder / "flow.pt", map_location="cpu", weights_only=True), strict=True)
    return flow.requires_grad_(False).eval()


def _hift(folder: Path, shape: Shape) -> Any:
    from flashcosyvoice.modules.hifigan import ConvRNNF0Predictor, HiFTGenerator

    base, pitch = shape.hift
    hift = HiFTGenerator(base_channels=base, f0_predictor=ConvRNNF0Predictor(cond_channels=pitch))
    stored = torch.load(folder / "hift.pt", map_location="cpu", weights_only=True)
    hift.load_state_dict(
        {name.removeprefix("generator."): value for name, value in stored.items()}, strict=True
    )
    return hift.requires_grad_(False).eval()
