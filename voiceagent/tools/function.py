"""Python functions as tools: what the model is told of one, and how a call of it is run. It knows no session.

The schema comes of the signature; calls are checked against it and converted before the function sees them.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, overload

import msgspec

from voiceagent.errors import ConfigError, VoiceAgentError
from voiceagent.tools.schema import brief, fault

TIMEOUT_S = 30.0


class ToolError(VoiceAgentError):
    """What a tool raises to tell the model why it could not do what was asked; other exceptions tell it nothing."""

    default_code = "tool_error"


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A Python function that the model may call; calling this calls the function.

    Attributes:
        name: what the model calls it.
        description: what it is for, in words for the model.
        parameters: JSON schema of its arguments.
        run: the function.
        convert: makes keyword arguments of a call's JSON object; raises `ToolError`.
        background: the model is told at once that the result comes later, and the talk goes on meanwhile.
        confirm: each call needs the client's approval.
        filler: said when it takes long, "" = nothing, None = what the session says.
        timeout_s: seconds after which the model is told that it failed.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    run: Callable[..., Any]
    convert: Callable[[dict[str, Any]], dict[str, Any]]
    background: bool = False
    confirm: bool = False
    filler: str | None = None
    timeout_s: float = TIMEOUT_S

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself."""
        return self.run(*args, **kwargs)


@overload
def tool(function: Callable[..., Any], /) -> Function: ...
@overload
def tool(
    *,
    name: str = "",
    description: str = "",
    parameters: Mapping[str, Any] | None = None,
    background: bool = False,
    confirm: bool = False,
    filler: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Callable[[Callable[..., Any]], Function]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    description: str = "",
    parameters: Mapping[str, Any] | None = None,
    **how: Any,
) -> Any:
    """Makes a tool of a function, plain or async, as `@tool` or `@tool(...)`.

    Args:
        function: its docstring's first paragraph describes it; its annotations are the schema. `Annotated[str, "..."]`
            describes an argument. What it returns is told to the model, as JSON unless it is a text.
        name: instead of the function's.
        description: instead of the docstring.
        parameters: JSON schema instead of the signature; the function then gets the arguments as they came.
        how: `background`, `confirm`, `filler`, `timeout_s` of `Function`.

    Raises:
        ConfigError: its signature cannot be described.
    """
    if function is None:
        return lambda function: _made(function, name, description, parameters, how)
    return _made(function, name, description, parameters, how)


def _made(
    function: Callable[..., Any],
    name: str,
    description: str,
    parameters: Mapping[str, Any] | None,
    how: dict[str, Any],
) -> Function:
    name = name or getattr(function, "__name__", "")
    told = description or (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
    if parameters is None:
        parameters, convert = _described(function, name)
    else:
        convert = _checked(parameters)
    return Function(name, told, parameters, function, convert, **how)


def _described(
    function: Callable[..., Any], name: str
) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """The schema of a signature, and what checks and converts arguments by it."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        fields: list[Any] = []
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise TypeError(f"the parameter {parameter.name} has no name of its own in a call")
            kind = _with_words(hints.get(parameter.name, Any))
            given = () if parameter.default is parameter.empty else (parameter.default,)
            fields.append((parameter.name, kind, *given))
        struct = msgspec.defstruct(name, fields, forbid_unknown_fields=True, kw_only=True)
        schema = msgspec.json.schema(struct)
    except (TypeError, NameError, ValueError) as error:
        raise ConfigError(
            f"The tool {name!r} cannot be described to a model: {error}.",
            remedy="Annotate its parameters with types of JSON, or give their schema.",
        ) from error

    def convert(arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            made = msgspec.convert(arguments, struct)
        except msgspec.ValidationError as error:
            raise ToolError(str(error)) from error
        return {field: getattr(made, field) for field in struct.__struct_fields__}

    definitions = schema["$defs"]
    own = definitions.pop(name)
    return brief({**own, **({"$defs": definitions} if definitions else {})}), convert


def _with_words(kind: Any) -> Any:
    """`Annotated[str, "words"]` as the schema's description."""
    if typing.get_origin(kind) is typing.Annotated:
        kind, *extras = typing.get_args(kind)
        for extra in extras:
            kind = typing.Annotated[
                kind, msgspec.Meta(description=extra) if isinstance(extra, str) else extra
            ]
    return kind


def _checked(schema: Mapping[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def convert(arguments: dict[str, Any]) -> dict[str, Any]:
        wrong = fault(arguments, schema)
        if wrong is not None:
            raise ToolError(wrong)
        return arguments

    return convert
