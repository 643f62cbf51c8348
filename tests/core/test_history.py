from dataclasses import replace

import numpy as np
import pytest

from voiceagent.core.history import (
    ROOT,
    AssistantItem,
    History,
    SystemItem,
    TextContent,
    UserItem,
    cut_to_heard,
)

TOKEN = 960


def user(item_id: str) -> UserItem:
    return UserItem(item_id, (TextContent("hi"),))


def spoken(text: str, tokens: int, *, marks: bool = True, complete: bool = True) -> AssistantItem:
    words = text.split(" ")
    ends = [len(" ".join(words[: n + 1])) for n in range(len(words))]
    return AssistantItem(
        "a",
        text,
        text_ids=tuple(range(len(words))) if marks else (),
        audio_ids=tuple(range(tokens)),
        raw_ids=(1, 2, 3),
        spoken=True,
        samples=tokens * TOKEN,
        complete=complete,
        marks=tuple((end, n + 1) for n, end in enumerate(ends)) if marks else (),
    )


def test_operations_return_new_histories() -> None:
    empty = History()
    one = empty.append(user("b"))
    assert len(empty) == 0
    assert [
        i.id for i in one.insert_after(ROOT, user("a")).append(user("d")).insert_after("b", user("c"))
    ] == [*"abcd"]
    assert one.last_id == "b"
    assert empty.last_id is None
    two = one.append(user("c"))
    assert two.previous_id("c") == "b"
    assert two.previous_id("b") is None
    assert two.delete("b").items == (user("c"),)
    assert two.replace(SystemItem("b", "s")).find("b") == SystemItem("b", "s")
    assert two.find("z") is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda h: h.append(user("a")),
        lambda h: h.insert_after("z", user("b")),
        lambda h: h.insert_after(ROOT, user("a")),
        lambda h: h.delete("z"),
        lambda h: h.replace(user("z")),
        lambda h: h.previous_id("z"),
        lambda h: h.heard_cut("a", 0),
    ],
)
def test_what_is_not_there_cannot_be_used(spoil) -> None:
    with pytest.raises(KeyError):
        spoil(History((user("a"),)))


def test_a_cut_ends_at_whole_tokens_and_whole_words() -> None:
    item = cut_to_heard(spoken("one two three four", 18), 9 * TOKEN + 959)
    assert item.audio_ids == tuple(range(9))
    assert item.samples == 9 * TOKEN
    assert item.text == "one two"
    assert item.text_ids == (0, 1)
    assert item.marks == ((3, 1), (7, 2))
    assert item.raw_ids is None
    assert not item.complete


def test_without_ids_the_text_is_cut_between_words() -> None:
    assert cut_to_heard(spoken("one two three", 13, marks=False), 6 * TOKEN).text == "one"
    assert cut_to_heard(spoken("一二三四", 4, marks=False), 2 * TOKEN).text == "一二"
    assert cut_to_heard(spoken("unbreakable", 11, marks=False), 6 * TOKEN).text == ""


def test_heard_whole_or_written_is_left_alone() -> None:
    whole = spoken("one two", 7)
    assert cut_to_heard(whole, 7 * TOKEN) is whole
    written = AssistantItem("a", "read it")
    assert cut_to_heard(written, 0) is written


def test_nothing_heard_leaves_nothing() -> None:
    item = cut_to_heard(spoken("one two", 7), -5)
    assert (item.text, item.text_ids, item.audio_ids, item.samples) == ("", (), (), 0)


def test_text_that_ran_ahead_of_its_audio_is_measured_on_the_length_it_would_have() -> None:
    item = spoken("one two three four", 4, complete=False)
    cut = cut_to_heard(item, 4 * TOKEN, length=18 * TOKEN)
    assert cut.text == "one"
    assert len(cut.audio_ids) == 4
    assert cut_to_heard(cut, 4 * TOKEN) is cut


def test_every_cut_is_within_what_was_heard() -> None:
    item = spoken("the quick brown fox jumps over the lazy dog", 40)
    last = 0
    for samples in np.arange(0, 41 * TOKEN, 317):
        cut = cut_to_heard(item, int(samples))
        assert cut.samples <= samples
        assert len(cut.text) * item.samples <= len(item.text) * samples
        assert item.text.startswith(cut.text)
        assert len(cut.text) >= last
        last = len(cut.text)
    assert History((item,)).heard_cut("a", TOKEN).find("a") == cut_to_heard(item, TOKEN)


@pytest.mark.parametrize(("speed", "token"), [(0.5, 1920), (1.5, 640), (0.7, 1372)])
def test_of_stretched_speech_the_tokens_are_as_long_as_they_sounded(speed: float, token: int) -> None:
    item = replace(
        spoken("one two three four", 40), samples=-(-40 * TOKEN * 10 // round(speed * 10)), speed=speed
    )
    for tokens in (1, 10, 20, 39):
        ends = -(-tokens * TOKEN * 10 // round(speed * 10))
        assert abs(ends - tokens * token) <= tokens
        assert len(cut_to_heard(item, ends).audio_ids) == tokens
        assert len(cut_to_heard(item, ends - 1).audio_ids) == tokens - 1
        assert cut_to_heard(item, ends).samples == ends
        assert cut_to_heard(item, ends).text == "one two three four"[: [0, 3, 7, 13, 18][tokens // 10]]
    assert cut_to_heard(item, item.samples) is item
