"""The bot of a hotel's phone line: two functions, a transfer to a person, hanging up, and a log of the call.

The caller is a list of recordings and typed lines here; a phone line would go in with `send_microphone` and `stream`
(see microphone.py). A bot must know when it is out of its depth: after two answers in a row that understood nothing,
it hands the caller over.
"""

import argparse
import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from voiceagent.client import Answer, RealtimeClient, Tool

RECORDINGS = Path(__file__).resolve().parents[2] / "tests" / "data" / "questions"
CALL = [str(RECORDINGS / "hours.flac"), str(RECORDINGS / "weather.flac"), "do you have parking", "goodbye"]
INSTRUCTIONS = "You are the voice assistant of harbor house."
LOST = "did not catch"
FAREWELLS = ("goodbye", "bye")
PATIENCE = 2  #: answers in a row that understood nothing


async def get_time(_: dict[str, Any]) -> dict[str, str]:
    return {"time": datetime.now().strftime("%H:%M")}


async def get_weather(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"weather": "sunny", "temperature": 20}


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    Tool("get_time", "Current time", get_time),
    Tool("get_weather", "Current weather in a city", get_weather, CITY),
]


async def answer_call(agent: RealtimeClient, turns: list[str], log: list[dict[str, Any]]) -> str:
    """Answers the caller turn by turn; how the call ended."""
    lost = 0
    for turn in turns:
        spoken = Path(turn).suffix in (".wav", ".flac", ".mp3", ".ogg")
        answer: Answer = await (agent.ask_file(turn) if spoken else agent.ask_text(turn))
        caller = answer.heard if spoken else turn
        tools = [{"name": name, "arguments": given, "output": out} for name, given, out in answer.tools]
        log.append({"caller": caller, "bot": answer.said, "tools": tools})
        print(f"caller: {caller}\n   bot: {answer.said}")
        lost = lost + 1 if LOST in answer.said else 0
        if lost == PATIENCE:
            return "transferred to a person"
        if any(word in caller.split() for word in FAREWELLS):
            return "the caller said goodbye"
    return "the caller hung up"


async def main() -> None:
    parser = argparse.ArgumentParser(description="Answers a call.")
    parser.add_argument("turns", nargs="*", default=CALL, help="audio files or typed lines")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", default="")
    parser.add_argument("--log", type=Path, default=Path("call.json"))
    given = parser.parse_args()
    log: list[dict[str, Any]] = []
    async with RealtimeClient(given.url, api_key=given.key, tools=TOOLS) as agent:
        await agent.update(instructions=INSTRUCTIONS)
        ended = await answer_call(agent, given.turns, log)
    given.log.write_text(json.dumps({"ended": ended, "turns": log}, indent=2) + "\n")
    print(f"------- {ended}; {len(log)} turns in {given.log}")


asyncio.run(main())
