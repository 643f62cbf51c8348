"""Part 1, Token2Wav: chunks at several batch sizes, beside the wheel at batch 1; memory of a stream; parity."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch

from scripts.bench.gpu_parts.bench import Bench
from scripts.bench.gpu_parts.measure import Figure
from scripts.bench.gpu_parts.reference import GRAPH_IDS
from scripts.bench.gpu_parts.report import Row
from scripts.bench.gpu_parts.weights import AUDIO_CODES, true_shape_token2wav
from voiceagent.models.step_audio2.flow import Flow, FlowChunk
from voiceagent.models.step_audio2.token2wav import CHUNKS, Pcm, Speak, SpeechState, Token2Wav
from voiceagent.models.step_audio2.voice import Voice

STEADY = 12  #: chunks after which a stream's history is full
PARITY_CHUNKS = 20
STATE_GOAL = 80e6
PARITY_GOAL = 1e-2


def measure(bench: Bench) -> None:
    """All rows of the part."""
    bench.report.head("speech", "Token2Wav, 10 steps, guidance on; wall time with the samples on the host")
    batches = (1, 2) if bench.tiny else (1, 8, 32)
    token2wav = load(bench, streams=max(batches) + 2, dtype=bench.dtype)
    voice = next(iter(token2wav.voices.values()))
    _memory(bench, token2wav, voice)
    for batch in batches:
        _schedule(bench, token2wav, voice, batch=batch)
        _steady(bench, token2wav, voice, batch=batch)
    _parity(bench, token2wav, voice)


def load(bench: Bench, *, streams: int, dtype: torch.dtype) -> Token2Wav:
    """A decoder with room for so many streams."""
    size = int(STATE_GOAL * dtype.itemsize / 2 * (streams + 8))
    return true_shape_token2wav(bench.shape, bench.folder, device=bench.device, dtype=dtype, bytes=size)


def _memory(bench: Bench, token2wav: Token2Wav, voice: Voice) -> None:
    state = stream(token2wav, voice, seed=0)
    size = Figure.single(state.nbytes / 1e6)
    state.close()
    bench.report.add(Row("speech", "state of one stream", size, "MB", goal=STATE_GOAL / 1e6))


def _schedule(bench: Bench, token2wav: Token2Wav, voice: Voice, *, batch: int) -> None:
    """The first chunks of fresh streams: each size of the schedule but the last."""
    for number, count in enumerate(CHUNKS[:-1]):
        streams: list[SpeechState] = []

        def fresh(number: int = number, streams: list[SpeechState] = streams) -> None:
            for state in streams:
                state.close()
            streams[:] = [stream(token2wav, voice, seed=seed) for seed in range(batch)]
            for _ in range(number):
                speak(token2wav, streams)

        figure = bench.clock.figure(
            functools.partial(speak, token2wav, streams), repeat=bench.repeat, before=fresh
        )
        for state in streams:
            state.close()
        floor = bench.speech_floor(batch, count)
        name = f"chunk {number + 1} of a stream, {count} ids, batch {batch}"
        bench.report.add(Row("speech", name, figure, "ms", floor=floor))


def _steady(bench: Bench, token2wav: Token2Wav, voice: Voice, *, batch: int) -> None:
    """The chunk that holds from then on, in streams whose history is full."""
    count = CHUNKS[-1]
    streams = [stream(token2wav, voice, seed=seed) for seed in range(batch)]
    for _ in range(STEADY):
        check(speak(token2wav, streams))
    whole = bench.clock.figure(lambda: speak(token2wav, streams), repeat=bench.repeat)
    chunk = random_ids(count + token2wav.flow.lookahead, seed=1)
    flow = bench.clock.figure(
        lambda: token2wav.flow.advance([FlowChunk(chunk, state.flow, last=False) for state in streams]),
        repeat=bench.repeat,
    )
    for state in streams:
        state.close()
    _steady_rows(bench, whole, flow, batch=batch, count=count)


def _steady_rows(bench: Bench, whole: Figure, flow: Figure, *, batch: int, count: int) -> None:
    """Beside the wheel, which has no batches: at batch 1 for times, always for rates."""
    eager = bench.speech_reference.get(("fp32", 25))
    graphs = bench.speech_reference.get(("graphs", GRAPH_IDS))
    floor = bench.speech_floor(batch, count)
    row = Row("speech", f"{count}-id chunk, batch {batch}", whole, "ms", floor=floor)
    flow_row = Row("speech", f"  of it the flow, batch {batch}", flow, "ms")
    if batch == 1 and eager is not None:
        row = row.against(eager.whole, "wheel fp32 eager", times=10)
        flow_row = flow_row.against(eager.flow, "wheel fp32 eager")
    bench.report.add(row)
    if batch == 1 and graphs is not None:
        again = Row("speech", f"{count}-id chunk, batch {batch}, again", whole, "ms")
        bench.report.add(again.against(graphs.whole, f"wheel graphs, {GRAPH_IDS} ids", times=4))
    bench.report.add(flow_row)
    rate = Row(
        "speech", f"chunks per second, batch {batch}", whole.inverse(1000.0 * batch), "1/s", better="higher",
        floor=None if floor is None else 1000 * batch / floor,
    )  # fmt: skip
    if eager is not None:
        rate = rate.against(
            eager.whole.inverse(1000.0), "wheel, one by one", times=30 if batch == 32 else None
        )
    bench.report.add(rate)


def _parity(bench: Bench, token2wav: Token2Wav, voice: Voice) -> None:
    """Mel of one stream in the number type that is timed, against float32, and against itself in a batch."""
    exact = Flow.load(bench.folder / "token2wav", device=bench.device, dtype=torch.float32, slots=2)
    ours, truth = stream_mel(token2wav.flow, voice), stream_mel(exact, voice)
    name = f"flow against float32 over {PARITY_CHUNKS} chunks, {str(bench.dtype).removeprefix('torch.')}"
    alone = Figure.single(relative(ours, truth))
    bench.report.add(Row("speech", name, alone, "rel.", goal=PARITY_GOAL))
    crowd = Figure.single(relative(stream_mel(token2wav.flow, voice, others=2 if bench.tiny else 7), ours))
    bench.report.add(
        Row("speech", "the same stream in a batch against alone", crowd, "rel.", goal=PARITY_GOAL)
    )


def stream_mel(flow: Flow, voice: Voice, *, others: int = 0) -> torch.Tensor:
    """(80, n) of one stream over 20 chunks, while `others` speak other things beside it."""
    prompt = flow.prepare(voice)
    states = [flow.open(prompt, seed=seed) for seed in range(others + 1)]
    mels = []
    for number in range(PARITY_CHUNKS):
        chunks = [
            FlowChunk(random_ids(25 + flow.lookahead, seed=100 * i + number), state, last=False)
            for i, state in enumerate(states)
        ]
        mels.append(flow.advance(chunks)[0].float().cpu())
    for state in states:
        state.close()
    return torch.cat(mels, dim=1)


def stream(token2wav: Token2Wav, voice: Voice, *, seed: int) -> SpeechState:
    """A new stream of our own kind."""
    state = token2wav.open(voice, seed=seed)
    assert isinstance(state, SpeechState)
    return state


def relative(found: torch.Tensor, truth: torch.Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((found - truth).norm() / truth.norm())


def speak(token2wav: Token2Wav, streams: Sequence[SpeechState]) -> list[Pcm]:
    """One chunk of every stream, of the size that each wants."""
    parts = [Speak(random_ids(token2wav.wanted(state), seed=i), state) for i, state in enumerate(streams)]
    out = []
    for pcm in token2wav.steps(parts):
        if isinstance(pcm, Exception):
            raise pcm
        out.append(pcm)
    return out


def check(sound: Sequence[Pcm]) -> None:
    """Raises ValueError unless every stream made sound: nothing is timed that computes nothing."""
    if any(len(pcm) == 0 or int(np.ptp(pcm)) == 0 for pcm in sound):
        raise ValueError("a stream's samples are missing or constant")


@functools.lru_cache(maxsize=512)  # drawn before, not while something is timed
def random_ids(count: int, *, seed: int) -> list[int]:
    """Speech ids."""
    return np.random.default_rng(seed).integers(0, AUDIO_CODES, count).tolist()  # type: ignore[no-any-return]
