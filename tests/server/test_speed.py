"""`speed` over sockets: the length of what is heard, and what of it the history keeps."""

from __future__ import annotations

import io

import pytest
import soundfile
from openai import AsyncOpenAI
from server_helpers import calling, serving

from voiceagent.engine.fake import Script

WHOLE = 50 * 960  #: samples of a scripted reply at its own pace


@pytest.mark.parametrize("speed", [0.25, 0.5, 1.5])
async def test_a_session_speaks_at_its_speed_and_a_response_at_its_own(speed: float) -> None:
    async with serving(Script()) as site, calling(site) as caller:
        await caller.manual()
        await caller.configure(audio={"output": {"speed": speed}})
        assert caller.log[-1]["session"]["audio"]["output"]["speed"] == speed
        assert len((await caller.ask("hello")).pcm) == -(-WHOLE // speed)
        await caller.send("response.create", response={"audio": {"output": {"speed": 1.0}}})
        done = await caller.until("response.done")
        assert len(caller.responses[done["response"]["id"]].pcm) == WHOLE
        assert len((await caller.ask("again")).pcm) == -(-WHOLE // speed)


async def test_a_speed_changes_between_turns_only() -> None:
    async with serving(Script(rtf=0.2)) as site, calling(site) as caller:
        await caller.manual()
        await caller.say("hello")
        await caller.until("response.output_audio.delta")
        await caller.configure(audio={"output": {"speed": 0.5}})
        done = await caller.until("response.done")
        assert len(caller.responses[done["response"]["id"]].pcm) == WHOLE
        assert len((await caller.ask("again")).pcm) == 2 * WHOLE


@pytest.mark.parametrize(("speed", "token_ms"), [(0.5, 80), (1.25, 32)])
async def test_of_a_reply_that_is_cut_whole_tokens_are_kept(speed: float, token_ms: int) -> None:
    async with serving(Script(speech_ids=200)) as site, calling(site) as caller:
        await caller.manual(lead_ms=100)
        await caller.configure(audio={"output": {"speed": speed}})
        await caller.say(" ".join(f"word{n}" for n in range(40)))
        heard = 0
        while heard < 24_000:
            await caller.until("response.output_audio.delta")
            heard = max(len(response.pcm) for response in caller.responses.values())
        await caller.send("response.cancel")
        cut = await caller.until("conversation.item.truncated")
        assert 0 < cut["audio_end_ms"] <= 24_000 * 1000 // 24_000 + 200
        assert cut["audio_end_ms"] % token_ms == 0
        await caller.send("conversation.item.retrieve", item_id=cut["item_id"])
        item = (await caller.until("conversation.item.retrieved"))["item"]
        words = item["content"][0]["transcript"].split()
        share = cut["audio_end_ms"] / (200 * token_ms)
        assert abs(len(words) - 42 * share) < 2, "words in proportion to what was heard of all"


@pytest.mark.parametrize("speed", [0.25, 0.5, 2.0, 4.0])
async def test_text_is_read_at_the_speed_asked_for(speed: float) -> None:
    async with serving(Script()) as site:
        async with AsyncOpenAI(base_url=f"{site.http}/v1", api_key="none", max_retries=0) as openai:
            answer = await openai.audio.speech.create(
                input="Hello there.", model="m", voice="alloy", response_format="flac", speed=speed
            )
        samples, rate = soundfile.read(io.BytesIO(answer.content))
        assert (len(samples), rate) == (-(-WHOLE // speed), 24_000)
