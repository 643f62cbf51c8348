"""Python functions as tools: their schema comes of the signature, calls are checked and converted by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from voiceagent.errors import ConfigError
from voiceagent.tools import ToolError, tool
from voiceagent.tools.function import Function


@dataclass
class Guest:
    name: str
    age: int = 0


def book(
    guests: list[Guest], day: Annotated[str, "such as friday"], kind: Literal["room", "table"] = "room", *,
    note: str | None = None,
) -> str:  # fmt: skip
    """Books a room
    or a table.

    What stands here is for people.
    """
    return f"{kind} for {', '.join(guest.name for guest in guests)} on {day}{note or ''}"


def test_a_signature_is_a_schema() -> None:
    made = tool(book)
    assert (made.name, made.description) == ("book", "Books a room or a table.")
    schema = made.parameters
    assert schema["required"] == ["guests", "day"]
    assert schema["properties"]["day"] == {"type": "string", "description": "such as friday"}
    assert schema["properties"]["kind"]["enum"] == ["room", "table"]
    assert schema["additionalProperties"] is False
    assert "Guest" in schema["$defs"]


def test_arguments_are_converted() -> None:
    made = tool(book)
    given = made.convert({"guests": [{"name": "ann"}, {"name": "bob"}], "day": "friday"})
    assert made(**given) == "room for ann, bob on friday"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"day": "friday"}, "guests"),
        ({"guests": [], "day": 3}, "Expected `str`, got `int` - at `$.day`"),
        ({"guests": [], "day": "x", "kind": "boat"}, "Invalid enum value 'boat' - at `$.kind`"),
        ({"guests": [], "day": "x", "who": 1}, "unknown field `who`"),
    ],
)
def test_what_is_wrong_with_arguments_is_told(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ToolError, match=r".*") as error:
        tool(book).convert(given)
    assert words in str(error.value)


def test_a_given_schema_goes_before_the_signature() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

    @tool(
        name="get_weather",
        description="Weather.",
        parameters=schema,
        timeout_s=3.0,
        background=True,
        confirm=True,
    )
    async def weather(**given: Any) -> dict[str, Any]:
        return given

    assert isinstance(weather, Function)
    assert (weather.name, weather.parameters, weather.timeout_s) == ("get_weather", schema, 3.0)
    assert (weather.background, weather.confirm) == (True, True)
    assert weather.convert({"city": "milan", "x": 1}) == {"city": "milan", "x": 1}
    with pytest.raises(ToolError, match="'city' is missing"):
        weather.convert({})


def test_a_signature_that_no_call_can_meet_is_refused() -> None:
    def any_number(*numbers: int) -> int:
        return sum(numbers)

    with pytest.raises(ConfigError, match="any_number"):
        tool(any_number)
    with pytest.raises(ConfigError, match="cannot be described"):
        tool(strange)


def strange(value: memoryview | type) -> None:
    """Takes what JSON has no words for."""
