"""Arguments are checked by a schema, in words for a model; a schema that is nonsense stops nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceagent.tools.schema import brief, fault

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
STRICT = {**CITY, "additionalProperties": False}
TREE = {"$ref": "#/$defs/node", "$defs": {"node": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}


@pytest.mark.parametrize(
    ("value", "schema", "words"),
    [
        ({"city": "milan"}, CITY, None),
        ({"city": "milan", "day": 1}, CITY, None),
        ({}, CITY, "'city' is missing in the arguments"),
        ({"city": 3}, CITY, "'city' must be of type string"),
        ({"city": "milan", "day": 1}, STRICT, "the arguments has no 'day'; it has city"),
        (True, {"type": "integer"}, "the arguments must be of type integer"),
        (2.0, {"type": "integer"}, None),
        (None, {"type": ["string", "null"]}, None),
        ("x", {"enum": ["a", "b"]}, "the arguments must be one of 'a', 'b'"),
        (1, {"const": 2}, "the arguments must be 2"),
        (5, {"maximum": 4}, "the arguments must be at most 4"),
        (5, {"exclusiveMinimum": 5}, "the arguments must be more than 5"),
        ("", {"minLength": 1}, "the arguments must have a length of at least 1"),
        ([1, 2], {"maxItems": 1}, "the arguments must have at most so many items: 1"),
        ([1, "a"], {"items": {"type": "integer"}}, "the arguments[1] must be of type integer"),
        (1, {"anyOf": [{"type": "string"}, {"type": "null"}]}, "the arguments is of none of the kinds that it may be"),
        (1, {"oneOf": [{}, {"type": "integer"}]}, "the arguments is of several kinds, and may be of one"),
        (1, {"allOf": [{"type": "integer"}, {"maximum": 0}]}, "the arguments must be at most 0"),
        (1, {"anyOf": [{"type": "string"}]}, "the arguments must be of type string"),
        ({"a": {"b": 1}}, {"properties": {"a": {"properties": {"b": False}}}}, "'a' has no 'b'; it has b"),
        ([[], [[1]]], TREE, "the arguments[1][0][0] must be of type array"),
        (1, False, "the arguments: nothing is allowed here"),
        (float("nan"), {"type": "number"}, "the arguments must be of type number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(value: Any, schema: Any, words: str | None) -> None:
    assert fault(value, schema) == words


@pytest.mark.parametrize(
    "schema",
    [{"type": 7}, {"required": 1}, {"properties": []}, {"$ref": "#/nowhere"}, {"$ref": "https://a.b/c"}, {"enum": 3},
     {"$ref": "#"}, {"pattern": "(a+)+$"}, {"minLength": "x"}, {"type": "strange"}],
)  # fmt: skip
def test_a_schema_that_is_nonsense_lets_everything_pass(schema: Any) -> None:
    assert fault({"a" * 5000: "a" * 50}, schema) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, json_values)
def test_nothing_is_raised_whatever_the_schema_is(value: Any, schema: Any) -> None:
    found = fault(value, schema)
    assert found is None or found


def test_titles_are_left_out_and_what_is_called_so_is_not() -> None:
    titled = {"title": "A", "properties": {"title": {"title": "T", "type": "string"}, "b": [{"title": "x"}]}}
    assert brief(titled) == {"properties": {"title": {"type": "string"}, "b": [{}]}}
