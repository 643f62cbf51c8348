"""Planted bugs: each replaces a line of the core by a wrong one; the walk must find it.

The list is the measure of the oracles in world.py. `python tests/core/mutants.py` tries them all.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    name: str
    module: str
    right: str
    wrong: str


MUTANTS = (
    Mutant("coughs add up", "ear", "return self._endpoint.run_start", "return self.buffer.start"),
    Mutant(
        "prefix eats the onset",
        "ear",
        "self.buffer.drop(self.run_start -",
        "self.buffer.drop(self.run_start + 512 -",
    ),
    Mutant(
        "the tail cuts the last word",
        "ear",
        "until = self.buffer.end if whole else self._natural_end",
        "until = self.buffer.end if whole else self._endpoint.speech_end - 512",
    ),
    Mutant(
        "a full piece is dropped",
        "ear",
        "self._pieces.append(piece)\n        self._taken",
        "self._pieces[:] = [piece]\n        self._taken",
    ),
    Mutant(
        "pieces survive the utterance",
        "ear",
        "tuple(self._pieces), [], 0",
        "tuple(self._pieces), self._pieces, 0",
    ),
    Mutant("forgetting keeps the pieces' audio", "ear", "self._endpoint.reset(end)", "pass"),
    Mutant("one window makes a voice", "endpoint", "self._inside or self._run >= ONSET_WINDOWS", "True"),
    Mutant(
        "no hysteresis",
        "endpoint",
        "if p >= self._off_at:\n            self.speech_end",
        "if p >= self._on_at:\n            self.speech_end",
    ),
    Mutant("what was left out comes back", "conversation", "self._left |= ", "_ = "),
    Mutant("late windows count", "endpoint", "if at <= self.judged:", "if False:"),
    Mutant(
        "silence is counted from the beginning",
        "endpoint",
        "at - self.speech_end >= self.patience.wait",
        "at - self.run_start >= self.patience.wait",
    ),
    Mutant("a voice forgets no verdict", "endpoint", "self.patience.paused()", "pass"),
    Mutant(
        "a verdict on something else counts", "endpoint", "self.silence and at == self.speech_end", "True"
    ),
    Mutant(
        "nobody is asked",
        "questions",
        "act.EncodePiece(piece), act.JudgeEnd(ear.speech_end, piece)]",
        "act.EncodePiece(piece)]",
    ),
    Mutant("asked again and again", "questions", "self._asked == ear.speech_end", "False"),
    Mutant("what was asked about is kept", "questions", "return self._forget()", "return []"),
    Mutant("numbers are like all words", "patience", "spelled = end is Tail.SPELLED", "spelled = False"),
    Mutant("who hesitates has finished", "patience", "CAPS.get(end, KNOWN + SPELLED)", "KNOWN + SPELLED"),
    Mutant(
        "nonsense is a verdict", "patience", "if complete >= 0.0 else 1e-3", "if complete >= 0.0 else 0.999"
    ),
    Mutant(
        "the plain silence is shorter for a fast talker",
        "patience",
        "wait *= max(self.pace.factor, 1.0)",
        "wait *= self.pace.factor",
    ),
    Mutant(
        "the clock is not started anew after running dry",
        "playout",
        "if self.ahead(now) == 0:",
        "if self.sent == 0:",
    ),
    Mutant(
        "acknowledgements are taken as they come",
        "playout",
        "return min(self._acknowledged, self.clock(now))",
        "return self._acknowledged",
    ),
    Mutant("no way to the ear", "playout", "return self.clock(now - WAY_S)", "return self.clock(now)"),
    Mutant(
        "an acknowledgement lets the clock run",
        "playout",
        "return min(self._acknowledged, self.clock(now))",
        "return self.clock(now)",
    ),
    Mutant(
        "flush is not noticed by the clock",
        "playout",
        "self._acknowledged = self.sent\n        self._start(now)",
        "pass",
    ),
    Mutant(
        "the history forgets a cut",
        "replies",
        "self._talk.history = self._talk.history.replace(item)",
        "pass",
    ),
    Mutant("tool calls are lost", "conversation", "for call in calls:", "for call in calls[:0]:"),
    Mutant(
        "a reply goes to the end",
        "conversation",
        "return previous_id if known else",
        "return self.history.last_id or ROOT if known else",
    ),
    Mutant(
        "the lead is ignored", "mouth", "most = None if self._lead is None else", "most = None if True else"
    ),
    Mutant("held audio is sent", "mouth", "if turn is None or self.held or", "if turn is None or"),
    Mutant("a busy line gets audio", "mouth", "self.held or self.busy:", "self.held:"),
    Mutant(
        "closing drops the tail",
        "mouth",
        "turn.closed = True",
        "turn.closed = True\n        self._playing = []",
    ),
    Mutant("closed with audio unsent", "mouth", "and not self.live.pending", ""),
    Mutant(
        "heard of the turn before counts",
        "mouth",
        "self._playout.heard(now) - turn.base",
        "self._playout.heard(now)",
    ),
    Mutant("a deadline too early", "mouth", "self._playout.time_when_ahead(self._lead - needed)", "now"),
    Mutant(
        "samples are doubled at a cut",
        "turn",
        "self.pending[0] = head[fits:]",
        "self.pending.appendleft(head[fits - 1 :])",
    ),
    Mutant(
        "samples are lost at a cut",
        "turn",
        "self.pending[0] = head[fits:]",
        "self.pending[0] = head[fits + 1 :]",
    ),
    Mutant("text is not cut", "turn", "return cut_to_heard(item, samples)", "return item"),
    Mutant("no flush", "replies", "made += [act.Flush(turn.id) for turn, _, _ in cut]", "pass"),
    Mutant("the engine is not told", "replies", "made.append(act.CancelTurn(live.id))", "pass"),
    Mutant(
        "late engine events count",
        "replies",
        "live is None or event.turn != live.id or live.ended is not None",
        "live is None",
    ),
    Mutant(
        "new pieces are not announced", "controller", "made = _encode(fresh)", "made: list[act.Action] = []"
    ),
    Mutant(
        "an answer is forgotten",
        "controller",
        "if self._due and",
        "if self._due and self.mouth is Mouth.IDLE and False and",
    ),
    Mutant(
        "what was heard of fast speech is counted as if it were slow",
        "history",
        "unhurried(max(samples, 0), item.speed)",
        "max(samples, 0)",
    ),
    Mutant("the item forgets how fast it was spoken", "turn", "speed=self.options.speed,", ""),
    Mutant(
        "the held turn is never released",
        "interruptions",
        "mouth.held = True",
        "mouth.held = True\n        self._replies.let_go = lambda now: []",
    ),
    Mutant(
        "the engine's end leaves words awaited",
        "transcripts",
        "pending, self._pending = self._pending, {}",
        "pending = dict[str, int]()",
    ),
    Mutant(
        "what is known of the speech is forgotten",
        "controller",
        "self._config, self._transcripts.how = config, config.dictation",
        "self._config = config",
    ),
    Mutant("who only listens keeps all audio", "transcripts", "if self.keep_audio else", "if self.talk else"),
    Mutant(
        "a long speech is asked for twice",
        "controller",
        "return made + self._transcripts.finish(fresh)",
        "made += self._transcripts.finish(fresh)",
    ),
    Mutant("interruptions are never confirmed", "bargein", "voice.run >= QUICK", "voice.run >= QUICK * 2"),
    Mutant("interruptions are confirmed at once", "bargein", "voice.run >= QUICK", "voice.run >= 0"),
    Mutant(
        "the cough is kept",
        "controller",
        "            self._ear.forget(everything=False)\n        return self._let_go(reason)",
        "            pass\n        return self._let_go(reason)",
    ),
    Mutant("patience is as long as a word of assent", "bargein", "else ORDINARY", "else QUICK"),
    Mutant("patience without end", "bargein", "else ORDINARY", "else 4 * FAINT"),
    Mutant(
        "only an unbroken voice counts",
        "bargein",
        "voice.before + voice.run\n",
        "0\n",
    ),
    Mutant("a short gap ends the voice", "bargein", "waits = voice.patient and", "waits = False and"),
    Mutant("a voice that is over is waited for", "bargein", "at - voice.last < SETTLE and", ""),
    Mutant("nobody is in the background", "bystanders", "self.far, self._presumed = True, False", "pass"),
    Mutant("who insists is passed over", "bystanders", "if self._again >= INSISTS:", "if False:"),
    Mutant("who speaks on is passed over", "bystanders", "self._length >= LONG", "False"),
    Mutant(
        "once in the background, always", "bystanders", "not self._presumed and silence <= WAITED", "True"
    ),
    Mutant("a doubt is none", "bystanders", "self._length < SPAN and self._below() >= DOUBT_DB", "False"),
    Mutant("the background holds us", "controller", "if unheard and self._interruptions.far:", "if False:"),
    Mutant(
        "the background is learnt for the caller",
        "interruptions",
        "theirs = announced and not self.doubtful",
        "theirs = True",
    ),
    Mutant("whatever is said is meant", "interruptions", "theirs and asks_to_stop(event.text)", "theirs"),
    Mutant("words do not matter", "interruptions", "theirs and asks_to_stop(event.text)", "False"),
    Mutant(
        "words of before stop us",
        "interruptions",
        "self._ear.state is Ear.TRAILING and event.at == self._ear.speech_end",
        "True",
    ),
    Mutant("of a short voice nobody is asked", "controller", " or self._interruptions.pending\n", "\n"),
    Mutant("a raised voice waits like any other", "bargein", "voice.speech >= LOUD", "voice.speech >= FAINT"),
    Mutant("a raised voice is believed at once", "bargein", "voice.speech >= LOUD", "voice.speech >= 0"),
    Mutant("a soft voice is believed like any other", "bargein", "return SOFT if", "return ORDINARY if"),
    Mutant(
        "the level over ours is taken for the usual",
        "interruptions",
        "self._ear.state is Ear.SPEECH and self._replies.mouth.state is Mouth.IDLE:",
        "self._ear.state is Ear.SPEECH:",
    ),
    Mutant(
        "patience where holding back silences nobody",
        "mouth",
        "self._lead is not None and self._lead <= MOST_AHEAD",
        "True",
    ),
    Mutant("patience for who asked for none", "controller", 'self._config.barge_in == "patient" and ', ""),
    Mutant(
        "patience with who was there before us",
        "controller",
        " and not early and self._utterance_id is None",
        "",
    ),
    Mutant(
        "a verdict is forgotten",
        "controller",
        'return self._interruptions.end("dismissed", reason) + self._replies.let_go(self._now)',
        "return self._replies.let_go(self._now)",
    ),
    Mutant(
        "what was heard to its end is not told of",
        "replies",
        "return [told for turn in self.mouth.settle(now) for told in self._heard(turn, turn.sent)]",
        "self.mouth.settle(now)\n        return []",
    ),
    Mutant(
        "drift is told as if all were heard",
        "replies",
        "item = turn.heard_item(samples)\n        told",
        "item = turn.item()\n        told",
    ),
    Mutant(
        "a late acknowledgement is believed without limit",
        "replies",
        "samples = min(event.samples, most)",
        "samples = event.samples",
    ),
    Mutant("what the player passed over is waited for", "mouth", "later.base -= dropped", "later.base -= 0"),
    Mutant("what is protected is cut", "replies", "turn.options.protected_ms, rate", "0, rate"),
    Mutant(
        "only the newest reply may forbid to interrupt",
        "replies",
        "turns = mouth.audible if mouth.live is None else (*mouth.audible, mouth.live)",
        "turns = (mouth.live or mouth.audible[-1],)",
    ),
    Mutant(
        "a second reply at once",
        "controller",
        "if self._replies.mouth.live is not None:\n            message",
        "if False:\n            message",
    ),
    Mutant(
        "who began before we did is a cough",
        "controller",
        "(sure or (early and not self._interruptions.doubtful))",
        "sure",
    ),
    Mutant(
        "settings let us speak on over a voice",
        "controller",
        'return made if self._interruptions.possible(self._now) else made + self._let_go("request")',
        'return made + self._let_go("request")',
    ),
    Mutant(
        "a request that fails takes a promised answer with it",
        "controller",
        "if not any(isinstance(action, notices.Error) for action in made):",
        "if True:",
    ),
    Mutant(
        "asides are not heard of by the engine's words",
        "controller",
        "self._replies.on_engine(event, self._now) + self._asides.on_engine(event)",
        "self._replies.on_engine(event, self._now)",
    ),
    Mutant(
        "the end of the call forgets the asides",
        "controller",
        ' + self._asides.stop("hangup")',
        "",
    ),
    Mutant(
        "the engine's end forgets the asides",
        "asides",
        "for action in self._fail(turn, error)",
        "for action in self._fail(turn, error)[:0]",
    ),
    Mutant(
        "who reads along does not see the reply in the making",
        "controller",
        "replace(event.options, tools=tools), self._replies.unfinished",
        "replace(event.options, tools=tools), None",
    ),
    Mutant(
        "one aside too many",
        "asides",
        "if len(self._live) >= MAX_ASIDES:",
        "if len(self._live) > MAX_ASIDES:",
    ),
    Mutant(
        "the engine works on at a cancelled aside",
        "asides",
        "return [act.CancelTurn(turn.id), *self._close",
        "return [*self._close",
    ),
    Mutant(
        "an aside's calls get into the history",
        "asides",
        "del self._live[turn.id]",
        "del self._live[turn.id]\n        self._making._talk.close_turn(None, turn.calls, None)",
    ),
    Mutant(
        "short sounds of an aside are lost", "asides", "if not len(event.pcm):", "if len(event.pcm) < 5000:"
    ),
    Mutant(
        "an aside is closed again and again",
        "asides",
        "del self._live[turn.id]",
        "pass",
    ),
    Mutant(
        "an aside takes its place behind the last item",
        "making",
        "self._talk.history.last_id if options.conversation else None",
        "self._talk.history.last_id",
    ),
    Mutant(
        "an utterance waits for ever for news",
        "ear",
        "return None if self.state is Ear.QUIET else self._heard_at + STARVED_S",
        "return None",
    ),
    Mutant(
        "the words of a guess are told at once",
        "guess",
        "self.open.hold(event, now)\n            return []",
        "self.open.hold(event, now)\n"
        "            return [notices.TurnText(event.turn, '', event.text)] if isinstance(event, ev.TextOut) else []",
    ),
    Mutant(
        "a guess is right whatever was said or asked since",
        "guess",
        "return self.start.options == options and _read(self.start.items) == _read(items)",
        "return True",
    ),
    Mutant("every guess is as hasty as the first", "guess", "still >= PATIENCE << made", "still >= PATIENCE"),
    Mutant(
        "a guess that nobody wants works on",
        "guess",
        "return [act.CancelTurn(turn)]",
        "return list[act.Action]()",
    ),
    Mutant(
        "the cost of a guess is not told", "guess", "return [_wasted(event, outcome, tokens)]", "return []"
    ),
    Mutant(
        "what a guess heard is kept for ever",
        "guess",
        "return [*self.drop(outcome), forget]",
        "return self.drop(outcome)",
    ),
    Mutant("a guess outlives the engine", "controller", ' + self._guesses.lose("failed")', ""),
    Mutant("a guess outlives the call", "controller", ' + self._guesses.lose("hangup")', ""),
    Mutant("a guess is held through what is said next", "guess", "if self._ear.offered:", "if self.open:"),
    Mutant(
        "the beginning of what was held is lost",
        "guess",
        "for event in guess.events:",
        "for event in guess.events[3:]:",
    ),
    Mutant(
        "a guess stands in the way of a turn",
        "controller",
        'made = self._guesses.drop("changed") + self._replies.start(',
        "made = self._replies.start(",
    ),
    Mutant(
        "a guess in the middle of a turn",
        "guess",
        "free = mouth.live is None and not mouth.held and",
        "free =",
    ),
    Mutant(
        "a guess that is done is never closed",
        "guess",
        "return made + self._replies.complete()",
        "return made",
    ),
    Mutant(
        "what was offered stays when somebody speaks",
        "ear",
        "self._stirred, self._offer = at, None",
        "self._stirred = at",
    ),
    Mutant(
        "what was offered is heard twice",
        "ear",
        "self.buffer.drop(self.buffer.start + len(offer.audio))",
        "pass",
    ),
    Mutant(
        "the client's commit takes what was offered and no more",
        "ear",
        "None if whole else self._offer, None",
        "self._offer, None",
    ),
    Mutant(
        "the offer ends before the last word",
        "ear",
        "self.buffer.peek(self._natural_end))",
        "self.buffer.peek(self._natural_end - 4096))",
    ),
    Mutant(
        "what is recent is condensed", "condense", "view[_lead(view) : recent(view)]", "view[_lead(view) :]"
    ),
    Mutant("an empty summary is used", "condense", "if not text:", "if False:"),
    Mutant("a summary without an end is used", "condense", 'if reason == "max_tokens" or long:', "if False:"),
    Mutant("a summary that failed is used", "condense", 'if reason in ("failed", "cancelled"):', "if False:"),
    Mutant(
        "what was summed up is read as well",
        "conversation",
        "hidden = self._left if summary is None else self._left | summary.of",
        "hidden = self._left",
    ),
    Mutant(
        "what was deleted stays in the summary",
        "conversation",
        "self.summary = None  # it still says what was deleted",
        "pass",
    ),
    Mutant(
        "old sound is read again and again",
        "conversation",
        "self._as_text |= set(item_ids)",
        "pass",
    ),
    Mutant(
        "a result comes before its call",
        "errands",
        "self._out.values() if errand.closed]",
        "self._out.values()]",
    ),
    Mutant(
        "a result is told again and again",
        "errands",
        "                del self._out[errand.item_id]\n                made",
        "                made",
    ),
    Mutant("nobody is told of a result", "errands", "            self._owes = True\n", "            pass\n"),
    Mutant("calls have no budget", "errands", "or self._calls_of_turn >= CALLS_PER_TURN", ""),
    Mutant(
        "the budget is never given anew",
        "errands",
        "self._calls_of_turn, self._filled = 0, False",
        "self._filled = False",
    ),
    Mutant(
        "nobody is asked for approval",
        "errands",
        "errand.asked = tool.server.approval",
        "errand.asked = False",
    ),
    Mutant(
        "what was approved is not run",
        "errands",
        "            return [_run(errand)]\n        errand.output",
        "            return []\n        errand.output",
    ),
    Mutant(
        "a second answer counts",
        "errands",
        "and errand.output is None and not errand.asked",
        "and not errand.asked",
    ),
    Mutant("words for the time go on and on", "errands", "        self._filled = True\n", ""),
    Mutant(
        "words for the time come over us",
        "errands",
        "            self._quiet_since = None\n",
        "            self._quiet_since = now\n",
    ),
    Mutant(
        "late results are told over somebody",
        "controller",
        "deliver(silence=silence and not self._due,",
        "deliver(silence=True,",
    ),
    Mutant("who is to wait is told so twice", "errands", "                    errand.late = True\n", ""),
    Mutant(
        "words that nobody needs any more are said",
        "controller",
        'return self._silence("tool_returned")',
        "return []",
    ),
)


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """The wrong line takes effect inside; afterwards everything is as it was."""
    module = importlib.import_module(f"voiceagent.core.{mutant.module}")
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    assert source.count(mutant.right) == 1, (
        f"{mutant.name}: the line to replace is there {source.count(mutant.right)} times"
    )
    bad = types.ModuleType(module.__name__)
    sys.modules["mutant"] = bad  # dataclasses look their module up
    code = source.replace(mutant.right, mutant.wrong)
    exec(compile(code, mutant.name, "exec"), bad.__dict__)
    undo = []
    for name, cls in vars(module).items():
        if not isinstance(cls, type) or cls.__module__ != module.__name__:
            continue
        for member, value in vars(getattr(bad, name)).items():
            if isinstance(value, types.FunctionType | property) and not member.startswith("__"):
                undo.append((cls, member, vars(cls)[member]))
                setattr(cls, member, value)
    try:
        yield
    finally:
        del sys.modules["mutant"]
        for cls, member, value in undo:
            setattr(cls, member, value)


def found_after(mutant: Mutant, *, worlds: int) -> int | None:
    """How many events the walk needed to find it; None if it did not."""
    from world import World

    events = 0
    with planted(mutant):
        for seed in range(worlds):
            world = World(seed, voice_only=seed % 3 == 0)
            try:
                world.run(1500)
            except Exception:  # whatever breaks, it is found
                return events + world.events
            events += world.events
    return None


if __name__ == "__main__":
    import faulthandler

    faulthandler.dump_traceback_later(3000, exit=True)
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    for each in MUTANTS:
        print(f"{found_after(each, worlds=120)!s:>8}  {each.module}: {each.name}", flush=True)  # noqa: T201
