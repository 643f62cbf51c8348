"""Rates and conversions between samples, milliseconds and tokens; no other module repeats these numbers."""

from __future__ import annotations

MODEL_RATE = 16_000  #: Hz, what the encoder, the S3 tokenizer and the VAD hear
VOICE_RATE = 24_000  #: Hz, what Token2Wav emits
PIECE_SAMPLES = 25 * MODEL_RATE  #: longest audio piece the encoder takes (25 s)
TOKEN_RATE = 25  #: speech tokens per second of speech
TOKEN_SAMPLES = VOICE_RATE // TOKEN_RATE  #: 960 samples at 24 kHz per speech token


def ms_to_samples(ms: float, *, rate: int) -> int:
    """Milliseconds to whole samples at `rate` Hz, rounded down."""
    return int(ms * rate // 1000)


def samples_to_ms(samples: int, *, rate: int) -> int:
    """Samples at `rate` Hz to whole milliseconds, rounded down."""
    return samples * 1000 // rate


def spoken_at(samples: int, speed: float) -> int:
    """How many samples there are of `samples` once they are spoken `speed` times as fast, rounded up; exact."""
    numerator, denominator = speed.as_integer_ratio()
    return -(-samples * denominator // numerator)


def unhurried(samples: int, speed: float) -> int:
    """Of how many samples these were made, spoken `speed` times as fast, rounded down; exact.

    As many whole ones as `spoken_at` fits: spoken_at(n, speed) <= samples just if n <= unhurried(samples, speed).
    """
    numerator, denominator = speed.as_integer_ratio()
    return samples * numerator // denominator
