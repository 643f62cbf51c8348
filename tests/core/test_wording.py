import pytest

from voiceagent.core.wording import Tail, asks_to_stop, tail


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("", Tail.PLAIN),
        ("?!", Tail.PLAIN),
        ("what time is it", Tail.PLAIN),
        ("A table for eight on Friday at ten.", Tail.PLAIN),
        ("I will have the eight", Tail.PLAIN),
        ("room 7", Tail.PLAIN),
        ("so did I", Tail.PLAIN),
        ("my number is 555", Tail.SPELLED),
        ("it is seven two one", Tail.SPELLED),
        ("double seven, oh", Tail.SPELLED),
        ("W, O, L, F", Tail.SPELLED),
        ("我的电话是一三八", Tail.SPELLED),
        ("१ २ ३", Tail.SPELLED),
        ("nick underscore", Tail.SPELLED),
        ("nick@", Tail.SPELLED),
        ("nick at example dot", Tail.HANGING),
        ("well um", Tail.HANGING),
        ("the cake and", Tail.HANGING),
        ("I would like,", Tail.HANGING),
        ("I would like —", Tail.HANGING),
        ("so...", Tail.HANGING),
        ("我想要，", Tail.HANGING),
        ("my number is", Tail.LEANING),
        ("nick at", Tail.LEANING),
    ],
)
def test_the_end_of_what_was_said(text: str, end: Tail) -> None:
    assert tail(text) is end


@pytest.mark.parametrize("text", ["Stop.", "no, no", "Wait a minute", "hold on", "等一下", "不是"])
def test_some_words_ask_for_silence(text: str) -> None:
    assert asks_to_stop(text)


@pytest.mark.parametrize("text", ["", "mm-hm", "okay", "yes", "right, I know", "嗯", "know", "...", "oh no"])
def test_others_do_not(text: str) -> None:
    assert not asks_to_stop(text)
