"""What is told of the pocket checkpoint's replies beside words and sound: word times, latency, the sound once more.

Word times are held against where an independent aligner hears the words.
"""

from __future__ import annotations

import base64
from statistics import median

import numpy as np
from openai_caller import RATE, Caller, Event, calling, questions

from scripts.pocket.recogniser import word_starts
from voiceagent.audio.resample import resample
from voiceagent.core.captions import Word

ASKED = questions()


def heard(caller: Caller, response: Event) -> list[float]:
    """Seconds at which the words of a response begin in its sound."""
    samples = resample((caller.samples(response) / 32768).astype(np.float32), source=RATE, target=16_000)
    return [at for _, at in word_starts((samples * 32767).astype(np.int16), caller.text[response.id])]


def told(caller: Caller, response: Event) -> list[float]:
    """`start_time` of each delta of a response that begins a word."""
    name = "response.output_audio_transcript.delta"
    deltas = [e for e in caller.log if e.type == name and e.response_id == response.id]
    times = [e.start_time for e in deltas]
    assert times == sorted(times)
    starts = [e.start_time for n, e in enumerate(deltas) if n == 0 or e.delta.startswith(" ")]
    assert all(isinstance(at, float) for at in starts)
    return starts


def settled(caller: Caller, response: Event) -> list[Word]:
    """The words of a finished response with their final times."""
    (event,) = [
        e
        for e in caller.log
        if e.type == "response.output_audio_transcript.words" and e.response_id == response.id
    ]
    return [Word(w["word"], w["start_time"], w["end_time"]) for w in event.words]


async def test_words_are_said_where_the_server_says_so(pocket_server: str) -> None:
    early: list[float] = []
    late: list[float] = []
    async with calling(pocket_server) as caller:
        await caller.configure(temperature=0.0)
        for name in ("hours", "book", "count"):
            response = await caller.ask(ASKED[name])
            truth, words = heard(caller, response), settled(caller, response)
            assert [word.text for word in words] == caller.text[response.id].split()
            length = len(caller.samples(response)) / RATE
            assert all(0 <= word.start < word.end <= length for word in words)
            early += [abs(a - b) for a, b in zip(told(caller, response), truth, strict=True)]
            late += [abs(word.start - b) for word, b in zip(words, truth, strict=True)]
    assert median(early) < 0.25
    assert median(late) < 0.15


async def test_a_reply_tells_its_latency_and_is_retrieved_as_it_was_sent(pocket_server: str) -> None:
    async with calling(pocket_server) as caller:
        await caller.configure(temperature=0.0)
        response = await caller.ask(ASKED["price"])
        (latency,) = [e for e in caller.log if e.type == "response.latency"]
        assert latency.response_id == response.id
        assert latency.cause == "request"
        assert sum(latency.parts.values()) == latency.total_ms
        assert all(latency.parts[name] > 0 for name in ("prefill", "speech"))
        await caller.connection.conversation.item.retrieve(item_id=latency.item_id)
        (part,) = (await caller.until("conversation.item.retrieved")).item.content
        assert part.transcript == caller.text[response.id]
        assert base64.b64decode(part.audio) == caller.samples(response).astype("<i2").tobytes()
