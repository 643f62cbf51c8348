"""Whether a value is as a JSON schema wants it: the part of the language that tools use. It converts nothing.

A tool's schema may be anybody's. What is not known here is passed over (the tool may check it), and patterns are not
tried at all: a regular expression of a stranger's can take for ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Schema = Mapping[str, Any]

MAX_DEPTH = 32

_KINDS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: _number(value) and float(value).is_integer(),
    "number": lambda value: _number(value),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
}
_BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (lambda value, bound: value >= bound, "be at least"),
    "maximum": (lambda value, bound: value <= bound, "be at most"),
    "exclusiveMinimum": (lambda value, bound: value > bound, "be more than"),
    "exclusiveMaximum": (lambda value, bound: value < bound, "be less than"),
}
_LENGTHS = {
    "minLength": (str, lambda size, bound: size >= bound, "have a length of at least"),
    "maxLength": (str, lambda size, bound: size <= bound, "have a length of at most"),
    "minItems": (list, lambda size, bound: size >= bound, "have at least so many items:"),
    "maxItems": (list, lambda size, bound: size <= bound, "have at most so many items:"),
}


def fault(value: Any, schema: Schema) -> str | None:
    """What is wrong with a value, in words that a model can go by; None if nothing is.

    Args:
        value: as JSON decodes to.
        schema: what it has to be like.
    """
    try:
        return _fault(value, schema, where="the arguments", root=schema, depth=0)
    except (TypeError, ValueError, AttributeError):  # the schema itself is none
        return None


def _fault(value: Any, schema: Any, *, where: str, root: Schema, depth: int) -> str | None:
    if schema is False:
        return f"{where}: nothing is allowed here"
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return None
    if "$ref" in schema:
        return _fault(value, _referred(schema["$ref"], root), where=where, root=root, depth=depth + 1)
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_KINDS.get(kind, lambda _: True)(value) for kind in kinds):
        return f"{where} must be of type {' or '.join(kinds)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} must be one of {', '.join(map(repr, schema['enum']))}"
    if "const" in schema and value != schema["const"]:
        return f"{where} must be {schema['const']!r}"
    found = _bounds(value, schema, where) or _choices(value, schema, where=where, root=root, depth=depth)
    if found is None and isinstance(value, dict):
        found = _members(value, schema, where=where, root=root, depth=depth)
    if found is None and isinstance(value, list) and "items" in schema:
        each = enumerate(value)
        faults = (
            _fault(item, schema["items"], where=f"{where}[{n}]", root=root, depth=depth + 1)
            for n, item in each
        )
        found = next(filter(None, faults), None)
    return found


def _bounds(value: Any, schema: Schema, where: str) -> str | None:
    if _number(value):
        for name, (holds, words) in _BOUNDS.items():
            if name in schema and not holds(value, schema[name]):
                return f"{where} must {words} {schema[name]}"
    for name, (kind, holds, words) in _LENGTHS.items():
        if name in schema and isinstance(value, kind) and not holds(len(value), schema[name]):
            return f"{where} must {words} {schema[name]}"
    return None


def _choices(value: Any, schema: Schema, *, where: str, root: Schema, depth: int) -> str | None:
    for part in schema.get("allOf", ()):
        found = _fault(value, part, where=where, root=root, depth=depth + 1)
        if found is not None:
            return found
    for name in ("anyOf", "oneOf"):
        parts = schema.get(name)
        if parts:
            faults = [_fault(value, part, where=where, root=root, depth=depth + 1) for part in parts]
            good = faults.count(None)
            if not good:
                return faults[0] if len(faults) == 1 else f"{where} is of none of the kinds that it may be"
            if name == "oneOf" and good > 1:
                return f"{where} is of several kinds, and may be of one"
    return None


def _members(value: dict[str, Any], schema: Schema, *, where: str, root: Schema, depth: int) -> str | None:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            return f"{name!r} is missing in {where}"
    others = schema.get("additionalProperties", True)
    for name, given in value.items():
        wanted = known.get(name, others if "patternProperties" not in schema else True)
        if wanted is False:
            return f"{where} has no {name[:64]!r}; it has {', '.join(known) or 'nothing'}"
        found = _fault(given, wanted, where=repr(name[:64]), root=root, depth=depth + 1)
        if found is not None:
            return found
    return None


def _referred(ref: Any, root: Schema) -> Any:
    """What a reference inside the schema points to; anything goes where it points elsewhere."""
    if not isinstance(ref, str) or not ref.startswith("#"):
        return True
    node: Any = root
    for part in ref[1:].strip("/").split("/") if ref != "#" else ():
        node = node.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(node, Mapping) else None
    return True if node is None else node


def brief(schema: Any) -> Any:
    """A schema without what models need not read: the titles that generators give to everything."""
    if isinstance(schema, Mapping):
        noise = {name for name in ("title", "$schema") if isinstance(schema.get(name), str)}
        return {name: brief(value) for name, value in schema.items() if name not in noise}
    return [brief(value) for value in schema] if isinstance(schema, list) else schema


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
