"""The command line: serve, ask, talk, tasks over files, doctor, config. Bad input is a line on stderr and status 2."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from voiceagent import __version__, batch, replayed, voice_command
from voiceagent.audio import wavio
from voiceagent.client import Answer, Event, RealtimeClient, Sound, Tool
from voiceagent.client.mic import microphone, speaker
from voiceagent.client.talk import Line, talk
from voiceagent.config import Config, describe, load_config
from voiceagent.engine.api import Ready
from voiceagent.engine.client import LocalEngine
from voiceagent.engine.pipe import WorkerSpec
from voiceagent.errors import InputError, VoiceAgentError
from voiceagent.launch import console, load, run_server, worker_spec
from voiceagent.server.app import Server, find_page
from voiceagent.units import VOICE_RATE

T = TypeVar("T")
USER_ERROR = 2
BATCH = ("transcribe", "translate", "describe", "speak", "convert")
LEAST_S = 0.1  #: the protocol takes no shorter turn
MODEL_HELP = (
    "pocket (built in); mini, mini-base, mini-think or OWNER/NAME of the Hugging Face hub; or a folder"
)


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if arguments.verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except VoiceAgentError as error:
        print(f"voiceagent: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="voiceagent",
        description="A real-time voice agent: it listens, thinks and speaks over one WebSocket.",
        epilog="First: voiceagent serve, open the printed address, talk. Or: voiceagent ask question.wav -o answer.wav",
    )
    parser.add_argument("--version", action="version", version=f"voiceagent {__version__}")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="log sessions and engine events (never their content)"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve", help="start the server and the page", description="Starts the server."
    )
    _common(serve)
    serve.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on (default 8080; 0 = any free one)")
    serve.set_defaults(run=run_serve)

    ask = commands.add_parser(
        "ask",
        help="speak a file to the agent and save its answer",
        description="Asks one spoken question from an audio file (any rate and channels), writes the spoken answer.",
        epilog="Without --url the model is loaded here, which takes a few seconds.",
    )
    _common(ask)
    ask.add_argument("question", type=Path, help="audio file with the question (WAV, FLAC, OGG, MP3)")
    ask.add_argument(
        "-o", "--output", type=Path, default=Path("answer.wav"), help="where to write it (answer.wav)"
    )
    _remote(ask)
    ask.add_argument("--think", action="store_true", help="think before answering (a model like mini-think)")
    ask.set_defaults(run=run_ask)

    _add_talk(commands)
    batch.add_commands(commands, _common)
    for name in BATCH:
        commands.choices[name].set_defaults(run=partial(run_batch, command=name))

    replayed.add_command(commands)
    voice_command.add_command(commands, _common, _config)
    doctor = commands.add_parser(
        "doctor",
        help="what this machine can run, and why not",
        description="Checks this machine and a model's folder, without loading the model. Status 2 if it cannot run.",
    )
    _common(doctor)
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(run=run_doctor)

    show = commands.add_parser(
        "config", help="print the effective configuration", description="Prints it as TOML."
    )
    _common(show)
    show.set_defaults(run=run_config)
    return parser


def _add_talk(commands: Any) -> None:
    parser = commands.add_parser(
        "talk",
        help="talk to the agent from this terminal",
        description="Talks to the agent: captions of both sides, and how long the first sound took. Ctrl-C ends it.",
        epilog="Wear headphones, or it hears itself. Needs sounddevice: pip install 'voiceagent[mic]'.",
    )
    _common(parser)
    _remote(parser)
    parser.add_argument(
        "--half-duplex", action="store_true", help="do not listen while it speaks (loudspeakers)"
    )
    parser.add_argument(
        "--from-file", type=Path, metavar="FILE", help="hear this file instead of a microphone"
    )
    parser.add_argument(
        "--to-file", type=Path, metavar="FILE", help="play into this file, not the loudspeaker"
    )
    parser.add_argument("--answers", type=int, metavar="N", help="end after so many answers")
    parser.set_defaults(run=run_talk)


def _remote(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="a running server, for example ws://127.0.0.1:8080")
    parser.add_argument("--api-key", default="", help="key for --url")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="certificate (PEM) to trust for wss://")
    parser.add_argument("--instructions", help="system prompt")
    parser.add_argument("--voice", help="name of the voice that answers")


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, help="TOML configuration file, see configs/")
    parser.add_argument("--model", help=MODEL_HELP)
    parser.add_argument("--device", help="where the engine runs: auto, cpu, cuda or cuda:N")


def _config(arguments: argparse.Namespace) -> Config:
    overrides: dict[str, Any] = {"engine.model": arguments.model, "engine.device": arguments.device}
    overrides["server.host"] = getattr(arguments, "host", None)
    overrides["server.port"] = getattr(arguments, "port", None)
    return load_config(arguments.config, overrides=overrides)


def run_batch(arguments: argparse.Namespace, *, command: str) -> int:
    """Does a task over files."""
    config = _config(arguments)
    voices = getattr(arguments, "voices", None)
    if voices is not None:
        config = replace(config, engine=replace(config.engine, voices=str(voices)))
    return batch.run(arguments, config, command=command)


def run_config(arguments: argparse.Namespace) -> int:
    """Prints the configuration that the other commands would use."""
    print(describe(_config(arguments)))
    return 0


def run_doctor(arguments: argparse.Namespace) -> int:
    """Prints every finding, one line each or as JSON; status 2 if something must be mended."""
    from voiceagent.doctor import examine

    marks = {"ok": "[green]  ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]FAIL[/]"}
    out = Console(highlight=False, markup=True, emoji=False)
    findings = []
    for finding in examine(_config(arguments)):
        findings.append(finding)
        if not arguments.json:
            out.print(
                f"{marks[finding.status]}  {finding.subject:<15} {escape(finding.line)}", soft_wrap=True
            )
    failed = any(finding.status == "fail" for finding in findings)
    if arguments.json:
        print(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        out.print("Something must be mended first." if failed else "This machine can run voiceagent.")
    return USER_ERROR if failed else 0


# --- serve --------------------------------------------------------------------------------------------------------


def run_serve(arguments: argparse.Namespace) -> int:
    """Serves until interrupted."""
    config = _config(arguments)
    worker = worker_spec(
        config
    )  # may download for a long time: outside of the event loop Ctrl-C ends it at once
    run_server(_serve(config, worker))
    return 0


async def _serve(config: Config, worker: WorkerSpec) -> None:
    stopping = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    async with _running(config, worker, stopping) as running:
        if running is None:  # interrupted while loading
            return
        ready, address = running
        s = "s" if config.server.tls_cert else ""
        words = f"voiceagent is ready: open [bold]http{s}://{address}[/] and talk  "
        console.print(
            f"{words}[dim]({ready.model} on {ready.device}, loaded in {ready.load_seconds:.1f} s)[/]",
            soft_wrap=True,
        )
        console.print(
            f"[dim]Realtime clients: ws{s}://{address}/v1/realtime   Stop with Ctrl-C.[/]", soft_wrap=True
        )
        await stopping.wait()
        console.print("stopping ...")


@asynccontextmanager
async def _running(
    config: Config, worker: WorkerSpec, stopping: asyncio.Event | None = None
) -> AsyncIterator[tuple[Ready, str] | None]:
    """A server with a loaded engine: (what is loaded, "host:port"); None if `stopping` was set meanwhile."""
    engine = LocalEngine(
        worker, hang_s=config.engine.heartbeat_timeout_s, load_s=config.engine.load_timeout_s
    )
    server = Server(config, engine, page=find_page())
    host, port = await server.start()
    try:
        ready = await _unless(stopping or asyncio.Event(), load(engine, worker.name))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        yield None if ready is None else (ready, address)
    finally:
        await server.stop()
        await engine.stop()


async def _unless(stopping: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What the work returns; None, and the work is cancelled, if `stopping` is set first."""
    task, stop = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, stop):
            one.cancel()
        await asyncio.wait([task, stop])


# --- ask ----------------------------------------------------------------------------------------------------------


def run_ask(arguments: argparse.Namespace) -> int:
    """Asks one question and writes the answer."""
    samples, rate = _question(arguments)
    if arguments.url is not None:
        answer = asyncio.run(_ask(arguments, samples, rate, url=arguments.url))
    else:
        config = _config(arguments)
        answer = asyncio.run(_ask_alone(arguments, samples, rate, config, worker_spec(config)))
    wavio.write(arguments.output, answer.samples, rate=VOICE_RATE)
    _report(answer, arguments.output)
    return 0


def _question(arguments: argparse.Namespace) -> tuple[Any, int]:
    """The samples and rate of the question, once everything that can be wrong with the files has been looked at."""
    samples, rate = wavio.read(arguments.question)
    if len(samples) < LEAST_S * rate:
        raise InputError(
            f"The file {arguments.question} holds only {len(samples) / rate:.3f} s of audio.",
            code="audio_too_short",
            remedy=f"Give at least {LEAST_S} s.",
        )
    if not arguments.output.parent.is_dir():
        raise InputError(
            f"There is no folder {arguments.output.parent}.", remedy="Create it, or choose another --output."
        )
    if arguments.output.suffix.lower() not in wavio.ENDINGS:
        raise InputError(
            f"{arguments.output.name} names no format that can be written.",
            remedy=f"Use {', '.join(wavio.ENDINGS)}.",
        )
    return samples, rate


async def _ask_alone(
    arguments: argparse.Namespace, samples: Any, rate: int, config: Config, worker: WorkerSpec
) -> Answer:
    """Asks a server of our own."""
    async with _private(config, worker) as url:
        return await _ask(arguments, samples, rate, url=url)


@asynccontextmanager
async def _private(config: Config, worker: WorkerSpec) -> AsyncIterator[str]:
    """A server of our own, on this machine alone."""
    private = replace(config.server, host="127.0.0.1", port=0, api_keys=(), tls_cert="", tls_key="")
    async with _running(replace(config, server=private), worker) as running:
        assert running is not None  # nothing stops it but an exception
        yield f"ws://{running[1]}"


def _client(arguments: argparse.Namespace, url: str) -> RealtimeClient:
    clock = Tool("get_time", "Current time", _time)
    return RealtimeClient(url, api_key=arguments.api_key, ca=arguments.ca, tools=[clock])


async def _time(_: dict[str, Any]) -> dict[str, str]:
    return {"time": datetime.now().strftime("%H:%M")}


async def _ask(arguments: argparse.Namespace, samples: Any, rate: int, *, url: str) -> Answer:
    async with _client(arguments, url) as client:
        await client.update(**_session(arguments), **({"think": "on"} if arguments.think else {}))
        return await _answer(client, samples, rate)


def _session(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the flags ask of a session."""
    session: dict[str, Any] = {}
    if arguments.voice:
        session["audio"] = {"output": {"voice": arguments.voice}}
    if arguments.instructions is not None:
        session["instructions"] = arguments.instructions
    return session


async def _answer(client: RealtimeClient, samples: Any, rate: int) -> Answer:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("asking", total=None)
        spoken = 0.0

        def show(event: Event) -> None:
            nonlocal spoken
            if isinstance(event, Sound):
                spoken += len(event.samples) / VOICE_RATE
                progress.update(task, description=f"answering: {spoken:.1f} s of speech")

        return await client.ask(samples, rate, on_event=show)


def _report(answer: Answer, output: Path) -> None:
    print(f"heard:    {answer.heard or '(nothing)'}")
    for name, given, result in answer.tools:
        print(f"tool:     {name}({given}) -> {result}")
    if answer.thought:
        print(f"thought:  {' '.join(answer.thought.split())}")
    print(f"answered: {answer.said}")
    seconds = len(answer.samples) / VOICE_RATE
    if answer.first_audio_s is not None and seconds:
        ratio = answer.total_s / seconds
        print(f"{seconds:.1f} s of speech in {output}")
        print(f"first audio after {answer.first_audio_s:.2f} s; {ratio:.2f} s of work per second of speech")


# --- talk ---------------------------------------------------------------------------------------------------------


def run_talk(arguments: argparse.Namespace) -> int:
    """Talks until interrupted."""
    if arguments.url is not None:
        asyncio.run(_talk(arguments, arguments.url))
    else:
        config = _config(arguments)
        asyncio.run(_talk_alone(arguments, config, worker_spec(config)))
    return 0


async def _talk_alone(arguments: argparse.Namespace, config: Config, worker: WorkerSpec) -> None:
    async with _private(config, worker) as url:
        await _talk(arguments, url)


async def _talk(arguments: argparse.Namespace, url: str) -> None:
    async with (
        speaker(arguments.to_file) as loudspeaker,
        microphone(arguments.from_file) as heard,
        _client(arguments, url) as client,
    ):
        await client.update(**_session(arguments))
        console.print("Talk. Ctrl-C ends it.", style="dim")
        deaf, answers = arguments.half_duplex, arguments.answers
        await talk(client, heard, loudspeaker, _show_line, half_duplex=deaf, answers=answers)


def _show_line(line: Line) -> None:
    took = "" if line.latency_s is None else f"   ({line.latency_s:.2f} s)"
    print(f"{line.who + ':':<8}{line.text}{took}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
