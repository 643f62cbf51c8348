"""Measures the engine on one GPU at the true sizes of the published model, beside the reference where it is installed.

    python3 scripts/bench/gpu.py [--parts ceilings,reference,speech,language,turn,sessions] [--slow] [--long]
    python3 scripts/bench/gpu.py --tiny --device cpu        the harness alone, in seconds

Weights are random and made on the GPU; no checkpoint is needed. Prints a table and writes gpu.json, gpu.md and gpu.svg
into --out. scripts/bench/README.md explains the figures and the method.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from scripts.bench.gpu_parts import plot  # noqa: E402
from scripts.bench.gpu_parts.bench import Bench  # noqa: E402
from scripts.bench.gpu_parts.measure import Clock, ceilings, machine  # noqa: E402
from scripts.bench.gpu_parts.report import Report, Row  # noqa: E402
from scripts.bench.gpu_parts.shapes import MINI, TINY  # noqa: E402
from scripts.bench.gpu_parts.weights import write_folder  # noqa: E402

SERVED = ("turn", "sessions")
PARTS = ("reference", "speech", "language", *SERVED)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, in this order; ceilings come always")
    parser.add_argument("--tiny", action="store_true", help="a model of tiny sizes: tries the harness")
    parser.add_argument("--repeat", type=int, default=10, help="measurements in each of the two rounds")
    parser.add_argument(
        "--slow", action="store_true", help="also what takes minutes (torch.compile baselines)"
    )
    parser.add_argument("--long", action="store_true", help="the largest number of sessions for five minutes")
    parser.add_argument("--asks", type=int, default=40, help="questions of the single caller per history")
    parser.add_argument("--sessions", default="1,8,32,64,96", help="numbers of speaking sessions")
    parser.add_argument("--seconds", type=float, default=18.0, help="how long each number of them speaks")
    parser.add_argument("--out", type=Path, default=ROOT / "scripts" / "bench" / "results")
    parser.add_argument(
        "--folder", type=Path, help="where the random checkpoint goes; default: a temporary folder"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the parts; 1 if one of them could not be measured."""
    args = parse(argv)
    with tempfile.TemporaryDirectory() as temporary:
        report = run(args, args.folder or Path(temporary))
    report.write(args.out / "gpu.json")
    (args.out / "gpu.md").write_text(report.markdown(), encoding="utf-8")
    plot.draw(report, args.out / "gpu.svg")
    missed = [row.name for row in report.rows if row.met is False]
    print(f"\n{report.to_dict()['seconds']} s in all; goals missed: {', '.join(missed) or 'none'}")
    return 1 if report.failures else 0


def run(args: argparse.Namespace, folder: Path) -> Report:
    """All parts that were asked for, in order; one that fails is noted and the others go on."""
    shape = TINY if args.tiny else MINI
    clock = Clock(args.device)
    if args.tiny:
        torch.set_num_threads(1)  # more threads would only wait for each other
    conditions = {
        "model": shape.name,
        "weights": "random",
        "flow": "10 steps, guidance on",
        "prompt_ids": shape.prompt_tokens,
        "chunks": "12, 16, then 25 ids",
    }
    report = Report(machine(args.device), conditions)
    print(report.machine)
    report.head("ceilings", "what the device can do")
    top = ceilings(clock, tiny=args.tiny)
    report.add(Row("ceilings", "device copy", top.copy.scaled(1e-12), "TB/s", better="higher"))
    report.add(Row("ceilings", "bf16 matrix product", top.matmul.scaled(1e-12), "TFLOP/s", better="higher"))
    began = time.monotonic()
    write_folder(shape, folder, device=args.device)
    report.parts["weights"] = time.monotonic() - began
    dtype = torch.bfloat16 if args.device.startswith("cuda") else torch.float32
    bench = Bench(shape, clock, report, folder, top, dtype, 2 if args.tiny else args.repeat, args.slow)
    for part in planned(args.parts):
        began = time.monotonic()
        try:
            part_of(part, args)(bench)
        except Exception as error:  # the figures of the other parts must not be lost with this one
            report.failed(part, error)
        clock.free()
        report.parts[part] = time.monotonic() - began
    return report


def part_of(name: str, args: argparse.Namespace) -> Callable[[Bench], None]:
    """What measures a part. Imported when it is wanted, so that one broken module costs one part."""
    match name:
        case "reference":
            from scripts.bench.gpu_parts.baselines import measure
        case "speech":
            from scripts.bench.gpu_parts.speech import measure
        case "language":
            from scripts.bench.gpu_parts.language import measure
        case _:
            from scripts.bench.gpu_parts.served import Served

            numbers = [int(number) for number in args.sessions.split(",")] if "sessions" in name else []
            asks = args.asks if "turn" in name else 0
            return Served(asks, numbers, seconds=args.seconds, long=args.long)
    return measure


def planned(parts: str) -> list[str]:
    """The parts in order; the two that ask an engine process become one."""
    asked = parts.split(",")
    for name in asked:
        if name not in PARTS:
            raise SystemExit(f"{name!r} is no part; there are {', '.join(PARTS)}")
    found = [name for name in asked if name not in SERVED]
    served = [name for name in asked if name in SERVED]
    return [*found, "+".join(served)] if served else found


if __name__ == "__main__":
    sys.exit(main())
