"""The OpenAPI document of the plain HTTP endpoints, from the structs that decode their requests."""

from __future__ import annotations

from typing import Any

import msgspec

from voiceagent.wire import audio_rest, chat, realtime_secrets, voices

_REF = "#/components/schemas/{name}"
_JSON = "application/json"


def document(*, version: str) -> dict[str, Any]:
    """OpenAPI 3.1 of the metrics, and of everything under /v1 that is not a WebSocket."""
    types = [audio_rest.SpeechRequest, chat.ChatRequest, realtime_secrets.SecretRequest]
    (speech, completion, secret), components = msgspec.json.schema_components(types, ref_template=_REF)
    form = {"multipart/form-data": {"schema": _form()}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "voiceagent",
            "version": version,
            "description": "OpenAI-shaped endpoints of a Step-Audio 2 model. Not the WebSockets.",
        },
        "security": [{"bearer": []}],
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {**components, "Error": _error()},
        },
        "paths": {
            "/metrics": {
                "get": _operation(
                    "Counts and times in Prometheus' text format",
                    answer={"text/plain": {"schema": {"type": "string"}}},
                )
            },
            "/v1/models": {"get": _operation("The model and its voices")},
            "/v1/models/{name}": {"get": _named("The model of that name", "name")},
            "/v1/voices": {
                "get": _operation("The voices: the model's own, then those that were enrolled"),
                "post": _operation(
                    "A voice of a recording of 3 to 10 s of one person's clear speech",
                    body={"multipart/form-data": {"schema": _voice_form()}},
                ),
            },
            "/v1/voices/{name}": {"delete": _named("Forget a voice that was enrolled", "name")},
            "/v1/recordings": {"get": _operation("The calls that were recorded, the newest first")},
            "/v1/recordings/{name}/{file}": {
                "get": _named("call.wav or journal.jsonl of a recorded call", "name", "file")
            },
            "/v1/recordings/{name}": {"delete": _named("Delete a recording", "name")},
            "/v1/chat/completions": {
                "post": _operation(
                    "An answer to a conversation of text and sound", body={_JSON: {"schema": completion}}
                )
            },
            "/v1/audio/speech": {
                "post": _operation(
                    "Text as a sound file, sent while it is spoken",
                    body={_JSON: {"schema": speech}},
                    answer={"audio/*": {"schema": {"type": "string", "format": "binary"}}},
                )
            },
            "/v1/audio/transcriptions": {"post": _operation("What is said in a file", body=form)},
            "/v1/audio/translations": {"post": _operation("What is said in a file, in English", body=form)},
            "/v1/realtime/client_secrets": {
                "post": _operation("A short-lived key for pages", body={_JSON: {"schema": secret}})
            },
            "/v1/realtime/translations/client_secrets": {
                "post": _operation(
                    "A short-lived key for pages that translate", body={_JSON: {"schema": secret}}
                )
            },
        },
    }


def _operation(
    summary: str, *, body: dict[str, Any] | None = None, answer: dict[str, Any] | None = None
) -> dict[str, Any]:
    refused = {"content": {_JSON: {"schema": {"$ref": _REF.format(name="Error")}}}}
    answers: dict[str, Any] = {
        "200": {"description": "Done", "content": answer or {_JSON: {"schema": {"type": "object"}}}},
        "401": {"description": "No key, or a wrong one", **refused},
        "503": {"description": "The engine is loading or full; see Retry-After", **refused},
    }
    if body is None:
        return {"summary": summary, "responses": answers}
    answers["400"] = {"description": "A field cannot be met; param names it", **refused}
    return {"summary": summary, "requestBody": {"required": True, "content": body}, "responses": answers}


def _named(summary: str, *names: str) -> dict[str, Any]:
    """An operation on what the address names."""
    places = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    return {**_operation(summary), "parameters": places}


def _form() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"type": "string", "format": "binary", "description": "WAV, FLAC, MP3, OGG or Opus"},
            "model": {"type": "string"},
            "language": {"type": "string", "description": "code of ISO 639, or English name"},
            "prompt": {"type": "string", "description": "words that may occur, or what was said just before"},
            "include[]": {"type": "array", "items": {"enum": ["logprobs"]}},
            "response_format": {"enum": list(audio_rest.TEXT_FORMATS), "default": "json"},
            "stream": {"type": "boolean", "default": False},
        },
    }


def _voice_form() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["name", "audio"],
        "properties": {
            "name": {"type": "string", "pattern": f"^{voices.NAME.pattern}$"},
            "audio": {"type": "string", "format": "binary", "description": "WAV, FLAC, MP3 or OGG, 10 MiB"},
            "consent": {
                "type": "string",
                "maxLength": voices.MAX_CONSENT,
                "description": "How the person whose voice it is agreed; kept beside it",
            },
        },
    }


def _error() -> dict[str, Any]:
    named = {name: {"type": ["string", "null"]} for name in ("type", "code", "message", "param")}
    return {
        "type": "object",
        "properties": {"error": {"type": "object", "properties": named, "required": list(named)}},
        "required": ["error"],
    }
