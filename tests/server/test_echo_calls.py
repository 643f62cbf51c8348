"""Echo cancellation through the server: switched by the session, and nothing is lost when it is."""

from __future__ import annotations

import numpy as np
from server_helpers import calling, serving

from voiceagent.core.actions import EncodePiece


async def test_no_sample_is_lost_where_it_is_switched() -> None:
    async with serving() as site, calling(site) as caller:
        await caller.manual()
        pcm = (np.sin(np.arange(24_000) / 20) * 8000).astype(np.int16)
        for wanted in (True, True, False, True):
            await caller.configure(echo_cancellation=wanted)
            for at in range(0, len(pcm), 500):
                await caller.append(pcm[at : at + 500])
        await caller.send("input_audio_buffer.commit")
        await caller.until("input_audio_buffer.committed")
        (session,) = site.engine.sessions.values()
        pieces = [action.piece for action in session.actions if isinstance(action, EncodePiece)]
        assert sum(len(piece.audio) for piece in pieces) == 4 * 16_000
