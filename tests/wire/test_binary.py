"""Binary audio: only for who asked, the same bytes as in the deltas, each frame knows its place."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from wire_player import check_published

from voiceagent.core import actions as act
from voiceagent.core import events as core
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.history import AssistantItem
from voiceagent.errors import InputError
from voiceagent.wire.binary import AudioFrame, audio_frame, read_frame
from voiceagent.wire.dialect import Reply, WireError
from voiceagent.wire.realtime import RealtimeDialect

SOUND = np.arange(2000, dtype=np.int16)


def dialect(**session: Any) -> RealtimeDialect:
    made = RealtimeDialect(session_id="call", model="m", base=opt.SessionConfig(), voices=("anna",))
    if session:
        update(made, **session)
    return made


def update(made: RealtimeDialect, **session: Any) -> dict[str, Any]:
    (reply,) = [
        event
        for event in made.receive(json.dumps({"type": "session.update", "session": session}))
        if isinstance(event, Reply)
    ]
    assert isinstance(reply.frame, str)
    shown: dict[str, Any] = check_published(reply.frame)["session"]
    return shown


def spoken(made: RealtimeDialect, turn: int = 7) -> list[str | bytes]:
    item = AssistantItem("i", "", spoken=True, samples=len(SOUND))
    actions = [
        notices.TurnOpened(turn, "i", opt.TurnOptions()),
        act.SendAudio(turn, "i", SOUND[:1500]),
        act.SendAudio(turn, "i", SOUND[1500:]),
        notices.TurnClosed(turn, "completed", None, item, None, None),
    ]
    return [frame for action in actions for frame in made.render(action)]


def test_the_client_is_told_before_what_waited_comes_in_its_new_form() -> None:
    made = dialect()
    wanted = {"type": "session.update", "session": {"binary_audio": True, "output_lead_ms": None}}
    told, done = made.receive(json.dumps(wanted))
    assert isinstance(told, Reply)
    assert isinstance(done, core.Configure)
    assert '"session.updated"' in str(told.frame)


def test_nobody_who_did_not_ask_gets_or_may_send_binary_frames() -> None:
    for made in (dialect(), dialect(binary_audio=True)):
        update(made, binary_audio=False)
        frames = spoken(made)
        assert all(isinstance(frame, str) for frame in frames)
        with pytest.raises(WireError) as refused:
            list(made.receive(bytes(480)))
        assert refused.value.code == "invalid_message"
    assert "binary_audio" not in dialect().shown
    assert dialect(binary_audio=True).shown["binary_audio"] is True


@pytest.mark.parametrize(("format_", "size"), [("audio/pcm", 2), ("audio/pcmu", 1)])
def test_frames_carry_the_bytes_of_the_deltas_and_their_place(format_: str, size: int) -> None:
    audio = {"output": {"format": {"type": format_}}}
    plain = [json.loads(frame) for frame in spoken(dialect(audio=audio))]
    frames = spoken(dialect(audio=audio, binary_audio=True))
    events = [check_published(frame) for frame in frames if isinstance(frame, str)]
    sound = [read_frame(frame) for frame in frames if isinstance(frame, bytes)]
    assert [event["type"] for event in events] == [
        event["type"] for event in plain if event["type"] != "response.output_audio.delta"
    ]
    assert events[0]["response"]["id"].endswith("_7")
    at = 0
    for frame in sound:
        assert frame is not None
        assert (frame.number, frame.at) == (7, at)
        at += len(frame.audio) // size
    deltas = [base64.b64decode(event["delta"]) for event in plain if "audio.delta" in event["type"]]
    assert [frame.audio for frame in sound if frame is not None] == deltas


def test_binary_input_is_what_an_append_is() -> None:
    raw = (SOUND * 3).tobytes()
    (wanted,) = dialect().receive(
        json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(raw).decode()})
    )
    (heard,) = dialect(binary_audio=True).receive(raw)
    assert isinstance(wanted, core.AudioIn)
    assert isinstance(heard, core.AudioIn)
    assert heard.at == wanted.at
    assert np.array_equal(heard.pcm, wanted.pcm)
    assert list(dialect(binary_audio=True).receive(b"")) == []
    with pytest.raises(WireError) as odd:
        list(dialect(binary_audio=True).receive(raw[:-1]))
    assert odd.value.code == "odd_audio_length"


def test_text_goes_on_as_before() -> None:
    made = dialect(binary_audio=True)
    assert isinstance(next(iter(made.receive('{"type": "input_audio_buffer.commit"}'))), core.Commit)
    with pytest.raises(WireError):
        list(made.receive("no"))


def test_frames_of_another_version_are_passed_over() -> None:
    frame = audio_frame(b"ab", number=3, at=1 << 40)
    assert frame[:8] == bytes([1, 1, 0, 0, 3, 0, 0, 0])
    assert read_frame(frame) == AudioFrame(3, 1 << 40, b"ab")
    assert read_frame(b"\x02" + frame[1:]) is None
    assert read_frame(frame[:1] + b"\x09" + frame[2:]) is None
    with pytest.raises(InputError):
        read_frame(frame[:15])
