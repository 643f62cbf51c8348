"""Translation sessions of the Realtime protocol as a dialect: speech in, words and speech of another language out.

Each utterance is answered by its translation and by nothing else. PROTOCOL.md says what deviates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, assert_never

import msgspec
from msgspec import UNSET, Meta, UnsetType

from voiceagent.audio.pcm import int16_to_bytes
from voiceagent.core import actions as act
from voiceagent.core import events as core
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.dictation import LANGUAGES
from voiceagent.core.utterances import gap
from voiceagent.errors import InputError, VoiceAgentError
from voiceagent.units import VOICE_RATE
from voiceagent.wire import realtime_events as ev
from voiceagent.wire import realtime_items as items
from voiceagent.wire.codecs import AudioDecoder, Samples
from voiceagent.wire.dialect import Reply, WireError, error_body, refused
from voiceagent.wire.realtime_decode import decode_message
from voiceagent.wire.realtime_writer import Writer

FRAME_MS = 200  #: steps in which `elapsed_ms` goes on
Language = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\n{}]*$")]


class TranscriptionPatch(msgspec.Struct):
    """Whether the person's words are told, too."""

    model: ev.Id


class InputPatch(msgspec.Struct):
    """audio.input of an update."""

    noise_reduction: ev.NoiseReduction | UnsetType | None = UNSET
    transcription: TranscriptionPatch | UnsetType | None = UNSET


class OutputPatch(msgspec.Struct):
    """audio.output of an update."""

    language: Language | None = None


class AudioPatch(msgspec.Struct):
    """audio of an update."""

    input: InputPatch | None = None
    output: OutputPatch | None = None


class TranslationPatch(msgspec.Struct):
    """A sparse translation session; `type` and `model` are those of the session, whatever is said."""

    type: Literal["translation"] | None = None
    model: ev.Id | None = None
    audio: AudioPatch | None = None


class SessionUpdate(ev.ClientEvent, tag="session.update"):
    """Changes the session."""

    session: TranslationPatch


class AudioAppend(ev.ClientEvent, tag="session.input_audio_buffer.append"):
    """Base64 PCM, 16 bit mono at 24 kHz."""

    audio: str


class SessionClose(ev.ClientEvent, tag="session.close"):
    """Ends the session."""


AnyClientEvent = SessionUpdate | SessionClose | AudioAppend
TYPES = frozenset(str(kind.__struct_config__.tag) for kind in AnyClientEvent.__args__)
_message = msgspec.json.Decoder(AnyClientEvent)


class TranslationDialect:
    """One translation connection; see `wire.dialect.Dialect`.

    Args:
        session_id: shown to the client and prefix of the ids made here.
        model: the model name that the client asked for, echoed.
        base: the server's session defaults.
        voices: the engine's voices.
        instructions: what the model is told, with a place for the name of the `{language}`.
        expires_at: when the session ends at the latest, in seconds since 1970.
    """

    def __init__(
        self,
        *,
        session_id: str,
        model: str,
        base: opt.SessionConfig,
        voices: Sequence[str],
        instructions: str,
        expires_at: int,
    ) -> None:
        self._base = base
        self._voice = voices[0] if voices else ""
        self._instructions = instructions
        self._writer = Writer(session_id)
        self._event = self._writer.event
        self._decoder = AudioDecoder("audio/pcm")
        self._said = {"input": "", "output": ""}  # the end of each transcript so far
        self._joins = {"input": "", "output": ""}  # whose words these are
        self._heard_ms = 0
        self.shown: dict[str, Any] = {
            "id": session_id,
            "type": "translation",
            "model": model,
            "expires_at": expires_at,
            "audio": {
                "input": {"noise_reduction": None, "transcription": None},
                "output": {"language": "en"},
            },
        }

    @property
    def config(self) -> opt.SessionConfig:
        """What the session asks of the controller."""
        audio = self.shown["audio"]
        code = audio["output"]["language"]
        name = LANGUAGES.get(code.lower().partition("-")[0], code)
        vad = replace(
            self._base.turn_detection or opt.ServerVad(), create_response=True, interrupt_response=False
        )
        return opt.SessionConfig(
            instructions=self._instructions.format(language=name),
            voice=self._voice,
            temperature=0.0,
            turn_detection=vad,
            transcribe=audio["input"]["transcription"] is not None,
            alone=True,
            lead_ms=self._base.lead_ms,
        )

    def preset(self, session: str) -> None:
        """Begins with a session object (JSON text), such as an ephemeral key carries; only before `open`.

        Raises:
            WireError: it cannot be met; `param` names the field.
        """
        message = decode_message(f'{{"type":"session.update","session":{session}}}', _message, TYPES)
        assert isinstance(message, SessionUpdate)
        self._apply(message.session)

    # --- frames in ------------------------------------------------------------------------------------------

    def open(self) -> Iterator[str]:
        """The greeting."""
        yield self._event("session.created", session=self.shown)

    def receive(self, frame: str | bytes) -> Iterator[core.Event | Reply]:
        """Events and direct replies for one client message; raises WireError only."""
        message = decode_message(frame, _message, TYPES)
        try:
            yield from self._dispatch(message)
        except WireError as error:
            error.event_id = message.event_id
            raise
        except InputError as error:
            raise refused(error, message.event_id) from error

    def _dispatch(self, message: AnyClientEvent) -> Iterator[core.Event | Reply]:
        match message:
            case AudioAppend():
                at, samples = self._decoder.push(items.from_base64(message.audio, param="audio"))
                yield from self._audio_in(at, samples)
            case SessionUpdate():
                self._apply(message.session)
                yield core.Configure(self.config, message.event_id)
                yield Reply(self._event("session.updated", session=self.shown))
            case SessionClose():
                yield core.Hangup("close_requested")
            case _:
                assert_never(message)

    def _audio_in(self, at: int, samples: Samples) -> Iterator[core.AudioIn]:
        if len(samples):
            self._heard_ms = (at + len(samples)) * 1000 // 16_000
            yield core.AudioIn(at, samples)

    def _apply(self, patch: TranslationPatch) -> None:
        audio = patch.audio or AudioPatch()
        heard, spoken = dict(self.shown["audio"]["input"]), dict(self.shown["audio"]["output"])
        given = audio.input or InputPatch()
        if given.noise_reduction is not UNSET:
            heard["noise_reduction"] = msgspec.to_builtins(given.noise_reduction)
        if given.transcription is not UNSET:
            heard["transcription"] = msgspec.to_builtins(given.transcription)
        if audio.output is not None and audio.output.language is not None:
            spoken["language"] = audio.output.language
        self.shown = {**self.shown, "audio": {"input": heard, "output": spoken}}

    # --- frames out -----------------------------------------------------------------------------------------

    def render(self, action: act.Action) -> Iterator[str]:
        """Server events for one action of the controller; most are not this client's business."""
        match action:
            case notices.TurnText(turn, _, delta):
                yield self._words("output", str(turn), delta)
            case notices.InputTranscriptDelta(item_id, _, text):
                yield self._words("input", item_id, text)
            case act.SendAudio():
                yield self._writer.sound(
                    "session.output_audio.delta",
                    int16_to_bytes(action.pcm),
                    format="pcm16",
                    sample_rate=VOICE_RATE,
                    channels=1,
                    elapsed_ms=self._elapsed_ms,
                )
            case notices.TurnClosed() if action.error is not None:
                yield self._error(action.error.code, action.error.message, param=None, event_id=None)
            case notices.Error(code, message, param, event_id):
                yield self._error(code, message, param=param, event_id=event_id)
            case act.Close():
                yield self._event("session.closed")
            case _:
                pass

    @property
    def _elapsed_ms(self) -> int:
        return self._heard_ms // FRAME_MS * FRAME_MS

    def _words(self, way: Literal["input", "output"], whose: str, text: str) -> str:
        """More of a transcript, which goes on from utterance to utterance."""
        if whose != self._joins[way]:
            text = gap(self._said[way], text) + text
        self._joins[way], self._said[way] = whose, (self._said[way] + text)[-1:]
        return self._event(f"session.{way}_transcript.delta", delta=text, elapsed_ms=self._elapsed_ms)

    def render_error(self, error: VoiceAgentError) -> str:
        """The error event; its text is ours, never an exception's."""
        event_id = error.event_id if isinstance(error, WireError) else None
        return self._error(error.code, str(error), param=error.param, event_id=event_id)

    def _error(self, code: str, message: str, *, param: str | None, event_id: str | None) -> str:
        return self._event("error", error=error_body(code, message, param=param, event_id=event_id))
