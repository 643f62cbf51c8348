import json
from typing import Any

import pytest

from voiceagent.core.dictation import Dictation
from voiceagent.core.history import TextContent, UserItem
from voiceagent.core.options import (
    Condensing,
    ItemReference,
    ServerVad,
    SessionConfig,
    Tool,
    Truncation,
    TurnOptions,
)
from voiceagent.wire import realtime_events as ev
from voiceagent.wire.dialect import WireError
from voiceagent.wire.realtime_decode import decode
from voiceagent.wire.realtime_session import Session


def fresh(**config: Any) -> Session:
    return Session(SessionConfig(**config), session_id="s", model="m", voices=("anna", "bert"))


def apply(session: Session, **patch: Any) -> SessionConfig:
    message = decode(json.dumps({"type": "session.update", "session": patch}))
    assert isinstance(message, ev.SessionUpdate)
    session.apply(message.session)
    return session.to_core()


def options(session: Session, **response: Any) -> TurnOptions:
    message = decode(json.dumps({"type": "response.create", "response": response}))
    assert isinstance(message, ev.ResponseCreate)
    assert message.response is not None
    return session.turn_options(message.response)


def test_shown_and_core_agree_at_the_start() -> None:
    base = SessionConfig(
        instructions="Hi",
        voice="bert",
        tools=(Tool("t", "d", {"type": "object"}),),
        tool_choice="t",
        max_tokens=9,
        temperature=0.5,
        top_k=3,
        turn_detection=ServerVad(0.4, 100, 600),
        transcribe=True,
        lead_ms=300,
    )
    assert Session(base, session_id="s", model="m", voices=("anna", "bert")).to_core() == base


def test_manual_from_the_start() -> None:
    session = fresh(turn_detection=None)
    assert session.shown["audio"]["input"]["turn_detection"] is None
    assert session.to_core().turn_detection is None


def test_only_present_keys_change() -> None:
    session = fresh(instructions="Hi")
    apply(session, audio={"output": {"voice": "bert"}}, temperature=0.3)
    before = json.dumps(session.shown)
    apply(session, audio={"input": {}, "output": {}})
    apply(session, instructions=None, tools=None, audio=None, temperature=None, max_output_tokens=None)
    assert json.dumps(session.shown) == before
    assert apply(session, instructions="").instructions == ""


def test_an_update_changes_all_or_nothing() -> None:
    session = fresh()
    before = json.dumps(session.shown)
    with pytest.raises(WireError):
        apply(session, instructions="new", audio={"input": {"format": {"type": "audio/pcm", "rate": 16000}}})
    assert json.dumps(session.shown) == before


def test_tools_are_set_and_cleared() -> None:
    session = fresh()
    tools = [{"type": "function", "name": "t", "description": None, "parameters": None}]
    chosen = {"type": "function", "name": "t"}
    config = apply(session, tools=tools, tool_choice=chosen)
    assert (config.tools, config.tool_choice) == ((Tool("t", "", {}),), "t")
    assert session.shown["tool_choice"] == chosen
    assert apply(session, tools=[], tool_choice="none").tools == ()


def test_semantic_vad_of_the_stock_clients() -> None:
    session = fresh()
    config = apply(session, audio={"input": {"turn_detection": {"type": "semantic_vad"}}})
    assert config.turn_detection == ServerVad(silence_duration_ms=700, eagerness="medium")
    assert session.shown["audio"]["input"]["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "auto",
        "create_response": True,
        "interrupt_response": True,
    }
    patch = {"type": "semantic_vad", "eagerness": "low", "interrupt_response": False}
    vad = apply(session, audio={"input": {"turn_detection": patch}}).turn_detection
    assert vad == ServerVad(silence_duration_ms=1200, interrupt_response=False, eagerness="low")


def test_turn_detection_merges_within_its_type() -> None:
    session = fresh()
    apply(session, audio={"input": {"turn_detection": {"threshold": 0.7, "idle_timeout_ms": 5000}}})
    vad = apply(session, audio={"input": {"turn_detection": {"silence_duration_ms": 900}}}).turn_detection
    assert vad == ServerVad(threshold=0.7, silence_duration_ms=900, idle_timeout_ms=5000)
    vad = apply(session, audio={"input": {"turn_detection": {"idle_timeout_ms": None}}}).turn_detection
    assert vad == ServerVad(threshold=0.7, silence_duration_ms=900)
    assert apply(session, audio={"input": {"turn_detection": None}}).turn_detection is None
    vad = apply(session, audio={"input": {"turn_detection": {"type": "server_vad"}}}).turn_detection
    assert vad == ServerVad()


def test_transcription_shows_only_what_every_client_parses() -> None:
    session = fresh()
    given = {"model": "gpt-4o-mini-transcribe", "language": None, "delay": "low", "keywords": ["x"]}
    assert apply(session, audio={"input": {"transcription": given}}).transcribe
    assert session.shown["audio"]["input"]["transcription"] == {"model": "gpt-4o-mini-transcribe"}
    apply(session, audio={"input": {"transcription": {}}})
    assert session.shown["audio"]["input"]["transcription"] == {"model": "builtin"}
    assert not apply(session, audio={"input": {"transcription": None}}).transcribe


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("auto", Truncation(0.8)),
        ("disabled", Truncation(None)),
        ({"type": "retention_ratio", "retention_ratio": 0.5}, Truncation(0.5)),
        (
            {
                "type": "retention_ratio",
                "retention_ratio": 1.0,
                "token_limits": {"post_instructions": 5000},
            },
            Truncation(1.0, 5000),
        ),
    ],
)
def test_truncation_is_shown_as_it_came_and_obeyed(given: Any, meant: Truncation) -> None:
    session = fresh()
    assert session.to_core().truncation == Truncation()
    assert apply(session, truncation=given).truncation == meant
    assert session.shown["truncation"] == given
    assert options(session).truncation == meant


@pytest.mark.parametrize(
    "given",
    [
        "sometimes",
        {"type": "retention_ratio"},
        {"type": "retention_ratio", "retention_ratio": 1.5},
        {"type": "retention_ratio", "retention_ratio": 0.5, "token_limits": {"post_instructions": -1}},
        {"type": "last_turns", "retention_ratio": 0.5},
    ],
)
def test_a_truncation_that_there_is_not_is_refused(given: Any) -> None:
    session = fresh()
    with pytest.raises(WireError):
        apply(session, truncation=given)
    assert session.shown["truncation"] == "auto"


def test_one_tool_call_at_a_time() -> None:
    session = fresh()
    assert options(session).parallel_calls, "unless it is said otherwise"
    assert not options(session, parallel_tool_calls=False).parallel_calls
    assert not apply(session, parallel_tool_calls=False).parallel_calls
    assert not options(session).parallel_calls
    assert options(session, parallel_tool_calls=True).parallel_calls


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("en", "en"),
        ("EN-us", "en"),
        ("pt_BR", "pt"),
        ("Cantonese", "yue"),
        ("nb", "no"),
        ("", ""),
        ("xx", None),
    ],
)
def test_languages_are_named_in_the_ways_of_clients(said: str, code: str | None) -> None:
    session = fresh()
    patch = {"input": {"transcription": {"language": said, "prompt": "x" * 1200 + " end "}}}
    if code is None:
        with pytest.raises(WireError) as error:
            apply(session, audio=patch)
        assert (error.value.code, error.value.param) == (
            "invalid_value",
            "session.audio.input.transcription.language",
        )
        assert session.to_core().dictation == Dictation()
        return
    how = apply(session, audio=patch).dictation
    assert how == Dictation(code, "x" * 996 + " end")
    assert apply(session, instructions="other").dictation == how
    assert apply(session, include=["item.input_audio_transcription.logprobs"]).dictation.scores
    assert apply(session, audio={"input": {"transcription": None}}).dictation == Dictation(scores=True)


def test_settings_that_change_nothing_here_are_shown_again() -> None:
    session = fresh()
    given = {
        "tracing": "auto",
        "prompt": {"id": "p", "version": "1", "variables": {}},
        "reasoning": {"effort": "low"},
        "output_lead_ms": 250,
    }
    noise = {"type": "far_field", "strength": 0.5}
    config = apply(session, **given, audio={"input": {"noise_reduction": noise}, "output": {"speed": 1.2}})
    assert session.shown.items() >= given.items()
    assert session.shown["audio"]["input"]["noise_reduction"] == noise
    assert session.shown["audio"]["output"]["speed"] == 1.2
    assert config.lead_ms == 250
    off = {"tracing": None, "prompt": None, "output_lead_ms": None}
    apply(session, **off, audio={"input": {"noise_reduction": None}})
    assert session.shown.items() >= off.items()
    assert session.shown["audio"]["input"]["noise_reduction"] is None


@pytest.mark.parametrize(
    ("voice", "used"), [("bert", "bert"), ("marin", "anna"), ({"id": "bert"}, "bert"), ({"id": "x"}, "anna")]
)
def test_unknown_voices_fall_back(voice: Any, used: str) -> None:
    session = fresh()
    assert apply(session, audio={"output": {"voice": voice}}).voice == used
    assert session.shown["audio"]["output"]["voice"] == used


def test_an_engine_without_voices_takes_any_name() -> None:
    session = Session(SessionConfig(), session_id="s", model="m", voices=())
    assert session.to_core().voice == ""
    assert apply(session, audio={"output": {"voice": "marin"}}).voice == "marin"


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
def test_telephony_formats(kind: str) -> None:
    session = fresh()
    apply(session, audio={"input": {"format": {"type": kind}}, "output": {"format": {"type": kind}}})
    assert session.input_format == kind
    assert session.output_format == {"type": kind}


@pytest.mark.parametrize(
    ("patch", "param"),
    [
        ({"type": "transcription"}, "session.type"),
        ({"output_modalities": ["text", "audio"]}, "session.output_modalities"),
        ({"output_modalities": []}, "session.output_modalities"),
        ({"tools": [{"type": "web_search"}]}, "session.tools[0].type"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "session.tools[0].server_label"),
        ({"server_tools": ["x"]}, "session.server_tools[0]"),
        ({"tool_filler": {"text": ""}}, "session.tool_filler.text"),
        ({"tools": [{"type": "function", "name": ""}]}, "session.tools[0].name"),
        ({"tools": [{"type": "function"}]}, "session.tools[0].name"),
        (
            {"tools": [{"type": "function", "name": "t", "parameters": {"x": "y" * 40_000}}]},
            "session.tools[0].parameters",
        ),
        ({"tools": [{"type": "function", "name": "t"}] * 129}, "session.tools"),
        ({"tool_choice": "sometimes"}, "session.tool_choice"),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "session.tool_choice.name"),
        ({"max_output_tokens": 0}, "session.max_output_tokens"),
        ({"max_output_tokens": 5000}, "session.max_output_tokens"),
        ({"max_output_tokens": "many"}, "session.max_output_tokens"),
        ({"temperature": 2.5}, "session.temperature"),
        ({"instructions": "x" * 70_000}, "session.instructions"),
        ({"output_lead_ms": 5}, "session.output_lead_ms"),
        ({"audio": {"output": {"speed": 9}}}, "session.audio.output.speed"),
        (
            {"audio": {"output": {"format": {"type": "audio/pcmu", "rate": 16000}}}},
            "session.audio.output.format.rate",
        ),
        ({"audio": {"input": {"format": {"type": "audio/opus"}}}}, "session.audio.input.format.type"),
        (
            {"audio": {"input": {"turn_detection": {"threshold": 2}}}},
            "session.audio.input.turn_detection.threshold",
        ),
        (
            {"audio": {"input": {"turn_detection": {"idle_timeout_ms": 5}}}},
            "session.audio.input.turn_detection.idle_timeout_ms",
        ),
        (
            {"audio": {"input": {"turn_detection": {"type": "magic"}}}},
            "session.audio.input.turn_detection.type",
        ),
    ],
)
def test_values_that_we_cannot_go_by_are_named(patch: dict[str, Any], param: str) -> None:
    session = fresh()
    before = json.dumps(session.shown)
    with pytest.raises(WireError) as caught:
        apply(session, **patch)
    assert caught.value.param == param
    assert json.dumps(session.shown) == before


def test_a_response_takes_from_the_session_what_it_does_not_say() -> None:
    session = fresh(instructions="Hi", temperature=0.4, max_tokens=7, top_p=0.9, tool_choice="none")
    assert options(session) == session.to_core().turn_options()


def test_a_response_may_differ_from_the_session() -> None:
    session = fresh(instructions="Hi", max_tokens=7)
    made = options(
        session,
        instructions="",
        output_modalities=["text"],
        audio={"output": {"voice": "bert", "format": {"type": "audio/pcm", "rate": 24000}}},
        tools=[{"type": "function", "name": "t"}],
        tool_choice={"type": "function", "name": "t"},
        max_output_tokens="inf",
        temperature=0.0,
        metadata={"a": "b"},
        conversation="none",
        input=[
            {"type": "item_reference", "id": "i"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]},
        ],
    )
    assert made == TurnOptions(
        modalities="text",
        instructions="",
        tools=(Tool("t", "", {}),),
        tool_choice="t",
        voice="bert",
        temperature=0.0,
        metadata={"a": "b"},
        conversation=False,
        format="audio/pcm",
        input=(ItemReference("i"), UserItem("", (TextContent("x"),))),
    )
    assert options(session, max_output_tokens=5).max_tokens == 5


@pytest.mark.parametrize(
    ("response", "param"),
    [
        ({"metadata": {"a": 1}}, "response.metadata[...]"),
        ({"metadata": {str(i): "" for i in range(17)}}, "response.metadata"),
        ({"input": [{"type": "item_reference"}]}, "response.input[0].id"),
        ({"input": [{"type": "mcp_call"}]}, "response.input[0].type"),
        (
            {"audio": {"output": {"format": {"type": "audio/pcm", "rate": 8000}}}},
            "response.audio.output.format.rate",
        ),
        ({"tools": [{"type": "mcp"}]}, "response.tools[0].type"),
        ({"instructions": "x" * 70_000}, "response.instructions"),
    ],
)
def test_responses_that_cannot_be(response: dict[str, Any], param: str) -> None:
    with pytest.raises(WireError) as caught:
        options(fresh(), **response)
    assert caught.value.param == param


# --- thinking -----------------------------------------------------------------------------------------------------


def thinker(**config: Any) -> Session:
    return Session(SessionConfig(**config), session_id="s", model="m", voices=("anna",), can_think=True)


def test_a_model_that_can_think_does_so_when_it_is_asked_to() -> None:
    session = thinker()
    assert session.shown["think"] == "off"
    assert not session.to_core().think
    assert apply(session, think="on").think
    assert session.shown["think"] == "on"
    assert options(session).think
    assert not options(session, think="off").think
    assert not apply(session, think="off").think
    assert options(session, think="on").think
    assert thinker(think=True).shown["think"] == "on"


def test_a_model_that_cannot_think_says_so_and_nothing_changes() -> None:
    session = fresh()
    assert session.shown["think"] is None
    before = dict(session.shown)
    with pytest.raises(WireError) as caught:
        apply(session, instructions="New", think="on")
    assert (caught.value.code, caught.value.param) == ("think_unavailable", "session.think")
    assert session.shown == before
    with pytest.raises(WireError) as caught:
        options(session, think="on")
    assert caught.value.param == "response.think"
    assert not apply(session, think="off").think
    assert session.shown["think"] is None
    assert not options(session, think="off").think


def listener(**config: Any) -> Session:
    base = SessionConfig(**config)
    return Session(base, session_id="s", model="m", voices=("anna",), kind="transcription")


def test_a_session_that_only_transcribes_says_and_means_so() -> None:
    session = listener(instructions="Be kind.")
    core = session.to_core()
    assert (core.replies, core.transcribe) == (False, True)
    assert set(session.visible) == {"type", "object", "id", "include", "audio"}
    assert set(session.visible["audio"]) == {"input"}
    semantic = {"type": "semantic_vad", "eagerness": "high"}
    assert apply(session, type="transcription", audio={"input": {"turn_detection": semantic}}).turn_detection
    assert session.visible["audio"]["input"]["turn_detection"] == semantic
    apply(session, audio={"input": {"transcription": None}})
    assert session.visible["audio"]["input"]["transcription"] == {"model": "builtin"}


@pytest.mark.parametrize(("kind", "other"), [("realtime", "transcription"), ("transcription", "realtime")])
def test_the_type_of_a_session_does_not_change(kind: Any, other: str) -> None:
    session = Session(SessionConfig(), session_id="s", model="m", voices=("anna",), kind=kind)
    apply(session, type=kind)
    with pytest.raises(WireError) as error:
        apply(session, type=other)
    assert (error.value.code, error.value.param) == ("unsupported_session_type", "session.type")


def test_models_without_turn_detection_get_none_unless_it_is_asked_for() -> None:
    whisper = {"transcription": {"model": "gpt-realtime-whisper"}}
    session = listener()
    assert apply(session, audio={"input": {"transcription": {"language": "en"}}}).turn_detection is not None
    assert apply(session, audio={"input": whisper}).turn_detection is None
    assert apply(session, audio={"input": {"turn_detection": {"type": "server_vad"}}}).turn_detection
    assert apply(session, audio={"input": whisper}).turn_detection is not None
    assert apply(fresh(), audio={"input": whisper}).turn_detection is not None


def test_echo_cancellation_is_the_server_s_unless_the_session_says_otherwise() -> None:
    session = fresh()
    assert "echo_cancellation" not in session.shown
    assert apply(session, echo_cancellation=True).cancel_echo
    assert session.shown["echo_cancellation"] is True
    assert fresh(cancel_echo=True).shown["echo_cancellation"] is True


def test_what_is_done_with_old_turns_is_the_server_s_unless_the_session_says_otherwise() -> None:
    session = fresh()
    assert "context" not in session.shown
    assert apply(session).condensing == Condensing("text", "off")
    assert apply(session, context={"summary": "model"}).condensing == Condensing("text", "model")
    assert apply(session, context={"audio": "keep"}).condensing == Condensing("keep", "model")
    assert session.shown["context"] == {"audio": "keep", "summary": "model"}
    assert fresh(condensing=Condensing("keep")).shown["context"] == {"audio": "keep", "summary": "off"}


def test_old_turns_are_not_done_with_what_nobody_knows() -> None:
    with pytest.raises(WireError) as caught:
        apply(fresh(), context={"summary": "poem"})
    assert caught.value.param == "session.context.summary"
