"""An item with its sound as `conversation.item.retrieved` tells it, made part by part; it sends nothing.

Ten minutes of sound are 38 MB of text and work for a third of a second, in which every other call would wait.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Any

from voiceagent.audio import pcm
from voiceagent.audio.resample import ResampleStream
from voiceagent.core.history import AssistantItem, AudioContent, Item, Piece, UserItem
from voiceagent.units import MODEL_RATE, VOICE_RATE
from voiceagent.wire.realtime_items import audio_seconds, to_wire

HOLE = '"audio":""'  #: stands where sound belongs; no text of a client's looks like it, for its quotes are escaped
AT_ONCE_S = 5.0  #: so much sound is told at once
STEP = MODEL_RATE  #: samples of a person's sound (1 s) in one part: a millisecond's work


def sound_seconds(item: Item) -> float:
    """How much sound an item has."""
    if isinstance(item, AssistantItem):
        return sum(map(len, item.audio)) / VOICE_RATE
    return audio_seconds(item)


def with_holes(item: Item) -> tuple[dict[str, Any], list[Iterator[bytes]]]:
    """The item as the client sees it, an empty `audio` wherever it has sound, and each sound as 24 kHz PCM."""
    shown = to_wire(item)
    sounds: list[Iterator[bytes]] = []
    if isinstance(item, UserItem):
        for part, told in zip(item.content, shown["content"], strict=True):
            if isinstance(part, AudioContent) and part.pieces:
                told["audio"] = ""
                sounds.append(_heard(part.pieces))
    elif isinstance(item, AssistantItem) and item.audio:
        shown["content"][0]["audio"] = ""
        sounds.append(map(pcm.int16_to_bytes, item.audio))
    return shown, sounds


def filled(text: str, sounds: Iterable[Iterator[bytes]]) -> Iterator[str]:
    """The JSON text of a message, part by part, its holes filled with the sounds in base64."""
    head, *rest = text.split(HOLE)
    yield head
    for sound, behind in zip(sounds, rest, strict=True):
        yield '"audio":"'
        yield from _base64(sound)
        yield '"' + behind


def _heard(pieces: Iterable[Piece]) -> Iterator[bytes]:
    stream = ResampleStream(source=MODEL_RATE, target=VOICE_RATE)
    for piece in pieces:
        for start in range(0, len(piece.audio), STEP):
            yield pcm.float_to_s16(stream.push(piece.audio[start : start + STEP]))
    yield pcm.float_to_s16(stream.finish())


def _base64(sound: Iterator[bytes]) -> Iterator[str]:
    """Base64 of all bytes; only the last part may end within a group of three."""
    left = b""
    for part in sound:
        data = left + part
        whole = len(data) - len(data) % 3
        left = data[whole:]
        yield b64encode(data[:whole]).decode()
    yield b64encode(left).decode()
