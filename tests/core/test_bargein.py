"""Barge-in in two stages: what holds us, what interrupts us, and what is passed over; by length, level and surety."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from test_controller import TOKEN, VAD, Call, kinds, only, speaking

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.history import AssistantItem
from voiceagent.core.tables import Ear, Mouth

PACED = replace(VAD, lead_ms=200)
USUAL = -30.0


def heard(call: Call, levels: Sequence[float], *, p: float = 0.9) -> list[act.Action]:
    """A window of each level, in time: a voice, or with a low `p` silence."""
    made = []
    for level in levels:
        samples = np.arange(call.mic, call.mic + 512, dtype=np.float32)
        made += call.do(ev.AudioIn(call.mic, samples), after=0.032)
        call.mic += 512
        made += call.wait(0.0)
        made += call.do(ev.SpeechProb(call.mic, p, level))
    return made


def quiet(call: Call, windows: int) -> list[act.Action]:
    return heard(call, [-70.0] * windows, p=0.02)


def telling(
    config: opt.SessionConfig = PACED, *, question: Sequence[float] = (USUAL,) * 40, **options: object
) -> Call:
    """A call in the midst of a long reply, after a question that was asked as this person usually speaks."""
    call = Call(config)
    heard(call, question)
    asked = config.turn_detection is not None and config.turn_detection.eagerness is not None
    quiet(call, 40 if asked else 17)
    turn = 1
    if options:
        call.do(ev.Cancel())
        call.do(ev.Respond(replace(config.turn_options(), **options)))  # type: ignore[arg-type]
        turn = 2
    for seq in range(10):
        call.say(turn, 25, text=f" word{seq}", seq=seq)
    call.wait(1.0)
    return call


def sent(made: Sequence[act.Action]) -> int:
    return sum(len(action.pcm) for action in made if isinstance(action, act.SendAudio))


def test_the_paced_output_stops_with_the_very_window_that_tells_of_a_voice() -> None:
    call = telling()
    assert sent(heard(call, [USUAL] * 2)) > 0
    assert sent(heard(call, [USUAL])) <= 2 * TOKEN  # what was due before the window came
    assert call.controller.mouth is Mouth.HELD
    assert sent(heard(call, [USUAL] * 10)) == 0
    (pending,) = call.weighed
    assert (pending.status, pending.reason, pending.voice_ms) == ("pending", None, 96)
    assert pending.heard_ms > 800


def needed(levels: Sequence[float], config: opt.SessionConfig = PACED, *, p: float = 0.9) -> tuple[int, str]:
    """After how many windows of a voice over ours, and why, it is an interruption."""
    call = telling(config)
    for number, level in enumerate(levels, start=1):
        if "SpeechStarted" in kinds(heard(call, [level], p=p)):
            assert call.weighed[-1].status == "confirmed"
            return number, str(call.weighed[-1].reason)
    return 0, ""


def test_an_ordinary_voice_interrupts_once_it_is_longer_than_a_word_of_assent() -> None:
    assert needed([USUAL] * 50) == (19, "length")


def test_a_raised_voice_takes_less() -> None:
    assert needed([USUAL + 8.0] * 50) == (10, "loud")
    assert needed([USUAL + 1.0] * 8 + [USUAL + 5.0] * 42) == (12, "loud")  # it rises above what is usual


def test_a_word_of_one_syllable_is_not_raised_for_being_louder_than_speech_on_average() -> None:
    call = telling(question=([USUAL + 5.0] * 5 + [USUAL - 10.0] * 5) * 4)
    assert "SpeechStarted" not in kinds(heard(call, [USUAL + 5.0] * 14))  # 7.5 dB above the mean
    quiet(call, 10)
    assert "SpeechStarted" in kinds(heard(call, [USUAL + 12.0] * 10))


@pytest.mark.parametrize("levels", [[USUAL - 8.0] * 50, [USUAL + 2.0 - n * 0.8 for n in range(50)]])
def test_a_soft_or_falling_voice_takes_longer(levels: Sequence[float]) -> None:
    assert needed(levels) == (22, "length")


def test_what_is_hardly_speech_takes_longer() -> None:
    assert needed([USUAL] * 50, p=0.55) == (22, "length")


def test_what_may_be_somebody_in_the_background_takes_longest() -> None:
    assert needed([USUAL - 11.0] * 50) == (32, "length")
    assert needed([USUAL - 16.0] * 140) == (0, "")


@pytest.mark.parametrize(
    "config",
    [VAD, replace(VAD, lead_ms=1000), replace(PACED, barge_in="quick")],
    ids=["unpaced", "far", "quick"],
)
def test_where_holding_back_silences_nobody_it_is_quick(config: opt.SessionConfig) -> None:
    assert needed([USUAL - 9.0] * 50, config) == (7, "length")


def test_where_nothing_is_to_be_heard_of_us_it_is_quick() -> None:
    call = Call(PACED)
    heard(call, [USUAL] * 40)
    quiet(call, 17)
    assert "SpeechStarted" in kinds(heard(call, [USUAL] * 7))


@pytest.mark.parametrize(
    ("voice", "reason"),
    [
        ([[USUAL - 2.0] * 15], "backchannel"),  # "yeah", 480 ms
        ([[USUAL - 7.0] * 9, [USUAL - 7.0] * 11], "backchannel"),  # "mm-hm", 640 ms
        (
            [[USUAL - 1.0, *[USUAL + 1.0 - n for n in range(20)]]],
            "backchannel",
        ),  # "okay", which falls, 670 ms
        ([[USUAL + 15.0] * 4], "noise"),  # a cough
        ([[USUAL - 14.0] * 25], "faint"),  # the rest of an echo
    ],
)
def test_what_is_no_interruption_does_not_end_the_reply(voice: list[list[float]], reason: str) -> None:
    call, alone = telling(), telling()
    before = call.items
    made: list[act.Action] = []
    for run in voice:
        made += heard(call, run)
        made += quiet(call, 4)
    assert call.weighed[-1].status == "pending"
    made += quiet(call, 2)
    assert [(w.status, w.reason) for w in call.weighed] == [("pending", None), ("dismissed", reason)]
    assert call.weighed[-1].voice_ms == sum(map(len, voice)) * 32
    made += quiet(call, 350)
    expected = alone.wait(15.0)
    sound = np.concatenate([a.pcm for a in made if isinstance(a, act.SendAudio)])
    assert np.array_equal(sound, np.concatenate([a.pcm for a in expected if isinstance(a, act.SendAudio)]))
    assert {"CancelTurn", "Flush", "StartTurn", "SpeechStarted", "Committed"}.isdisjoint(kinds(made))
    assert call.items == before
    assert call.controller.ear is Ear.QUIET


def test_two_words_of_assent_with_a_pause_between_them_do_not_add_up() -> None:
    call = telling()
    for _ in range(5):
        heard(call, [USUAL] * 12)
        quiet(call, 7)
    assert [w.reason for w in call.weighed if w.status != "pending"] == ["backchannel"] * 5


def test_what_is_said_without_such_a_pause_does() -> None:
    call = telling()
    heard(call, [USUAL] * 9)
    quiet(call, 3)
    made = heard(call, [USUAL] * 16)
    assert (
        only(made, notices.SpeechStarted).audio_start_ms == 40 * 32 + 300
    )  # all that came after the question
    assert call.weighed[-1].status == "confirmed"


def test_key_clicks_do_not_hold_us_for_ever() -> None:
    call = telling()
    heard(call, [USUAL] * 3)
    for _ in range(20):
        quiet(call, 4)
        heard(call, [USUAL])
        if len(call.weighed) > 1:
            break
    assert call.weighed[1].reason in ("noise", "backchannel")
    assert (call.mic - 57 * 512) / 16_000 < 1.7 + 0.2


def test_after_a_confirmed_one_nothing_of_the_reply_is_sent_and_the_rest_is_answered() -> None:
    call = telling()
    made = heard(call, [USUAL] * 19)
    assert kinds(made)[-5:] == ["SpeechStarted", "CancelTurn", "Flush", "TurnClosed", "ItemTruncated"]
    item = call.controller.history.find(only(made, notices.ItemTruncated).item_id)
    assert isinstance(item, AssistantItem)
    assert item.samples <= (1.0 + 3 * 0.032 + 0.2) * 24_000  # not more than what was sent before we held back
    assert "StartTurn" in kinds(quiet(call, 17))


def test_of_a_reply_that_ends_meanwhile_there_is_nothing_to_interrupt() -> None:
    call = telling()
    call.do(ev.TurnEnded(1, "stop", ev.Usage(), (1,)))
    call.wait(8.8)
    heard(call, [USUAL] * 3)
    assert call.weighed[-1].status == "pending"
    made = heard(call, [USUAL] * 12)
    assert call.weighed[-1].reason == "reply_over"
    assert "SpeechStarted" in kinds(made)
    assert "Flush" not in kinds(made)


def test_the_first_of_a_reply_may_be_protected() -> None:
    call = telling(protected_ms=2000)
    made = heard(call, [USUAL] * 31)  # 992 ms: 2 s are not heard before 100 ms later
    assert "SpeechStarted" in kinds(made)
    assert call.weighed == []
    assert sent(made) > 0
    made = heard(call, [USUAL] * 5)
    assert only(made, notices.TurnClosed).reason == "turn_detected"
    item = only(made, notices.TurnClosed).item
    assert 1.9 * 24_000 < item.samples < 2.2 * 24_000


def test_a_reply_that_is_still_playing_may_forbid_to_interrupt() -> None:
    call = telling(interruptible=False)
    call.do(ev.TurnEnded(2, "stop", ev.Usage(), (1,)))
    call.wait(8.8)  # it is sent, and has a little to play
    call.do(ev.Respond(VAD.turn_options()))
    made = heard(call, [USUAL] * 4)
    assert call.weighed == []
    assert "SpeechStarted" in kinds(made)


def test_without_interrupt_response_nothing_is_weighed() -> None:
    call = telling(replace(PACED, turn_detection=opt.ServerVad(interrupt_response=False)))
    made = heard(call, [USUAL] * 40)
    assert call.weighed == []
    assert sent(made) > 0
    assert "SpeechStarted" in kinds(made)


def test_whose_input_ceases_is_not_waited_for() -> None:
    call = telling()
    heard(call, [USUAL] * 5)
    made = call.wait(4.5)
    assert call.weighed[-1].reason == "no_news"
    assert sent(made) > 0


@pytest.mark.parametrize("event", [ev.OutputClear(), ev.Cancel(), ev.Clear(), ev.Commit()])
def test_a_client_may_end_the_weighing(event: ev.Event) -> None:
    call = telling()
    heard(call, [USUAL] * 5)
    call.do(event)
    assert [(w.status, w.reason) for w in call.weighed] == [("pending", None), ("dismissed", "request")]


def test_levels_that_are_not_known_do_not_matter() -> None:
    call = speaking(PACED)
    call.hear(18, 0.9)
    assert call.weighed[-1].status == "pending"
    assert "SpeechStarted" in kinds(call.hear(1, 0.9))


SEMANTIC = replace(PACED, turn_detection=opt.ServerVad(eagerness="medium"))


def word(call: Call, text: str, *, silence: int = 3) -> list[act.Action]:
    """A word over ours, too short to be an interruption, and what the engine makes of it."""
    heard(call, [USUAL] * 10)
    made = quiet(call, silence)
    asked = only(made, act.JudgeEnd)
    return call.do(ev.EndJudged(asked.at, text, 0.9))


def test_a_short_word_that_is_meant_interrupts() -> None:
    call = telling(SEMANTIC)
    made = word(call, "Stop!")
    assert [(w.status, w.reason) for w in call.weighed] == [("pending", None), ("confirmed", "words")]
    assert kinds(made)[:4] == ["SpeechStarted", "CancelTurn", "Flush", "TurnClosed"]
    assert "Committed" in kinds(quiet(call, 40))


def test_any_other_word_does_not() -> None:
    call = telling(SEMANTIC)
    assert word(call, "Right.") == []
    quiet(call, 6)
    assert call.weighed[-1].reason == "backchannel"


def test_words_that_come_too_late_change_nothing() -> None:
    call = telling(SEMANTIC)
    heard(call, [USUAL] * 10)
    made = quiet(call, 6)
    assert call.weighed[-1].status == "dismissed"
    assert only(made, act.ForgetPieces).pieces == (only(made, act.JudgeEnd).piece.id,)
    assert call.do(ev.EndJudged(only(made, act.JudgeEnd).at, "Stop!", 0.9)) == []


def test_words_of_a_voice_that_has_gone_on_change_nothing() -> None:
    call = telling(SEMANTIC)
    heard(call, [USUAL] * 5)
    at = only(quiet(call, 3), act.JudgeEnd).at
    heard(call, [USUAL] * 2)
    assert call.do(ev.EndJudged(at, "Stop!", 0.9)) == []


def test_plain_silence_asks_for_no_words() -> None:
    call = telling()
    heard(call, [USUAL] * 10)
    assert "JudgeEnd" not in kinds(quiet(call, 3))
