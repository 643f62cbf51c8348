"""An independent model of everything around a controller, and the oracles that judge what it does.

A client with a microphone of numbered samples and a simulated player; an engine that makes numbered samples; a clock.
The oracles look only at events and actions, never at the controller's own state (but for the pair of machine states,
which is collected).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from simplayer import Player
from world_errands import Errands
from world_memory import Memory

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.asides import MAX_ASIDES
from voiceagent.core.controller import Controller
from voiceagent.core.dictation import Dictation
from voiceagent.core.history import AssistantItem, AudioContent, SystemItem, TextContent, UserItem
from voiceagent.core.tables import REACHABLE, REACHABLE_BY_VOICE

WINDOW = 512
CONFIRM_WINDOWS = 7  # 200 ms in windows of 32 ms, rounded up
PATIENT = {
    0.0: 19,
    10.0: 10,
    -8.0: 22,
    -11.0: 32,
}  # windows that confirm, by decibels above the person's level
LONGEST_PATIENCE = 32
FAR = -20.0  # decibels below the person, at which a voice is somebody's in the background
FAR_WINDOWS = 10  # of it, after which that is clear
INSISTS, WAITED, FORGOTTEN, LONG = (
    2,
    16_000,
    160_000,
    156,
)  # who begins anew so often, so soon, or speaks so long
SETTLE_WINDOWS = 6  # of silence, that dismiss
ENDED_WINDOWS = 5  # of silence, behind which words that are complete end it
USUAL = -30.0  # decibels
ONSET_WINDOWS = 3
TOKEN = 960
EAGER = {
    "low": (600, 2000, 8000),
    "medium": (192, 1200, 4000),
    "high": (160, 700, 2000),
}  # PROTOCOL.md's table
PACE = (0.75, 2.0)
FIRST_SIGN = 64 * 16
WAY_S = 0.1  # the delay that the core assumes of a player that does not acknowledge


@dataclass
class Run:
    """A stretch of voice: windows [start, end) of the input."""

    start: int
    end: int
    above: float = 0.0  # how much louder than usual, over ours
    doubtful: int = 0  # windows of it that are hardly speech
    excused: bool = False  # it was weighed, and found to be none
    busy: bool = False  # we had a turn open or sounding at some time of it
    disturbed: bool = False  # the client or the line interfered
    far: bool = False  # it is somebody's in the background, and does not insist
    shaded: bool = False  # it follows on such a one, and it takes a while to tell them apart


@dataclass
class Job:
    """What the engine makes of a turn."""

    turn: int
    plan: list[ev.TurnEvent]
    spoken: bool
    interruptible: bool
    protected: int  # samples
    in_history: bool
    reads: bool  # the conversation, not items that the client named
    speed: float
    text: str = ""
    ids: tuple[int, ...] = ()
    made: int = 0  # samples told to the controller while the turn was open
    sent: int = 0
    ended: bool = False
    item_id: str = ""
    acked: int = 0  # samples that the player has acknowledged
    calls: list[str] = field(default_factory=list)
    previous: str | None = None
    jostled: bool = False  # the client put an item where the reply might go
    flushed: bool = False
    cancelled: bool = False
    over: bool = False  # it was closed, and the mouth was idle since
    told: bool = False  # how much of it was heard

    @property
    def beside(self) -> bool:
        """Beside the conversation: the world plays nothing that could be mistaken for it."""
        return not self.in_history


@dataclass
class Hunch:
    """A reply that the engine makes on a guess, and nobody has been told of."""

    job: Job
    items: tuple[Any, ...]
    heard: tuple[int, int]  # samples of the utterance in progress, as it was given to the engine
    dropped: tuple[str, ...] = ()


@dataclass
class World:
    """One call. `run` plays random events; every broken promise is an AssertionError."""

    seed: int
    make: Callable[..., Controller] = Controller
    voice_only: bool = False
    t: float = 0.0
    mic: int = 0  # samples given
    judged: int = 0  # windows whose probability was delivered
    runs: list[Run] = field(default_factory=list)
    utterances: list[tuple[int, int]] = field(default_factory=list)
    jobs: dict[int, Job] = field(default_factory=dict)
    live: int | None = None
    asides: set[int] = field(default_factory=set)  # open beside the conversation
    hunch: Hunch | None = None
    guessed: Counter[str] = field(default_factory=Counter)  # guesses by utterance
    unsettled: set[int] = field(default_factory=set)  # guesses of which it was not told what came of them
    cancelling: set[int] = field(default_factory=set)  # of these, what the engine is still to let go of
    confirming: bool = False
    tried: set[int] = field(default_factory=set)  # audio that the engine has for a guess alone
    aside_items: set[str] = field(default_factory=set)
    speaking: tuple[str, int] | None = None  # announced utterance
    answer_due: bool = False
    blind_until: int = 0  # samples before it were committed or cleared, whatever was in them
    quiet_from: float = -1.0  # when the last of what was sent can have been played
    encoded: set[int] = field(default_factory=set)
    items: set[str] = field(default_factory=set)  # of the conversation, that the client was told of
    left: set[str] = field(default_factory=set)  # of these, what there was no room for
    up: bool = True
    line_busy: bool = False
    acked: bool = False
    events: int = 0
    asked: set[str] = field(default_factory=set)  # items whose words are awaited
    states: set[tuple[Any, Any]] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    question: int | None = None  # sample up to which it was asked last whether they have finished
    asked_with: int | None = None  # the piece that was sent for it
    answered: int | None = None  # the question that was answered last
    verdict: tuple[str, float] | None = None  # the answer, if it came in time
    told_at: int = 0  # window in which it came
    stopped: notices.SpeechStopped | None = None
    last_pair: tuple[Any, Any] | None = None
    last_history: Any = None
    disturbing: bool = False
    old_leads: tuple[int | None, ...] = ()  # what is due by now is sent before new settings hold
    weighed: notices.Interruption | None = None  # the voice over ours that is being weighed
    weight: int = 0  # windows of it
    began: int = 0  # with this window
    opened_idle: int = -1  # window at which the last turn was opened while we said nothing
    bounds: tuple[int, int] = (0, 0)  # windows from which on it may, and must, be confirmed
    weighed_from: Run | None = None  # with which it began, for as long as it is not dismissed
    known: int = 0  # windows by which the person's level may be known
    again: int = 0  # how often somebody in the background began anew
    afar: bool = False  # whoever speaks does so in the background
    left_open: bool = False  # an utterance may be in progress since before the last disturbance
    believed: bool = False  # somebody insisted: from there on nobody knows how loud the person is

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.room = random.Random(self.seed)
        self.line = random.Random(self.seed)  # of its own: the walk goes where it went without it
        self.doubt = random.Random(self.seed)
        self.memory = Memory(self.seed)
        self.errands = Errands(self.seed, self.voice_only)
        self.tone = random.Random(self.seed)
        self.tongue = random.Random(self.seed)
        self.leveled = self.tone.random() < 0.8
        rng = self.rng
        vad: opt.ServerVad | None = opt.ServerVad(
            prefix_padding_ms=rng.choice((0, 100, 300, 300)),
            silence_duration_ms=rng.choice((200, 500, 800)),
            create_response=self.voice_only or rng.random() < 0.85,
            interrupt_response=self.voice_only or rng.random() < 0.8,
        )
        if not self.voice_only and rng.random() < 0.15:
            vad = None
        self.judges = random.Random(self.seed)
        if vad is not None and self.seed % 5 == 2:
            vad = replace(vad, eagerness=self.judges.choice(("low", "medium", "high")))
        self.config = opt.SessionConfig(
            modalities="text" if rng.random() < 0.1 and not self.voice_only else "audio",
            turn_detection=vad,
            transcribe=rng.random() < 0.5,
            dictation=self.heard_how(),
            replies=self.voice_only or rng.random() < 0.7,
            lead_ms=rng.choice((None, 40, 200, 300, 1000)),
            speed=(1.0, 0.5, 1.0, 1.3)[self.seed % 4],
            speculation=self.doubt.random() < 0.6,
            condensing=self.memory.wish,
            tools=self.errands.tools,
            filler=self.errands.filler,
            barge_in="patient" if self.tone.random() < 0.75 else "quick",
            protected_ms=0 if self.voice_only else self.tone.choice((0, 0, 0, 400)),
        )
        self.acks = rng.random() < 0.4
        self.liar = self.acks and rng.random() < 0.2  # acknowledges what it cannot have played
        slow = self.acks and not self.liar
        self.player = Player(rng.uniform(0, 0.5) if slow else 0.0 if self.liar else rng.uniform(0, WAY_S))
        self.fastest = Player(0.0)
        self.plan: list[bool] = []  # voice or not, by window, as far as decided
        self.controller = self.make(self.config, id_prefix="item_")
        for event in self.memory.before():
            self.give(event)

    # --- the clock ----------------------------------------------------------------------------------------------

    def pass_time(self, seconds: float, *, punctual: bool = True) -> None:
        until = self.t + seconds
        for _ in range(100_000):
            deadline = self.controller.next_deadline()
            if not punctual or deadline is None or deadline > until:
                break
            self.move(max(deadline, self.t))
            self.check(self.controller.handle_timeout(self.t), None)
        else:
            raise AssertionError("deadlines without end")
        self.move(until)
        if not punctual:
            self.check(self.controller.handle_timeout(self.t), None)

    def move(self, to: float) -> None:
        self.t = max(self.t, to)
        self.player.advance(self.t)
        self.fastest.advance(self.t)

    def give(self, event: ev.Event) -> list[act.Action]:
        self.events += 1
        if isinstance(event, ev.ItemTruncate):
            self.stop_playing(event.item_id)
        made = self.controller.handle(event, self.t)
        self.check(made, event)
        job = self.jobs.get(event.turn) if isinstance(event, ev.TurnStarted) else None
        if isinstance(event, ev.TurnStarted) and job is not None and job.reads and job.turn == self.live:
            self.left |= self.memory.left_out(event.dropped, self.controller.history) & self.items
        if self.acks and not self.acked and self.player.played:
            self.acked = True  # a player that acknowledges says so when it gets its first audio
            self.give(ev.Played(max(self.player.played), 0))
        return made

    def stop_playing(self, item_id: str) -> None:
        """Who says how much of a reply they heard has stopped playing it."""
        for job in self.jobs.values():
            if job.item_id == item_id:
                self.player.flush(job.turn)
                self.fastest.flush(job.turn)

    # --- what happens -------------------------------------------------------------------------------------------

    def run(self, events: int) -> None:
        while self.events < events:
            self.step()
        if self.rng.random() < 0.8:  # otherwise the line breaks in the midst of it
            self.come_to_rest()
            self.check_runs()
        if self.doubt.random() < 0.5:
            self.pause()
        self.end_call()

    def pause(self) -> None:
        """Somebody speaks, and has fallen silent just now."""
        self.plan = self.plan[: self.judged] + [False] + [True] * 9 + [False] * 9
        self.speak(16 * WINDOW)
        self.judge(14)

    def step(self) -> None:
        rng = self.rng
        self.errands.work(self, self.give)
        if self.line.random() < (0.3 if self.line_busy else 0.004):
            self.line_busy, before = False, self.line_busy
            self.give(ev.LineBusy(not before))  # what is due by now is sent before it is known
            self.line_busy = not before
        if rng.random() < 0.5:
            self.pass_time(rng.choice((0.0, 0.001, 0.02, 0.02, 0.06, 0.3)), punctual=rng.random() < 0.9)
        if self.hunch is not None and not self.voice_only and self.doubt.random() < 0.05:
            self.request()
        if self.tone.random() < 0.03:
            self.hold_forth()
        if self.wary and self.tone.random() < 0.01:
            self.call_from_afar()
        if self.controller.mouth.name == "SPEAKING" and self.tone.random() < 0.5:
            self.talk_over()
        dice = rng.random()
        if dice < 0.30:
            self.speak(rng.choice((100, 512, 640, 1600, 8000, 16_000)))
        elif dice < 0.68:
            long = self.voiced(self.judged + 150) and all(self.plan[self.judged : self.judged + 150])
            silent = not any(
                self.plan[self.judged : self.judged + 150]
            )  # only where turns end by what is said
            if silent and not long:
                self.speak(40 * WINDOW)
            self.judge(40 if long or silent else rng.choice((1, 1, 2, 5)))
        elif dice < 0.92:
            self.compute()
        elif dice < 0.95:
            self.player_moves()
        elif dice < 0.96 or self.voice_only:
            self.rare()
        else:
            self.request()

    def hold_forth(self) -> None:
        """A long reply, if nobody speaks."""
        if self.controller.mouth.name != "IDLE" or self.controller.ear.name != "QUIET" or not self.up:
            return
        if self.runs and self.runs[-1].end == self.judged:
            return
        self.give(ev.Respond(replace(self.config.turn_options(), modalities="audio")))
        if self.live is not None:
            job, size = self.jobs[self.live], lasting(120, self.config.speed)
            sound = ev.AudioOut(job.turn, 0, numbered(job.turn, 0, size), (0,) * 120)
            for event in (ev.TextOut(job.turn, " word", (0,)), sound):
                self.note_made(job, event)
                self.give(event)
            job.plan = [ev.TurnEnded(job.turn, "stop", ev.Usage(), (1, 2))]
            self.pass_time(0.2)

    def catch_up(self) -> None:
        """What was sent and not judged yet is silence, and is judged."""
        behind = self.mic // WINDOW - self.judged
        self.plan = self.plan[: self.judged] + [False] * behind
        self.judge(behind)

    def call_from_afar(self) -> None:
        """Somebody speaks in the background, again and again or on and on."""
        self.catch_up()
        self.plan, self.afar = self.plan[: self.judged] + [False] * 20, True
        for voice, silence in self.tone.choice(
            (((20, 35), (12, 35), (40, 20)), ((200, 20),), ((30, 20), (30, 20)))
        ):
            self.plan += [True] * voice + [False] * silence
        for _ in range(self.judged, len(self.plan)):
            self.speak(WINDOW)
            self.judge(1)
            self.pass_time(0.032)
        self.afar = False

    def talk_over(self) -> None:
        """A short voice or two while we are to be heard, and silence around them."""
        self.catch_up()
        self.plan = self.plan[: self.judged] + [False] * self.tone.randint(1, 12)
        for _ in range(self.tone.choice((1, 1, 2, 3))):
            self.plan += [True] * self.tone.choice((2, 4, 6, 8, 9, 12, 15, 18, 20, 23, 33))
            self.plan += [False] * self.tone.choice((2, 4, 5, 6, 7, 16))
        for _ in range(self.judged, len(self.plan)):
            self.speak(WINDOW)
            self.judge(1)
            if self.tone.random() < 0.5:
                self.pass_time(0.032)
            if self.tone.random() < 0.1:
                self.compute()

    def speak(self, samples: int) -> None:
        if self.mic - self.judged * WINDOW > 50 * 16_000:
            return  # a detector that lags a minute behind has lost what it did not hear
        self.give(ev.AudioIn(self.mic, np.arange(self.mic, self.mic + samples, dtype=np.float32)))
        self.mic += samples

    def voiced(self, window: int) -> bool:
        while len(self.plan) <= window:
            voice = not (self.plan and self.plan[-1])
            dice = self.rng.random()
            if voice:
                length = (
                    self.rng.randint(1, 2) if dice > 0.9 else self.rng.randint(3, 6 if dice > 0.6 else 60)
                )
                if dice < (0.006 if self.config.replies else 0.1):  # pieces of 25 s, or of 10 s
                    length = self.rng.randint(700, 1700)
            else:
                length = self.rng.randint(1, 8) if dice < 0.4 else self.rng.randint(8, 60)
                vad = self.config.turn_detection
                if vad is not None and vad.eagerness is not None and self.judges.random() < 0.1:
                    length = 280  # longer than the longest wait
            self.plan += [voice] * length
        return self.plan[window]

    def judge(self, windows: int) -> None:
        for _ in range(windows):
            if (self.judged + 1) * WINDOW > self.mic:
                return
            voice = self.voiced(self.judged)
            fresh = voice and not (self.judged and self.voiced(self.judged - 1))
            if fresh:
                blind = self.config.turn_detection is None or self.judged * WINDOW < self.blind_until
                near = self.runs and self.judged - self.runs[-1].end < 10
                above = (
                    self.runs[-1].above if near else self.tone.choice([*PATIENT, FAR if self.wary else 0.0])
                )
                above = FAR if self.afar and self.wary else above
                self.runs.append(Run(self.judged, self.judged, above, disturbed=blind))
                self.insist()
            inside = voice and self.judged - self.runs[-1].start >= ONSET_WINDOWS
            self.judged += 1
            if voice:
                run = self.runs[-1]
                run.end = self.judged
                run.busy = run.busy or self.busy()
            open_before, announced = self.live, self.speaking is not None
            p = (0.42 if inside and self.rng.random() < 0.2 else 0.9) if voice else 0.05
            if voice:
                run.doubtful += p < 0.5
                self.weight += self.weighed is not None
            self.verdict = None if voice else self.verdict
            self.give(ev.SpeechProb(self.judged * WINDOW, p, self.level(voice)))
            self.check_asked()
            if self.question is not None:
                self.engine_judges()
            over = self.runs and self.judged - self.runs[-1].end >= SETTLE_WINDOWS
            assert self.weighed is None or not over, "a voice that is over is still weighed"
            if voice:
                idle = self.controller.ear.name == "SPEECH" and self.controller.mouth.name == "IDLE"
                self.known += announced and idle and p > 0.5 and self.runs[-1].above != FAR
                self.runs[-1].busy = self.runs[-1].busy or self.busy()
                self.check_far()
                self.check_interrupted(open_before)
                assert self.hunch is None or self.is_said(self.hunch), "a guess about somebody who goes on"
                self.meddle(self.judged - self.runs[-1].start)

    def check_far(self) -> None:
        """Who speaks in the background is passed over, and holds nobody for long; but not for ever."""
        run = self.runs[-1]
        length = run.end - run.start
        if run.far and not run.disturbed and length >= LONG + LONGEST_PATIENCE:
            assert self.speaking is not None, "who speaks on and on is passed over"
        long = self.unbroken() >= LONG - ONSET_WINDOWS
        if run.far and long:
            self.believed, run.excused = True, True
        run.excused = run.excused or run.far
        clear = (
            run.far
            and FAR_WINDOWS + run.doubtful < length
            and not long
            and not run.disturbed
            and self.speaking is None
        )
        assert not clear or self.weighed is None, "a voice in the background holds us"

    def unbroken(self) -> int:
        """Windows of speech without a silence between two voices."""
        windows, begun = 0, self.runs[-1].start
        for run in reversed(self.runs):
            if begun - run.end >= SETTLE_WINDOWS:
                break
            windows, begun = windows + run.end - run.start, run.start
        return windows

    def check_asked(self) -> None:
        """Whoever may have finished is asked about, once, and afterwards nothing of it is left."""
        vad = self.config.turn_detection
        if self.controller.ear.name != "TRAILING":
            assert self.asked_with not in self.encoded, "audio that nobody needs is kept"
        elif vad is not None and vad.eagerness is not None and self.up:
            end = self.runs[-1].end
            signs = (self.judged - end) * WINDOW >= FIRST_SIGN and not self.runs[-1].disturbed
            signs = signs and (self.speaking is not None or self.weighed is not None)
            assert not signs or self.question == end * WINDOW, "nobody asked whether they have finished"

    def engine_judges(self) -> None:
        """Now and then the answer to a question comes, or one that nobody waits for any more."""
        dice = self.judges.random()
        if dice > 0.2 or self.question is None or self.question == self.answered:
            return
        text = self.judges.choice(("where are you", "it is seven two", "well um", ""))
        text = "Wait, wait." if self.weighed is not None and self.tone.random() < 0.5 else text
        complete = self.judges.choice((0.0, 0.5, 1.0, 1.0, math.nan))
        stale = dice < 0.03
        if not stale and self.question == self.runs[-1].end * WINDOW and self.runs[-1].end < self.judged:
            self.verdict, self.told_at = (text, complete), self.judged
        self.answered = self.answered if stale else self.question
        weighed = self.weighed is not None and not self.runs[-1].far
        self.give(ev.EndJudged(self.question - 512 if stale else self.question, text, complete))
        in_time = weighed and not stale and self.question == self.runs[-1].end * WINDOW
        meant = in_time and "Wait" in text and self.runs[-1].above > -10.0 and not self.believed
        assert not meant or self.weighed is None, "who said that we should wait is not heard"

    def level(self, voice: bool) -> float | None:
        """How loud the window is: over ours as the run says, else as usual."""
        if not self.leveled:
            return None
        if not voice:
            return 2 * USUAL
        if self.controller.mouth.name != "IDLE" or self.runs[-1].above == FAR:
            return USUAL + self.runs[-1].above
        return USUAL

    @property
    def wary(self) -> bool:
        """Whether somebody may be in the background: it is known how loud the person is."""
        patient = self.config.barge_in == "patient" and self.config.replies
        return patient and self.leveled and self.known >= 40 and not self.believed

    def insist(self) -> None:
        """Somebody begins: in the background, unless that happens again and again."""
        run, before = self.runs[-1], self.runs[-2] if len(self.runs) > 1 else None
        run.far = run.above == FAR and self.wary
        if before is None:
            return
        silence = (run.start - before.end + 1) * WINDOW
        goes_on = before.shaded and silence <= SETTLE_WINDOWS * WINDOW
        run.shaded = run.above != FAR and (goes_on or (before.above == FAR and silence <= WAITED))
        run.disturbed = run.disturbed or run.shaded
        if before.above != FAR:
            self.again = 0
            return
        self.again = 0 if silence > FORGOTTEN else self.again + (silence > WAITED)
        if before.disturbed:  # nobody knows what was heard of them
            self.believed, run.far, run.disturbed = True, False, True
        if self.again >= INSISTS:
            self.believed, run.far = True, False

    def meddle(self, windows: int) -> None:
        """What a client may do at a bad moment: while somebody has spoken for so many windows."""
        dice = self.rng.random()
        if self.voice_only:
            return
        if windows < ONSET_WINDOWS and dice < 0.1:
            self.plan = self.plan[: self.judged] + [True] * (CONFIRM_WINDOWS - windows) + [False] * 8
            self.give(ev.Respond(self.config.turn_options(), "e"))
        elif ONSET_WINDOWS < windows < CONFIRM_WINDOWS and dice < 0.3:
            self.old_leads = (self.config.lead_ms,)
            self.config = replace(self.config, lead_ms=self.rng.choice((None, 40, 300)))
            self.give(ev.Configure(self.config))
            self.old_leads = ()

    def busy(self) -> bool:
        owed = self.acks and any(j.sent > j.acked and not j.flushed for j in self.replies())
        return self.live is not None or self.player.waiting > 0 or self.fading() or owed

    def replies(self) -> list[Job]:
        """The turns of the conversation."""
        return [job for job in self.jobs.values() if not job.beside]

    def is_open(self, turn: int) -> bool:
        return turn == self.live or turn in self.asides

    def fading(self) -> bool:
        """The controller may not yet be sure that the last audio was heard."""
        return self.t < self.quiet_from + WAY_S + 0.001

    def compute(self) -> None:
        """The engine says something of a turn; rarely of one that is long over."""
        if self.work_on_guesses() or self.memory.work(self.give):
            return
        choices = [job for job in self.jobs.values() if job.plan]
        stale = self.rng.random() < 0.1
        chosen = [job for job in choices if self.is_open(job.turn) is not stale]
        if not chosen or not self.up:
            return
        job = self.rng.choice(chosen)
        event = job.plan.pop(0)
        if self.is_open(job.turn):
            self.note_made(job, event)
            if job.ended:
                job.plan = [event] if self.rng.random() < 0.2 else []
        self.give(event)
        if isinstance(event, ev.TurnStarted):
            for n in range(job.turn % 3):
                self.give(ev.ThoughtOut(job.turn, f"thought{n} "))

    def work_on_guesses(self) -> bool:
        """The engine says something of a reply on a guess, or of one that it was to give up."""
        if self.cancelling and self.doubt.random() < 0.5:
            self.let_go(self.cancelling.pop())
            return True
        worked = False
        while self.up and self.doubt.random() < 0.8 and self.work_on_guess():
            worked = True
        return worked

    def work_on_guess(self) -> bool:
        """The engine says the next of what it has of a reply on a guess."""
        if self.hunch is None or not self.hunch.job.plan:
            return False
        job = self.hunch.job
        event = job.plan.pop(0)
        self.note_made(job, event)
        if isinstance(event, ev.TurnStarted):
            self.hunch.dropped = event.dropped
        self.give(event)
        return True

    def let_go(self, turn: int) -> None:
        """The engine has stopped at a guess."""
        said = ev.Usage(output_text=self.doubt.randint(0, 9))
        made = self.give(ev.TurnEnded(turn, "cancelled", said, (), 0.25))
        over = [a for a in made if isinstance(a, notices.GuessOver) and a.turn == turn]
        assert [a.work for a in over] == [250_000], "what a guess has cost is not told"

    def is_said(self, hunch: Hunch) -> bool:
        """Whether what it answers is over, and in the conversation."""
        return bool(self.utterances) and self.utterances[-1] == hunch.heard

    def player_moves(self) -> None:
        if not self.acks:
            return
        if self.rng.random() < 0.3 and not self.liar:
            self.player.paused = not self.player.paused
        for turn in list(self.player.played)[-2:]:
            self.acknowledge(turn)

    def acknowledge(self, turn: int) -> None:
        self.jobs[turn].acked = 10**9 if self.liar else int(self.player.played[turn] + 0.5)
        self.give(ev.Played(turn, self.jobs[turn].acked))

    def rare(self) -> None:
        dice = self.rng.random()
        if dice < 0.4:
            self.up = not self.up
            if not self.up:
                self.memory.engine_down()
            self.give(ev.EngineUp() if self.up else ev.EngineDown(1.0))
            if not self.up:
                ids = {item.id for item in self.controller.history}
                assert not self.asked & ids, "words that will never come"
                self.asked.clear()
                for job in self.jobs.values():
                    job.plan = []
                self.cancelling.clear()
                assert self.hunch is None, "a guess outlives the engine"
                assert not self.unsettled, "of a guess that died with the engine nothing was told"
        elif dice < 0.6:
            self.disturbing = True
            self.pass_time(5.0, punctual=self.rng.random() < 0.5)  # longer than an utterance waits for news
            self.disturbing = False
            assert self.speaking is None or self.config.turn_detection is None, "an utterance without end"
            self.disturb()
        else:
            users = [item.id for item in self.controller.history if isinstance(item, UserItem)]
            self.listener_writes(self.rng.choice([*sorted(self.asked), *users, "nobody"]))

    def listener_writes(self, item_id: str) -> None:
        end: ev.Event = ev.Transcript(item_id, "words")
        if self.rng.random() < 0.2:
            end = ev.TranscriptFailed(item_id, "kv_full", "No room.")
        self.give(ev.TranscriptDelta(item_id, "words"))
        made = self.give(end)
        item = self.controller.history.find(item_id)
        told = [a for a in made if isinstance(a, notices.InputTranscript | notices.InputTranscriptFailed)]
        assert len(told) == isinstance(item, UserItem), "words of an item are told once"
        self.asked.discard(item_id)
        if isinstance(item, UserItem) and not self.config.replies:
            assert not audio_of(item), "audio that nobody needs is kept"

    def disturb(self) -> None:
        self.blind_until = self.mic
        done = self.utterances[-1][1] if self.utterances else 0
        for run in self.runs:
            if run.end * WINDOW > done or run.end == self.judged:
                run.disturbed = True
        self.left_open = self.left_open or self.speaking is not None
        self.speaking = None

    def request(self) -> None:
        rng = self.rng
        ids = [item.id for item in self.controller.history] + ["nobody"]
        match rng.randrange(13):
            case 0:
                self.disturb_with(ev.Commit("e"))
            case 1:
                self.disturb_with(ev.Clear())
            case 2 | 3 | 4:
                options = replace(
                    self.config.turn_options(),
                    modalities=rng.choice(("audio", "audio", "text")),
                    interruptible=rng.random() < 0.8,
                    conversation=rng.random() < 0.8,
                    input=rng.choice((None, None, (opt.ItemReference(rng.choice(ids)),))),
                )
                for _ in range(1 if options.conversation else rng.choice((1, 1, MAX_ASIDES + 1))):
                    self.give(ev.Respond(options, "e"))
            case 5:
                self.give(ev.Cancel(rng.choice((None, self.live, 10**6, *self.asides)), "e"))
            case 6:
                self.give(ev.ItemTruncate(rng.choice(ids), rng.choice((0, 500, 10**6))))
            case 7:
                self.give(ev.ItemDelete(rng.choice(ids)))
            case 8:
                self.give(ev.ItemRetrieve(rng.choice(ids)))
            case 9:
                item = UserItem(rng.choice(("", "", rng.choice(ids))), (TextContent("hello"),))
                place = rng.choice((None, None, "root", rng.choice(ids)))
                if place is not None and self.live is not None:
                    self.jobs[self.live].jostled = True
                self.give(ev.ItemCreate(item, place))
            case 10:
                self.give(ev.OutputClear())
            case 11:
                self.give(ev.RespondSoon())
                if rng.random() < 0.5:
                    self.give(ev.Respond(opt.TurnOptions(input=(opt.ItemReference("nobody"),)), "e"))
            case _:
                self.configure()

    def heard_how(self) -> Dictation:
        """What the client knows of the speech to come."""
        return Dictation(self.tongue.choice(("", "en", "de")), scores=self.tongue.random() < 0.3)

    def configure(self) -> None:
        vad = self.config.turn_detection
        flip = self.rng.random()
        new = (
            None
            if flip < 0.3
            else replace(vad or opt.ServerVad(), silence_duration_ms=self.rng.choice((200, 500)))
        )
        self.old_leads = (self.config.lead_ms,)
        lead_ms = self.rng.choice((None, 40, 300))
        self.config = replace(self.config, turn_detection=new, lead_ms=lead_ms, dictation=self.heard_how())
        self.disturb_with(ev.Configure(self.config))
        self.old_leads = ()

    def disturb_with(self, event: ev.Event) -> None:
        self.disturbing = True  # a voice that the client ends or clears is none to wait for
        made = self.give(event)
        self.disturbing = False
        if not any(isinstance(action, notices.Error) for action in made):
            self.disturb()

    def come_to_rest(self) -> None:
        """The line falls silent, the engine finishes, the player plays: everything must end by itself."""
        self.player.paused = False
        if self.line_busy:
            self.line_busy = False
            self.give(ev.LineBusy(False))
        if not self.up:
            self.up = True
            self.give(ev.EngineUp())
        calm = 0
        for _ in range(400):
            calm = calm + 1 if self.at_rest() else 0
            if calm > 8:
                break
            self.plan = self.plan[: self.judged] + [False] * 100
            self.speak(WINDOW)
            self.judge(20)
            self.pass_time(0.5 if self.errands.on else 0.05)
            self.errands.rest(self, self.give)
            for _ in range(3):
                self.rest_engine()
            while self.cancelling:
                self.let_go(self.cancelling.pop())
            if self.acks:
                for turn in list(self.player.played)[-8:]:
                    self.acknowledge(turn)
        self.pass_time(120.0)
        for turn in list(self.player.played) if self.acks else ():
            self.acknowledge(turn)
        assert self.live is None, "a turn never ended"
        for job in self.replies():
            assert job.told or not job.sent, "nobody is told how much was heard"
        assert not self.asides, "a turn beside the conversation never ended"
        assert self.hunch is None, "a guess was never released"
        assert not self.unsettled, "it was never told what came of a guess"
        assert not self.tried, "the engine keeps audio of a guess for ever"
        assert self.errands.resting, "a result never came in"
        assert self.controller.mouth.name == "IDLE", "the mouth did not come to rest"
        assert self.controller.ear.name == "QUIET", "the ear did not come to rest"
        assert self.controller.next_deadline() is None, "something still waits"

    def at_rest(self) -> bool:
        """Nobody has anything left to do; longer than the longest silence that ends an utterance cannot matter."""
        busy = self.live is not None or self.asides or self.fastest.waiting or self.player.waiting
        idle = self.controller.mouth.name == "IDLE" and self.controller.ear.name == "QUIET"
        return idle and not busy and self.errands.resting and (self.judged + 1) * WINDOW > self.mic

    def rest_engine(self) -> None:
        for turn in (self.live, *self.asides):
            job = self.jobs.get(turn) if turn is not None else None
            if job is None:
                continue
            if not job.plan and not job.ended:
                job.plan = [ev.TurnEnded(job.turn, "stop", ev.Usage(), ())]
            self.work(job)

    def work(self, job: Job) -> None:
        """The engine says all that it has of a turn, while that is open."""
        while job.plan and self.is_open(job.turn):
            event = job.plan.pop(0)
            self.note_made(job, event)
            self.give(event)
            if isinstance(event, ev.TurnStarted) and job.reads and job.turn == self.live:
                self.left |= set(event.dropped) & self.items

    def note_made(self, job: Job, event: ev.TurnEvent) -> None:
        if job.ended:
            return  # an engine that goes on behind its end is not listened to
        match event:
            case ev.TextOut(_, text):
                job.text += text
            case ev.AudioOut(_, _, pcm, ids):
                job.made += len(pcm)
                job.ids += ids
            case ev.TurnEnded() | ev.TurnFailed():
                job.ended = True

    def end_call(self) -> None:
        event = self.rng.choice((ev.Detached(), ev.Hangup("bye")))
        running = {turn for turn in (self.live, *self.asides) if turn is not None}
        at_work = {turn for turn in running if not self.jobs[turn].ended}
        if self.hunch is not None and not self.hunch.job.ended:
            at_work.add(self.hunch.job.turn)
        at_work |= {self.memory.draft} - {None}
        self.answer_due = False  # nobody is left to hear it
        self.errands.out, self.errands.owed = {}, False
        made = self.give(event)
        assert any(isinstance(a, act.Close) for a in made) == isinstance(event, ev.Hangup)
        assert self.weighed is None or isinstance(event, ev.Detached)
        assert {a.turn for a in made if isinstance(a, act.CancelTurn)} == at_work, "the engine works on"
        closed = [a.turn for a in made if isinstance(a, notices.TurnClosed)]
        assert sorted(closed) == (sorted(running) if isinstance(event, ev.Hangup) else [])
        assert self.controller.handle(ev.Commit(), self.t) == []
        assert self.controller.handle_timeout(self.t + 9) == []
        assert self.controller.next_deadline() is None

    # --- the oracles ----------------------------------------------------------------------------------------------

    def check(self, made: list[act.Action], event: ev.Event | None) -> None:
        talk = isinstance(event, ev.Respond) and event.options.conversation
        refused = talk and self.live is not None
        crowded = isinstance(event, ev.Respond) and not talk and len(self.asides) == MAX_ASIDES
        idle_cancel = isinstance(event, ev.Cancel) and event.turn not in self.asides
        idle_cancel = idle_cancel and (self.live is None or event.turn == 10**6)
        self.answer_due = self.answer_due or isinstance(event, ev.RespondSoon)
        codes = [action.code for action in made if isinstance(action, notices.Error)]
        self.confirming = any(isinstance(action, act.ConfirmTurn) for action in made)
        quiet = not self.player.waiting and not self.fastest.waiting
        assert refused == ("conversation_already_has_active_response" in codes)
        assert crowded == ("too_many_active_responses" in codes)
        assert idle_cancel == ("response_cancel_not_active" in codes)
        for number, action in enumerate(made):
            self.seen.add(type(action).__name__)
            self.check_action(action, made[number + 1 :], event)
        for action in made if quiet and not self.line_busy else ():
            if isinstance(action, act.ConfirmTurn):
                job = self.jobs[action.turn]
                assert job.sent or not job.made, "a guess is held on"
                over = self.live != action.turn
                assert not job.ended or job.sent < job.made or over, "a reply without end"
        pair = (self.controller.ear, self.controller.mouth)
        assert (pair[1].name == "HELD") == (
            self.weighed is not None
        ) or self.controller.next_deadline() is None
        if pair[0].name == "QUIET":
            self.weighed_from = None
        if pair[1].name == "IDLE":
            for job in self.replies():
                job.over = job.over or job.turn != self.live
        if pair != self.last_pair:
            assert pair in (REACHABLE_BY_VOICE if self.voice_only else REACHABLE), (
                f"{pair} is not in the table"
            )
            self.states.add(pair)
            self.last_pair = pair
        if self.fastest.waiting:
            self.quiet_from = self.t + self.fastest.waiting / 24_000
        deadline = self.controller.next_deadline()
        if deadline is not None and event is None:
            burst = self.config.lead_ms is None and any(isinstance(a, act.SendAudio) for a in made)
            assert deadline > self.t or burst, "a deadline that has passed"
        if self.controller.history is not self.last_history:
            self.last_history = self.controller.history
            ids = [item.id for item in self.last_history]
            assert len(ids) == len(set(ids)), "two items of one id"
            assert self.aside_items.isdisjoint(ids), "what was said beside the conversation is in it"
        if self.answer_due and self.live is None and self.controller.ear.name == "QUIET":
            raise AssertionError("an utterance was not answered")
        self.errands.check(self)

    def check_action(self, action: act.Action, rest: list[act.Action], event: ev.Event | None) -> None:
        self.errands.on_action(action, self)
        match action:
            case act.SendAudio():
                self.on_sound(action)
            case notices.TurnOpened():
                self.on_opened(action, rest)
            case notices.TurnClosed():
                self.on_closed(action, event)
            case act.Flush(turn):
                job = self.jobs[turn]
                assert not job.beside, "what is not our voice cannot be silenced"
                assert not job.flushed, "flushed twice"
                job.flushed = True
                self.player.flush(turn)
                self.fastest.flush(turn)
            case act.CancelTurn(turn) if self.hunch is not None and turn == self.hunch.job.turn:
                assert not self.hunch.job.ended
                self.hunch = None
                self.cancelling.add(turn)
            case act.StartTurn(guess=True):
                self.on_guess(action)
            case act.StartTurn() if action.options.sums_up:
                assert self.up
                self.memory.on_summing(action, self.controller.history, self.left)
            case notices.Condensed():
                self.memory.on_condensed(action, self.controller.history, self.left)
            case act.StartTurn(turn):
                assert turn in self.asides or self.hunch is None, "the engine is kept by a guess"
            case act.ConfirmTurn(turn):
                assert self.is_open(turn)
                assert self.hunch is None
            case notices.GuessOver(turn, outcome):
                assert (outcome == "right") == (turn in self.jobs)
                self.unsettled.remove(turn)
                if self.hunch is not None and self.hunch.job.turn == turn:  # the engine has let go of it
                    assert self.hunch.job.ended or not self.up
                    self.hunch = None
                self.cancelling.discard(turn)
            case act.CancelTurn(turn) if turn == self.memory.draft:
                pass
            case act.CancelTurn(turn):
                assert self.is_open(turn)
                self.jobs[turn].cancelled = True
            case notices.TurnTool(turn, item_id):
                assert self.is_open(turn)
                self.jobs[turn].calls.append(item_id)
                self.aside_items.update([item_id] if self.jobs[turn].beside else [])
            case notices.TurnThought(turn):
                assert self.is_open(turn)
                assert not self.jobs[turn].text, "a thought behind the words"
            case notices.TurnText(turn, item_id):
                assert self.is_open(turn)
                assert "thought" not in action.delta
                assert item_id == self.jobs[turn].item_id
            case notices.ItemTruncated(item_id):
                self.on_truncated(item_id, event)
            case act.EncodePiece(piece):
                assert piece.id not in self.encoded - self.memory.forgotten, "a piece twice"
                assert 0 < len(piece.audio) <= 400_000
                assert not piece.audio.flags.writeable
                self.encoded.add(piece.id)
            case act.ForgetPieces(pieces):
                assert self.encoded.issuperset(pieces), (
                    "a piece that the engine has not got is to be forgotten"
                )
                self.tried.difference_update(pieces)
                self.encoded.difference_update({self.asked_with}.intersection(pieces))
                # What was left out may be asked for by its id.
                step = any(isinstance(a, notices.Condensed) for a in rest)
                self.memory.forgotten.update(pieces if step else ())
                if not isinstance(event, ev.TurnStarted) and not self.confirming and not step:
                    self.encoded.difference_update(pieces)  # a turn that still names one is found out below
            case notices.ItemAdded(item):
                self.items.add(item.id)
            case notices.ItemDeleted(item_id):
                self.items.discard(item_id)
                self.left.discard(item_id)
                self.memory.on_gone(item_id)
            case act.Prepare(items):
                assert self.live is None, "a turn is under way"
                assert self.hunch is None, "a turn is under way"
                pieces = [
                    p.id
                    for i in items
                    for part in getattr(i, "content", ())
                    for p in getattr(part, "pieces", ())
                ]
                assert self.encoded.issuperset(pieces), "a piece is to be read that the engine has not got"
            case act.Transcribe(item_id, pieces, more, how):
                assert self.up, "words are asked of an engine that is away"
                told = "#" not in item_id  # the condenser's own are told to nobody
                known = replace(self.config.dictation, scores=self.config.dictation.scores and told)
                assert how == known or not pieces, "not as the session says"
                assert {piece.id for piece in pieces} <= self.encoded
                if "#" in item_id:
                    self.memory.asked[item_id] = action
                if not more and self.controller.history.find(item_id) is not None:
                    self.asked.add(item_id)
            case notices.InputTranscriptFailed(item_id):
                self.asked.discard(item_id)
            case notices.TurnHeard():
                self.on_heard(action, event)
            case notices.Interruption():
                self.on_weighed(action, rest, event)
            case notices.SpeechStarted(item_id, start):
                assert self.speaking is None, "speech started twice"
                run = self.runs[-1]
                first = self.weighed_from if self.weighed_from is not None else run
                assert run.disturbed or first.end - first.start >= ONSET_WINDOWS, (
                    "a click is taken for a voice"
                )
                assert run.disturbed or self.believed or not run.far, (
                    "a voice in the background is taken for the caller's"
                )
                self.speaking, self.weighed_from = (item_id, start), None
            case act.JudgeEnd(at, piece):
                vad = self.config.turn_detection
                assert self.up, "an engine that is away is asked"
                assert vad is not None
                assert vad.eagerness is not None, "plain silence asks nobody"
                assert piece.id in self.encoded
                assert at > (self.question or 0), "asked twice of one pause"
                assert at == self.runs[-1].end * WINDOW
                assert self.judged * WINDOW - at >= FIRST_SIGN, "asked before there was a sign"
                self.question, self.asked_with = at, None if piece.id in self.tried else piece.id
            case notices.SpeechStopped(item_id):
                self.stopped, self.left_open = action, False
                assert self.speaking is None or self.speaking[0] == item_id
                assert isinstance(rest[0], notices.Committed)
            case notices.Committed(item_id):
                self.on_committed(item_id, rest, event)
            case notices.BufferCleared():
                self.left_open = False
            case _:
                pass

    def on_opened(self, action: notices.TurnOpened, rest: list[act.Action]) -> None:
        options = action.options
        assert action.turn not in self.jobs
        starts = [a for a in rest if isinstance(a, act.StartTurn) and a.turn == action.turn]
        if options.conversation and self.last_pair is not None and self.last_pair[1].name == "IDLE":
            self.opened_idle = self.judged
        hunch = self.hunch if act.ConfirmTurn(action.turn) in rest else None
        assert bool(starts) == (self.up and hunch is None)
        for start in starts:
            assert start.turn == action.turn
            self.check_unfinished(start)
            self.check_read(start.items, options)
        if hunch is not None:
            self.hunch, job = None, hunch.job
            self.check_guess(hunch, options)
            assert action.previous_item_id == hunch.items[-1].id
        else:
            job = self.new_job(action.turn, options, starts)
        self.jobs[action.turn] = job
        job.item_id, job.previous = action.item_id, action.previous_item_id
        if options.conversation:
            assert self.live is None, "two turns of the conversation at once"
            self.live = action.turn
            assert self.opened_at
            self.answer_due = False
            assert self.hunch is None, "a turn and a guess at once"
        else:
            assert action.previous_item_id is None
            self.asides.add(action.turn)
            self.aside_items.add(action.item_id)
            assert len(self.asides) <= MAX_ASIDES

    def new_job(self, turn: int, options: opt.TurnOptions, starts: list[act.StartTurn]) -> Job:
        return Job(
            turn,
            self.imagine(turn, options, starts),
            options.modalities == "audio",
            options.interruptible,
            options.protected_ms * 24,
            options.conversation,
            options.conversation and options.input is None,
            options.speed,
        )

    def check_read(self, items: tuple[Any, ...], options: opt.TurnOptions) -> None:
        """The model sees all that it has to, and the engine has all sound of it."""
        pieces = [p for i in items if isinstance(i, UserItem) for p in audio_of(i)]
        assert {piece.id for piece in pieces} <= self.encoded, "a piece that the engine was not told of"
        if options.input is None:
            named = {item.id for item in items}
            assert not named & self.left, "what was left out is read again"
            summed = self.memory.check_read(items, self.controller.history)
            assert self.items - self.left - summed <= named, "an item of the conversation is not read"

    def on_guess(self, start: act.StartTurn) -> None:
        """A reply is begun in a silence that may be the end; nobody is waiting for the engine."""
        assert self.config.speculation
        assert self.up
        assert self.live is None, "a guess in the middle of a turn"
        assert self.hunch is None, "two guesses at once"
        said = start.items[-1]
        assert isinstance(said, UserItem)
        assert self.speaking is None or said.id == self.speaking[0], "a guess about nothing"
        assert start.options == self.config.turn_options()
        run = self.runs[-1]
        silence = 3 << self.guessed[said.id]
        assert run.disturbed or self.judged - run.end >= silence, "a guess in the middle of a word"
        pieces = audio_of(said)
        assert {piece.id for piece in pieces} <= self.encoded
        heard = np.concatenate([piece.audio for piece in pieces])
        begin, end = int(heard[0]), int(heard[0]) + len(heard)
        assert np.array_equal(heard, np.arange(begin, end, dtype=np.float32)), "input lost or moved"
        assert end >= run.end * WINDOW or run.disturbed, "a guess that has not heard all"
        self.guessed[said.id] += 1
        assert self.guessed[said.id] <= 3, "one guess after the other"
        self.unsettled.add(start.turn)
        self.tried.add(pieces[-1].id)
        self.hunch = Hunch(self.new_job(start.turn, start.options, [start]), start.items, (begin, end))

    def check_guess(self, hunch: Hunch, options: opt.TurnOptions) -> None:
        """What was answered is what was said, and all that there is to be read; and all of it was held."""
        self.check_read(hunch.items, options)
        assert self.is_said(hunch), "another utterance was answered than was heard"
        ids = [item.id for item in self.controller.history]
        own = {item.id for item in hunch.items if not isinstance(item, SystemItem)}
        assert own <= set(ids), "what is not in the conversation was read"
        self.left |= self.memory.left_out(hunch.dropped, self.controller.history) & self.items

    def check_unfinished(self, start: act.StartTurn) -> None:
        """Of a reply in the making, who reads along sees what the client was told."""
        live = None if self.live is None else self.jobs[self.live]
        for item in start.items:
            if live is not None and item.id == live.item_id:
                assert isinstance(item, AssistantItem)
                assert (item.text, item.audio_ids) == (live.text, live.ids)

    def imagine(self, turn: int, options: opt.TurnOptions, starts: list[act.StartTurn]) -> list[ev.TurnEvent]:
        """The script of a turn: numbered samples, words of one token each; sometimes there is no room for all."""
        rng = self.rng
        items = starts[0].items[:-1] if starts and self.room.random() < 0.3 else ()
        dropped = tuple(item.id for item in items[: self.room.randint(0, len(items))])
        plan: list[ev.TurnEvent] = [ev.TurnStarted(turn, dropped=dropped, room=self.memory.room)]
        at = said = 0
        for seq in range(rng.choice((0, 1, 3, 8))):
            plan.append(ev.TextOut(turn, f" word{seq}", (seq,)))
            if options.modalities == "audio":
                tokens = rng.choice((1, 5, 25))
                said += tokens
                size = lasting(said, options.speed) - at
                plan.append(ev.AudioOut(turn, seq, numbered(turn, at, size), (seq,) * tokens))
                at += size
        if rng.random() < 0.15:
            plan.append(ev.ToolCalled(turn, f"call{turn}", "f", "{}"))
        plan = self.errands.planned(turn, options, plan)
        if rng.random() < 0.1:
            plan.insert(rng.randrange(len(plan) + 1), ev.TurnFailed(turn, "broken", "it broke"))
            return plan
        reason = "stop" if rng.random() < 0.9 else rng.choice(("max_tokens", "cancelled"))
        return [*plan, ev.TurnEnded(turn, reason, ev.Usage(), (1, 2))]

    def on_sound(self, action: act.SendAudio) -> None:
        job = self.jobs[action.turn]
        assert self.is_open(action.turn), "audio of a turn that is not open"
        if job.beside:
            self.take_sound(job, action)
            assert job.sent == job.made, "audio beside the conversation is sent as it is made"
            return
        assert not job.flushed, "audio after the flush"
        assert not job.cancelled
        assert not self.line_busy, "audio for a line that is busy"
        assert self.weighed is None, "audio while a voice is weighed"
        vad, run = self.config.turn_detection, self.runs[-1] if self.runs else Run(0, 0)
        over = vad is not None and vad.interrupt_response and not self.shielded()
        over = over and not run.disturbed and not self.disturbing and not run.far
        if over and run.end == self.judged and self.opened_at[action.turn] <= run.start:
            assert run.end - run.start <= ONSET_WINDOWS, "we speak on over a voice"
        size = self.take_sound(job, action)
        self.player.receive(action.turn, size, self.t)
        self.fastest.receive(action.turn, size, self.t)
        self.player.advance(self.t)
        self.fastest.advance(self.t)
        leads = [lead for lead in (self.config.lead_ms, *self.old_leads) if lead is not None]
        if len(leads) == 1 + len(self.old_leads):
            lead = max(*leads, 2 * TOKEN // 24) * 24
            assert self.fastest.waiting <= lead + 2, "more is ahead than the lead allows"

    def take_sound(self, job: Job, action: act.SendAudio) -> int:
        """Account for samples that were sent; returns how many."""
        size = len(action.pcm)
        assert size > 0
        assert job.sent + size <= job.made, "audio that nobody made"
        assert np.array_equal(action.pcm, numbered(action.turn, job.sent, size)), (
            "samples lost, doubled or moved"
        )
        job.sent += size
        return size

    def on_closed(self, action: notices.TurnClosed, event: ev.Event | None) -> None:
        job = self.jobs[action.turn]
        assert self.is_open(action.turn), "closed twice, or never opened"
        if job.beside:
            self.asides.remove(action.turn)
            self.check_aside_closed(job, action)
            return
        self.live = None
        if action.status in ("completed", "incomplete"):
            assert job.ended, "closed before the engine was done"
            assert job.sent == job.made, "closed with audio unsent"
            assert action.item is None or action.item.text == job.text
            if action.item is not None:
                self.check_sound(job, action.item)
        self.check_place(job, action.item)
        if action.reason == "turn_detected":
            run = self.runs[-1]
            assert job.interruptible
            if isinstance(event, ev.EndJudged):
                assert event.text.startswith("Wait"), "what is no interruption has interrupted"
                assert event.at == run.end * WINDOW, "words of before interrupt us"
            else:
                assert run.end == self.judged
                assert self.weight >= self.bounds[0], "what is no interruption has interrupted"
                assert isinstance(event, ev.SpeechProb)
        if action.status == "cancelled":
            assert job.flushed == (job.sent > 0), "what the player holds is not dropped"
            assert job.cancelled or job.ended, "the engine works on"
            self.check_heard(job, action.item)

    def check_aside_closed(self, job: Job, action: notices.TurnClosed) -> None:
        """All that was made was told and is in the end; nobody's voice has to do with it."""
        assert action.reason != "turn_detected"
        assert job.ended or job.cancelled or not self.up or action.status == "failed"
        assert (action.status in ("completed", "incomplete")) <= job.ended
        assert (action.status == "cancelled") == job.cancelled
        assert job.sent == job.made
        told = (action.item.text, action.item.samples) if action.item is not None else ("", 0)
        assert told == (job.text, job.made)

    def check_place(self, job: Job, item: AssistantItem | None) -> None:
        """What a turn made stands right behind what it answers."""
        ids = [given.id for given in self.controller.history]
        made = ([] if item is None or item.id not in ids else [item.id]) + job.calls
        if job.jostled:
            pass
        elif job.previous is None:
            assert ids[: len(made)] == made
        elif job.previous in ids and (item is None or item.id in ids):
            at = ids.index(job.previous) + 1
            assert ids[at : at + len(made)] == made, "a reply in the wrong place"
        assert set(job.calls) <= set(ids), "a tool call was lost"

    def check_heard(self, job: Job, item: AssistantItem | None) -> None:
        """Never ahead of the player; and not far behind what it must have played."""
        if item is None or not item.spoken:
            return
        played = self.player.played.get(job.turn, 0.0)
        assert item.samples <= played + 2, "more was kept than heard"
        assert job.ids[: len(item.audio_ids)] == item.audio_ids
        assert job.text.startswith(item.text)
        self.check_sound(job, item)
        assert len(item.text_ids) == item.text.count("word"), "text and ids do not end together"
        if not self.acks:
            least = self.fastest.played.get(job.turn, 0.0) - WAY_S * 24_000 - lasting(1, job.speed) - 2
            assert item.samples >= least, "much less was kept than heard"
        if item.samples < job.made:
            assert item.raw_ids is None
            assert lasting(len(item.audio_ids), job.speed) == item.samples
            assert len(item.text) * job.made <= len(job.text) * (item.samples + lasting(1, job.speed))

    def check_sound(self, job: Job, item: AssistantItem) -> None:
        """The sound that is kept is the one that was heard, to the sample."""
        kept = np.concatenate([np.zeros(0, np.int16), *item.audio])
        heard = numbered(job.turn, 0, item.samples if job.in_history else 0)
        assert np.array_equal(kept, heard), "another sound than was heard"

    def on_heard(self, action: notices.TurnHeard, event: ev.Event | None) -> None:
        """What is told of a reply is what its item holds, and not more than was played."""
        job = self.jobs[action.turn]
        assert action.item_id == job.item_id
        assert job.told <= isinstance(event, ev.ItemTruncate | ev.Played), "told twice"
        job.told = True
        assert (action.generated_ms, action.sent_ms) == (job.made // 24, job.sent // 24)
        played = self.fastest if isinstance(event, ev.ItemTruncate) else self.player
        way = WAY_S * 24_000 if self.liar or isinstance(event, ev.ItemTruncate) else 24
        most = min(played.played.get(job.turn, 0.0) + way, job.sent) / 24 + 0.1
        early = self.acks and not action.acknowledged  # one that has not said yet that it will say so
        assert early or action.heard_ms <= most, "more than was heard"
        assert action.acknowledged <= self.acks
        assert action.words == job.text.count("word")
        item = self.controller.history.find(job.item_id)
        if isinstance(item, AssistantItem):
            assert action.heard_words == item.text.count("word")
            assert item.samples <= action.heard_ms * 24 + 24

    def on_truncated(self, item_id: str, event: ev.Event | None) -> None:
        item = self.controller.history.find(item_id)
        job = next((j for j in self.jobs.values() if j.item_id == item_id), None)
        if job is None or not isinstance(item, AssistantItem) or not item.spoken:
            return
        if isinstance(event, ev.ItemTruncate | ev.Played):  # the client's word, within what time allows
            most = self.fastest.played.get(job.turn, 0.0) + WAY_S * 24_000 + 2
            assert item.samples <= (
                most
                if self.liar or isinstance(event, ev.ItemTruncate)
                else self.player.played.get(job.turn, 0.0) + 2
            )
        else:
            self.check_heard(job, item)

    def on_committed(self, item_id: str, rest: list[act.Action], event: ev.Event | None) -> None:
        added = next(a for a in rest if isinstance(a, notices.ItemAdded))
        assert added.item.id == item_id
        assert isinstance(added.item, UserItem)
        pieces = audio_of(added.item)
        assert {piece.id for piece in pieces} <= self.encoded
        self.tried -= {piece.id for piece in pieces}
        longest = 400_000 if self.config.replies else 160_000
        assert all(0.8 * longest < len(piece.audio) <= longest for piece in pieces[:-1])
        samples = np.concatenate([piece.audio for piece in pieces])
        start, size = int(samples[0]), len(samples)
        assert np.array_equal(samples, np.arange(start, start + size, dtype=np.float32)), (
            "input lost or moved"
        )
        assert start >= (self.utterances[-1][1] if self.utterances else 0), "a sample in two utterances"
        if self.speaking is not None:
            assert self.speaking == (item_id, start * 1000 // 16_000), "announced otherwise than committed"
        vad = self.config.turn_detection
        stopped, self.stopped = self.stopped, None
        if event is None and self.runs:
            self.runs[-1].disturbed = True  # over for want of news: what comes of the voice later is another
        if isinstance(event, ev.SpeechProb) and vad is not None:
            silence = (self.judged - self.runs[-1].end) * WINDOW
            least, most = self.patience(vad, stopped)
            assert silence >= least, "ended in the middle of a sentence"
            assert silence < most + WINDOW or self.runs[-1].disturbed, "ended too late"
        self.utterances.append((start, start + size))
        self.speaking = None
        wanted = self.config.transcribe
        answers = [
            a
            for a in rest
            if isinstance(a, act.Transcribe | notices.InputTranscriptFailed) and a.item_id == item_id
        ]
        assert len(answers) == wanted, "the words of an utterance are asked for once, or given up"
        assert self.up or not any(isinstance(a, act.Transcribe) for a in answers)
        answered = vad is not None and vad.create_response and self.config.replies
        if not isinstance(event, ev.Commit) and answered:
            self.answer_due = True

    def patience(self, vad: opt.ServerVad, stopped: notices.SpeechStopped | None) -> tuple[int, int]:
        """Samples of silence that the turn which is over should have had: at least, and not a window more than."""
        plain = vad.silence_duration_ms
        reason = None if stopped is None else stopped.reason
        if vad.eagerness is None:
            assert reason in (None, "silence")
            return plain * 16, plain * 16
        complete, spelled, longest = EAGER[vad.eagerness]
        slow = PACE[1]
        if self.verdict is None:
            assert reason in (None, "silence", "longest_wait")
            return min(plain, longest) * 16, int(min(plain * slow, longest) * 16)
        text, likely = self.verdict
        low, high = longest, longest  # the voice may speak against words that are complete, not for others
        if likely in (0.5, 1.0) and "um" not in text:
            low = complete
        if "seven two" in text:
            low = max(low, spelled)
            assert reason in (None, "spelled", "longest_wait")
        elif reason == "complete":
            assert likely == 1.0
            high = complete
        # it cannot end before the verdict has come, nor because of it if it had waited longer than that by then
        told = (self.told_at - self.runs[-1].end) * WINDOW + WINDOW
        return int(min(low * PACE[0], longest) * 16), max(int(min(high * slow, longest) * 16), told)

    def on_weighed(
        self, action: notices.Interruption, rest: list[act.Action], event: ev.Event | None
    ) -> None:
        """Every voice that is weighed is one or none, once."""
        if action.status == "pending":
            assert self.weighed is None, "two voices are weighed at once"
            assert isinstance(event, ev.SpeechProb)
            assert action.reason is None
            self.weighed, self.weighed_from = action, self.runs[-1]
            self.weight, self.began = self.runs[-1].end - self.runs[-1].start, self.runs[-1].start
            self.bounds = self.weighing()
            return
        assert self.weighed is not None, "what was never weighed"
        assert (action.turn, action.heard_ms) == (self.weighed.turn, self.weighed.heard_ms)
        assert action.reason is not None
        self.weighed = None
        if action.status == "dismissed" and action.reason not in ("reply_over", "request"):
            self.weighed_from = None
        for run in self.runs:
            gone = action.reason != "reply_over" or self.controller.ear.name == "TRAILING"
            run.excused = run.excused or (run.end > self.began and action.status == "dismissed" and gone)
        judged = isinstance(event, ev.SpeechProb) and action.status == "dismissed" and not self.runs[-1].far
        if judged and not any(run.disturbed for run in self.runs[-4:]) and self.began < self.opened_idle:
            assert self.speaking is not None, "who was there before us is not told of"
        if action.status == "confirmed":
            assert any(isinstance(a, act.Flush | notices.TurnClosed) for a in rest), (
                "an interruption of nothing"
            )
            for job in self.replies():
                played = self.fastest.played.get(job.turn, 0.0)
                if not job.flushed and (job.turn == self.live or played < job.sent - 2):
                    assert job.interruptible, "what nobody may interrupt was"
                    assert not job.sent or played >= job.protected - 2, "what is protected was cut"
        elif isinstance(event, ev.SpeechProb) and action.reason != "reply_over":
            assert self.weight <= self.bounds[1], "an interruption was dismissed"
            if self.runs[-1].far or (self.runs[-1].above == FAR and self.runs[-1].disturbed):
                return
            silence, voice = self.judged - self.runs[-1].end, self.runs[-1].end - self.began
            least = SETTLE_WINDOWS if self.bounds[0] > CONFIRM_WINDOWS and voice < 40 else 1
            assert silence >= (least if self.verdict is None else min(least, ENDED_WINDOWS))

    def weighing(self) -> tuple[int, int]:
        """From how many windows on the voice that is weighed may be, and must be, an interruption."""
        run, lead = self.runs[-1], self.config.lead_ms
        if run.far:
            return PATIENT[10.0] if self.believed else 10**6, 10**6  # it counts from where it is believed
        if run.disturbed or self.left_open or any(at > run.start for at in self.opened_at.values()):
            return CONFIRM_WINDOWS, 10**6  # it counts from later on, or is in an utterance
        if self.config.barge_in == "quick" or lead is None or lead > 500 or self.speaking is not None:
            doubted = run.above == -11.0 and self.config.barge_in == "patient"
            return CONFIRM_WINDOWS, LONGEST_PATIENCE if doubted else CONFIRM_WINDOWS
        if self.live is not None and not self.jobs[self.live].sent:
            return CONFIRM_WINDOWS, LONGEST_PATIENCE  # perhaps there is nothing to be heard of us
        if not self.leveled:
            return PATIENT[0.0], PATIENT[-8.0]
        if self.known < 20 or self.believed or run.above == FAR:
            return PATIENT[10.0], LONGEST_PATIENCE
        return PATIENT[run.above], max(PATIENT[run.above], PATIENT[-8.0])

    def shielded(self) -> bool:
        """Whether something may sound that no voice may stop."""
        return any(
            (job.turn == self.live or job.sent) and not (job.flushed or job.over)
            and (not job.interruptible or job.protected)
            for job in self.replies()
        )  # fmt: skip

    def check_interrupted(self, open_before: int | None) -> None:
        vad, run = self.config.turn_detection, self.runs[-1]
        if vad is None or not vad.interrupt_response or run.disturbed or self.live != open_before or run.far:
            return
        sounding = [job for job in self.replies() if job.sent and not job.flushed]
        last = self.jobs[self.live] if self.live is not None else sounding[-1] if sounding else None
        if last is None or (self.live is None and not self.fastest.waiting):
            return
        if not self.shielded() and self.opened_at.get(last.turn, self.judged) <= run.start:
            if self.weighed is None:
                assert run.end - run.start <= ONSET_WINDOWS, "a voice over ours was not noticed"
            else:
                assert self.weight <= self.bounds[1], "a voice over ours was ignored"
                surely = self.bounds[0] == PATIENT.get(run.above) and self.leveled and self.known >= 20
                surely = surely and not self.believed
                if surely and run.doubtful * 4 <= run.end - run.start:
                    assert run.end - run.start <= self.bounds[0], "a voice over ours was believed late"

    @property
    def opened_at(self) -> dict[int, int]:
        """Window at which each turn was opened, as far as it matters."""
        known = self.__dict__.setdefault("_opened_at", {})
        if self.live is not None:
            known.setdefault(self.live, self.judged)
        return known

    def check_runs(self) -> None:
        """Every voice that was not dismissed is in an utterance, whole."""
        for run in self.runs:
            length = run.end - run.start
            if run.disturbed or run.excused or length < ONSET_WINDOWS:
                continue
            inside = [u for u in self.utterances if u[0] <= run.start * WINDOW and run.end * WINDOW <= u[1]]
            assert len(inside) == 1, f"a voice was lost: windows {run.start}..{run.end}"


def audio_of(item: UserItem) -> list[Any]:
    return [piece for part in item.content if isinstance(part, AudioContent) for piece in part.pieces]


def lasting(tokens: int, speed: float) -> int:
    """Samples of so many speech tokens."""
    return math.ceil(Fraction(tokens * TOKEN) / Fraction(speed))


def numbered(turn: int, start: int, count: int) -> np.ndarray:
    """Samples that say which turn they belong to and where."""
    return ((np.arange(start, start + count) + 4_099 * turn) % 32_749).astype(np.int16)
