"""A tool that the front desk of pocket knows, run by the server; it takes as long as the test wants."""

from __future__ import annotations

import threading
from typing import Any

from voiceagent.tools import tool

answer_now = threading.Event()


@tool(filler="one moment please", timeout_s=100.0)
def get_weather(city: str) -> dict[str, Any]:
    """Current weather in a city."""
    answer_now.wait(90.0)
    return {"weather": "clear", "temperature": 24}
