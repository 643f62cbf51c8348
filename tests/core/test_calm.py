"""Of most sound and most silence nothing follows, and the controller takes a short way with it: nobody can tell."""

from __future__ import annotations

from typing import Any

import pytest
from world import World

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import options as opt
from voiceagent.core.controller import Controller
from voiceagent.core.replay import describe


class Thorough(Controller):
    """Goes the long way with everything."""

    def _short_way(self, event: ev.Event, now: float) -> None:
        return None


class Twins(Controller):
    """A controller beside a thorough one that is given the same."""

    short = 0  # events that changed nothing

    def __init__(self, config: opt.SessionConfig, **rest: Any) -> None:
        super().__init__(config, **rest)
        self.other = Thorough(config, **rest)

    def handle(self, event: ev.Event, now: float) -> list[act.Action]:
        return self._same(super().handle(event, now), self.other.handle(event, now))

    def _short_way(self, event: ev.Event, now: float) -> list[act.Action] | None:
        made = super()._short_way(event, now)
        Twins.short += made is not None
        return made

    def handle_timeout(self, now: float) -> list[act.Action]:
        return self._same(super().handle_timeout(now), self.other.handle_timeout(now))

    def _same(self, made: list[act.Action], others: list[act.Action]) -> list[act.Action]:
        assert [describe(action) for action in made] == [describe(action) for action in others]
        assert self.next_deadline() == self.other.next_deadline()
        assert (self.ear, self.mouth) == (self.other.ear, self.other.mouth)
        assert len(self.history.items) == len(self.other.history.items)
        return made


@pytest.mark.parametrize("seed", range(20))
def test_the_short_way_decides_what_the_long_one_does(seed: int) -> None:
    Twins.short = 0
    World(seed, make=Twins, voice_only=seed % 2 == 0).run(500)
    assert Twins.short
