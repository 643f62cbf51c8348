from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from engine_helpers import OPTIONS, piece, said, spoke

from voiceagent.core.history import Piece
from voiceagent.engine import api, mapping
from voiceagent.engine.fake import FakeJob, FakeRunner, Script, numbered
from voiceagent.engine.loop import Loop
from voiceagent.engine.protocol import Written
from voiceagent.errors import EngineError, VoiceAgentError


class HandLane:
    """A speech lane of one thread that the test works by hand."""

    def __init__(self) -> None:
        self.job: tuple[Callable[[], Any], Callable[[Any], None]] | None = None
        self.hangs = False

    @property
    def busy(self) -> bool:
        return self.job is not None

    def stuck(self, seconds: float) -> bool:
        return self.hangs

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        assert self.job is None
        self.job = (work, done)

    def finish(self, error: Exception | None = None) -> None:
        assert self.job is not None
        (work, done), self.job = self.job, None
        done(work() if error is None else error)


class Bench:
    """A loop over the fake runner, with its replies in a list and a clock that moves by a tick per look."""

    def __init__(
        self, runner: FakeRunner | None = None, *, max_sessions: int = 8, lane: HandLane | None = None
    ) -> None:
        self.replies: list[api.Reply] = []
        self.runner = runner or FakeRunner(Script(speech_ids=20, chunk_ids=5))
        self.now = 0.0
        self.loop = Loop(
            self.runner, max_sessions=max_sessions, emit=self.replies.append, clock=self._tick, lane=lane
        )

    def _tick(self) -> float:
        self.now += 0.001
        return self.now

    def begin(self, session: int, turn: int, items=said("hello you"), options: api.Options = OPTIONS) -> None:  # type: ignore[no-untyped-def]  # noqa: B008
        wire = tuple(mapping.item_to_wire(item) for item in items)
        self.loop.command(api.Begin(session, turn, wire, options))

    def run(self, *, until: Callable[[], bool] = lambda: False) -> None:
        while not until() and self.loop.step():
            pass

    def of(self, kind: type, session: int = 1) -> list:  # type: ignore[type-arg]
        return [r for r in self.replies if isinstance(r, kind) and getattr(r, "session", session) == session]


def opened(*sessions: int, runner: FakeRunner | None = None) -> Bench:
    bench = Bench(runner)
    for session in sessions:
        bench.loop.command(api.OpenSession(session))
    return bench


def check_numbered(sounds: list[api.Sound], *, session: int, turn: int) -> int:
    place = 0
    for seq, sound in enumerate(sounds):
        pcm = np.frombuffer(sound.pcm, "<i2")
        assert sound.seq == seq
        assert np.array_equal(pcm, numbered(session=session, turn=turn, start=place, count=len(pcm)))
        place += len(pcm)
    return place


def test_a_spoken_turn_arrives_whole_and_in_order() -> None:
    bench = opened(1)
    bench.begin(1, 7)
    bench.run()
    assert isinstance(bench.replies[0], api.Started)
    assert "".join(r.text for r in bench.of(api.Spoke)) == "You said: hello you"
    sounds = bench.of(api.Sound)
    assert check_numbered(sounds, session=1, turn=7) == 20 * 960
    assert [i for sound in sounds for i in sound.ids] == list(range(20))
    ended = bench.replies[-1]
    assert isinstance(ended, api.Ended)
    assert ended.reason == "stop"
    assert len(ended.raw_ids) == 24


def test_eight_sessions_at_once_do_not_mix() -> None:
    bench = opened(*range(1, 9))
    for session in range(1, 9):
        bench.begin(session, session, said(f"word{session}"))
    bench.run()
    for session in range(1, 9):
        assert check_numbered(bench.of(api.Sound, session), session=session, turn=session) == 20 * 960
        assert "".join(r.text for r in bench.of(api.Spoke, session)) == f"You said: word{session}"


def test_cancel_takes_effect_at_once_and_nothing_follows() -> None:
    bench = opened(1)
    bench.begin(1, 1)
    bench.run(until=lambda: bool(bench.of(api.Sound)))
    bench.loop.command(api.Cancel(1, 1))
    ended = bench.replies[-1]
    assert isinstance(ended, api.Ended)
    assert ended.reason == "cancelled"
    assert ended.raw_ids
    before = len(bench.replies)
    bench.run()
    bench.loop.command(api.Cancel(1, 1))
    assert len(bench.replies) == before


def test_a_text_turn_makes_no_sound() -> None:
    bench = opened(1)
    text = api.Options(
        **{f: getattr(OPTIONS, f) for f in OPTIONS.__struct_fields__ if f != "spoken"}, spoken=False
    )
    bench.begin(1, 1, options=text)
    bench.run()
    assert not bench.of(api.Sound)
    assert "".join(r.text for r in bench.of(api.Spoke)) == "You said: hello you"


def test_a_tool_call_has_an_id_of_its_own() -> None:
    bench = opened(1)
    tools = (api.Function("get_weather", "", {}),)
    options = api.Options(
        **{f: getattr(OPTIONS, f) for f in OPTIONS.__struct_fields__ if f not in {"tools", "tool_choice"}},
        tools=tools, tool_choice="required",
    )  # fmt: skip
    for turn in (1, 2):
        bench.begin(1, turn, options=options)
    bench.run()
    calls = bench.of(api.Called)
    assert [call.name for call in calls] == ["get_weather"] * 2
    assert calls[0].call_id != calls[1].call_id


def test_one_failing_turn_leaves_the_others_alone() -> None:
    bench = opened(1, 2)
    bench.begin(1, 1, said("!fail"))
    bench.begin(2, 1)
    bench.run()
    (failed,) = bench.of(api.Failed)
    assert failed.code == "fake_fault"
    assert check_numbered(bench.of(api.Sound, 2), session=2, turn=1) == 20 * 960
    bench.begin(1, 2)
    bench.run()
    assert bench.of(api.Ended)


class Breaking(FakeRunner):
    """Fails at the third token of session 1: out of memory, or the device itself."""

    def __init__(self, error: Exception) -> None:
        super().__init__(Script(speech_ids=20, chunk_ids=5))
        self.error = error

    def _decode(self, job: FakeJob) -> Written | Exception:
        if job.turn.session == 1 and job.next_chunk == 2:
            raise self.error
        return super()._decode(job)


def test_an_unforeseen_error_fails_one_turn_and_says_nothing_private() -> None:
    bench = opened(1, 2, runner=Breaking(MemoryError("at /secret/path")))
    bench.begin(1, 1)
    bench.begin(2, 1)
    bench.run()
    (failed,) = bench.of(api.Failed)
    assert failed.code == "internal_error"
    assert "secret" not in failed.message
    assert bench.of(api.Ended, 2)


def test_a_lost_device_ends_the_loop() -> None:
    bench = opened(1, runner=Breaking(EngineError("illegal access")))
    bench.begin(1, 1)
    try:
        bench.run()
    except EngineError:
        return
    raise AssertionError("the loop went on")


def test_pieces_are_encoded_once_and_before_the_prompt() -> None:
    bench = opened(1)
    pieces = [piece(1), piece(2)]
    for p in pieces:
        bench.loop.command(api.Encode(1, p.id, mapping.piece_to_bytes(p)))
    bench.begin(1, 1, spoke(*pieces))
    seen: list[int] = []
    encode = bench.runner.encode
    bench.runner.encode = lambda ps: (seen.extend(p.id for _, p in ps), encode(ps))[1]  # type: ignore[method-assign,func-returns-value]
    bench.run()
    assert seen == [1, 2]
    assert "".join(r.text for r in bench.of(api.Spoke)) == "I heard 3200 samples."
    bench.begin(1, 2, spoke(*pieces))
    bench.run()
    assert seen == [1, 2]
    bench.loop.command(api.Forget(1, (1,)))
    bench.begin(1, 3, spoke(*pieces))
    assert isinstance(bench.replies[-1], api.Failed)
    assert bench.replies[-1].code == "missing_piece"


def test_pieces_forgotten_under_a_waiting_turn_still_serve_it() -> None:
    bench = opened(1)
    p = piece(1)
    bench.loop.command(api.Encode(1, 1, mapping.piece_to_bytes(p)))
    bench.begin(1, 1, spoke(p))
    bench.loop.command(api.Forget(1, (1,)))
    bench.run()
    assert bench.of(api.Ended)


def test_a_piece_that_cannot_be_encoded_fails_its_turn() -> None:
    class Deaf(FakeRunner):
        def encode(self, pieces: Sequence[tuple[int, Piece]]) -> list[Exception | None]:
            return [ValueError("no")] * len(pieces)

    bench = opened(1, runner=Deaf())
    bench.loop.command(api.Encode(1, 1, mapping.piece_to_bytes(piece(1))))
    bench.begin(1, 1, spoke(piece(1)))
    bench.run()
    assert bench.of(api.Failed)


def test_transcription_comes_after_the_turn_that_waits_for_its_first_sound() -> None:
    bench = opened(1)
    p = piece(1)
    bench.loop.command(api.Encode(1, 1, mapping.piece_to_bytes(p)))
    bench.loop.command(api.Write(1, "item", (1,)))
    bench.begin(1, 1, spoke(p))
    bench.run()
    kinds = [type(reply) for reply in bench.replies]
    assert kinds.index(api.Wrote) > kinds.index(api.Sound)
    bench.loop.command(api.Write(1, "other", (5,)))  # a piece that never came
    assert bench.replies[-1].code == "missing_piece"  # type: ignore[union-attr]


def writing(bench: Bench, item_id: str, *pieces: int, more: bool = False) -> None:
    for number in pieces:
        bench.loop.command(api.Encode(1, number, mapping.piece_to_bytes(piece(number))))
    bench.loop.command(api.Write(1, item_id, pieces, more))


def words(bench: Bench) -> list[tuple[str, str]]:
    kinds = (api.Writing, api.Wrote, api.Unwritten)
    return [
        (type(reply).__name__, getattr(reply, "text", "") or reply.item_id)
        for reply in bench.replies
        if isinstance(reply, kinds)
    ]


def test_pieces_are_written_down_one_by_one_and_utterances_in_their_order() -> None:
    bench = opened(1, runner=FakeRunner(Script(transcript="aye sir")))
    writing(bench, "a", 1, 2)
    writing(bench, "b", 3)
    bench.run()
    told = [("Writing", "aye sir"), ("Writing", " aye sir"), ("Wrote", "aye sir aye sir")]
    assert words(bench) == [*told, ("Writing", "aye sir"), ("Wrote", "aye sir")]
    assert len({reply.item_id for reply in bench.of(api.Writing)[:2]}) == 1


def test_an_utterance_is_written_down_before_it_is_over() -> None:
    bench = opened(1, runner=FakeRunner(Script(transcript="aye")))
    writing(bench, "a", 1, more=True)
    bench.run()
    assert words(bench) == [("Writing", "aye")]
    writing(bench, "a", 2)
    bench.run()
    assert words(bench)[1:] == [("Writing", " aye"), ("Wrote", "aye aye")]
    writing(bench, "b", 3, more=True)
    bench.run()
    writing(bench, "b")  # nothing more is said
    assert words(bench)[-1] == ("Wrote", "aye")
    assert not bench.loop.step()


def test_what_cannot_be_written_down_is_told_and_the_rest_goes_on() -> None:
    class Forgetful(FakeRunner):
        def listen(self, session: int, pieces: tuple[Piece, ...], **_: Any) -> Any:
            if pieces[0].id == 1:
                raise VoiceAgentError("No room.", code="kv_full")
            if pieces[0].id == 2:
                raise ValueError("a bug")
            return super().listen(session, pieces)

    bench = opened(1, runner=Forgetful(Script(transcript="aye")))
    for item_id, number in (("a", 1), ("b", 2), ("c", 3)):
        writing(bench, item_id, number)
    bench.run()
    assert words(bench) == [("Unwritten", "a"), ("Unwritten", "b"), ("Writing", "aye"), ("Wrote", "aye")]
    assert [reply.code for reply in bench.of(api.Unwritten)] == ["kv_full", "internal_error"]


def test_capacity_is_refused_and_given_back() -> None:
    bench = Bench(max_sessions=1)
    bench.loop.command(api.OpenSession(1))
    bench.loop.command(api.OpenSession(2))
    assert bench.of(api.Refused, 2)
    bench.begin(2, 1)
    assert bench.of(api.Failed, 2)[0].code == "overloaded"
    bench.loop.command(api.CloseSession(1))
    bench.loop.command(api.OpenSession(3))
    bench.begin(3, 1)
    bench.run()
    assert bench.of(api.Ended, 3)


def test_too_many_waiting_turns_of_one_session_are_refused() -> None:
    bench = opened(1)
    for turn in range(7):
        bench.begin(1, turn)
    assert [r.turn for r in bench.of(api.Failed)] == [5, 6]


def test_a_closed_session_says_nothing_more() -> None:
    bench = opened(1)
    bench.begin(1, 1)
    bench.run(until=lambda: bool(bench.of(api.Sound)))
    bench.loop.command(api.CloseSession(1))
    before = len(bench.replies)
    bench.run()
    assert len(bench.replies) == before


def test_the_heartbeat_is_answered() -> None:
    bench = Bench()
    bench.loop.command(api.Ping(3))
    assert bench.replies == [api.Pong(3)]


def with_lane() -> tuple[Bench, HandLane]:
    lane = HandLane()
    bench = Bench(lane=lane)
    bench.loop.command(api.OpenSession(1))
    bench.begin(1, 1)
    bench.run()  # the language model goes on to its end while the lane holds the first chunk
    assert lane.busy
    assert len("".join(r.text for r in bench.of(api.Spoke))) == len("You said: hello you")
    return bench, lane


def test_language_goes_on_while_speech_is_decoded_and_all_of_it_comes() -> None:
    bench, lane = with_lane()
    assert not bench.of(api.Sound)
    while lane.busy:
        lane.finish()
        bench.run()
    assert check_numbered(bench.of(api.Sound), session=1, turn=1) == 20 * 960
    assert isinstance(bench.replies[-1], api.Ended)


def test_speech_of_a_cancelled_turn_is_dropped() -> None:
    bench, lane = with_lane()
    bench.loop.command(api.Cancel(1, 1))
    bench.begin(1, 2)
    before = len(bench.replies)
    lane.finish()
    assert len(bench.replies) == before
    while bench.loop.step() or lane.busy:
        if lane.busy:
            lane.finish()
    assert [r.turn for r in bench.of(api.Sound)] == [2] * 4
    assert check_numbered(bench.of(api.Sound), session=1, turn=2) == 20 * 960


def test_an_error_on_the_lane_fails_its_turn_and_a_lost_device_ends_all() -> None:
    bench, lane = with_lane()
    lane.finish(ValueError("no"))
    assert bench.of(api.Failed)[0].code == "internal_error"
    bench, lane = with_lane()
    bench.loop.command(api.Cancel(1, 1))
    with pytest.raises(EngineError):
        lane.finish(EngineError("illegal access"))


def test_a_stuck_lane_withholds_the_heartbeat() -> None:
    bench, lane = with_lane()
    before = len(bench.replies)
    lane.hangs = True
    bench.loop.command(api.Ping(1))
    assert len(bench.replies) == before


@pytest.mark.parametrize("speed", [0.25, 0.5, 0.9, 1.5, 4.0])
def test_speech_at_another_speed_is_as_long_as_that_and_so_are_its_ids(speed: float) -> None:
    bench = opened(1)
    bench.begin(1, 1, options=msgspec.structs.replace(OPTIONS, speed=speed))
    bench.run()
    sounds = bench.of(api.Sound)
    assert sum(len(sound.pcm) // 2 for sound in sounds) == math.ceil(20 * 960 / speed)
    assert [number for sound in sounds for number in sound.ids] == list(range(20))
    out = ids = 0
    for sound in sounds[:-1]:
        out += len(sound.pcm) // 2
        ids += len(sound.ids)
        assert ids == int(out * speed) // 960, "an id before its sound, or late"


def test_at_its_own_speed_not_a_sample_changes() -> None:
    bench = opened(1)
    bench.begin(1, 1, options=msgspec.structs.replace(OPTIONS, speed=1.0))
    bench.run()
    assert check_numbered(bench.of(api.Sound), session=1, turn=1) == 20 * 960


def test_a_turn_tells_how_long_its_own_audio_was_read() -> None:
    """Each step of the bench's clock is a millisecond: one reading takes one."""
    bench = opened(1, 2)
    early, late = piece(1), piece(2)
    bench.loop.command(api.Encode(1, early.id, mapping.piece_to_bytes(early)))
    bench.run()  # read while nobody waits
    bench.loop.command(api.Encode(1, late.id, mapping.piece_to_bytes(late)))
    bench.begin(1, 1, spoke(early, late))
    bench.begin(2, 1)
    bench.run()
    (heard,), (typed,) = bench.of(api.Started, 1), bench.of(api.Started, 2)
    assert (heard.encoded, typed.encoded) == (0.001, 0.0)
