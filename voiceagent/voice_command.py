"""`voiceagent voices`: the folder of voices that a server brings back when it starts, without a server."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from time import time
from typing import Any

from voiceagent.audio.clip import read_clip, to_wav
from voiceagent.config import Config
from voiceagent.engine.voices import LONGEST_S, SHORTEST_S
from voiceagent.errors import ConfigError, InputError
from voiceagent.server.voice_book import VoiceFolder
from voiceagent.units import VOICE_RATE
from voiceagent.wire.voices import CustomVoice, checked_name


def add_command(
    commands: Any,
    common: Callable[[argparse.ArgumentParser], None],
    configured: Callable[[argparse.Namespace], Config],
) -> None:
    """Adds it to the commands; `common` adds the options of all, `configured` reads them."""
    parser = commands.add_parser(
        "voices",
        help="list, add or remove voices of your own",
        description="Keeps the voices in server.voice_folder, which `voiceagent serve` brings back when it starts.",
        epilog="A running server does not look there again: it takes voices by POST /v1/voices.",
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="what is there")
    adding = actions.add_parser(
        "add", help=f"a recording of {SHORTEST_S:g} to {LONGEST_S:g} s becomes a voice"
    )
    adding.add_argument("name", help="what sessions will ask for")
    adding.add_argument(
        "file", type=Path, help="the recording: WAV, FLAC, MP3 or OGG, one person, clear speech"
    )
    adding.add_argument("--consent", default="", help="how that person agreed; kept beside the voice")
    removing = actions.add_parser("remove", help="forget a voice")
    removing.add_argument("name")
    for action, run in ((listing, _list), (adding, _add), (removing, _remove)):
        common(action)
        action.add_argument("--folder", type=Path, help="instead of server.voice_folder")
        action.set_defaults(run=_on_folder(run, configured))


def _on_folder(
    run: Callable[[argparse.Namespace, VoiceFolder], None],
    configured: Callable[[argparse.Namespace], Config],
) -> Callable[[argparse.Namespace], int]:
    def command(arguments: argparse.Namespace) -> int:
        named = arguments.folder or configured(arguments).server.voice_folder
        if not named:
            raise ConfigError(
                "There is no folder for voices.",
                remedy="Set server.voice_folder, or give --folder.",
                param="server.voice_folder",
            )
        folder = VoiceFolder(Path(named))
        folder.check()
        run(arguments, folder)
        return 0

    return command


def _list(_: argparse.Namespace, folder: VoiceFolder) -> None:
    for voice, _clip in folder.read():
        print(f"{voice.name}  {voice.seconds:.1f} s  {voice.consent}".rstrip())


def _add(arguments: argparse.Namespace, folder: VoiceFolder) -> None:
    name = checked_name(arguments.name)
    if name.casefold() in {voice.name.casefold() for voice, _ in folder.read()}:
        raise InputError(f"There is already a voice {name!r}.", remedy="Remove it first.", param="name")
    try:
        data = arguments.file.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {arguments.file}: {error.strerror}.", code="file_not_found") from error
    clip = read_clip(data, rate=VOICE_RATE, shortest_s=SHORTEST_S, longest_s=LONGEST_S)
    voice = CustomVoice(name, int(time()), len(clip) / VOICE_RATE, arguments.consent, persistent=True)
    folder.add(voice, to_wav(clip, rate=VOICE_RATE))
    print(f"{name}: {voice.seconds:.1f} s. A server that starts with this folder speaks with it.")


def _remove(arguments: argparse.Namespace, folder: VoiceFolder) -> None:
    if arguments.name not in {voice.name for voice, _ in folder.read()}:
        raise InputError(f"There is no voice {arguments.name!r} in {folder.path}.", param="name")
    folder.remove(arguments.name)
