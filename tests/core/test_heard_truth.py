"""The history holds what was heard: players with delays, jitter and pauses, cuts of every kind (R3).

`HEARD_CASES=100000 pytest tests/core/test_heard_truth.py` tries more. A player that does not say where it is must be
within the 100 ms that the core assumes of it; one that does may be anything.
"""

from __future__ import annotations

import os
import random
from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from shards import SHARDS, in_shards

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.controller import Controller
from voiceagent.core.history import AssistantItem
from voiceagent.core.playout import WAY_S

CASES = int(os.environ.get("HEARD_CASES", "10000"))
RATE, TOKEN, STEP_S = 24_000, 960, 0.008
CUTS = ("voice", "cancel", "clear", "truncate", "hangup")


@dataclass
class Listener:
    """A player behind a network: what it is sent comes late, in order; what it says comes late, too."""

    rng: random.Random
    acks: bool
    delay: float
    jitter: float
    coming: deque[tuple[float, int | None]] = field(
        default_factory=deque
    )  # samples; None = drop what is there
    saying: deque[tuple[float, int]] = field(default_factory=deque)
    ready: float = 0.0
    played: float = 0.0
    paused_until: float = 0.0
    begun: bool = False
    stopped: bool = False
    spoke: float = -1.0

    def get(self, now: float, samples: int | None) -> None:
        last = self.coming[-1][0] if self.coming else 0.0
        self.coming.append((max(last, now + self.delay + self.rng.uniform(0.0, self.jitter)), samples))

    def live(self, now: float) -> None:
        """The last `STEP_S`."""
        while self.coming and self.coming[0][0] <= now and not self.stopped:
            samples = self.coming.popleft()[1]
            self.ready += samples or 0
            self.begun = True
            self.stopped = samples is None
        if self.acks and self.rng.random() < 0.002:
            self.paused_until = now + self.rng.uniform(0.05, 1.0)
        if not self.stopped and now >= self.paused_until:
            run = min(self.ready, STEP_S * RATE)
            self.ready -= run
            self.played += run
        if self.acks and self.begun and now - self.spoke >= 0.04:
            self.say(now)

    def say(self, now: float) -> None:
        self.spoke = now
        last = self.saying[-1][0] if self.saying else 0.0
        self.saying.append((max(last, now + self.rng.uniform(0.0, 0.2)), int(self.played)))


class Case:
    """One reply, heard up to some point."""

    def __init__(self, seed: int) -> None:
        rng = self.rng = random.Random(seed)
        self.acks = rng.random() < 0.5
        delay = rng.uniform(0.0, 0.5 if self.acks else WAY_S * 0.6)
        jitter = rng.uniform(0.0, WAY_S if self.acks else WAY_S - delay - STEP_S)
        self.listener = Listener(rng, self.acks, delay, max(jitter, 0.0))
        speed = rng.choice((1.0, 1.0, 1.3))
        self.config = opt.SessionConfig(
            lead_ms=rng.choice((None, 40, 120, 300, 500)),
            speed=speed,
            barge_in=rng.choice(("patient", "quick")),
        )
        self.controller = Controller(self.config, id_prefix="item_")
        self.t, self.mic, self.ended = 0.0, 0, False
        self.acked = False  # a player that acknowledges is taken for one from its first word on
        self.item_id, self.cut_at = "", -1.0
        self.heard: notices.TurnHeard | None = None

    def do(self, event: ev.Event | None) -> None:
        made = (
            self.controller.handle_timeout(self.t) if event is None else self.controller.handle(event, self.t)
        )
        for action in made:
            match action:
                case notices.TurnOpened(item_id=item_id):
                    self.item_id = self.item_id or item_id
                case act.SendAudio(pcm=pcm):
                    self.listener.get(self.t, len(pcm))
                case act.Flush():
                    self.listener.get(self.t, None)
                    self.cut_at = self.t
                case notices.TurnHeard():
                    self.heard = action
                case _:
                    pass

    def step(self, p: float) -> None:
        self.t += STEP_S
        while (deadline := self.controller.next_deadline()) is not None and deadline <= self.t:
            self.do(None)
        self.listener.live(self.t)
        while self.listener.saying and self.listener.saying[0][0] <= self.t:
            self.do(ev.Played(1, self.listener.saying.popleft()[1]))
            self.acked = True
        if round(self.t / STEP_S) % 4 == 0:
            self.do(ev.AudioIn(self.mic, np.zeros(512, np.float32)))
            self.mic += 512
            self.do(ev.SpeechProb(self.mic, p, -30.0))

    def item(self) -> AssistantItem:
        item = self.controller.history.find(self.item_id)
        assert isinstance(item, AssistantItem)
        return item

    def run(self) -> None:
        rng, tokens = self.rng, 0
        self.do(ev.Respond(replace(self.config.turn_options(), interruptible=True)))
        chunks = rng.randint(1, 12)
        for _ in range(rng.randint(1, 500)):
            if chunks and rng.random() < 0.1:
                chunks -= 1
                size = rng.randint(1, 25)
                tokens += size
                self.do(ev.TextOut(1, f" word{chunks}", (chunks,)))
                pcm = np.zeros(round(size * TOKEN / self.config.speed), np.int16)
                self.do(ev.AudioOut(1, 12 - chunks, pcm, (1,) * size))
            elif not chunks and not self.ended:
                self.ended = True
                self.do(ev.TurnEnded(1, "stop", ev.Usage(), (1,)))
            self.step(0.02)
        self.cut()

    def cut(self) -> None:
        for _ in range(200 if self.acks else 0):
            if self.acked:
                break
            self.step(0.02)
        kind = self.rng.choice(CUTS)
        before = self.listener.played
        match kind:
            case "voice":
                for _ in range(120):
                    self.step(0.9)
                    if self.cut_at >= 0:
                        break
            case "cancel":
                self.do(ev.Cancel())
            case "clear":
                self.do(ev.OutputClear())
            case "truncate" if self.listener.played:  # who says where they stood has stopped there
                self.listener.stopped = True
                self.do(ev.ItemTruncate(self.item_id, int(self.listener.played * 1000 / RATE)))
            case _:
                kind = "hangup"
                self.do(ev.Hangup("bye"))
        if self.cut_at < 0 or self.controller.history.find(self.item_id) is None:
            return  # there was nothing left to cut
        at_cut = self.listener.played
        assert self.item().samples <= at_cut + 2, (kind, "ahead of what was heard", self.acks)
        assert before <= at_cut
        if kind == "truncate":
            assert at_cut - self.item().samples <= TOKEN + 24 + 2, "not where the player stood"
        if kind != "hangup":
            self.settle()

    def settle(self) -> None:
        """What was on its way comes, the last word of the player too."""
        for _ in range(200):
            self.step(0.02)
        item, played = self.item(), self.listener.played
        assert item.samples <= played + 2, "ahead of what was heard"
        if self.acks:
            assert played - item.samples <= TOKEN + 26, "not within a token of what was heard"
        assert self.heard is not None
        assert item.text.count("word") == self.heard.heard_words
        assert self.heard.acknowledged <= self.acks
        assert 0 <= self.heard.heard_ms - item.samples * 1000 // RATE <= 41


def run_shard(shard: int, cases: int) -> str:
    for seed in range(shard, cases, SHARDS):
        try:
            Case(seed).run()
        except Exception as error:
            return f"seed {seed}: {error!r}"
    return ""


def test_the_history_ends_where_the_player_stood() -> None:
    failures = [text for text in in_shards(run_shard, CASES) if text]
    assert not failures, failures


@pytest.mark.parametrize("late", [0.0, 0.3])
def test_an_acknowledgement_that_comes_behind_the_cut_counts_and_an_older_one_does_not(late: float) -> None:
    controller = Controller(opt.SessionConfig(turn_detection=None), id_prefix="item_")
    controller.handle(ev.Respond(opt.TurnOptions()), 0.0)
    controller.handle(ev.TextOut(1, "one two", (1, 2)), 0.0)
    controller.handle(ev.AudioOut(1, 0, np.zeros(50 * TOKEN, np.int16), (1,) * 50), 0.0)
    controller.handle(ev.Played(1, 10 * TOKEN), 0.5)
    controller.handle(ev.OutputClear(), 1.0)
    (item,) = controller.history
    assert isinstance(item, AssistantItem)
    assert len(item.audio_ids) == 10
    made = controller.handle(ev.Played(1, 20 * TOKEN), 1.0 + late)
    assert [type(action).__name__ for action in made] == ["ItemTruncated", "TurnHeard"]
    assert controller.handle(ev.Played(1, 15 * TOKEN), 1.1 + late) == []
    (item,) = controller.history
    assert isinstance(item, AssistantItem)
    assert len(item.audio_ids) == 20
    controller.handle(ev.Played(1, 50 * TOKEN), 1.2 + late)  # more than time allows
    (item,) = controller.history
    assert isinstance(item, AssistantItem)
    assert len(item.audio_ids) == 27  # a second, and the time that our word takes to the player
    controller.handle(ev.ItemTruncate(item.id, 400), 2.0)
    assert controller.handle(ev.Played(1, 20 * TOKEN), 2.1) == []  # that was its last word
