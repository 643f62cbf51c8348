"""Tools for tests of the server: quick, slow, failing, later."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from voiceagent.tools import tool

CITIES = {"milan": "sunny", "oslo": "rainy"}


@tool
async def get_weather(said: str) -> dict[str, Any]:
    """Current weather, wherever."""
    return {"weather": "sunny", "asked": len(said) > 0}


@tool
async def ponder(said: str) -> str:
    """Takes as long as nobody waits for."""
    await asyncio.sleep(3600)
    return said


@tool(timeout_s=0.1)
async def time_out(said: str) -> str:
    """Takes too long."""
    await asyncio.sleep(3600)
    return said


@tool(timeout_s=0.4)
def hang(said: str) -> str:
    """Hangs in a thread."""
    time.sleep(2.0)
    return said


@tool
async def explode(said: str) -> str:
    """Breaks."""
    raise RuntimeError("a secret path")


@tool
async def gush(said: str) -> str:
    """Says too much."""
    return said * 100_000


@tool(background=True)
async def report(said: str) -> str:
    """Says so later."""
    await asyncio.sleep(0.3)
    return "the report"


@tool(confirm=True)
async def pay(said: str) -> str:
    """Pays."""
    return "paid"
