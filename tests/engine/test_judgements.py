"""Whether somebody has finished: asked while they are silent, answered once, forgotten with its audio."""

from __future__ import annotations

from typing import Any

import pytest
from engine_helpers import OPTIONS, piece, said

from voiceagent.engine import api, mapping
from voiceagent.engine.fake import FakeRunner, Script
from voiceagent.engine.loop import Loop
from voiceagent.errors import EngineError


class Bench:
    """A loop over the fake runner that says how likely nothing follows."""

    def __init__(self, *, complete: float | None = 0.9) -> None:
        self.replies: list[api.Reply] = []
        self.now = 0.0
        script = Script(speech_ids=20, chunk_ids=5, transcript="where are you", complete=complete)
        self.runner = FakeRunner(script)
        self.loop = Loop(self.runner, max_sessions=4, emit=self.replies.append, clock=self._tick)
        self.loop.command(api.OpenSession(1))

    def _tick(self) -> float:
        self.now += 0.001
        return self.now

    def ask(self, number: int, *, at: int) -> None:
        self.loop.command(api.Encode(1, number, mapping.piece_to_bytes(piece(number))))
        self.loop.command(api.Judge(1, at, number))

    def run(self) -> None:
        while self.loop.step():
            pass

    def of(self, kind: type[Any]) -> list[Any]:
        return [reply for reply in self.replies if isinstance(reply, kind)]


def test_the_words_and_how_likely_they_are_complete() -> None:
    bench = Bench()
    bench.ask(1, at=8000)
    bench.run()
    assert bench.of(api.Judged) == [api.Judged(1, 8000, "where are you", 0.9)]
    assert not bench.of(api.Wrote)


def test_a_newer_question_takes_the_place_of_an_older_one() -> None:
    bench = Bench()
    bench.ask(1, at=8000)
    bench.loop.step()
    bench.ask(2, at=16_000)
    bench.run()
    assert [reply.at for reply in bench.of(api.Judged)] == [16_000]


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_who_goes_on_takes_the_question_with_them(steps: int) -> None:
    bench = Bench()
    bench.ask(1, at=8000)
    for _ in range(steps):
        bench.loop.step()
    bench.loop.command(api.Forget(1, (1,)))
    bench.run()
    assert not bench.of(api.Judged)


def test_a_fault_is_no_answer_and_touches_nothing_else() -> None:
    bench = Bench(complete=None)
    bench.runner.is_device_loss = lambda error: False  # type: ignore[method-assign]
    bench.ask(1, at=8000)
    bench.run()
    assert not bench.of(api.Judged)
    wire = tuple(mapping.item_to_wire(item) for item in said("hello"))
    bench.loop.command(api.Begin(1, 1, wire, OPTIONS))
    bench.run()
    assert [reply.reason for reply in bench.of(api.Ended)] == ["stop"]


def test_a_lost_device_is_raised() -> None:
    bench = Bench(complete=None)
    bench.ask(1, at=8000)
    with pytest.raises(EngineError):
        bench.run()


def test_a_question_about_audio_that_never_came_is_none() -> None:
    bench = Bench()
    bench.loop.command(api.Judge(1, 8000, 5))
    bench.loop.command(api.Judge(7, 8000, 5))
    bench.run()
    assert not bench.replies
    bench.ask(1, at=8000)
    bench.loop.command(api.CloseSession(1))
    bench.run()
    assert not bench.replies
