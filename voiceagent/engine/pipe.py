"""One worker from the outside: its command line, and our end of its pipe; it knows no sessions and no restarts."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec

from voiceagent.engine import api
from voiceagent.engine.codec import CodecError, FrameReader, encode
from voiceagent.engine.fake import Script

MAX_UNSENT_BYTES = 64 * 1024 * 1024  #: the worker reads at once; when this much waits, it is stuck
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What to start. The fields are those of `EngineConfig`, but `model` is a folder, and `fake`.

    Attributes:
        model: checkpoint folder.
        name: what clients call it; empty = the folder's name.
        variant: auto, chat, think or base.
        voices: folder of recordings; empty = the checkpoint's own.
        device, speech_device: auto, cpu, cuda or cuda:N.
        dtype, speech_dtype: auto, float32, bfloat16 or float16.
        kv_memory_mb, speech_memory_mb: 0 = worked out at loading.
        speech_chunks: speech ids per chunk.
        reference_compatible: trim and cross-fade speech as the published code does.
        threads: torch threads each of language and speech; 0 = half of the cores.
        max_sessions: sessions that may be open at once.
        max_batch: conversations that one step of the language model serves.
        guess_share: of its time, that replies on a guess may cost in vain.
        fake: play this script instead of a model.
    """

    model: str = ""
    name: str = ""
    variant: str = "auto"
    voices: str = ""
    device: str = "cpu"
    dtype: str = "float32"
    speech_device: str = "auto"
    speech_dtype: str = "auto"
    kv_memory_mb: int = 0
    speech_memory_mb: int = 0
    speech_chunks: tuple[int, ...] = (12, 16, 25)
    reference_compatible: bool = False
    threads: int = 0
    max_sessions: int = 4
    max_batch: int = 64
    guess_share: float = 0.25
    fake: Script | None = None

    def argv(self, fd: int) -> list[str]:
        """The command line of a worker whose pipe is file descriptor `fd`."""
        spec = msgspec.json.encode(self).decode()
        return [sys.executable, "-P", "-m", "voiceagent.engine.worker", "--fd", str(fd), "--spec", spec]


def environment() -> dict[str, str]:
    """Ours, with this very package first on the path: the worker runs the code that the server runs, wherever it is.

    OpenMP's threads sleep when they wait: spinning ones made a token take 118 ms instead of 8 on two cores that had
    other work too.
    """
    home = str(Path(__file__).resolve().parent.parent.parent)
    path = os.environ.get("PYTHONPATH")
    return {
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        "PYTHONPATH": f"{home}{os.pathsep}{path}" if path else home,
    }


class Pipe(asyncio.Protocol):
    """Our end of one worker's pipe; `ended` is settled when the worker, or the pipe, is gone."""

    def __init__(self, on_reply: Callable[[api.Reply], None]) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._frames: FrameReader[api.Reply] = FrameReader(api.Reply)
        self._on_reply = on_reply
        self._transport: asyncio.WriteTransport | None = None
        self._waiting: list[bytes] = []
        self._flushing: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        # Not asyncio.WriteTransport by inheritance in every event loop.
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Hand on whole replies; a peer that speaks nonsense is cut off."""
        try:
            for reply in self._frames.feed(data):
                self._on_reply(reply)
        except CodecError:
            log.exception("the engine spoke nonsense")
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Settle `ended`."""
        self._transport = None
        if self._flushing is not None:
            self._flushing.cancel()
        if not self.ended.done():
            self.ended.set_result(None)

    def send(self, command: api.Command) -> None:
        """Queue a command; a pipe that has ended or is stuck takes no more."""
        if self._transport is None or self._transport.is_closing():
            return
        self._waiting.append(encode(command))
        if isinstance(command, api.Audio):  # what others send in this round of the loop goes with it
            if self._flushing is None:
                self._flushing = asyncio.get_running_loop().call_soon(self._flush)
        else:
            self._flush()

    def _flush(self) -> None:
        """Write what waits, in order."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(b"".join(self._waiting))
        self._waiting.clear()
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            log.error("the engine does not read its commands")
            self.abort()

    def abort(self) -> None:
        """Close at once; the worker sees the end, we see `ended`."""
        if self._transport is not None:
            self._transport.abort()
