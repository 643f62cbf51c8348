"""An independent judge of speech: pocketsphinx with its stock US English acoustic model. Knows nothing of our networks.

Two judges share the acoustics. "desk" expects the words of the front desk: its language model is a bigram counted from
sentences that the caller gives. It recognises flite's own speech several times better than "stock", which is
pocketsphinx as it comes, with a trigram of general English: there most errors are the recogniser's.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pocketsphinx
from numpy.typing import NDArray

JUDGES = ("desk", "stock")
BACKOFF = 0.5  # weight of the unigram in the bigram
MODEL = Path(pocketsphinx.get_model_path()) / "en-us"
DICTIONARY = MODEL / "cmudict-en-us.dict"
SETTINGS = {"hmm": str(MODEL / "en-us"), "dict": str(DICTIONARY), "loglevel": "FATAL"}


class Recogniser:
    """Both judges.

    Args:
        sentences: what the "desk" judge's language model is counted from.
        scratch: folder for that model's file.
    """

    def __init__(self, sentences: Sequence[str], scratch: Path) -> None:
        known = known_words()
        path = scratch / "desk.lm"
        path.write_text(bigram([[w for w in words(s) if w in known] for s in sentences]), encoding="ascii")
        desk = pocketsphinx.Decoder(lm=None, **SETTINGS)
        desk.add_lm("desk", pocketsphinx.NGramModel(desk.config, desk.logmath, str(path)))
        desk.activate_search("desk")
        stock = pocketsphinx.Decoder(lm=str(MODEL / "en-us.lm.bin"), **SETTINGS)
        self._decoders = dict(zip(JUDGES, (desk, stock), strict=True))

    def __call__(self, samples: NDArray[np.int16]) -> dict[str, str]:
        """What each judge hears in 16 kHz mono samples."""
        return {name: _hear(decoder, samples) for name, decoder in self._decoders.items()}


def _hear(decoder: pocketsphinx.Decoder, samples: NDArray[np.int16]) -> str:
    decoder.start_utt()
    decoder.process_raw(samples.astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return re.sub(r"\(\d+\)", "", found.hypstr) if found else ""


def word_starts(samples: NDArray[np.int16], text: str) -> list[tuple[str, float]]:
    """Where the words of `text` begin in 16 kHz mono samples that say it, seconds; ValueError if not found."""
    decoder = pocketsphinx.Decoder(lm=None, **SETTINGS)
    try:
        decoder.set_align_text(" ".join(words(text)))
    except RuntimeError as error:
        raise ValueError(f"not all words of {text!r} are in the dictionary") from error
    decoder.start_utt()
    decoder.process_raw(samples.astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    if decoder.hyp() is None:
        raise ValueError(f"{text!r} is not what is said")
    found = [(segment.word, segment.start_frame / 100) for segment in decoder.seg()]
    return [(re.sub(r"\(\d+\)", "", word), at) for word, at in found if not word.startswith(("<", "["))]


def known_words() -> set[str]:
    """The words that the dictionary can pronounce."""
    with DICTIONARY.open(encoding="utf-8") as lines:
        return {line.split(" ", 1)[0] for line in lines}


def words(text: str) -> list[str]:
    """Lower-case words with apostrophes only."""
    return re.sub(r"[^a-z' ]", " ", text.lower()).split()


def bigram(sentences: Sequence[Sequence[str]]) -> str:
    """An ARPA file of an interpolated bigram: p(b | a) = (1 - k) count(ab) / count(a) + k p(b)."""
    single: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for sentence in sentences:
        single.update([*sentence, "</s>"])
        pairs.update(zip(["<s>", *sentence], [*sentence, "</s>"], strict=True))
    total = sum(single.values())
    before: Counter[str] = Counter()
    for (first, _), count in pairs.items():
        before[first] += count
    backoff = math.log10(BACKOFF)
    lines = ["\\data\\", f"ngram 1={len(single) + 1}", f"ngram 2={len(pairs)}", "", "\\1-grams:"]
    lines.append(f"-99 <s> {backoff:.4f}")
    lines += [
        f"{math.log10(count / total):.4f} {word} {backoff:.4f}" for word, count in sorted(single.items())
    ]
    lines += ["", "\\2-grams:"]
    for (first, second), count in sorted(pairs.items()):
        share = (1 - BACKOFF) * count / before[first] + BACKOFF * single[second] / total
        lines.append(f"{math.log10(share):.4f} {first} {second}")
    return "\n".join([*lines, "", "\\end\\", ""])
