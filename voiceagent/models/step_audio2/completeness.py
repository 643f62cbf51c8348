"""How likely it is that nothing follows what somebody said so far: by the sound and by the words, of the model's own.

Three things that the model knows while it writes a transcript are multiplied:

- that the transcript ends here, by the sound and the words (a sentence that breaks off seldom does);
- how sure the last words are (a word that is cut in half, or guessed, is not);
- that a text ends here, by the words alone (what the sound says of its end, silence says of every pause).

"Ends" is the sum of all ways to end: the ids that end a reply, and the marks that end a sentence, which some
checkpoints write in transcripts and others do not. It knows no language beyond those marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from voiceagent.core.history import Piece
from voiceagent.models.step_audio2.context import Context
from voiceagent.models.step_audio2.dictation import ASR_INSTRUCTIONS
from voiceagent.models.step_audio2.prompt import Slot, render, render_transcription
from voiceagent.models.step_audio2.tokenizer import TextTokenizer
from voiceagent.models.step_audio2.variant import Variant

LAST = 2  #: ids of the transcript that are looked at for how sure they are
MARKS = ".?!。？！"
AROUND = " \n\r\t\"'”’」』)）"  #: what may stand around a mark in one token


def completeness(
    pieces: Sequence[Piece],
    said: Sequence[int],
    *,
    heard: Context,
    alone: Context,
    tokenizer: TextTokenizer,
    variant: Variant,
    stops: frozenset[int],
) -> float:
    """The probability that nothing follows.

    Args:
        pieces: what was heard.
        said: the ids of its transcript.
        heard: a context in which the pieces are encoded; if it still holds the transcript, little is computed.
        alone: an empty context.
        tokenizer, variant: the checkpoint's.
        stops: ids that end a reply.

    Raises:
        VoiceAgentError: as `Context.scores`.
    """
    marks = end_marks(tokenizer)
    words = list(said)
    while words and words[-1] in marks:
        words.pop()
    if not words:
        return 0.0
    ends = sorted(stops | marks)
    prompt = render_transcription(pieces, tokenizer, variant).slots
    last = min(LAST, len(words))
    by_sound = _probabilities(heard, (*prompt, *words), last=last + 1)
    sure = min(float(by_sound[at, token]) for at, token in enumerate(words[-last:]))
    bare = render((), instructions=ASR_INSTRUCTIONS, tokenizer=tokenizer, spoken=False, variant=variant)
    by_words = _probabilities(alone, (*bare, *words), last=1)
    return sure * float(by_sound[-1, ends].sum()) * float(by_words[-1, ends].sum())


@lru_cache(maxsize=4)
def end_marks(tokenizer: TextTokenizer) -> frozenset[int]:
    """Ids that are nothing but a mark at which a sentence ends; dots in a row are none."""
    texts = ((token, tokenizer.token_bytes(token)) for token in range(tokenizer.ids.audio_start))
    return frozenset(token for token, raw in texts if tokenizer.is_text(token) and _ends(raw))


def _ends(raw: bytes) -> bool:
    text = raw.decode("utf-8", "replace").strip(AROUND)
    return bool(text) and all(char in MARKS for char in text) and ".." not in text


def _probabilities(context: Context, slots: Sequence[Slot], *, last: int) -> Tensor:
    """(last, vocabulary) of what follows each of the last slots, on the host."""
    return torch.softmax(context.scores(slots, last=last).float(), dim=-1).cpu()
