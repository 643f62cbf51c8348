"""The unmodified openai package in transcription mode, on the pocket checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
from openai import AsyncOpenAI
from openai.types.realtime import RealtimeTranscriptionSessionCreateResponse
from openai_caller import Caller, plain, questions, spoken

NAME = "conversation.item.input_audio_transcription"


async def written(caller: Caller) -> str:
    """The next transcript, which its deltas must make up."""
    start = len(caller.log)
    done = await caller.until(f"{NAME}.completed")
    assert done.usage.type == "duration"
    assert "".join(e.delta for e in caller.log[start:] if e.type == f"{NAME}.delta") == done.transcript
    return plain(done.transcript)


async def test_speech_is_written_down_as_it_comes(pocket_server: str) -> None:
    """Found by voice activity, then committed by the client; a long one is written down before it is committed."""
    asked = list(questions().values())[:3]
    async with (
        AsyncOpenAI(api_key="unused", base_url=f"http://{pocket_server}/v1") as client,
        client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
    ):
        caller = Caller(connection)
        created = await caller.next()
        shown = created.session.model_dump(exclude_unset=True)
        RealtimeTranscriptionSessionCreateResponse.model_validate(shown, strict=True)
        await caller.append(spoken(asked[0], silence_s=1.0))
        assert await written(caller) == plain(asked[0]["text"])

        known: Any = {"model": "whisper-1", "language": "en", "prompt": "Luminar, a garden room"}
        include: Any = ["item.input_audio_transcription.logprobs"]
        heard: Any = {
            "type": "transcription",
            "include": include,
            "audio": {"input": {"transcription": known}},
        }
        await connection.session.update(session=heard)
        await caller.append(spoken(asked[1], silence_s=1.0))
        assert await written(caller) == plain(asked[1]["text"])
        scores = caller.log[-1].logprobs
        assert plain("".join(each.token for each in scores)) == plain(asked[1]["text"])
        assert all(-5 < each.logprob <= 0 for each in scores)

        manual: Any = {"type": "transcription", "include": None, "audio": {"input": {"turn_detection": None}}}
        await connection.session.update(session=manual)
        await caller.until("session.updated")
        pause = np.zeros(12_000, np.int16)
        parts = [part for question in asked * 3 for part in (spoken(question), pause)]
        await caller.append(np.concatenate(parts))
        await caller.until(f"{NAME}.delta")
        await connection.input_audio_buffer.commit()
        await caller.until("input_audio_buffer.committed")
        done = await caller.until(f"{NAME}.completed")
        deltas = [e.delta for e in caller.log if e.type == f"{NAME}.delta" and e.item_id == done.item_id]
        assert "".join(deltas) == done.transcript
        heard = plain(done.transcript).split()
        said = plain(" ".join(question["text"] for question in asked * 3)).split()
        assert len(said) * 0.7 < len(heard) < len(said) * 1.3
        assert not any(kind.startswith("response.") for kind in caller.kinds)
