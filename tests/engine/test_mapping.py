import msgspec
import numpy as np
import pytest

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
from voiceagent.core.options import Tool, TurnOptions
from voiceagent.engine import api, mapping
from voiceagent.engine.codec import FrameReader, encode
from voiceagent.errors import InputError

PIECES = {n: Piece(n, np.arange(n, dtype=np.float32) / 8) for n in (3, 4)}
ITEMS: tuple[Item, ...] = (
    SystemItem("s", "be kind"),
    UserItem(
        "u",
        (TextContent("héllo"), AudioContent((PIECES[3], PIECES[4]), "a transcript"), AudioContent((), None)),
    ),
    AssistantItem("a", "hi", (1, 2), (0, 6560), (1, 9000), spoken=True, samples=1920, complete=True),
    AssistantItem("b", "cut", (), (), None, complete=False),
    ToolCallItem("c", "call_1", "book", '{"day": 3}'),
    ToolResultItem("r", "call_1", "done"),
)


def through_the_pipe(message: api.Command | api.Reply, kind: object) -> api.Command | api.Reply:
    reader: FrameReader[api.Command | api.Reply] = FrameReader(kind)
    (decoded,) = reader.feed(encode(message))
    return decoded


def test_a_history_survives_the_pipe() -> None:
    options = TurnOptions(
        modalities="text", instructions="i", tools=(Tool("book", "d", {"type": "object"}),), tool_choice="book",
        voice="v", temperature=0.5, top_p=0.9, top_k=5, repetition_penalty=1.1, max_tokens=7,
    )  # fmt: skip
    begin = api.Begin(1, 2, tuple(map(mapping.item_to_wire, ITEMS)), mapping.options_to_wire(options))
    back = through_the_pipe(begin, api.Command)
    assert back == begin
    assert isinstance(back, api.Begin)
    assert tuple(mapping.item_from_wire(item, PIECES) for item in back.items) == ITEMS
    assert not back.options.spoken
    assert back.options.tools[0].parameters == {"type": "object"}


def test_samples_survive_the_pipe_bit_by_bit_and_read_only() -> None:
    command = api.Encode(1, 4, mapping.piece_to_bytes(PIECES[4]))
    back = through_the_pipe(command, api.Command)
    assert isinstance(back, api.Encode)
    piece = mapping.piece_from_bytes(back.piece, back.pcm)
    assert np.array_equal(piece.audio, PIECES[4].audio)
    assert not piece.audio.flags.writeable


def test_a_piece_that_was_never_sent_is_named() -> None:
    with pytest.raises(InputError, match="piece 4") as caught:
        mapping.item_from_wire(mapping.item_to_wire(ITEMS[1]), {3: PIECES[3]})
    assert caught.value.code == "missing_piece"


def test_every_reply_becomes_its_event() -> None:
    usage = events.Usage(1, 2, 3, 4, 5)
    pairs: list[tuple[mapping.SessionReply, object]] = [
        (api.Prob(1, 512, 0.5, -20.5), events.SpeechProb(512, 0.5, -20.5)),
        (api.Started(1, 2), events.TurnStarted(2)),
        (api.Thought(1, 2, "t"), events.ThoughtOut(2, "t")),
        (api.Spoke(1, 2, "t", (1,)), events.TextOut(2, "t", (1,))),
        (api.Called(1, 2, "c", "n", "{}"), events.ToolCalled(2, "c", "n", "{}")),
        (api.Ended(1, 2, "stop", usage, (1,)), events.TurnEnded(2, "stop", usage, (1,))),
        (api.Failed(1, 2, "c", "m"), events.TurnFailed(2, "c", "m")),
        (api.Writing(1, "i", "t"), events.TranscriptDelta("i", "t")),
        (api.Wrote(1, "i", "t"), events.Transcript("i", "t")),
        (api.Unwritten(1, "i", "c", "m"), events.TranscriptFailed("i", "c", "m")),
    ]
    for reply, event in pairs:
        assert through_the_pipe(reply, api.Reply) == reply
        assert mapping.to_event(reply) == event
    sound = mapping.to_event(api.Sound(1, 2, 3, b"\x01\x00\xff\xff", (9,)))
    assert isinstance(sound, events.AudioOut)
    assert (sound.seq, sound.pcm.tolist(), sound.ids) == (3, [1, -1], (9,))
    assert not sound.pcm.flags.writeable


def test_an_end_for_an_unknown_reason_is_not_accepted() -> None:
    raw = msgspec.msgpack.encode(["Ended", 1, 2, "boredom", {}, []])
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(raw, type=api.Reply)
