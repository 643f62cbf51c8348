"""Holds the captured passes of the language model to the same passes without capture, on a CUDA device.

    python scripts/bench/graphs.py

A small network with random weights reads prompts, writes replies and encodes audio both ways. Ids may differ where two
of them are as good as equal in bfloat16: what is captured is padded to a larger batch.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from voiceagent.models.step_audio2.config import AudioEncoderConfig, StepAudio2Config, TextConfig
from voiceagent.models.step_audio2.decode import BUCKETS, Decoder, Next
from voiceagent.models.step_audio2.kv import KvPool, KvSequence, page_bytes
from voiceagent.models.step_audio2.listen import Listener
from voiceagent.models.step_audio2.model import StepAudio2
from voiceagent.models.step_audio2.read import Reader
from voiceagent.models.step_audio2.sampling import Sampling

TEXT = TextConfig(
    hidden_size=512,
    intermediate_size=1024,
    num_hidden_layers=3,
    num_attention_heads=7,
    num_key_value_heads=1,
    head_dim=128,
    vocab_size=9000,
    max_position_embeddings=4096,
    rms_norm_eps=1e-6,
    rope_theta=10_000.0,
)
AUDIO = AudioEncoderConfig(
    n_mels=128,
    n_audio_ctx=1500,
    n_audio_state=256,
    n_audio_head=4,
    n_audio_layer=2,
    llm_dim=512,
    kernel_size=3,
    adapter_stride=2,
    adapter_hidden=256,
)
BATCHES = (1, 3, 8, 40, 128)
READS = ((13, 0), (80, 0), (80, 1000), (500, 100), (1500, 300))  # new positions, past
SECONDS = (0.3, 1.0, 7.0, 25.0)


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("No CUDA device.")
    torch.manual_seed(0)
    network = random_network()
    pool = KvPool(TEXT, nbytes=4000 * page_bytes(TEXT, torch.bfloat16), device="cuda", dtype=torch.bfloat16)
    pool.tensor.normal_()
    masks = torch.ones(1, TEXT.vocab_size, dtype=torch.bool, device="cuda")
    decoder, reader, listener = Decoder(network, pool, masks), Reader(network, pool), Listener(network)
    plain = Decoder(network, pool, masks), Reader(network, pool), Listener(network)
    share = decoder.capture(BUCKETS)
    reader.capture(share=share)
    listener.capture(share=share)
    for count, past in READS:
        check_read(network, pool, reader, plain[1], count=count, past=past)
    for batch in BATCHES:
        check_decode(pool, decoder, plain[0], batch=batch)
    for seconds in SECONDS:
        wave = 0.1 * torch.randn(int(16_000 * seconds))
        report(f"encode {seconds} s", listener.encode([wave])[0], plain[2].encode([wave])[0])
    print("all captured passes agree")


def random_network() -> StepAudio2:
    network = StepAudio2(StepAudio2Config(TEXT, AUDIO)).to("cuda", torch.bfloat16).requires_grad_(False)
    for name, tensor in network.stored().items():
        if tensor.dim() > 1 and "positional" not in name:
            tensor.normal_(0.0, 0.05)
    return network.eval()


def held(pool: KvPool, length: int) -> KvSequence:
    """A sequence with a past: whatever its pages hold."""
    sequence = pool.open()
    sequence.reserve(length)
    sequence.advance(length)
    return sequence


@torch.inference_mode()
def check_read(
    network: StepAudio2, pool: KvPool, captured: Reader, plain: Reader, *, count: int, past: int
) -> None:
    embeds = network.embed(torch.randint(0, TEXT.vocab_size, (count,), device="cuda"))
    original = held(pool, past)
    found = []
    for reader in (captured, plain):
        sequence = original.fork()
        sequence.reserve(past + count)
        reader.read(embeds, sequence)
        places = torch.tensor(sequence.places(past, past + count), device="cuda")
        found.append(pool.tensor.flatten(2, 3)[:, :, places])
        sequence.free()
    original.free()
    report(f"read {count} after {past}", *found)


def check_decode(pool: KvPool, captured: Decoder, plain: Decoder, *, batch: int) -> None:
    sampling = Sampling(temperature=0.7, top_p=0.9, repetition_penalty=1.05)
    sequences = [held(pool, 13 * at + 5) for at in range(batch)]
    found: list[list[int | None]] = []
    for decoder in (captured, plain):
        rows = [decoder.open(sampling, seen=range(100)) for _ in sequences]
        token: list[int | None] = [5] * batch
        ids: list[int | None] = []
        twins = [sequence.fork() for sequence in sequences]
        for step in range(4):
            for twin in twins:
                twin.reserve(twin.length + 1)
            token = decoder.step(
                [
                    Next(row, twin, twin.length, last or 0, (at * 37 + step * 11) % 101 / 101, 0)
                    for at, (row, twin, last) in enumerate(zip(rows, twins, token, strict=True))
                ]
            )
            for twin in twins:
                twin.advance(1)
            ids += token
        for row, twin in zip(rows, twins, strict=True):
            decoder.close(row)
            twin.free()
        found.append(ids)
    for sequence in sequences:
        sequence.free()
    same = sum(left == right is not None for left, right in zip(*found, strict=True))
    print(f"write, batch {batch}: {same} of {len(found[0])} ids are the same", flush=True)
    assert None not in found[0], "scores are not numbers"
    assert same >= 0.9 * len(found[0]) - 1


def report(what: str, got: Tensor, wanted: Tensor) -> None:
    error = float((got.float() - wanted.float()).norm() / wanted.float().norm())
    print(f"{what}: relative error {error:.1e}", flush=True)
    assert error < 2e-2, what


if __name__ == "__main__":
    main()
