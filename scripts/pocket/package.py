"""Makes the checkpoint folder that is shipped out of what training has left. Trains and measures nothing.

    PYTHONPATH=. python3 scripts/pocket/package.py --from CK --to voiceagent/assets/pocket

CK holds lm16.pt (or lm.pt), flow16.pt (or flow.pt), hift.pt, hift.yaml, speech_tokenizer.onnx and campplus.onnx. The
result has the real model's layout: language model and flow as int8 rows, all other networks in half precision. What
that costs is measured: how far the stored flow's mel is from the trained one's. Before it
replaces anything it is loaded as the server loads it, so a folder that exists works. Needs flite for the two voices.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import wave
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.signal import resample_poly
from torch import Tensor

from scripts.pocket import card
from scripts.pocket.train_flow import FLOW_YAML
from voiceagent.models.step_audio2.checkpoint import INT8_ROWS, SINGLE, quantize_rows
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.flow import Flow
from voiceagent.models.step_audio2.flow_config import FlowConfig
from voiceagent.models.step_audio2.flow_net import FlowNet
from voiceagent.models.step_audio2.generate import LanguageModel
from voiceagent.models.step_audio2.model import StepAudio2
from voiceagent.models.step_audio2.token2wav import Token2Wav
from voiceagent.models.step_audio2.voice import load_voices
from voiceagent.units import VOICE_RATE

LIMIT_BYTES = 60_000_000
ASSETS = Path(__file__).resolve().parents[2] / "voiceagent" / "assets" / "pocket"
KEPT = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "README.md")
# name of the voice -> flite's speaker, and what it says in its prompt recording
VOICES = {
    "default_female": ("slt", "good morning, this is harbor house. what can i do for you today?"),
    "default_male": ("rms", "welcome to harbor house. your room is ready, and breakfast is at eight."),
}
PROMPT_SECONDS = (3.5, 5.0)

Speak = Callable[[str, str], NDArray[np.int16]]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--from", dest="source", type=Path, required=True, help="folder of the trained networks"
    )
    parser.add_argument("--to", type=Path, default=ASSETS, help=f"folder to write (default {ASSETS})")
    parser.add_argument(
        "--base",
        type=Path,
        default=ASSETS,
        help="folder of config.json, the text tokenizer and the model card",
    )
    args = parser.parse_args()
    total = package(args.source, args.to, base=args.base)
    error = rounding(first_of(args.source, "flow16.pt", "flow.pt"), args.to)
    print(f"flow as int8 rows: mel differs by {error:.3f} (natural logarithm, mean of all bands and frames)")
    print(f"{args.to}: {total / 1e6:.1f} MB of at most {LIMIT_BYTES / 1e6:.0f} MB")
    return 0


def flite(text: str, speaker: str) -> NDArray[np.int16]:
    """`speaker`'s sentence, 16 kHz."""
    sys.path.insert(
        0, str(Path(__file__).resolve().parent)
    )  # the data scripts import each other by bare name
    import synth

    return synth.trim(synth.Synthesiser()(text, synth.Voice("flite", speaker)))


def package(source: Path, to: Path, *, base: Path = ASSETS, speak: Speak = flite) -> int:
    """Writes the folder and returns its bytes without the card.

    Args:
        source: folder of the trained networks.
        to: folder to write; what it has stays as it is if anything is wrong.
        base: holds the files of KEPT; generation_config.json and README.md may be missing.
        speak: (text, flite's name of the speaker) to 16 kHz mono samples.

    Raises:
        FileNotFoundError: a network is missing.
        ValueError: weights are not finite in half precision, or the folder is too large.
        CheckpointError: the folder does not load.
    """
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "checkpoint"
        made.mkdir()
        for name in KEPT:
            if (base / name).is_file():
                shutil.copyfile(base / name, made / name)
        write_language_model(first_of(source, "lm16.pt", "lm.pt"), made)
        write_token2wav(source, made / "token2wav")
        for name, (speaker, text) in VOICES.items():
            write_voice(made / f"{name}.wav", speak(text, speaker))
        prove(made)
        total = sum(p.stat().st_size for p in made.rglob("*") if p.is_file() and p.name != "README.md")
        if total > LIMIT_BYTES:
            raise ValueError(f"the checkpoint has {total:,} bytes, more than {LIMIT_BYTES:,}")
        if (made / "README.md").is_file():
            card.fill(made / "README.md", "files", card.files_table(made))
        shutil.copytree(made, to, dirs_exist_ok=True, copy_function=shutil.copyfile)
    return total


def write_language_model(weights: Path, folder: Path) -> None:
    """model.safetensors, and config.json with the note that its matrices are int8 rows."""
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    described["quantization_config"] = {"quant_method": INT8_ROWS}
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    with torch.device("meta"):
        names = StepAudio2(StepAudio2Config.from_folder(folder)).state_dict().keys()
    trained = read(weights)
    missing = [name for name in names if name not in trained]
    if missing:
        raise ValueError(f"{weights} lacks {missing[0]} (and {len(missing) - 1} more)")
    quantized = quantize_rows({name: trained[name].float() for name in names})
    save_file(halve(quantized), folder / SINGLE)


def write_token2wav(source: Path, folder: Path) -> None:
    """The speech decoder's files under their real names."""
    folder.mkdir()
    flow = {name: value.float() for name, value in read(first_of(source, "flow16.pt", "flow.pt")).items()}
    torch.save(halve(quantize_rows(flow)), folder / "flow.pt")
    (folder / "flow.yaml").write_text(FLOW_YAML, encoding="utf-8")
    torch.save(halve(read(first_of(source, "hift.pt"))), folder / "hift.pt")
    shutil.copyfile(first_of(source, "hift.yaml"), folder / "hift.yaml")
    shutil.copyfile(first_of(source, "speech_tokenizer.onnx"), folder / "speech_tokenizer_v2_25hz.onnx")
    shutil.copyfile(first_of(source, "campplus.onnx"), folder / "campplus.onnx")


def rounding(trained: Path, folder: Path) -> float:
    """Mean absolute difference of the mels that the trained and the stored flow make of the voices' own recordings."""
    stored, config = Flow.load(folder / "token2wav"), FlowConfig.from_file(folder / "token2wav" / "flow.yaml")
    net = FlowNet(config)
    net.load_state_dict({name: value.float() for name, value in read(trained).items()})
    whole = Flow(net.eval())
    voices = load_voices(folder / "token2wav", recordings=folder).values()
    with torch.inference_mode():
        errors = [
            (stored.infer(ids, voice) - whole.infer(ids, voice)).abs().mean().item()
            for voice in voices
            for ids in [voice.tokens.flatten().tolist()]
        ]
    return sum(errors) / len(errors)


def first_of(folder: Path, *names: str) -> Path:
    """The first of these files that is there."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} holds no {' or '.join(names)}")


def read(path: Path) -> dict[str, Tensor]:
    """The weights of a PyTorch file, which may be a whole training state with the weights under "model"."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    return dict(state.get("model", state))


def halve(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every float tensor in half precision; row scales of int8 stay as they are, they need the range."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        small = value.half() if value.is_floating_point() and not name.endswith("_scale") else value
        if small.is_floating_point() and not bool(small.isfinite().all()):
            raise ValueError(f"{name} is not finite in half precision")
        out[name] = small.contiguous()
    return out


def write_voice(path: Path, samples: NDArray[np.int16]) -> None:
    """A prompt recording: 24 kHz mono 16-bit from 16 kHz samples, as loud as training heard them."""
    upsampled = resample_poly(samples.astype(np.float64), 3, 2)
    seconds = len(upsampled) / VOICE_RATE
    if not PROMPT_SECONDS[0] <= seconds <= PROMPT_SECONDS[1]:
        raise ValueError(f"the recording for {path.name} lasts {seconds:.1f} s, not {PROMPT_SECONDS}")
    scaled = upsampled.round().clip(-32768, 32767)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(VOICE_RATE)
        file.writeframes(scaled.astype("<i2").tobytes())


def prove(folder: Path) -> None:
    """Loads the folder as the server does and says something with it; every loader is strict."""
    LanguageModel.load(folder)
    decoder = Token2Wav.load(folder / "token2wav")
    if set(decoder.voices) != set(VOICES):
        raise ValueError(f"the voices are {sorted(decoder.voices)}, not {sorted(VOICES)}")
    for voice in decoder.voices.values():
        if not np.any(decoder.synthesize([0] * 10, voice)):
            raise ValueError(f"the voice {voice.name} is silent")


if __name__ == "__main__":
    sys.exit(main())
