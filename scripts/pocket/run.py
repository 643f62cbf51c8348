"""Trains the whole pocket checkpoint on a machine with 1 or 2 GPUs: data, every stage, and the packaged folder.

    python3 scripts/pocket/run.py start --data /tmp/data --out /tmp/ck [--dry]  # in the background; returns at once
    python3 scripts/pocket/run.py wait --out /tmp/ck --seconds 500      # shows progress, ends early when all is done
    python3 scripts/pocket/run.py export --out /tmp/ck --to DIR --what pocket      # results in parts of 15 MiB

Every stage starts as soon as the files that it begins with are there and then waits for the others that it needs, so
data and learning overlap; README.md has the plan by minute. A stage that fails leaves its log and its non-zero status,
ends those that need it and ends a `wait` at once; the others go on, for another `wait`. `start` again with `--resume`
goes on with what is not done. `--only NAME` runs some stages alone, for example the language model beside the speech
tokenizer and the speech decoder that are shipped, on all GPUs that there are:

    start --only data --only text --only tokens --only lm --gpus 1 --seconds lm=720 --out /tmp/ck
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SHIPPED = ROOT / "voiceagent" / "assets" / "pocket"
PART_BYTES = 15 * 1024 * 1024
LOOK_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One script of the recipe.

    Attributes:
        script: its name.
        options: its command line behind the common part (see `command`).
        seconds: of training; 0: it is no training.
        gpu: which of two it uses; -1: none.
        begins_with: files that must be there before it is started, relative to DATA or CK.
        warm: what of the weights that ship it begins with, unless --cold: a folder or file, and the file in it that
            must be there. They may come later than the rest, where not all can be sent at once.
        uses: stages without whose success it cannot end well.
    """

    script: str
    options: Callable[[argparse.Namespace], list[str]]
    seconds: float = 0.0
    gpu: int = -1
    begins_with: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    warm: tuple[Path, Path] | None = None


def _lm(args: argparse.Namespace) -> list[str]:
    return ["--assets", str(args.out / "base"), "--hear-seconds", str(args.hear)]


def _nothing(_: argparse.Namespace) -> list[str]:
    return []


SPEECH = SHIPPED / "token2wav"
TOKENIZER = SPEECH / "speech_tokenizer_v2_25hz.onnx"
STAGES: dict[str, Stage] = {
    "data": Stage("gen_data", lambda args: ["--data", str(args.data), "--procs", str(args.procs)]),
    "text": Stage(
        "build_tokenizer",
        lambda args: ["--corpus", str(args.data / "corpus.json"), "--out", str(args.out / "base")],
        begins_with=("corpus.json",),
        uses=("data",),
    ),
    "tokens": Stage(
        "tokenise",
        lambda args: ["--data", str(args.data), "--out", str(args.out), "--procs", str(args.procs)],
        begins_with=("agent.json", "agent_es.json"),
        uses=("data",),
    ),
    "speaker": Stage("train_speaker", _nothing, 150, 1, ("corpus.json",), ("data",)),
    "speech_tokenizer": Stage(
        "train_speech_tokenizer", _nothing, 280, 0, ("corpus.json",), ("data",), (TOKENIZER, TOKENIZER)
    ),
    "hift": Stage("train_hift", _nothing, 700, 0, ("corpus.json",), ("data",), (SPEECH, SPEECH / "hift.pt")),
    "flow": Stage(
        "train_flow",
        _nothing,
        780,
        0,
        ("corpus.json",),
        ("data", "speech_tokenizer", "speaker"),
        (SPEECH, SPEECH / "flow.pt"),
    ),
    "lm": Stage(
        "train_lm",
        _lm,
        840,
        1,
        ("base/generation_config.json",),
        ("data", "text", "speech_tokenizer", "tokens"),
        (SHIPPED, SHIPPED / "model.safetensors"),
    ),
    "package": Stage(
        "package",
        lambda args: [
            "--from",
            str(args.out),
            "--base",
            str(args.out / "base"),
            "--to",
            str(args.out / "pocket"),
        ],
        uses=("text", "speech_tokenizer", "speaker", "hift", "flow", "lm"),
    ),
}
WHOLE = tuple(name for name in STAGES if name != "tokens")  # the tokenizer that is trained writes them itself
EXPORTS = {
    "pocket": ["pocket", "ctc16.pt", "*.log", "*_eval.json", "lm_misses.json"],
    "judges": ["speech_tokenizer.pt", "hift_*.wav"],
    "raw": ["base", "lm16.pt", "ctc16.pt", "flow16.pt", "flow.yaml", "hift.pt", "hift.yaml", "speech_tokenizer.onnx",
            "campplus.onnx", "*.log", "*_eval.json"],
    "lm": ["base", "lm16.pt", "ctc16.pt", "lm_eval.json", "lm_misses.json", "*.log"],
    "logs": ["*.log", "*_eval.json"],
}  # fmt: skip


def main() -> int:
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    return {"start": start, "wait": wait, "export": export, "pipeline": pipeline}[args.action](args)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("action", choices=["start", "wait", "export", "pipeline"])
    option("--data", type=Path, default=Path("/tmp/data"))
    option("--out", type=Path, default=Path("/tmp/ck"))
    option("--to", type=Path, default=Path("export"), help="export: folder for the parts")
    option("--what", choices=sorted(EXPORTS), action="append", help="export: which results")
    option(
        "--seconds",
        action="append",
        default=[],
        help="wait: give up after N; else STAGE=N: its training time",
    )
    option("--scale", type=float, default=1.0, help="multiplies every stage's training time")
    option("--hear", type=float, default=280, help="lm: longest seconds of the encoder alone")
    option("--only", choices=sorted(STAGES), action="append", help="run only these stages")
    option("--procs", type=int, default=os.cpu_count() or 2)
    option("--gpus", type=int, help="default: as many as there are; 1: every stage sees all")
    option("--cold", action="store_true", help="begin with random weights, not with those that ship")
    option("--resume", action="store_true", help="go on with what an earlier run left in CK")
    option("--dry", action="store_true", help="tiny data, a few steps: proves that everything runs")
    return parser.parse_args(argv)


def start(args: argparse.Namespace) -> int:
    """Starts `pipeline` in a session of its own, so that it outlives this command."""
    for stale in [*args.out.glob("*.failed"), args.out / "all.done"]:
        stale.unlink(missing_ok=True)
    with (args.out / "pipeline.log").open("a") as log:
        subprocess.Popen(
            [sys.executable, str(HERE / "run.py"), "pipeline", *sys.argv[2:]],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return 0


def pipeline(args: argparse.Namespace) -> int:
    """All chosen stages; `all.done` is written however it ends."""
    status: dict[str, int] = {"pipeline": 1}
    try:
        status = Pipeline(args).run()
    finally:
        (args.out / "all.done").write_text(json.dumps(status))
    return max(map(abs, status.values()), default=0)


@dataclass
class Pipeline:
    """Starts stages when they can begin, notes how they end, ends those that wait in vain."""

    args: argparse.Namespace
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    began: float = field(default_factory=time.time)

    def run(self) -> dict[str, int]:
        """Exit status by stage; 1 for one that could not begin."""
        args = self.args
        gpus = args.gpus if args.gpus is not None else count_gpus()
        chosen = [name for name in STAGES if name in (args.only or WHOLE)]
        for name in [n for n in chosen if args.resume and self._done(n)]:
            self.status[name] = 0
        waiting = [name for name in chosen if name not in self.status]
        while waiting or self.running:
            for name in [n for n in waiting if self._can_begin(n, chosen)]:
                waiting.remove(name)
                self.running[name] = self._start(name, gpus)
            self._look()
            if not self.running and not any(self._can_begin(name, chosen) for name in waiting):
                for name in waiting:
                    self._ended(name, 1, "cannot begin: what it begins with is not there")
                break
            time.sleep(0.3)
        return self.status

    def _done(self, name: str) -> bool:
        mark = self.args.out / f"{name}.done"
        return mark.exists() and mark.read_text() == "0"

    def _can_begin(self, name: str, chosen: list[str]) -> bool:
        stage, args = STAGES[name], self.args
        there = all((args.data / file).exists() or (args.out / file).exists() for file in stage.begins_with)
        if stage.warm and not args.cold and not stage.warm[1].exists():
            return False
        if not stage.begins_with:  # it begins when all that it uses has ended well
            there = all(self.status.get(used) == 0 for used in stage.uses if used in chosen)
        return there and not any(self.status.get(used) for used in stage.uses)

    def _start(self, name: str, gpus: int) -> subprocess.Popen[bytes]:
        """Its output goes to `name`.log."""
        stage = STAGES[name]
        env = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1")
        if not gpus:
            env["OMP_NUM_THREADS"] = "1"
        elif gpus > 1 and stage.gpu >= 0:
            env["CUDA_VISIBLE_DEVICES"] = str(stage.gpu)
        self._say(name, "started")
        with (self.args.out / f"{name}.log").open("a") as log:
            command = [sys.executable, str(HERE / f"{stage.script}.py"), *arguments(self.args, name)]
            return subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=ROOT)

    def _look(self) -> None:
        """Notes what has ended."""
        for name in [n for n, process in self.running.items() if process.poll() is not None]:
            code = self.running.pop(name).returncode
            self._ended(name, code, "done" if code == 0 else f"FAILED ({code})")
            for other in [n for n in self.running if code and name in STAGES[n].uses]:
                self.running[other].terminate()  # it would wait in vain

    def _ended(self, name: str, code: int, said: str) -> None:
        self.status[name] = code
        self._say(name, said)
        (self.args.out / f"{name}.done").write_text(str(code))

    def _say(self, name: str, said: str) -> None:
        print(f"{time.time() - self.began:6.0f} s  {name}: {said}", flush=True)


def arguments(args: argparse.Namespace, name: str) -> list[str]:
    """The command line of a stage."""
    stage = STAGES[name]
    out = stage.options(args)
    if stage.seconds:
        seconds = times(args).get(name, stage.seconds * args.scale)
        out = ["--data", str(args.data), "--out", str(args.out), "--seconds", str(seconds), *out]
        out += ["--init", str(stage.warm[0])] if stage.warm and not args.cold else []
        out += ["--resume"] if args.resume else []
    if args.dry and (stage.seconds or name == "data"):
        out += ["--dry"]
    return out


def times(args: argparse.Namespace) -> Mapping[str, float]:
    """Training times that were given by a stage's name."""
    pairs = [text.split("=", 1) for text in args.seconds if "=" in text]
    return {name: float(value) for name, value in pairs}


def wait(args: argparse.Namespace) -> int:
    """Shows every log's last line now and then; ends when all is done, a stage has failed, or the time is over."""
    deadline, look = time.time() + patience(args), 0.0
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


def patience(args: argparse.Namespace) -> float:
    """Seconds of a `wait`."""
    return float(next((text for text in args.seconds if "=" not in text), 500))


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
