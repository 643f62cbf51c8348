"""The engine process: a thread reads the pipe, one detects voices, the main thread computes, others decode speech
beside it, one writes.

It owns threads, pipe and exit codes; what is computed and in which order is `loop.py`'s. It exits when the pipe ends,
so a killed server leaves no orphan behind.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from voiceagent.engine import api
from voiceagent.engine.codec import FrameReader, encode
from voiceagent.engine.detector import Detector, Input, VoiceNetwork
from voiceagent.engine.lane import Lane
from voiceagent.engine.loop import Loop
from voiceagent.engine.pipe import WorkerSpec
from voiceagent.engine.protocol import Runner
from voiceagent.errors import EngineError, VoiceAgentError

EXIT_PEER_GONE, EXIT_LOAD_FAILED, EXIT_DEVICE_LOST = 0, 3, 70
OUTBOX_FRAMES = (
    8192  #: the server reads at once; when this many wait, it is stuck, and computing on would not help
)
SWITCH_S = (
    0.0005  #: the computing thread may wait so long for another thread's Python code; the default is 5 ms
)
log = logging.getLogger(__name__)


class Outbox:
    """Frames on their way to the server; any thread may put, one thread sends. Blocks when full."""

    def __init__(self, pipe: socket.socket) -> None:
        self._pipe = pipe
        self._frames: queue.Queue[bytes | None] = queue.Queue(OUTBOX_FRAMES)
        self._thread = threading.Thread(target=self._send, name="writer", daemon=True)
        self._thread.start()

    def put(self, reply: api.Reply) -> None:
        """Queue one reply."""
        self._frames.put(encode(reply))

    def flush(self) -> None:
        """Send what is queued, then stop sending; at most a second."""
        self._frames.put(None)
        self._thread.join(1.0)

    def _send(self) -> None:
        while (frame := self._frames.get()) is not None:
            ready = [frame]
            with contextlib.suppress(queue.Empty):  # the server wakes once for all that is there
                while (frame := self._frames.get_nowait()) is not None:
                    ready.append(frame)
            try:
                self._pipe.sendall(b"".join(ready))
            except OSError:
                os._exit(EXIT_PEER_GONE)
            if frame is None:
                return


class Ears:
    """The reading thread, which hands every command on at once, and beside it the one that detects voices.

    Turns must not wait behind the audio of all sessions.
    """

    def __init__(self, pipe: socket.socket, outbox: Outbox, network: Callable[[], VoiceNetwork]) -> None:
        self.commands: queue.SimpleQueue[api.Command | Callable[[], None]] = queue.SimpleQueue()
        self._pipe = pipe
        self._outbox = outbox
        self._network = network
        self._audio: queue.SimpleQueue[Input] = queue.SimpleQueue()
        for name, work in (("ears", self._read), ("voices", self._detect)):
            threading.Thread(target=self._run, args=(work,), name=name, daemon=True).start()

    def _run(self, work: Callable[[], None]) -> None:
        """Until the pipe ends; then the whole process does, whatever the other threads are at."""
        try:
            work()
        except OSError:
            pass
        except BaseException:  # a process that cannot hear its server must not live on
            log.exception("a listening thread failed")
            os._exit(EXIT_DEVICE_LOST)
        os._exit(EXIT_PEER_GONE)

    def _read(self) -> None:
        frames: FrameReader[api.Command] = FrameReader(api.Command)
        while chunk := self._pipe.recv(1 << 18):
            for command in frames.feed(chunk):
                if isinstance(command, api.Audio | api.OpenSession | api.CloseSession):
                    self._audio.put(command)
                if not isinstance(command, api.Audio):
                    self.commands.put(command)

    def _detect(self) -> None:
        """From the first session on, for which the network must have been loaded."""
        first = self._audio.get()
        detector = Detector(self._network(), self._outbox.put)
        detector.take([first])
        detector.run(self._audio)


def serve(loop: Loop, commands: queue.SimpleQueue[api.Command | Callable[[], None]]) -> None:
    """Commands and what the speech lane brought first, then one step, until `Shutdown`."""
    busy = False
    while True:
        try:
            while True:
                command = commands.get(block=not busy)
                if isinstance(command, api.Shutdown):
                    return
                if callable(command):
                    command()
                else:
                    loop.command(command)
                busy = True  # look for more commands, then for work
        except queue.Empty:
            busy = loop.step()


def cores() -> int:
    """Cores that this process may use: the affinity mask, and a container's quota where there is one (cgroup v2)."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return count


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="voiceagent.engine.worker", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="file descriptor of the pipe to the server")
    parser.add_argument("--spec", required=True, help="JSON of a WorkerSpec")
    return parser.parse_args(argv)


def _load(spec: WorkerSpec, progress: Callable[[str, float], None]) -> tuple[Runner, VoiceNetwork, api.Ready]:
    """The runner, the network of the voice detector, and the description. Heavy imports happen here only."""
    began = time.monotonic()
    if spec.fake is not None:
        from voiceagent.engine.fake import FakeRunner
        from voiceagent.engine.fake_ear import EnergyNetwork

        ready = api.Ready(
            "fake", "none", "none", ("default_female", "default_male"), 16_384, spec.max_sessions, 0.0,
            can_think=bool(spec.fake.thought),
        )  # fmt: skip
        return FakeRunner(spec.fake), EnergyNetwork(), ready
    from voiceagent.engine.runner import StepAudioRunner
    from voiceagent.models.placement import place
    from voiceagent.models.silero import Silero
    from voiceagent.models.step_audio2.checkpoint import out_of_memory_named
    from voiceagent.models.step_audio2.variant import Variant

    progress("folder and memory", 0.0)
    placement = place(
        spec.model,
        device=spec.device,
        dtype=spec.dtype,
        speech_device=spec.speech_device,
        speech_dtype=spec.speech_dtype,
        kv_memory_mb=spec.kv_memory_mb,
        speech_memory_mb=spec.speech_memory_mb,
        max_sessions=spec.max_sessions,
    )
    progress("voice activity detector", 0.05)
    silero = Silero()
    with out_of_memory_named(placement.device, what="the model, its graphs and its conversations"):
        runner = StepAudioRunner.load(
            spec.model,
            placement,
            variant=None if spec.variant == "auto" else Variant(spec.variant),
            recordings=spec.voices or None,
            speech_chunks=spec.speech_chunks,
            reference_compatible=spec.reference_compatible,
            max_batch=spec.max_batch,
            threads=spec.threads or max(1, cores() // 2),
            progress=progress,
        )
    if runner.max_sessions < spec.max_sessions:
        log.warning("the memory holds %d sessions, not %d", runner.max_sessions, spec.max_sessions)
    ready = api.Ready(
        model=spec.name or Path(spec.model).name,  # a client has no business with our paths
        device=placement.device,
        dtype=str(placement.dtype).removeprefix("torch."),
        voices=runner.voices,
        context_tokens=runner.context_tokens,
        max_sessions=min(spec.max_sessions, runner.max_sessions),
        load_seconds=time.monotonic() - began,
        can_think=runner.can_think,
    )
    return runner, silero, ready


def main(argv: list[str] | None = None) -> int:
    """Load, serve, and return the exit code."""
    args = _parse(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="engine: %(levelname)s %(message)s")
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is the server's to handle; it tells us, or we see the end
    sys.setswitchinterval(SWITCH_S)
    spec = msgspec.json.decode(args.spec, type=WorkerSpec)
    pipe = socket.socket(fileno=args.fd)
    outbox = Outbox(pipe)
    detectors: list[VoiceNetwork] = []
    ears = Ears(
        pipe, outbox, lambda: detectors[0]
    )  # listens from the start: the end of the pipe ends loading too
    try:
        runner, network, ready = _load(spec, lambda stage, done: outbox.put(api.Loading(stage, done)))
    except VoiceAgentError as error:
        outbox.put(api.Fatal(error.code, error.message, error.remedy))
        outbox.flush()
        return EXIT_LOAD_FAILED
    except Exception as error:  # loading meets every kind of machine; the server must hear why
        log.exception("loading failed")
        outbox.put(api.Fatal("engine_load_failed", f"Loading failed: {type(error).__name__}: {error}", ""))
        outbox.flush()
        return EXIT_LOAD_FAILED
    detectors.append(network)
    outbox.put(ready)
    lane, desk = Lane(ears.commands.put, threads=runner.limits.lanes), Lane(ears.commands.put)
    loop = Loop(
        runner,
        max_sessions=ready.max_sessions,
        emit=outbox.put,
        clock=time.monotonic,
        lane=lane,
        desk=desk,
        guess_share=spec.guess_share,
    )
    try:
        serve(loop, ears.commands)
    except Exception as error:  # only a lost device comes this far: end at once, the server starts us anew
        log.exception("the device is lost")
        outbox.put(api.Fatal(EngineError.default_code, f"The device is lost: {error}", ""))
        outbox.flush()
        return EXIT_DEVICE_LOST
    outbox.flush()
    return 0


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)  # a device that hangs in its destructors must not hold the exit up
