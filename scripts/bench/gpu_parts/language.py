"""Part 2, the language model: decoding at several batch sizes and lengths, reading prompts, encoding audio."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from scripts.bench.gpu_parts.bench import Bench
from scripts.bench.gpu_parts.report import Row
from scripts.bench.gpu_parts.weights import true_shape_language_model
from voiceagent.core.history import Piece
from voiceagent.errors import CapacityError
from voiceagent.models.step_audio2.generate import Generation, LanguageModel
from voiceagent.models.step_audio2.prompt import Prompt
from voiceagent.units import MODEL_RATE

KV_BYTES = 66e9  #: 128 conversations of 8k
STEPS = 4  #: decoding steps in a row for one measurement, as the engine takes them
GOALS = {(1, 2048): 4.1, (64, 2048): 6.3}  #: milliseconds of a decoding step


def measure(bench: Bench) -> None:
    """All rows of the part."""
    bench.report.head("language", "language model, temperature 0.7, top-p 0.9, repetition penalty 1.05")
    model = true_shape_language_model(
        bench.shape, bench.folder, device=bench.device, dtype=bench.dtype,
        kv_bytes=int(3e7 if bench.tiny else KV_BYTES),
    )  # fmt: skip
    model.pool.tensor.normal_()  # what was never read must not be zeros, which multiply faster
    batches, contexts = ((1, 2), (64, 256)) if bench.tiny else ((1, 8, 32, 64, 128), (512, 2048, 8192))
    for context, batch in itertools.product(contexts, batches):
        _decode(bench, model, batch=batch, context=context)
    for history, tokens in (
        (0, 80),
        (0, 400),
        (0, contexts[1]),
        (contexts[1], 80),
        (contexts[2 % len(contexts)], 80),
    ):
        _read(bench, model, tokens=tokens, history=history)
    for seconds in (1, 5) if bench.tiny else (1, 5, 25):
        _encode(bench, model, seconds=seconds)


def _decode(bench: Bench, model: LanguageModel, *, batch: int, context: int) -> None:
    """One step of so many replies, each in a conversation of that length; their ids read back to the host.

    A step is a share of several in a row: the next one is begun before one has ended, so that a lone step would be
    charged with the host's preparation of its successor, which runs beside the GPU when there is one.
    """
    room = STEPS * (2 * bench.repeat + 4) + 16
    try:
        replies = [reply(model, context, seed=seed, limit=room) for seed in range(batch)]
        for one in replies:
            one.read(context)
    except CapacityError as error:
        bench.report.details[f"decode {batch} x {context}"] = error.message
        return

    def steps() -> None:
        for _ in range(STEPS):
            for token in model.decode(replies):
                if isinstance(token, Exception):
                    raise token
                assert token is not None, "a reply ended before it was timed"

    figure = bench.clock.figure(steps, repeat=bench.repeat).scaled(1 / STEPS)
    for one in replies:
        one.context.close()
    row = Row(
        "language", f"decode step, batch {batch}, context {context}", figure, "ms",
        floor=bench.decode_floor(batch, context), goal=GOALS.get((batch, context)),
    )  # fmt: skip
    found = bench.language_reference.get(f"DynamicCache, batch {batch}, context {context}")
    bench.report.add(row.against(found, "transformers DynamicCache"))
    slow = bench.language_reference.get("no cache, length 1000")
    if batch == 1 and context == 512 and slow is not None:
        again = Row("language", "decode step, batch 1, context 512, again", figure, "ms")
        bench.report.add(again.against(slow, "no cache, length 1000"))


def _read(bench: Bench, model: LanguageModel, *, tokens: int, history: int) -> None:
    """A prompt's new positions and the first token after it."""
    held: list[Generation] = []

    def fresh() -> None:
        for one in held:
            one.context.close()
        held[:] = [reply(model, history + tokens, seed=7, limit=1, held=history)]

    def work() -> None:
        held[0].read(tokens)
        model.decode(held)

    figure = bench.clock.figure(work, repeat=bench.repeat, before=fresh)
    held[0].context.close()
    found = bench.language_reference.get(f"prefill {tokens}") if history == 0 else None
    row = Row(
        "language", f"read {tokens} new positions after {history}, first token", figure, "ms",
        floor=bench.prefill_floor(tokens, history=history),
    )  # fmt: skip
    bench.report.add(row.against(found, "transformers eager"))


def _encode(bench: Bench, model: LanguageModel, *, seconds: int) -> None:
    """A piece of audio from samples on the host to its rows."""
    samples = np.random.default_rng(0).standard_normal(seconds * MODEL_RATE).astype(np.float32) * np.float32(
        0.05
    )
    numbers = itertools.count(1)
    context = model.open()

    def work() -> None:
        model.encode([(context, Piece(next(numbers), samples))])

    figure = bench.clock.figure(work, repeat=bench.repeat)
    context.close()
    bench.report.add(Row("language", f"encode {seconds} s of audio", figure, "ms"))


def reply(model: LanguageModel, length: int, *, seed: int, limit: int, held: int | None = None) -> Generation:
    """A reply to a prompt of random ids, of which the first `held` (default: all but one) count as read.

    Their keys and values are whatever the pages hold: how long a step takes does not depend on them.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = tuple(torch.randint(97, 123, (length,), generator=generator).tolist())
    context = model.open()
    before = ids[: length - 1 if held is None else held]
    if before:
        context.begin(before, keep=0)
        context.hold(before)
    return model.generate(context, Prompt(ids, (), spoken=True), max_tokens=limit)
