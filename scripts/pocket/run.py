"""Trains the whole pocket checkpoint on a machine with 1 to 4 GPUs: data, then every stage on its own GPU.

    python3 scripts/pocket/run.py start --data /tmp/data --out /tmp/ck [--dry]  # in the background; returns at once
    python3 scripts/pocket/run.py wait --out /tmp/ck --seconds 500      # shows progress, ends early when all is done
    python3 scripts/pocket/run.py export --out /tmp/ck --to DIR --what speech      # results in parts of 15 MiB

The stages wait for each other's files, so they may share a GPU; on one GPU they take about 40 % longer in all. A stage
that fails leaves its log and its non-zero status, and ends a `wait` at once; the others go on, for another `wait`.

The language model alone, from the weights that are shipped, beside the speech tokenizer and the speech decoder that
are shipped (about 20 minutes; the language model takes all GPUs that there are):

    start --data /tmp/data --out /tmp/ck --only lm --init voiceagent/assets/pocket --hear 270 --joint 720
    wait --out /tmp/ck --seconds 560         # until it says "all done"; then, or whenever the machine may go:
    export --out /tmp/ck --to DIR --what lm

It makes the data (100 s on 64 cores) and, with the shipped tokenizer, the ids of the agent's speech (tokenise.py). A
run that was broken off goes on elsewhere with `--init lm16.pt`, which every export holds; with CK still there, with
the same `start` and `--resume`.
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
LOOK_SECONDS = 20.0

# stage -> (script, seconds of training, GPU on a machine of 4, of 2, of 1)
STAGES = {
    "speech_tokenizer": ("train_speech_tokenizer", 290, (0, 0, 0)),
    "lm": ("train_lm", 780, (1, 1, 0)),
    "hift": ("train_hift", 760, (2, 0, 0)),
    "speaker": ("train_speaker", 90, (3, 0, 0)),
    "flow": ("train_flow", 700, (3, 0, 0)),
}
SPEECH = ["speech_tokenizer.onnx", "speech_tokenizer.pt", "campplus.onnx", "hift.pt", "hift.yaml"]
EXPORTS = {
    "speech": [*SPEECH, "*.log", "*_eval.json"],
    "lm": ["lm16.pt", "ctc16.pt", "lm_eval.json", "lm_misses.json", "*.log"],
    "flow": ["flow16.pt", "flow.yaml", "flow_eval.json", "flow.log"],
    "logs": ["*.log", "*_eval.json"],
    "ear": ["encoder_ctc.pt"],
    "lm_state": ["lm.pt"],
}


def main() -> int:
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    return {"start": start, "wait": wait, "export": export, "pipeline": pipeline}[args.action](args)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["start", "wait", "export", "pipeline"])
    parser.add_argument("--data", type=Path, default=Path("/tmp/data"))
    parser.add_argument("--out", type=Path, default=Path("/tmp/ck"))
    parser.add_argument("--to", type=Path, default=Path("export"), help="export: folder for the parts")
    parser.add_argument("--what", choices=sorted(EXPORTS), action="append", help="export: which results")
    parser.add_argument("--seconds", type=float, default=500, help="wait: give up after this long")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every stage's training time")
    parser.add_argument("--only", choices=sorted(STAGES), action="append", help="run only these stages")
    parser.add_argument("--procs", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--gpus", type=int, help="default: as many as there are")
    parser.add_argument("--init", type=Path, help="lm: checkpoint folder or .pt file of its first weights")
    parser.add_argument("--resume", action="store_true", help="lm: go on from CK/lm.pt")
    parser.add_argument("--hear", type=float, default=300, help="lm: longest seconds of the encoder alone")
    parser.add_argument("--joint", type=float, help="lm: seconds of joint training")
    parser.add_argument("--dry", action="store_true", help="tiny data, a few steps: proves that stages run")
    return parser.parse_args(argv)


def start(args: argparse.Namespace) -> int:
    """Starts `pipeline` in a session of its own, so that it outlives this command."""
    for stale in [*args.out.glob("*.done"), *args.out.glob("*.failed")]:
        stale.unlink()
    with (args.out / "pipeline.log").open("w") as log:
        subprocess.Popen(
            [sys.executable, str(HERE / "run.py"), "pipeline", *sys.argv[2:]],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return 0


def pipeline(args: argparse.Namespace) -> int:
    """Data, then the stages; `all.done` is written however it ends."""
    status: dict[str, int] = {"pipeline": 1}
    try:
        status = run_all(args)
    finally:
        (args.out / "all.done").write_text(json.dumps(status))
    return max(map(abs, status.values()), default=0)


def run_all(args: argparse.Namespace) -> dict[str, int]:
    """Exit status by stage."""
    began = time.time()
    env = dict(os.environ, PYTHONPATH=str(HERE.parent.parent), PYTHONUNBUFFERED="1")
    gpus = args.gpus if args.gpus is not None else count_gpus()
    status: dict[str, int] = {}
    running: dict[str, subprocess.Popen[bytes]] = {}
    if not (args.data / "caller.json").exists():
        dry = ["--dry"] if args.dry else []
        arguments = ["--data", str(args.data), "--procs", str(args.procs), *dry]
        running["gen_data"] = run_stage("gen_data", "gen_data", arguments, env, args.out)
        watch(running, status, args.out, began)
        if status["gen_data"]:
            return status
    chosen = [name for name in STAGES if not args.only or name in args.only]
    if chosen == ["lm"] and not (args.out / "agent_tokens.npz").exists():
        arguments = ["--data", str(args.data), "--out", str(args.out), "--procs", str(args.procs)]
        running["tokenise"] = run_stage("tokenise", "tokenise", arguments, env, args.out)
    for name in chosen:
        script, _, placement = STAGES[name]
        stage_env = dict(env)
        if not gpus:
            stage_env["OMP_NUM_THREADS"] = "1"
        elif chosen != ["lm"]:  # alone, the language model takes all GPUs
            stage_env["CUDA_VISIBLE_DEVICES"] = str(placement[0 if gpus >= 4 else 1 if gpus >= 2 else 2])
        running[name] = run_stage(name, script, stage_arguments(args, name), stage_env, args.out)
    watch(running, status, args.out, began)
    return status


def stage_arguments(args: argparse.Namespace, name: str) -> list[str]:
    """The command line of a training stage."""
    seconds = args.joint if name == "lm" and args.joint else STAGES[name][1] * args.scale
    out = ["--data", str(args.data), "--out", str(args.out), "--seconds", str(seconds)]
    if args.dry:
        out += ["--dry"]
    if name == "lm":
        out += ["--hear-seconds", str(args.hear)]
        out += ["--init", str(args.init)] if args.init else []
        out += ["--resume"] if args.resume else []
    return out


def run_stage(
    name: str, script: str, arguments: list[str], env: dict[str, str], out: Path
) -> subprocess.Popen[bytes]:
    """Starts a script with its output in `name`.log."""
    with (out / f"{name}.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, str(HERE / f"{script}.py"), *arguments], env=env, stdout=log, stderr=log
        )


def watch(
    running: dict[str, subprocess.Popen[bytes]], status: dict[str, int], out: Path, began: float
) -> None:
    """Until all have ended: says so and leaves `name`.done with the exit status. A failed tokenise ends lm too."""
    while running:
        for name in [n for n, p in running.items() if p.poll() is not None]:
            code = status[name] = running.pop(name).returncode
            said = "done" if code == 0 else f"FAILED ({code})"
            print(f"{time.time() - began:6.0f} s  {name}: {said}", flush=True)
            (out / f"{name}.done").write_text(str(code))
            if name == "tokenise" and code and "lm" in running:
                running["lm"].terminate()  # it would wait for the ids in vain
        time.sleep(0.3)


def wait(args: argparse.Namespace) -> int:
    """Shows every log's last line now and then; ends when all is done, a stage has failed, or the time is over."""
    deadline, look = time.time() + args.seconds, 0.0
    shown: dict[Path, str] = {}
    while time.time() < deadline and not (args.out / "all.done").exists():
        if show_failures(args.out):
            return 1
        if time.time() > look:
            look = time.time() + LOOK_SECONDS
            for log in sorted(args.out.glob("*.log")):
                line = "".join(tail(log, 1))
                if shown.get(log, "") != line:
                    shown[log] = line
                    print(f"{log.stem:18s} {line[:240]}", flush=True)
        time.sleep(0.5)
    if show_failures(args.out):
        return 1
    print("all done" if (args.out / "all.done").exists() else "still running")
    for log in sorted(args.out.glob("*.log")):
        print("\n".join([f"--- {log.name}", *tail(log, 8)]))
    return int(any(args.out.glob("*.failed")))


def show_failures(out: Path) -> bool:
    """Whether a stage, or the pipeline itself, has newly failed; prints the ends of their logs."""
    failed = []
    for path in sorted(out.glob("*.done")):
        if path.name != "all.done" and path.read_text() not in ("0", ""):
            failed.append(path.stem)
            path.rename(path.with_suffix(".failed"))
    ended = out / "all.done"
    if ended.exists() and "pipeline" in ended.read_text():
        failed.append("pipeline")
    for name in failed:
        print("\n".join([f"{name} FAILED", *tail(out / f"{name}.log", 40)]), flush=True)
    return bool(failed)


def tail(path: Path, lines: int) -> list[str]:
    return path.read_text(errors="replace").strip().splitlines()[-lines:]


def export(args: argparse.Namespace) -> int:
    """Packs results, finished or not, into parts."""
    kinds = args.what or ["logs"]
    names = [name for what in kinds for name in EXPORTS[what]]
    shrink(args.out)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for path in sorted({path for name in names for path in args.out.glob(name)}):
            tar.add(path, arcname=path.name)
    data = buffer.getvalue()
    args.to.mkdir(parents=True, exist_ok=True)
    for i in range(0, len(data), PART_BYTES):
        part = args.to / f"{'_'.join(kinds)}.tgz.{i // PART_BYTES:02d}"
        part.write_bytes(data[i : i + PART_BYTES])
    print(f"exported {len(data) / 2**20:.1f} MiB: {', '.join(names)}")
    return 0


def shrink(out: Path) -> None:
    """fp16 copies of the two large networks' weights, without optimizer state, and of the CTC head."""
    import torch

    def half(state: dict[str, torch.Tensor], target: Path) -> None:
        torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, target)

    for name in ("lm", "flow"):
        source, target = out / f"{name}.pt", out / f"{name}16.pt"
        if source.exists() and (not target.exists() or target.stat().st_mtime < source.stat().st_mtime):
            state = torch.load(source, map_location="cpu", weights_only=True)
            half(state.get("model", state), target)
            if "ctc" in state:
                half(state["ctc"], out / "ctc16.pt")


def count_gpus() -> int:
    import torch

    return torch.cuda.device_count()


if __name__ == "__main__":
    sys.exit(main())
