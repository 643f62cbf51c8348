"""The part of the world that is about tools which the server runs: who calls, what comes back when, what may be said.

Kept beside world.py: an oracle of its own with its own dice, so that the walk goes where it went without it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.history import UserItem

PER_TURN, PER_SESSION = 8, 64
Give = Callable[[ev.Event], list[act.Action]]
NAMES = ("quick", "later", "asks")


@dataclass
class Out:
    """A call that the model has made."""

    turn: int
    tool: str
    refused: bool  # there were too many
    run: bool = False
    waits: bool = False  # for approval
    output: str | None = None
    closed: bool = False
    late: bool = False
    silent: bool = False


@dataclass
class Errands:
    """What was called and has not come back, and what the person is owed."""

    seed: int
    voice_only: bool = False  # then nothing but a voice begins a turn
    out: dict[str, Out] = field(default_factory=dict)
    calls: int = 0
    calls_of_turn: int = 0
    mixed: set[int] = field(default_factory=set)
    owed: bool = False
    bridge: int | None = None  # the turn that bridges the time
    bridged: bool = False
    calm: bool = False
    done: int = 0
    fillers: int = 0
    lates: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.on = self.seed % 3 == 1 and not self.voice_only
        self.tools: tuple[opt.Tool, ...] = ()
        self.filler: opt.Filler | None = None
        if self.on:
            how: dict[str, dict[str, Any]] = {"later": {"background": True}, "asks": {"approval": True}}
            self.tools = tuple(
                opt.Tool(name, "", {}, opt.ServerTool("here", name, **how.get(name, {}))) for name in NAMES
            )
            self.filler = opt.Filler("wait", 300) if self.dice.random() < 0.7 else None

    # --- what happens ---------------------------------------------------------------------------------------------

    def planned(self, turn: int, options: opt.TurnOptions, plan: list[ev.TurnEvent]) -> list[ev.TurnEvent]:
        """What the engine says in a turn, and the calls that it makes in it; sometimes far too many."""
        if not options.tools or self.calm or self.dice.random() < 0.4:
            return plan
        count = 12 if self.dice.random() < 0.05 else self.dice.choice((1, 1, 2))
        names = [self.dice.choice([tool.name for tool in options.tools]) for _ in range(count)]
        calls = [ev.ToolCalled(turn, f"call{turn}_{n}", name, "{}") for n, name in enumerate(names)]
        at = self.dice.choice((1, len(plan)))
        return [*plan[:at], *calls, *plan[at:]]

    def work(self, world: Any, give: Give) -> None:
        """Now and then a tool returns, or the client approves of a call, or not; some say so twice, some take long."""
        if self.out and self.dice.random() < 0.06:
            self.settle(self.dice.choice(list(self.out)), world, give)
        elif self.out and self.dice.random() < 0.06:
            world.pass_time(self.dice.choice((0.31, 1.0)))

    def rest(self, world: Any, give: Give) -> None:
        """Everything comes back, and nothing is called any more."""
        self.calm = True
        for item_id in list(self.out):
            self.settle(item_id, world, give)

    def settle(self, item_id: str, world: Any, give: Give) -> None:
        each = self.out[item_id]
        if each.waits:
            each.waits = False
            good = self.dice.random() < 0.7
            if not good:
                each.output, each.run = "", True
            give(ev.Approve(item_id, good))
        elif each.output is None:
            each.output = f"result of {item_id}"
            give(ev.ToolReturned(item_id, each.output))
            bridge = world.jobs.get(self.bridge)
            if bridge is not None and self.bridge == world.live and not bridge.sent:
                waited = [o for o in self.out.values() if o.output is None and not o.late and not o.waits]
                assert waited or any(o.waits for o in self.out.values()), "words are begun for nobody"
            give(ev.ToolReturned(item_id, "a second answer"))

    # --- the oracle -----------------------------------------------------------------------------------------------

    def on_action(self, action: act.Action, world: Any) -> None:
        """Before the world takes note of the action."""
        match action:
            case notices.ItemAdded(UserItem()):
                self.calls_of_turn, self.bridged = 0, False
            case notices.ItemDeleted(item_id):
                self.out.pop(item_id, None)
            case notices.TurnOpened(turn, _, options) if options.conversation:
                self.on_opened(turn, options, world)
            case notices.TurnOpened(_, _, options):
                assert not any(tool.server for tool in options.tools), "a tool whose result goes nowhere"
            case notices.TurnTool(turn, item_id) if not world.jobs[turn].beside:
                self.on_called(action, item_id)
            case act.RunTool(item_id):
                each = self.out[item_id]
                assert not each.run, "run twice"
                assert not each.waits, "run without approval"
                assert not each.refused, "run over the budget"
                each.run = True
            case notices.TurnClosed(turn) if not world.jobs[turn].beside:
                for each in self.out.values():
                    if each.turn == turn:
                        each.closed = True
                        each.silent = turn in self.mixed or action.reason == "client_cancelled"
            case notices.ToolAnswered():
                self.on_answered(action, world)
            case _:
                pass

    def on_called(self, action: notices.TurnTool, item_id: str) -> None:
        if action.server is None:
            self.mixed.add(action.turn)
            return
        refused = self.calls >= PER_SESSION or self.calls_of_turn >= PER_TURN
        if not refused:
            self.calls += 1
            self.calls_of_turn += 1
        made = self.out[item_id] = Out(action.turn, action.name, refused)
        made.waits = action.server.approval and not refused
        made.output = "" if refused else None

    def on_opened(self, turn: int, options: opt.TurnOptions, world: Any) -> None:
        self.bridge = turn if options.script else None
        if not options.script:
            self.owed = False
            return
        assert not self.owed, "words are spoken while a result is there to be told"
        assert not self.bridged, "words for one time are spoken twice"
        assert world.speaking is None or world.disturbing, "words are spoken over the person"
        assert not world.fastest.waiting, "words are spoken over ourselves"
        assert options.modalities == "audio"
        slow = [each for each in self.out.values() if each.closed and each.output is None]
        assert any(not each.late and not each.waits and not each.silent for each in slow), "nobody waits"
        self.bridged = True
        self.fillers += 1

    def on_answered(self, action: notices.ToolAnswered, world: Any) -> None:
        each = self.out[action.item_id]
        assert each.closed, "a result before its call"
        assert world.live is None, "a result in the midst of a turn"
        if action.more:
            assert each.tool == "later", "who does not wait is told to"
            assert not each.late, "told twice to wait"
            each.late = True
        else:
            assert each.output is not None, "a result from nowhere"
            assert each.output in ("", action.output), "another result than was returned"
            self.lates += each.late
            if each.late:
                assert world.speaking is None or world.disturbing, "what comes late is told over the person"
                assert not world.fastest.waiting, "what comes late is told over ourselves"
            del self.out[action.item_id]
            self.done += 1
        manual = world.config.turn_detection is None  # then they may be speaking, and it may be told later
        self.owed = self.owed or not (each.silent or (each.late and manual))

    def check(self, world: Any) -> None:
        """After every step."""
        for each in self.out.values():
            assert each.run or each.waits or each.refused, "a call that nobody runs"
        quiet = world.live is None and world.controller.ear.name == "QUIET"
        awaited = any(not each.late and not each.silent for each in self.out.values())
        assert not (self.owed and quiet and not awaited), "a result was not told"
        if quiet:
            back = [each for each in self.out.values() if each.closed and each.output is not None]
            assert all(each.late for each in back), "a result was kept back"

    @property
    def resting(self) -> bool:
        """Whether nothing is on its way."""
        return not self.out
