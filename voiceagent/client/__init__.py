"""A small asynchronous Python client for the server.

>>> async with RealtimeClient("127.0.0.1:8080") as agent:
...     answer = await agent.ask_file("question.wav")
...     print(answer.heard, "->", answer.said)
"""

from voiceagent.client.answers import Answer
from voiceagent.client.conn import RealtimeClient
from voiceagent.client.errors import ClientError
from voiceagent.client.events import (
    Done,
    Event,
    Failed,
    Heard,
    Interrupted,
    Interruption,
    Other,
    Reconnected,
    Said,
    Sound,
    SpeechStarted,
    SpeechStopped,
    Thought,
    ToolCall,
    ToolResult,
)
from voiceagent.client.retry import Backoff
from voiceagent.client.tools import Tool

__all__ = [
    "Answer",
    "Backoff",
    "ClientError",
    "Done",
    "Event",
    "Failed",
    "Heard",
    "Interrupted",
    "Interruption",
    "Other",
    "RealtimeClient",
    "Reconnected",
    "Said",
    "Sound",
    "SpeechStarted",
    "SpeechStopped",
    "Thought",
    "Tool",
    "ToolCall",
    "ToolResult",
]
