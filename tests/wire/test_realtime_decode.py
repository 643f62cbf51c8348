import json
from typing import Any

import pytest

from voiceagent.wire import realtime_events as ev
from voiceagent.wire.dialect import WireError
from voiceagent.wire.realtime_decode import MAX_BRACKETS, MAX_DEPTH, decode, whole_characters


def refused(frame: str | bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        decode(frame)
    assert caught.value.message
    assert not caught.value.fatal
    return caught.value


def update(session: dict[str, Any]) -> str:
    return json.dumps({"type": "session.update", "event_id": "e1", "session": session})


def test_every_event_type_decodes() -> None:
    needs = {"audio": "", "session": {}, "item": {"type": "message"}, "item_id": "i", "audio_end_ms": 12.7}
    needs |= {"voice": {"name": "v"}, "response_id": "r"}
    for name in ev.EVENT_TYPES:
        assert decode(json.dumps({"type": name, "event_id": "e", **needs})).event_id == "e"


def test_extra_keys_are_tolerated() -> None:
    assert decode('{"type": "response.cancel", "later": {"x": [1]}}') == ev.ResponseCancel()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ('{"type": "response.create"} {}', "invalid_json"),
        ('{"type": "session.update", "session": {"temperature": NaN}}', "invalid_json"),
        ('{"type": "session.update", "session": {"tracing": {"x": Infinity}}}', "invalid_json"),
        ('{"type": "session.update", "x": "\ud800"}', "invalid_json"),
        ("[]", "invalid_value"),
        ("7", "invalid_value"),
        ('{"type": 5}', "invalid_value"),
        ('{"type": "session.update", "session": {"tracing": {"metadata": {"x": 1e999}}}}', "invalid_value"),
        (
            '{"type": "session.update", "session": {"tracing": {"metadata": {"x": %s}}}}' % ("9" * 5000),
            "invalid_value",
        ),
        ('{"type": "session.update", "session": {"output_lead_ms": %s}}' % ("9" * 5000), "invalid_value"),
        ("{}", "missing_required_parameter"),
        ('{"type": "session.update"}', "missing_required_parameter"),
        (b"{}", "invalid_message"),
    ],
)
def test_bad_json(frame: str | bytes, code: str) -> None:
    assert refused(frame).code == code


def test_an_error_names_the_field_and_the_request() -> None:
    error = refused(update({"tools": [{"type": "function"}, {"type": 3}]}))
    assert (error.code, error.param, error.event_id) == ("invalid_value", "session.tools[1].type", "e1")
    assert str(error) == "Invalid value for session.tools[1].type: Expected `str`, got `int`."


def test_a_missing_field_is_named() -> None:
    error = refused('{"type": "conversation.item.truncate", "event_id": "e", "item_id": "i"}')
    assert (error.code, error.param, error.event_id) == ("missing_required_parameter", "audio_end_ms", "e")
    assert refused(update({"tools": [{}]})).param == "session.tools[0].type"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("response.creat", "Did you mean 'response.create'?"),
        ("zzz" * 9999, "Known are conversation.item.create, "),
    ],
)
def test_unknown_types_get_a_hint(name: str, remedy: str) -> None:
    error = refused(json.dumps({"type": name, "event_id": "e"}))
    assert (error.code, error.param, error.event_id) == ("unknown_event_type", "type", "e")
    assert error.remedy.startswith(remedy)
    assert len(str(error)) < 500


def test_huge_ids_are_refused_and_not_echoed() -> None:
    error = refused(json.dumps({"type": "response.cancel", "event_id": "x" * 129}))
    assert (error.param, error.event_id) == ("event_id", None)
    error = refused(
        json.dumps({"type": "conversation.item.retrieve", "event_id": "e", "item_id": "x" * 99999})
    )
    assert (error.param, error.event_id) == ("item_id", "e")
    assert len(str(error)) < 200


@pytest.mark.parametrize("depth", [MAX_DEPTH, 1_500, 100_000])
def test_deep_nesting(depth: int) -> None:
    nested = '{"type": "session.update", "event_id": "e", "session": {"tracing": {"metadata": {"x": %s%s}}}}'
    error = refused(nested % ("[" * depth, "]" * depth))
    assert error.code in ("message_too_deep", "message_too_complex")
    assert error.remedy


def test_wide_messages_pass_as_long_as_they_are_not_absurd() -> None:
    tool = {
        "type": "function",
        "name": "t",
        "parameters": {"a": [{"b": [{"c": 1}, [], {}]}], "d": {"e": {}}},
    }
    assert isinstance(decode(update({"tools": [tool] * 100})), ev.SessionUpdate)
    error = refused(update({"tracing": {"metadata": {"x": [[]] * MAX_BRACKETS}}}))
    assert (error.code, error.event_id) == ("message_too_complex", "e1")


@pytest.mark.parametrize(
    ("escaped", "plain"),
    [
        (r"\ud83d\ude00", "\N{GRINNING FACE}"),
        (r"a\ud83d", "a\ufffd"),
        (r"\ude00b", "\ufffdb"),
        (r"\ud83d\u0041", "\ufffdA"),
        (r"\ud83d\ud83d\ude00", "\ufffd\N{GRINNING FACE}"),
        (r"\\ud83d", r"\ud83d"),
        (r"\\\ud83d", "\\\ufffd"),
        (r"\n\u00e9", "\n\u00e9"),
    ],
)
def test_half_characters_become_replacement_characters(escaped: str, plain: str) -> None:
    assert json.loads(whole_characters(f'"{escaped}"')) == plain
    message = decode(f'{{"type": "session.update", "session": {{"instructions": "{escaped}"}}}}')
    assert isinstance(message, ev.SessionUpdate)
    assert message.session.instructions == plain


def test_half_characters_are_mended_whole_ones_and_backslashes_are_not() -> None:
    for text, mended in (
        (r'"\ud800"', r'"\ufffd"'),
        (r'"\ude00\ud83d"', r'"\ufffd\ufffd"'),
        (r'"\ud83d\ud83d\ude00"', r'"\ufffd\ud83d\ude00"'),
        (r'"\\ud800 \\\ud800"', r'"\\ud800 \\\ufffd"'),
        (r'"\u00e9\udfff"', r'"\u00e9\ufffd"'),
        (r'"\ud800\u"', r'"\ufffd\u"'),
    ):
        assert whole_characters(text) == mended
    assert refused(update({"instructions": "\ud800" * 10_000})).code == "invalid_json"


def test_an_error_repeats_only_the_beginning_of_a_long_value() -> None:
    error = refused(update({"truncation": "x" * 60_000}))
    assert len(str(error)) < 400
