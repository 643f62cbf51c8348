"""Translates between the core's items, options and events and the engine's messages; it decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import assert_never

import numpy as np
import numpy.typing as npt

from voiceagent.audio.pcm import bytes_to_int16
from voiceagent.core import events
from voiceagent.core.history import (
    AssistantItem,
    AudioContent,
    Item,
    Piece,
    SystemItem,
    TextContent,
    ToolCallItem,
    ToolResultItem,
    UserItem,
)
from voiceagent.core.options import TurnOptions
from voiceagent.engine import api
from voiceagent.errors import InputError


def item_to_wire(item: Item) -> api.WireItem:
    """A history item as it travels; audio goes as piece ids."""
    match item:
        case SystemItem():
            return api.System(id=item.id, text=item.text)
        case UserItem():
            return api.User(id=item.id, content=tuple(_part_to_wire(part) for part in item.content))
        case AssistantItem():
            return api.Assistant(
                id=item.id,
                text=item.text,
                text_ids=item.text_ids,
                audio_ids=item.audio_ids,
                raw_ids=item.raw_ids,
                spoken=item.spoken,
                samples=item.samples,
                complete=item.complete,
            )
        case ToolCallItem():
            return api.Call(id=item.id, call_id=item.call_id, name=item.name, arguments=item.arguments)
        case ToolResultItem():
            return api.Result(id=item.id, call_id=item.call_id, output=item.output)
        case _:
            assert_never(item)


def _part_to_wire(part: TextContent | AudioContent) -> api.Text | api.Heard:
    if isinstance(part, TextContent):
        return api.Text(part.text)
    return api.Heard(pieces=tuple(piece.id for piece in part.pieces), transcript=part.transcript)


def item_from_wire(item: api.WireItem, pieces: Mapping[int, Piece]) -> Item:
    """The history item again, with the pieces that travelled before.

    Raises:
        InputError: it names a piece that is not in `pieces`.
    """
    match item:
        case api.System():
            return SystemItem(id=item.id, text=item.text)
        case api.User():
            return UserItem(id=item.id, content=tuple(_part_from_wire(part, pieces) for part in item.content))
        case api.Assistant():
            return AssistantItem(
                id=item.id,
                text=item.text,
                text_ids=item.text_ids,
                audio_ids=item.audio_ids,
                raw_ids=item.raw_ids,
                spoken=item.spoken,
                samples=item.samples,
                complete=item.complete,
            )
        case api.Call():
            return ToolCallItem(id=item.id, call_id=item.call_id, name=item.name, arguments=item.arguments)
        case api.Result():
            return ToolResultItem(id=item.id, call_id=item.call_id, output=item.output)
        case _:
            assert_never(item)


def _part_from_wire(part: api.Text | api.Heard, pieces: Mapping[int, Piece]) -> TextContent | AudioContent:
    if isinstance(part, api.Text):
        return TextContent(part.text)
    return AudioContent(pieces=find_pieces(part.pieces, pieces), transcript=part.transcript)


def find_pieces(ids: Iterable[int], pieces: Mapping[int, Piece]) -> tuple[Piece, ...]:
    """The pieces of these ids; `InputError` names the first that was never sent."""
    found = []
    for number in ids:
        if number not in pieces:
            raise InputError(
                f"The turn names audio piece {number}, which was never sent.", code="missing_piece"
            )
        found.append(pieces[number])
    return tuple(found)


def options_to_wire(options: TurnOptions) -> api.Options:
    """The part of a turn's options that the engine acts on."""
    return api.Options(
        spoken=options.modalities == "audio",
        instructions=options.instructions,
        tools=tuple(
            api.Function(name=tool.name, description=tool.description, parameters=dict(tool.parameters or {}))
            for tool in options.tools
        ),
        tool_choice=options.tool_choice,
        voice=options.voice,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        repetition_penalty=options.repetition_penalty,
        max_tokens=options.max_tokens,
        think=options.think,
        speed=options.speed,
        script=options.script,
        beside=not options.conversation,
        parallel_calls=options.parallel_calls,
        keep_ratio=options.truncation.ratio,
        keep_tokens=options.truncation.limit,
    )


def samples_to_bytes(samples: npt.NDArray[np.float32]) -> bytes:
    """Samples (n,) as float32 little-endian."""
    return samples.astype("<f4", copy=False).tobytes()


def samples_from_bytes(raw: bytes) -> npt.NDArray[np.float32]:
    """The samples again, read-only."""
    samples = np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False)
    samples.setflags(write=False)
    return samples


def piece_to_bytes(piece: Piece) -> bytes:
    """A piece's samples as float32 little-endian."""
    return samples_to_bytes(piece.audio)


def piece_from_bytes(number: int, raw: bytes) -> Piece:
    """The piece again, read-only."""
    return Piece(id=number, audio=samples_from_bytes(raw))


def sound_pcm(raw: bytes) -> npt.NDArray[np.int16]:
    """Samples of a `Sound` message, read-only int16."""
    pcm = bytes_to_int16(raw)
    pcm.setflags(write=False)
    return pcm


SessionReply = (
    api.Prob | api.Started | api.Thought | api.Spoke | api.Sound | api.Called | api.Ended | api.Failed
    | api.Writing | api.Wrote | api.Unwritten | api.Judged
)  # fmt: skip


def to_event(reply: SessionReply) -> api.EngineEvent:
    """The core's event for a reply about a session."""
    match reply:
        case api.Prob():
            return events.SpeechProb(reply.at, reply.p, reply.level)
        case api.Sound():
            return events.AudioOut(reply.turn, reply.seq, sound_pcm(reply.pcm), reply.ids)
        case api.Started():
            return events.TurnStarted(
                turn=reply.turn,
                usage=reply.usage,
                limit=reply.limit,
                dropped=reply.dropped,
                encoded=reply.encoded,
                room=reply.room,
            )
        case api.Thought():
            return events.ThoughtOut(turn=reply.turn, text=reply.text)
        case api.Spoke():
            return events.TextOut(turn=reply.turn, text=reply.text, ids=reply.ids)
        case api.Called():
            return events.ToolCalled(
                turn=reply.turn, call_id=reply.call_id, name=reply.name, arguments=reply.arguments
            )
        case api.Ended():
            return events.TurnEnded(
                reply.turn, reply.reason, usage=reply.usage, raw_ids=reply.raw_ids, spent=reply.spent
            )
        case api.Failed():
            return events.TurnFailed(turn=reply.turn, code=reply.code, message=reply.message)
        case api.Writing():
            return events.TranscriptDelta(item_id=reply.item_id, text=reply.text)
        case api.Wrote():
            return events.Transcript(item_id=reply.item_id, text=reply.text, scores=reply.scores)
        case api.Judged():
            return events.EndJudged(at=reply.at, text=reply.text, complete=reply.complete)
        case api.Unwritten():
            return events.TranscriptFailed(item_id=reply.item_id, code=reply.code, message=reply.message)
        case _:
            assert_never(reply)
