"""Trains the whole pocket checkpoint on a machine with 1 to 4 GPUs: data, then every stage on its own GPU.

    python3 scripts/pocket/run.py start --data /tmp/data --out /tmp/ck [--dry]     # in the background; returns at once
    python3 scripts/pocket/run.py wait --out /tmp/ck --seconds 500                 # shows progress, ends early when all is done
    python3 scripts/pocket/run.py export --out /tmp/ck --to DIR --what speech|lm   # packs results into parts of at most 15 MiB

The stages wait for each other's files, so they may share a GPU; on one GPU they take about 40 % longer in all. A stage that fails
leaves its log and its non-zero status; the others go on.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PART_BYTES = 15 * 1024 * 1024

# stage -> (script, seconds of training, GPU on a machine of 4, of 2, of 1)
STAGES = {
    "speech_tokenizer": ("train_speech_tokenizer.py", 300, (0, 0, 0)),
    "lm": ("train_lm.py", 600, (1, 1, 0)),
    "hift": ("train_hift.py", 560, (2, 0, 0)),
    "speaker": ("train_speaker.py", 90, (3, 0, 0)),
    "flow": ("train_flow.py", 520, (3, 0, 0)),
}
EXPORTS = {
    "speech": ["speech_tokenizer.onnx", "campplus.onnx", "hift.pt", "hift.yaml", "hift_eval.json", "*.log"],
    "lm": ["lm16.pt", "lm_eval.json", "lm.log"],
    "flow": ["flow16.pt", "flow_eval.json", "flow.log"],
    "logs": ["*.log", "*_eval.json"],
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["start", "wait", "export", "pipeline"])
    parser.add_argument("--data", type=Path, default=Path("/tmp/data"))
    parser.add_argument("--out", type=Path, default=Path("/tmp/ck"))
    parser.add_argument("--to", type=Path, help="export: folder for the parts")
    parser.add_argument("--what", choices=sorted(EXPORTS), action="append", help="export: which results")
    parser.add_argument("--seconds", type=float, default=500, help="wait: give up after this long")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every stage's training time")
    parser.add_argument("--only", action="append", help="run only these stages")
    parser.add_argument("--procs", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--gpus", type=int, help="default: as many as there are")
    parser.add_argument(
        "--dry", action="store_true", help="tiny data, a few steps: proves that every stage runs"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    return {"start": start, "wait": wait, "export": export, "pipeline": pipeline}[args.action](args)


def start(args: argparse.Namespace) -> int:
    """Starts `pipeline` in a session of its own, so that it outlives this command."""
    log = (args.out / "pipeline.log").open("w")
    subprocess.Popen(
        [sys.executable, str(HERE / "run.py"), "pipeline", *sys.argv[2:]],
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    return 0


def pipeline(args: argparse.Namespace) -> int:
    began = time.time()
    env = dict(os.environ, PYTHONPATH=str(HERE.parent.parent), PYTHONUNBUFFERED="1")
    dry = ["--dry"] if args.dry else []
    if not (args.data / "corpus.json").exists():
        run_stage(
            "gen_data", ["--data", str(args.data), "--procs", str(args.procs), *dry], env, args.out
        ).wait()
    gpus = args.gpus if args.gpus is not None else count_gpus()
    running = {}
    for name, (script, seconds, placement) in STAGES.items():
        if args.only and name not in args.only:
            continue
        gpu = placement[0 if gpus >= 4 else 1 if gpus >= 2 else 2]
        stage_env = dict(env, CUDA_VISIBLE_DEVICES=str(gpu)) if gpus else dict(env, OMP_NUM_THREADS="1")
        arguments = [
            "--data",
            str(args.data),
            "--out",
            str(args.out),
            "--seconds",
            str(seconds * args.scale),
            *dry,
        ]
        running[name] = run_stage(script.removesuffix(".py"), arguments, stage_env, args.out, log=name)
    status = {}
    while running:
        for name in [n for n, p in running.items() if p.poll() is not None]:
            status[name] = running.pop(name).returncode
            print(
                f"{time.time() - began:6.0f} s  {name}: {'done' if status[name] == 0 else f'FAILED ({status[name]})'}",
                flush=True,
            )
            (args.out / f"{name}.done").write_text(str(status[name]))
        time.sleep(0.5)
    (args.out / "all.done").write_text(json.dumps(status))
    return max(status.values(), default=0)


def run_stage(
    script: str, arguments: list[str], env: dict[str, str], out: Path, *, log: str = ""
) -> subprocess.Popen[bytes]:
    handle = (out / f"{log or script}.log").open("w")
    return subprocess.Popen(
        [sys.executable, str(HERE / f"{script}.py"), *arguments], env=env, stdout=handle, stderr=handle
    )


def wait(args: argparse.Namespace) -> int:
    deadline = time.time() + args.seconds
    shown: dict[Path, str] = {}
    while time.time() < deadline and not (args.out / "all.done").exists():
        time.sleep(2)
        for log in sorted(args.out.glob("*.log")):
            lines = log.read_text(errors="replace").strip().splitlines()
            if lines and shown.get(log) != lines[-1] and int(time.time()) % 30 < 2:
                shown[log] = lines[-1]
                print(f"{log.stem:18s} {lines[-1][:200]}", flush=True)
    print("all done" if (args.out / "all.done").exists() else "still running")
    for log in sorted(args.out.glob("*.log")):
        print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").strip().splitlines()[-8:]))
    return 0


def export(args: argparse.Namespace) -> int:
    names = [name for what in args.what or ["logs"] for name in EXPORTS[what]]
    shrink(args.out)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name in names:
            for path in sorted(args.out.glob(name)):
                tar.add(path, arcname=path.name)
    data = buffer.getvalue()
    args.to.mkdir(parents=True, exist_ok=True)
    for i in range(0, len(data), PART_BYTES):
        (args.to / f"{'_'.join(args.what or ['logs'])}.tgz.{i // PART_BYTES:02d}").write_bytes(
            data[i : i + PART_BYTES]
        )
    print(f"exported {len(data) / 2**20:.1f} MiB: {', '.join(names)}")
    return 0


def shrink(out: Path) -> None:
    """fp16 copies of the two large networks' weights, without optimizer state."""
    import torch

    for name in ("lm", "flow"):
        source, target = out / f"{name}.pt", out / f"{name}16.pt"
        if source.exists() and (not target.exists() or target.stat().st_mtime < source.stat().st_mtime):
            state = torch.load(source, map_location="cpu", weights_only=True)
            state = state.get("model", state)
            torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, target)


def count_gpus() -> int:
    import torch

    return torch.cuda.device_count()


if __name__ == "__main__":
    sys.exit(main())
