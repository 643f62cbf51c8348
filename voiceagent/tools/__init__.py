"""Functions that the model may call and the server runs; `tool` makes one of a Python function."""

from voiceagent.tools.function import ToolError as ToolError
from voiceagent.tools.function import tool as tool
