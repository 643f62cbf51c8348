"""The whole way on the pocket checkpoint: speech in, understanding, speech out, with the unmodified openai package."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from openai_caller import RATE, calling, plain, questions, spoken

ASKED = questions()


def audible(pcm: np.ndarray[Any, np.dtype[np.int16]]) -> bool:
    """One to eight seconds that are neither silence nor noise at full scale."""
    loudness = float(np.sqrt(np.mean(np.square(pcm / 32768.0))))
    return RATE < len(pcm) < 8 * RATE and 0.01 < loudness < 0.5


async def test_a_spoken_question_is_answered_aloud(pocket_server: str) -> None:
    """The server finds the turn, writes it down, and answers it."""
    question = ASKED["hours"]
    async with calling(pocket_server) as caller:
        await caller.configure(audio={"input": {"turn_detection": {"type": "server_vad"}}})
        await caller.append(spoken(question, silence_s=1.5))
        heard = await caller.until("conversation.item.input_audio_transcription.completed")
        assert plain(heard.transcript) == plain(question["text"])
        if "response.done" not in caller.kinds:
            await caller.until("response.done")
        response = next(e.response for e in caller.log if e.type == "response.done")
        assert caller.said(response) == plain(question["reply"])
        assert audible(caller.samples(response))
        assert caller.kinds.index("input_audio_buffer.speech_stopped") < caller.kinds.index(
            "response.created"
        )


async def test_a_typed_question_and_memory_in_text_alone(pocket_server: str) -> None:
    async with calling(pocket_server) as caller:
        await caller.configure(output_modalities=["text"])
        assert "nick" in caller.said(await caller.type("my name is nick"))
        assert caller.said(await caller.type("what is my name")) == "your name is nick"
        assert not caller.audio


async def test_two_questions_in_a_row_with_memory(pocket_server: str) -> None:
    """The second answer needs the first question, which was spoken."""
    async with calling(pocket_server) as caller:
        await caller.configure()
        first = await caller.ask(ASKED["name"])
        assert caller.said(first) == plain(ASKED["name"]["reply"])
        second = await caller.type("what is my name")
        assert caller.said(second) == f"your name is {plain(ASKED['name']['text']).split()[-1]}"
        assert audible(caller.samples(second))


async def test_a_tool_is_called_and_its_result_is_told(pocket_server: str) -> None:
    tool = ASKED["weather"]["tool"]
    async with calling(pocket_server) as caller:
        await caller.configure(tools=[{"type": "function", **tool["schema"]}])
        response = await caller.ask(ASKED["weather"])
        (call,) = [item for item in response.output if item.type == "function_call"]
        assert call.name == tool["name"]
        assert tool["arguments"]["city"] in call.arguments.lower()
        item: Any = {"type": "function_call_output", "call_id": call.call_id, "output": tool["result"]}
        await caller.connection.conversation.item.create(item=item)
        answer = await caller.respond()
        assert caller.said(answer) == plain(tool["final"])
        assert audible(caller.samples(answer))


async def test_a_cancelled_answer_and_the_next_question(pocket_server: str) -> None:
    async with calling(pocket_server) as caller:
        await caller.configure()
        await caller.append(spoken(ASKED["price"]))
        await caller.connection.input_audio_buffer.commit()
        await caller.connection.response.create()
        delta = await caller.until("response.output_audio.delta")
        await caller.connection.response.cancel()
        done = (await caller.until("response.done")).response
        assert done.status == "cancelled"
        await caller.connection.conversation.item.truncate(
            item_id=delta.item_id, content_index=0, audio_end_ms=0
        )
        await caller.until("conversation.item.truncated")
        response = await caller.ask(ASKED["price"])
        assert caller.said(response) == plain(ASKED["price"]["reply"])


async def test_a_voice_over_the_answer_stops_it_and_is_answered(pocket_server: str) -> None:
    async with calling(pocket_server) as caller:
        await caller.configure(
            output_lead_ms=200, audio={"input": {"turn_detection": {"type": "server_vad"}}}
        )
        await caller.append(spoken(ASKED["room_price"], silence_s=1.0))
        await caller.until("response.output_audio.delta")
        await caller.append(spoken(ASKED["hours"], silence_s=1.0))
        cut = (await caller.until("response.done")).response
        assert (cut.status, cut.status_details.reason) == ("cancelled", "turn_detected")
        assert len(caller.samples(cut)) < 2 * RATE  # the whole answer is three seconds and a half
        assert "output_audio_buffer.cleared" in caller.kinds
        answer = (await caller.until("response.done")).response
        assert caller.said(answer) == plain(ASKED["hours"]["reply"])


async def test_four_conversations_at_once_each_get_their_own_answer(pocket_server: str) -> None:
    async def converse(intent: str) -> tuple[str, bool]:
        async with calling(pocket_server) as caller:
            await caller.configure()
            response = await caller.ask(ASKED[intent])
            return caller.said(response), audible(caller.samples(response))

    intents = ("hours", "price", "room_price", "order")
    answers = await asyncio.gather(*map(converse, intents))
    assert answers == [(plain(ASKED[intent]["reply"]), True) for intent in intents]


async def test_a_response_beside_the_conversation_while_a_reply_is_spoken(pocket_server: str) -> None:
    """Both come whole, and the listener has no more gaps than without; what is dry on a busy machine is dry in both."""
    question = ASKED["hours"]
    async with calling(pocket_server) as caller:
        await caller.configure(output_lead_ms=1000)
        alone = await caller.ask(question)
        await caller.append(spoken(question))
        await caller.connection.input_audio_buffer.commit()
        await caller.connection.response.create()
        await caller.until("response.output_audio.delta")
        content: Any = [{"type": "input_text", "text": "my name is nick"}]
        await caller.connection.response.create(
            response={
                "conversation": "none",
                "output_modalities": ["text"],
                "metadata": {"topic": "aside"},
                "input": [{"type": "message", "role": "user", "content": content}],
            }
        )
        done = [(await caller.until("response.done")).response for _ in range(2)]
        aside, reply = sorted(done, key=lambda response: response.output_modalities, reverse=True)
        assert (aside.status, aside.metadata, aside.conversation_id) == (
            "completed",
            {"topic": "aside"},
            None,
        )
        assert "nick" in caller.said(aside)
        assert reply.status == "completed"
        assert caller.said(reply) == plain(question["reply"])
        assert len(caller.samples(reply)) > RATE
        assert caller.dry_s(reply) < caller.dry_s(alone) + 1.0
        items = [event.item.id for event in caller.log if event.type == "conversation.item.done"]
        assert aside.output[0].id not in items
