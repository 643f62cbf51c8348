"""A tool that the server runs, whose result is no friend of a page's."""

from voiceagent.tools import tool


@tool
async def look_up(said: str) -> str:
    """Looks things up."""
    return "<img src=x onerror=alert(1)> found"
