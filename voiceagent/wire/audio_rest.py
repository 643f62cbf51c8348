"""Shapes of the REST audio endpoints: what a request may say, and transcripts in every format. No sockets, no audio."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from voiceagent.core.dictation import LANGUAGES, Dictation, TokenScore
from voiceagent.core.utterances import gap
from voiceagent.wire.dialect import WireError
from voiceagent.wire.dictation import dictation, show_scores
from voiceagent.wire.realtime_decode import decode_body

TEXT_FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
SoundFormat = Literal["mp3", "opus", "flac", "wav", "pcm"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a recording, in seconds, its words, and the scores of their tokens, if they were asked for."""

    start: float
    end: float
    text: str
    scores: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, slots=True)
class TextRequest:
    """The fields of a transcription or translation beside the file."""

    format: str
    stream: bool
    how: Dictation


class SpeechRequest(msgspec.Struct):
    """The body of POST /v1/audio/speech."""

    input: Annotated[str, Meta(min_length=1, max_length=16_384)]
    model: str = ""
    voice: str | dict[str, Any] = ""
    instructions: Annotated[str, Meta(max_length=4096)] = ""
    response_format: SoundFormat = "mp3"
    speed: Annotated[float, Meta(ge=0.25, le=4.0)] = 1.0
    stream_format: Literal["audio", "sse"] = "audio"

    @property
    def voice_name(self) -> str:
        """The voice asked for; empty = the first one."""
        return self.voice if isinstance(self.voice, str) else str(self.voice.get("id", ""))


_speech = msgspec.json.Decoder(SpeechRequest)


def decode_speech(body: bytes) -> SpeechRequest:
    """The request, checked.

    Raises:
        WireError: it is not JSON, or a field cannot be met; `param` names it.
    """
    asked = decode_body(body, _speech)
    if not asked.input.strip():
        raise WireError("input holds no words.", code="invalid_value", param="input")
    return asked


def decode_text_request(fields: Mapping[str, str]) -> TextRequest:
    """The form's fields, checked; those that this model cannot use (`temperature`, ...) change nothing.

    Args:
        fields: as they came; of those that came more than once (`include[]`), what came, separated by spaces.

    Raises:
        WireError: a format or a language that is not known, or scores that this format has no place for; `param`
            names it.
    """
    kind = fields.get("response_format", "json")
    if kind not in TEXT_FORMATS:
        raise WireError(
            f"{kind[:64]!r} is not a response format.",
            code="invalid_value",
            param="response_format",
            remedy=f"Known are {', '.join(TEXT_FORMATS)}.",
        )
    if "word" in fields.get("timestamp_granularities[]", "").split():
        raise WireError(
            "There are times of segments, not of words.",
            code="invalid_value",
            param="timestamp_granularities",
            remedy='Ask for "segment", or leave it out.',
        )
    stream = fields.get("stream", "false").lower() in ("true", "1")
    scores = "logprobs" in f"{fields.get('include[]', '')} {fields.get('include', '')}".split()
    if scores and kind != "json":
        raise WireError(
            f"There are no logprobs in the format {kind!r}.",
            code="invalid_value",
            param="include",
            remedy='Ask for "json".',
        )
    return TextRequest(kind, stream, dictation(fields.get("language"), fields.get("prompt"), scores=scores))


# --- transcripts ------------------------------------------------------------------------------------------------


def continued(said: str, segment: Segment) -> str:
    """What one more stretch adds to the words so far: its own, behind what stands between them."""
    return gap(said, segment.text) + segment.text


def whole(segments: Sequence[Segment]) -> str:
    """All words, as one text."""
    text = ""
    for segment in segments:
        text += continued(text, segment)
    return text


def render_text(
    segments: Sequence[Segment], *, asked: TextRequest, task: str, duration: float
) -> tuple[str, str]:
    """The answer of a finished transcription: (content type, body)."""
    match asked.format:
        case "text":
            return "text/plain", whole(segments) + "\n"
        case "srt":
            return "text/plain", _captions(segments, comma=True)
        case "vtt":
            return "text/vtt", "WEBVTT\n\n" + _captions(segments, comma=False)
        case "verbose_json":
            body: dict[str, Any] = {
                "task": task,
                "language": LANGUAGES.get(asked.how.language, "").lower(),
                "duration": round(duration, 3),
                "text": whole(segments),
                "segments": [_verbose(i, segment) for i, segment in enumerate(segments)],
                "usage": _usage(duration),
            }
        case _:
            body = {"text": whole(segments), "usage": _usage(duration)}
            if asked.how.scores:
                body["logprobs"] = [shown for segment in segments for shown in show_scores(segment.scores)]
    return "application/json", json.dumps(body, ensure_ascii=False)


def _usage(duration: float) -> dict[str, Any]:
    return {"type": "duration", "seconds": round(duration, 3)}


def _verbose(number: int, segment: Segment) -> dict[str, Any]:
    """A segment as the protocol shows it; what this model does not know of it has neutral values."""
    return {
        "id": number,
        "seek": 0,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": 0.0,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.0,
    }


def _captions(segments: Sequence[Segment], *, comma: bool) -> str:
    lines = []
    for number, segment in enumerate((s for s in segments if s.text), 1):
        times = f"{_clock(segment.start, comma=comma)} --> {_clock(segment.end, comma=comma)}"
        lines.append(f"{number}\n{times}\n{segment.text}\n" if comma else f"{times}\n{segment.text}\n")
    return "\n".join(lines)


def _clock(at: float, *, comma: bool) -> str:
    ms = round(at * 1000)
    mark = "," if comma else "."
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{mark}{ms % 1000:03d}"


# --- streams ----------------------------------------------------------------------------------------------------


def event(kind: str, **fields: Any) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n".encode()


def sound_event(data: bytes) -> bytes:
    """A part of a sound file as a server-sent event."""
    return event("speech.audio.delta", audio=base64.b64encode(data).decode())


def split_sentences(text: str, *, longest: int = 240) -> list[str]:
    """The text in parts that end where sentences do, or at a comma, or between words; nothing is lost but spaces."""
    parts: list[str] = []
    rest = " ".join(text.split())
    while rest:
        head = rest[: longest + 1]
        ends = [
            i + 1 for i, mark in enumerate(head) if mark in ".!?。！？" and head[i + 1 : i + 2] in ("", " ")
        ]
        if len(rest) > longest:
            ends = ends[-1:] or [i + 1 for i, mark in enumerate(head) if mark in ",;:，；："][-1:]
            ends = ends or [i for i, mark in enumerate(head) if mark == " "][-1:] or [longest]
        at = (ends or [len(rest)])[0]
        parts.append(rest[:at].strip())
        rest = rest[at:].strip()
    return parts
