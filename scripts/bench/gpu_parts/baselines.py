"""The reference part: what the published code and transformers take for the same work, in the same process."""

from __future__ import annotations

from scripts.bench.gpu_parts import reference, transformers_lm
from scripts.bench.gpu_parts.bench import Bench
from scripts.bench.gpu_parts.reference import GRAPH_IDS, time_reference
from scripts.bench.gpu_parts.report import Row
from scripts.bench.gpu_parts.weights import random_voices


def measure(bench: Bench) -> None:
    """Fills `bench.speech_reference` and `bench.language_reference`."""
    bench.report.head("reference", "published code and transformers")
    _speech(bench)
    _language(bench)


def _speech(bench: Bench) -> None:
    lacking = reference.missing()
    if lacking is not None:
        bench.report.details["speech_reference"] = f"not installed: {lacking}"
        print(f"  the reference's speech decoder is left out: {lacking} is not installed")
        return
    voice = next(iter(random_voices(bench.shape).values()))
    modes = [("fp32", 25), ("tf32", 25), ("fp16", 25), ("graphs", GRAPH_IDS)]
    if not bench.device.startswith("cuda"):
        modes = modes[:1]
    for mode, ids in modes:
        try:
            found = time_reference(
                bench.folder, bench.shape, voice, bench.clock, mode=mode, ids=ids, repeat=bench.repeat
            )
        except Exception as error:  # one mode of somebody else's code must not cost the others
            bench.report.failed(f"reference {mode}", error)
            continue
        bench.speech_reference[mode, ids] = found
        name = f"step-audio2 {mode}, {ids}-id chunk"
        for stage, figure in (("flow", found.flow), ("HiFT", found.hift), ("whole", found.whole)):
            bench.report.add(Row("reference", f"{name}: {stage}", figure, "ms"))
        bench.clock.free()


def _language(bench: Bench) -> None:
    if transformers_lm.missing():
        bench.report.details["language_reference"] = "transformers is not installed"
        print("  the language model's baselines are left out: transformers is not installed")
        return
    lengths, batches, context = (
        ((64,), (1, 2), 64) if bench.tiny else ((200, 500, 1000), (1, 8, 32, 64), 2048)
    )
    found = transformers_lm.rows(
        bench.shape, bench.clock, lengths=lengths, batches=batches, context=context, repeat=bench.repeat,
        compiled=(1, 16, 64) if bench.slow and not bench.tiny else (),
    )  # fmt: skip
    bench.language_reference.update(found)
    for name, figure in found.items():
        bench.report.add(Row("reference", f"transformers, {name}", figure, "ms"))
