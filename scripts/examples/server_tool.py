"""A tool that the server runs for the model, and a client that need not know of it.

From the folder of this file:   VOICEAGENT_TOOLS__FUNCTIONS=server_tool:get_weather ../serve
and beside it:                  python server_tool.py
"""

import argparse
import asyncio

from voiceagent.client import RealtimeClient
from voiceagent.tools import tool


@tool(filler="one moment please")  # said if it takes longer than 1.2 s
async def get_weather(city: str) -> dict[str, object]:
    """Current weather in a city."""
    return {"weather": "sunny", "temperature": 20}  # stands for a real service


async def main() -> None:
    parser = argparse.ArgumentParser(description="Asks for what the server's tool knows.")
    parser.add_argument("question", nargs="?", default="what is the weather in milan")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", default="")
    given = parser.parse_args()
    async with RealtimeClient(given.url, api_key=given.key) as agent:
        print(f"you:    {given.question}")
        answer = await agent.ask_text(given.question)
        for name, arguments, output in answer.tools:
            print(f"server: {name}({arguments}) -> {output}")
        print(f"agent: {answer.said}")


if __name__ == "__main__":
    asyncio.run(main())
