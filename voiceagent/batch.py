"""The model's tasks over many files from the command line: transcribe, translate, describe, speak, convert."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from voiceagent.audio import wavio
from voiceagent.audio.resample import resample
from voiceagent.config import Config
from voiceagent.core.options import TurnOptions
from voiceagent.engine.client import LocalEngine
from voiceagent.errors import InputError, VoiceAgentError
from voiceagent.launch import console, load, worker_spec
from voiceagent.server import tasks
from voiceagent.units import MODEL_RATE, PIECE_SAMPLES, VOICE_RATE
from voiceagent.wire.audio_rest import Segment, TextRequest, render_text, whole
from voiceagent.wire.dictation import dictation

FORMATS = {"text": ".txt", "srt": ".srt", "vtt": ".vtt", "json": ".json"}
Common = Callable[[argparse.ArgumentParser], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one file: words, sound (n,) int16 at 24 kHz, or both."""

    text: str = ""
    ending: str = ".txt"
    sound: npt.NDArray[np.int16] | None = None


Report = Callable[[float], None]
"""Takes how many seconds of a file are done."""
Work = Callable[[LocalEngine, Path, Report], Awaitable[Result]]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser], common: Common) -> None:
    """Adds the five commands to the command line's parser."""
    transcribe = _command(commands, common, "transcribe", "write down what is said in audio files")
    transcribe.add_argument("--format", choices=FORMATS, default="text", help="of the written files (text)")
    transcribe.add_argument(
        "--language", default="", metavar="CODE", help="that is spoken (the model finds it)"
    )
    transcribe.add_argument("--prompt", default="", metavar="WORDS", help="words that may occur")
    translate = _command(commands, common, "translate", "translate what is said in audio files")
    translate.add_argument(
        "--to", default="English", metavar="LANGUAGE", help="for example Chinese (English)"
    )
    translate.add_argument(
        "--speech", action="store_true", help="speak the translation too (files up to 25 s)"
    )
    describe = _command(commands, common, "describe", "say what can be heard in audio files (up to 25 s)")
    describe.add_argument("--question", default="", help="a question about the sound instead")
    speak = _command(commands, common, "speak", "read text files aloud")
    convert = _command(commands, common, "convert", "say audio files again in another voice")
    for command in (transcribe, translate, describe, speak):
        _sampling(command)
    for command in (translate, speak, convert):
        command.add_argument("--voice", default="", help="name of a voice of the model (its first one)")
        command.add_argument(
            "--voices",
            type=Path,
            help="folder of recordings NAME.wav, 3 to 10 s each, instead of the model's",
        )


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], common: Common, name: str, words: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
    common(parser)
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="one result for each, by its name"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="folder of the results (this one)"
    )
    parser.add_argument("--stats", action="store_true", help="print the time that each file took")
    return parser


def _sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--temperature", type=float, help="of the sampling; 0 = always the likeliest")
    parser.add_argument("--top-p", type=float, help="sample from so much of the probability")
    parser.add_argument("--top-k", type=int, help="sample from so many tokens")
    parser.add_argument("--max-tokens", type=int, help="longest answer")


def run(arguments: argparse.Namespace, config: Config, *, command: str) -> int:
    """Does one command over its files; a file that cannot be used is told, and the others go on. 2 if one failed."""
    for path in arguments.files:
        if not path.is_file():
            raise InputError(f"There is no file {path}.", code="file_not_found", remedy="Check the path.")
    stems = [path.stem for path in arguments.files]
    doubled = {stem for stem in stems if stems.count(stem) > 1}
    if doubled:
        raise InputError(
            f"Several files are named {sorted(doubled)[0]}: their results would overwrite each other.",
            remedy="Rename them, or give them in separate commands.",
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    if command == "convert":
        return asyncio.run(_convert_all(arguments, config))
    work = {"transcribe": _transcribe, "translate": _translate, "describe": _describe, "speak": _speak}[
        command
    ]
    return asyncio.run(
        _engine_work(arguments, config, lambda engine, path, report: work(engine, path, report, arguments))
    )


async def _engine_work(arguments: argparse.Namespace, config: Config, work: Work) -> int:
    worker = worker_spec(config)
    engine = LocalEngine(worker, load_s=config.engine.load_timeout_s)
    try:
        await load(engine, worker.name)
        return await _each(arguments, lambda path, report: work(engine, path, report))
    finally:
        await engine.stop()


async def _each(arguments: argparse.Namespace, work: Callable[[Path, Report], Awaitable[Result]]) -> int:
    failed = 0
    async with _progress(len(arguments.files)) as (show, advance):
        for path in arguments.files:
            began = time.monotonic()
            show(path.name)
            try:
                result = await work(path, partial(_show_seconds, show, path.name))
            except VoiceAgentError as error:
                failed += 1
                console.print(f"{path}: {error}", markup=False, soft_wrap=True)
            else:
                written = _write(result, arguments.out / path.stem)
                spent = time.monotonic() - began
                print(f"{path} -> {', '.join(map(str, written))}{_stats(arguments, result, spent)}")
            advance()
    return 2 if failed else 0


def _show_seconds(show: Callable[[str], None], name: str, seconds: float) -> None:
    show(f"{name}, {int(seconds) // 60}:{int(seconds) % 60:02} done")


@asynccontextmanager
async def _progress(count: int) -> AsyncIterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """What shows how far a file is, and what says that it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("files", total=count)
        yield lambda words: progress.update(task, description=words), lambda: progress.advance(task)


def _stats(arguments: argparse.Namespace, result: Result, spent: float) -> str:
    if not arguments.stats:
        return ""
    sound = "" if result.sound is None else f" for {len(result.sound) / VOICE_RATE:.1f} s of speech"
    return f"  ({spent:.2f} s{sound})"


def _write(result: Result, stem: Path) -> list[Path]:
    written = []
    if result.text:
        written.append(stem.with_name(stem.name + result.ending))
        written[-1].write_text(result.text, encoding="utf-8")
    if result.sound is not None:
        written.append(stem.with_name(stem.name + ".wav"))
        wavio.write(written[-1], result.sound, rate=VOICE_RATE)
    return written


# --- the tasks ----------------------------------------------------------------------------------------------------


def _options(arguments: argparse.Namespace, *, spoken: bool, instructions: str = "") -> TurnOptions:
    return TurnOptions(
        modalities="audio" if spoken else "text",
        instructions=instructions,
        voice=getattr(arguments, "voice", ""),
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        top_k=arguments.top_k,
        max_tokens=arguments.max_tokens,
    )


async def _transcribe(
    engine: LocalEngine, path: Path, report: Report, arguments: argparse.Namespace
) -> Result:
    with path.open("rb") as file:
        recording = tasks.Recording(file)
        how = dictation(arguments.language, arguments.prompt, scores=False)
        found = await _found(tasks.written(engine, recording, how=how), report)
    asked = TextRequest("verbose_json" if arguments.format == "json" else arguments.format, False, how)
    _, text = render_text(found, asked=asked, task="transcribe", duration=recording.seconds)
    return Result(text, FORMATS[arguments.format])


async def _found(segments: AsyncIterator[Segment], report: Report) -> list[Segment]:
    """All of a file, as it comes: an hour of speech takes its time."""
    found = []
    async for segment in segments:
        found.append(segment)
        report(segment.end)
    return found


async def _translate(
    engine: LocalEngine, path: Path, report: Report, arguments: argparse.Namespace
) -> Result:
    if not arguments.speech:
        with path.open("rb") as file:
            written = tasks.written(engine, tasks.Recording(file), translate=arguments.to)
            found = await _found(written, report)
        return Result(whole(found) + "\n")
    instructions = tasks.TRANSLATE_ALOUD.format(language=arguments.to)
    options = _options(arguments, spoken=True, instructions=instructions)
    text, sound = await tasks.answered(engine, _clip(path), options)
    return Result(text + "\n", sound=sound)


async def _describe(engine: LocalEngine, path: Path, _: Report, arguments: argparse.Namespace) -> Result:
    instructions = "You are a helpful assistant." if arguments.question else tasks.DESCRIBE
    options = _options(arguments, spoken=False, instructions=instructions)
    text, _sound = await tasks.answered(engine, _clip(path), options, question=arguments.question)
    return Result(text + "\n")


async def _speak(engine: LocalEngine, path: Path, _: Report, arguments: argparse.Namespace) -> Result:
    try:
        text = await asyncio.to_thread(path.read_text, encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8: {error}.", code="not_text") from error
    if not text.strip():
        raise InputError(f"{path} holds no words.", code="empty_text")
    options = _options(arguments, spoken=True)
    parts = [part async for part in tasks.read_aloud(engine, text, options)]
    return Result(sound=np.concatenate([np.zeros(0, np.int16), *parts]))


def _clip(path: Path) -> npt.NDArray[np.float32]:
    """A file of at most 25 s at 16 kHz, read-only."""
    samples, rate = wavio.read(path)
    clip = resample(samples, source=rate, target=MODEL_RATE)
    if len(clip) > PIECE_SAMPLES:
        raise InputError(
            f"The file {path} is {len(clip) / MODEL_RATE:.0f} s long; this task takes at most 25 s.",
            code="audio_too_long",
            remedy="Cut it into parts.",
        )
    clip.setflags(write=False)
    return clip


async def _convert_all(arguments: argparse.Namespace, config: Config) -> int:
    """Speech ids of the file, spoken in another voice: no language model is needed, so none is loaded."""
    from voiceagent.models.step_audio2.speech_tokenizer import SpeechTokenizer
    from voiceagent.models.step_audio2.token2wav import Token2Wav

    spec = worker_spec(config)
    folder = Path(spec.model) / "token2wav"
    with console.status("loading the speech decoder"):
        tokenizer = SpeechTokenizer(folder / "speech_tokenizer_v2_25hz.onnx")
        decoder = Token2Wav.load(folder, recordings=spec.voices)
    if arguments.voice and arguments.voice not in decoder.voices:
        raise InputError(
            f"There is no voice {arguments.voice!r}.", remedy=f"The voices are: {', '.join(decoder.voices)}."
        )
    voice = decoder.voices[arguments.voice or next(iter(decoder.voices))]

    async def convert(path: Path, _: Report) -> Result:
        samples, rate = wavio.read(path)
        heard = resample(samples, source=rate, target=MODEL_RATE)
        parts = [heard[at : at + PIECE_SAMPLES] for at in range(0, len(heard), PIECE_SAMPLES)]
        ids = [int(code) for part in parts for code in tokenizer.encode(part)]
        return Result(sound=await asyncio.to_thread(decoder.synthesize, ids, voice))

    return await _each(arguments, convert)
