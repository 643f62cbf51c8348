"""Turns the agent's audio into the ids of a finished speech tokenizer, so that the language model can be trained alone.

    PYTHONPATH=. python3 scripts/pocket/tokenise.py --data DATA --out CK [--tokenizer FILE.onnx] [--procs N]

Reads DATA's `agent` and `agent_es` banks and writes CK/{tag}_tokens.npz as train_speech_tokenizer.py does: `tokens`
int16 flat and `offsets` int64. The ONNX file that ships decides, so the ids are those that the shipped flow was trained
on. Runs on the CPU, one process a core, about 15 ms an utterance. Trains nothing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from voiceagent.models.step_audio2.mel import log_mel

SHIPPED = Path("voiceagent/assets/pocket/token2wav/speech_tokenizer_v2_25hz.onnx")
FRAMES_PER_TOKEN = 4
BANKS = ("agent", "agent_es")  # what the language model learns to say
CHUNK = 64  # utterances of one job

_bank: dict[str, NDArray[np.int64]] = {}
_folder, _tag = Path(), "agent"
_session: onnxruntime.InferenceSession | None = None


def main() -> int:
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for tag in args.bank or BANKS:
        tokenise(args, tag)
    return 0


def tokenise(args: argparse.Namespace, tag: str) -> None:
    """One bank."""
    began = time.monotonic()
    index = wait_for_json(args.data / f"{tag}.json", seconds=args.patience)
    count = len(index["items"])
    jobs = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    with mp.get_context("spawn").Pool(args.procs, _begin, (args.data, tag, args.tokenizer)) as pool:
        rows = [row for part in pool.imap(ids_of, jobs) for row in part]
    partial = args.out / f"{tag}_tokens_part.npz"
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    np.savez(partial, tokens=np.concatenate(rows), offsets=offsets)
    partial.rename(args.out / f"{tag}_tokens.npz")
    (common, times), codes = Counter(np.concatenate(rows).tolist()).most_common(1)[0], int(offsets[-1])
    print(
        f"{tag}_tokens.npz: {count} items, {codes} ids, commonest {common} ({100 * times / codes:.1f} %), "
        f"{time.monotonic() - began:.0f} s"
    )


def ids_of(items: range) -> list[NDArray[np.int16]]:
    """The ids of some utterances, each alone, from features rounded to half precision as training keeps them."""
    assert _session is not None
    names = [entry.name for entry in _session.get_inputs()]
    rows = []
    for item in items:
        mel, _ = log_mel(wave_of(item)[None], torch.tensor([int(_bank["length"][item])]), pad=0)
        feats = mel.half().float().numpy()
        frames = feats.shape[2]
        feed = dict(zip(names, [feats, np.array([frames], np.int32)], strict=True))
        ids = np.asarray(_session.run(None, feed)[0]).reshape(-1)
        if len(ids) != -(-frames // FRAMES_PER_TOKEN):
            raise RuntimeError(f"utterance {item}: {len(ids)} ids of {frames} frames")
        rows.append(ids.astype(np.int16))
    return rows


def wave_of(item: int) -> torch.Tensor:
    """(L,) float32 in [-1, 1]"""
    shard, offset, length = (int(_bank[name][item]) for name in ("shard", "offset", "length"))
    samples = np.load(_folder / f"{_tag}_{shard}.npy", mmap_mode="r")[offset : offset + length]
    return torch.from_numpy(samples.astype(np.float32) / 32768.0)


def _begin(folder: Path, tag: str, tokenizer: Path) -> None:
    """Prepares a process of the pool."""
    global _session
    torch.set_num_threads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    _session = onnxruntime.InferenceSession(str(tokenizer), options, providers=["CPUExecutionProvider"])
    _open(folder, tag)


def _open(folder: Path, tag: str) -> None:
    global _folder, _tag
    _folder, _tag = folder, tag
    index: dict[str, list[int]] = json.loads((folder / f"{tag}.json").read_text())
    _bank.update({name: np.asarray(index[name], np.int64) for name in ("shard", "offset", "length")})


def wait_for_json(path: Path, *, seconds: float) -> dict[str, list[int]]:
    """The bank's index once gen_data.py has written it."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            raise FileNotFoundError(f"{path} did not appear within {seconds:.0f} s")
        time.sleep(1.0)
    index: dict[str, list[int]] = json.loads(path.read_text())
    return index


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of gen_data.py's banks")
    parser.add_argument("--out", type=Path, required=True, help="folder for {tag}_tokens.npz")
    parser.add_argument("--bank", action="append", help=f"default {', '.join(BANKS)}")
    parser.add_argument("--tokenizer", type=Path, default=SHIPPED, help=f"default {SHIPPED}")
    parser.add_argument("--procs", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--patience", type=float, default=600.0, help="seconds to wait for the bank")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
