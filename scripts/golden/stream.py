"""Writes tests/golden/stream.npz: what the published Token2wav streams, samples and all, at small sizes.

    TORCHDYNAMO_DISABLE=1 python scripts/golden/stream.py

Runs the whole `stream()` of the `step-audio2` 1.0.0 wheel on the CPU, over the networks of flow.py and hift.py. Needs
what the wheel imports (torchaudio, s3tokenizer, librosa, hyperpyyaml, einops, onnxruntime), none of which is a
dependency of the project; a torchaudio that cannot load its compiled part will do. Noise is shared: the flow's buffer
and the excitation's come from `fixed_weights.samples`. The reference draws nine noises for the excitation and mixes
them; each is made from the shared one here so that the mix is what one draw of the mix's own norm gives.

Two voices: one shorter and one longer than the 100 frames that a trim keeps. At the end the stream of the short one
goes on until the wheel fails, and the number of tokens that it took is written down.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flashcosyvoice.modules.hifigan import HiFTGenerator
from token2wav import Token2wav
from torch import Tensor
from torch.overrides import TorchFunctionMode

from scripts.golden.fixed_weights import samples
from scripts.golden.flow import reference, small_yaml
from scripts.golden.hift import vocoder

CHUNK, AHEAD, ROOM = 25, 3, 1000
PROMPTS = {"short": 17, "long": 60}
TOKENS = {"short": 4 * CHUNK + 11, "long": 7 * CHUNK + 6}


class OnCpu(TorchFunctionMode):
    """Makes "cuda" mean the CPU, which the wheel does not offer."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") == "cuda":
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)


class Player:
    """The wheel's Token2wav around given networks, one stream at a time."""

    def __init__(self, flow: torch.nn.Module, hift: HiFTGenerator, voice: dict[str, Tensor]) -> None:
        self.wheel = Token2wav.__new__(Token2wav)  # its constructor reads files and needs CUDA
        wheel = self.wheel
        wheel.float16, wheel.flow, wheel.hift = False, flow, hift
        wheel.mel_cache_len, wheel.source_cache_len = 8, 8 * 480
        wheel.speech_window = torch.from_numpy(np.hamming(2 * wheel.source_cache_len))
        count = torch.tensor([len(voice["tokens"])])
        mel = voice["mel"][None]
        wheel.cache = {"voice": (voice["tokens"][None], count, voice["speaker"][None], mel, 2 * count)}
        self.frames = 0
        with OnCpu():
            wheel.set_stream_cache("voice")

    def chunk(self, ids: list[int], *, last: bool) -> bytes:
        """One call of `stream`; the excitation's noise is what belongs to the window's place."""
        self.first = max(0, self.frames - 8)
        self.frames += 2 * (len(ids) - (0 if last else AHEAD))
        with OnCpu():
            sound: bytes = self.wheel.stream(ids, "voice", last_chunk=last)
        return sound

    def noise_like(self, sines: Tensor) -> Tensor:
        """In the place of `torch.randn_like` for the nine sines (1, 480 T, 9)."""
        weight = self.wheel.hift.m_source.l_linear.weight[0]
        window = EXCITATION[480 * self.first :][: sines.shape[1]]
        return window[None, :, None] * (weight / weight.norm())


EXCITATION = samples("excitation", 480 * 2 * max(TOKENS.values()))


def streamed(player: Player, ids: list[int], arrays: dict[str, Any], name: str) -> None:
    """Plays `ids` and records samples and, chunk by chunk, mels."""
    mels: list[Tensor] = []
    plain, plain_noise = player.wheel.flow.inference_chunk, torch.randn_like

    def recording(**arguments: Any) -> Any:
        mel, cache = plain(**arguments)
        mels.append(mel[0].clone())
        return mel, cache

    player.wheel.flow.inference_chunk = recording
    torch.randn_like = player.noise_like
    sound, at = b"", 0
    while len(ids) - at >= CHUNK + AHEAD:
        sound += player.chunk(ids[at : at + CHUNK + AHEAD], last=False)
        at += CHUNK
    sound += player.chunk(ids[at:], last=True)
    torch.randn_like, player.wheel.flow.inference_chunk = plain_noise, plain
    arrays[f"{name}/mel"] = torch.cat(mels, dim=1).numpy().astype(np.float16)
    arrays[f"{name}/sound"] = np.frombuffer(sound, "<i2")


def longest(player: Player) -> int:
    """Tokens, the prompt's included, after which the wheel's stream fails."""
    fake = player.wheel.hift
    fake.forward = lambda mel, _source: (
        mel.new_zeros(1, 480 * mel.shape[2]),
        mel.new_zeros(1, 1, 480 * mel.shape[2]),
    )
    total = player.wheel.cache["voice"][0].shape[1]
    for _ in range(200):
        try:
            player.chunk([7] * (CHUNK + AHEAD), last=False)
        except RuntimeError:
            return total
        total += CHUNK
    raise AssertionError("the wheel did not fail")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).resolve().parents[2] / "tests" / "golden" / "stream.npz"
    parser.add_argument("--out", type=Path, default=default)
    path = parser.parse_args().out
    torch.set_num_threads(1)
    text = small_yaml()
    flow, hift = reference(text, room=ROOM), vocoder(16, 16)
    flow.decoder.rand_noise = samples("flow", 80 * ROOM).view(ROOM, 80).T[None].contiguous()
    generator = torch.Generator().manual_seed(7)
    arrays: dict[str, Any] = {}
    for name, count in PROMPTS.items():
        voice = {
            "tokens": torch.randint(0, 101, (count,), generator=generator),
            "mel": torch.randn(2 * count, 80, generator=generator).half().float(),
            "speaker": torch.randn(192, generator=generator),
        }
        ids = torch.randint(0, 101, (TOKENS[name],), generator=generator)
        arrays |= {f"{name}/{key}": value.numpy() for key, value in voice.items()}
        arrays[f"{name}/mel_prompt"] = arrays.pop(f"{name}/mel").astype(np.float16)
        arrays[f"{name}/ids"] = ids.numpy()
        player = Player(flow, hift, voice)
        streamed(player, ids.tolist(), arrays, name)
        if name == "short":
            arrays["longest"] = longest(Player(flow, vocoder(16, 16), voice))
    del arrays["long/sound"], arrays["short/mel"]  # one of the two says all; the files stay small
    provenance = f"step-audio2 1.0.0 (token2wav.Token2wav.stream), torch {torch.__version__}, CPU float32"
    np.savez_compressed(path, **arrays, yaml=text, provenance=provenance)
    loud = np.abs(arrays["short/sound"].astype(float)) / 32767
    print(
        f"{path}: {path.stat().st_size / 1024:.0f} KiB, fails after {arrays['longest']} tokens, "
        f"samples {loud.mean():.3f}, clipped {(loud > 0.98).mean():.3f}"
    )


if __name__ == "__main__":
    main()
