"""A LiveKit agent (pip install livekit-agents livekit-plugins-openai) whose model is this server, without a room.

In a real agent the room is the microphone and the loudspeaker; here a typed question is asked and its answer printed.
"""

import argparse
import asyncio
import logging

from livekit import rtc
from livekit.agents import Agent, AgentSession, function_tool, io
from livekit.plugins.openai.realtime import RealtimeModel

logging.basicConfig(level=logging.ERROR)


class Loudspeaker(io.AudioOutput):
    """Stands for the room: plays all at once and counts."""

    def __init__(self) -> None:
        super().__init__(
            label="count", capabilities=io.AudioOutputCapabilities(pause=False), sample_rate=24_000
        )
        self.seconds = 0.0
        self.segment = 0.0

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        self.segment += frame.duration

    def flush(self) -> None:
        super().flush()
        if self.segment:
            self.seconds += self.segment
            self.on_playback_finished(playback_position=self.segment, interrupted=False)
            self.segment = 0.0

    def clear_buffer(self) -> None:
        self.flush()


class Desk(Agent):
    """The front desk, with a function."""

    def __init__(self) -> None:
        super().__init__(instructions="You are the voice assistant of harbor house.")

    @function_tool
    async def get_weather(self, city: str) -> dict[str, object]:
        """Current weather in a city"""
        print(f"       ... looking up the weather in {city}")
        return {"weather": "sunny", "temperature": 20}


async def main() -> None:
    parser = argparse.ArgumentParser(description="Asks a LiveKit agent.")
    parser.add_argument("question", nargs="?", default="what is the weather in milan")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", default="none")
    given = parser.parse_args()
    model = RealtimeModel(model="pocket", base_url=f"{given.url}/v1", api_key=given.key)
    loudspeaker = Loudspeaker()
    async with AgentSession(llm=model) as session:
        session.output.audio = loudspeaker
        await session.start(agent=Desk())
        print(f"you:   {given.question}")
        await session.generate_reply(user_input=given.question)
        said = [item for item in session.history.items if item.type == "message" and item.role == "assistant"]
        for message in said:
            print(f"agent: {message.text_content}")
    await model.aclose()
    print(f"{loudspeaker.seconds:.1f} s of speech")


asyncio.run(main())
