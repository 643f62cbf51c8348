"""Gives the agent a function of this program. It asks for the weather, and tells what the function returned."""

import argparse
import asyncio
from typing import Any

from voiceagent.client import RealtimeClient, Tool


async def get_weather(arguments: dict[str, Any]) -> dict[str, Any]:
    """Stands for a real service."""
    print(f"       ... looking up the weather in {arguments.get('city')}")
    return {"weather": "sunny", "temperature": 20}


WEATHER = Tool(
    name="get_weather",
    description="Current weather in a city",
    run=get_weather,
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


async def main() -> None:
    parser = argparse.ArgumentParser(description="Lets the agent call a function.")
    parser.add_argument("question", nargs="?", default="what is the weather in milan")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", default="")
    given = parser.parse_args()
    async with RealtimeClient(given.url, api_key=given.key, tools=[WEATHER]) as agent:
        print(f"you:   {given.question}")
        answer = await agent.ask_text(given.question)
        for name, arguments, output in answer.tools:
            print(f"tool:  {name}({arguments}) -> {output}")
        print(f"agent: {answer.said}")


asyncio.run(main())
