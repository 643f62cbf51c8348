"""All voices that clients may ask for, and who may bring more; those brought live in the engine and in a folder.

It knows files and limits, not requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time

from voiceagent.config import ServerConfig
from voiceagent.engine.api import EngineClient, Enrolled
from voiceagent.errors import CapacityError, ConfigError, InputError
from voiceagent.server.auth import is_loopback
from voiceagent.wire.voices import NAME, CustomVoice, checked_name

AT_ONCE = 4  #: recordings that wait for the engine
log = logging.getLogger("voiceagent.voices")


@dataclass(frozen=True, slots=True)
class VoiceFolder:
    """Voices as files: NAME.wav, and NAME.json with what else is known."""

    path: Path

    def check(self) -> None:
        """Makes the folder if it is not there; ConfigError if that cannot be."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"The voices' folder {self.path} cannot be used: {error.strerror}.",
                remedy="Check the path and its permissions.",
                param="server.voice_folder",
            ) from error

    def read(self) -> list[tuple[CustomVoice, bytes]]:
        """All voices with their recordings, oldest first; a file that is none is passed over with a word in the log."""
        found = []
        for path in sorted(self.path.glob("*.wav")):
            try:
                known = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
                if not NAME.fullmatch(path.stem):
                    raise ValueError("a name that no voice may have")
                voice = CustomVoice(
                    path.stem,
                    int(known["created_at"]),
                    float(known["seconds"]),
                    str(known.get("consent", "")),
                    persistent=True,
                )
                found.append((voice, path.read_bytes()))
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.error("%s is not used: %s", path, error)
        return sorted(found, key=lambda each: each[0].created_at)

    def add(self, voice: CustomVoice, clip: bytes) -> None:
        """Keeps a voice; ConfigError if it cannot be written."""
        known = {"created_at": voice.created_at, "seconds": voice.seconds, "consent": voice.consent}
        try:
            self._write(f"{voice.name}.json", json.dumps(known, ensure_ascii=False).encode())
            self._write(f"{voice.name}.wav", clip)
        except OSError as error:
            self.remove(voice.name)
            raise ConfigError(
                f"The voice cannot be written to its folder: {error.strerror}.",
                remedy="Check its permissions and the space that is left.",
                param="server.voice_folder",
            ) from error

    def remove(self, name: str) -> None:
        """Forgets a voice; one that is not there is fine."""
        for ending in (".wav", ".json"):
            with contextlib.suppress(OSError):
                (self.path / f"{name}{ending}").unlink(missing_ok=True)

    def _write(self, name: str, data: bytes) -> None:
        """Whole or not at all."""
        part = self.path / f"{name}.part"
        part.write_bytes(data)
        part.replace(self.path / name)


class VoiceBook(Collection[str]):
    """The names that a client may ask for, as they are now: the model's own, then those that were brought.

    Args:
        engine: whose voices they are.
        config: who may bring voices, how many, and where they are kept.
    """

    def __init__(self, engine: EngineClient, config: ServerConfig) -> None:
        self._engine = engine
        self._limit = config.max_custom_voices
        self._folder = VoiceFolder(Path(config.voice_folder)) if config.voice_folder else None
        loopback = is_loopback(config.host)
        self.allowed = config.custom_voices == "on" or (config.custom_voices == "auto" and loopback)
        self._known: dict[str, CustomVoice] = {}
        self._coming: set[str] = set()  # in the engine's names
        self._built_in: tuple[str, ...] = ()

    async def restore(self) -> None:
        """Brings back what the folder holds; ConfigError if it cannot be used."""
        if self._folder is None:
            return
        self._folder.check()
        for voice, clip in await asyncio.to_thread(self._folder.read):
            if len(self._known) >= self._limit:
                log.error("the voice %s is left out: there are %d already", voice.name, self._limit)
                continue
            self._known[voice.name] = voice
            self._engine.voices.restore(voice.name, clip)

    # --- looking up -----------------------------------------------------------------------------------------

    @property
    def built_in(self) -> tuple[str, ...]:
        """The model's own; while the engine is away, those of before."""
        if self._engine.ready is not None:
            self._built_in = self._engine.ready.voices
        return self._built_in

    @property
    def custom(self) -> tuple[CustomVoice, ...]:
        """Those that were brought for everybody."""
        there = set(self._engine.voices.names)
        return tuple(voice for name, voice in self._known.items() if name in there)

    def __iter__(self) -> Iterator[str]:
        yield from self.built_in
        yield from (voice.name for voice in self.custom)

    def __len__(self) -> int:
        return len(self.built_in) + len(self.custom)

    def __contains__(self, name: object) -> bool:
        return name in self.built_in or (name in self._known and name in self._engine.voices.names)

    # --- changes --------------------------------------------------------------------------------------------

    async def enrol(self, name: str, data: bytes, *, consent: str = "") -> CustomVoice:
        """A voice for everybody, of the bytes of a sound file.

        Raises:
            InputError: not allowed, a name that cannot be or is taken, or a recording that cannot be used.
            CapacityError: there are as many voices as there may be, or no memory for one more.
            EngineError: the engine is away or failed on it.
            ConfigError: it cannot be written to the folder.
        """
        self.check_name(checked_name(name))
        made = await self._make(name, data)
        voice = CustomVoice(name, int(time()), made.seconds, consent, persistent=self._folder is not None)
        if self._folder is not None:
            try:
                await asyncio.to_thread(self._folder.add, voice, made.clip)
            except BaseException:
                self._engine.voices.dismiss(name)
                raise
        self._known[name] = voice
        return voice

    async def enrol_privately(self, key: str, data: bytes) -> float:
        """A voice that only those know who know its key, which no name can equal; returns its seconds."""
        return (await self._make(key, data)).seconds

    async def remove(self, name: str) -> None:
        """Forgets a voice for everybody.

        Raises:
            InputError: it is one of the model's own, or not there.
        """
        if name in self.built_in:
            raise InputError(f"{name!r} belongs to the model and stays.", code="built_in_voice", param="name")
        if self._known.pop(name, None) is None:
            raise InputError(f"There is no voice {name[:64]!r}.", code="voice_not_found", param="name")
        self._engine.voices.dismiss(name)
        if self._folder is not None:
            await asyncio.to_thread(self._folder.remove, name)

    def dismiss_private(self, key: str) -> None:
        """Forgets a private voice."""
        self._engine.voices.dismiss(key)

    def check_name(self, name: str) -> None:
        """InputError if a voice has the name, in whatever case: files of some systems do not tell them apart."""
        taken = {known.casefold() for known in (*self.built_in, *self._known, *self._coming)}
        if name.casefold() in taken:
            raise InputError(
                f"There is already a voice {name!r}.",
                code="voice_exists",
                param="name",
                remedy="Choose another name, or delete that one.",
            )

    async def _make(self, key: str, data: bytes) -> Enrolled:
        if not self.allowed:
            raise InputError(
                "This server takes no voices.",
                code="custom_voices_off",
                remedy="Set server.custom_voices = on, or use one of /v1/voices.",
            )
        if len(self._engine.voices.names) + len(self._coming) >= self._limit:
            raise CapacityError(
                f"There are {self._limit} custom voices, which is as many as there may be.",
                code="too_many_voices",
                remedy="Delete one, or raise server.max_custom_voices.",
            )
        if len(self._coming) >= AT_ONCE:
            raise CapacityError("Other voices are being made.", remedy="Try again in a few seconds.")
        self._coming.add(key)
        try:
            return await self._engine.voices.enrol(key, data)
        finally:
            self._coming.discard(key)
