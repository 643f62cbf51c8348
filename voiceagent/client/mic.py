"""Microphone and loudspeaker of this machine, or files in their place. Knows no connection and no conversation.

`sounddevice` (the extra `voiceagent[mic]`) is imported when a device is opened, and by nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from voiceagent.audio import pcm, wavio
from voiceagent.audio.resample import resample
from voiceagent.client.playing import Block, Place, PlayQueue, blocks_behind
from voiceagent.errors import VoiceAgentError
from voiceagent.units import VOICE_RATE

BLOCK_S = 0.04
BLOCK = int(BLOCK_S * VOICE_RATE)
BACKLOG = 50  #: blocks of the microphone that may wait; what is older is dropped
QUIET = np.zeros(BLOCK, np.int16)


class DeviceError(VoiceAgentError):
    """There is no microphone or loudspeaker, or no library for them."""

    default_code = "audio_device"


class Speaker(Protocol):
    """Where the voice of the agent goes."""

    def play(self, samples: Block, response_id: str = "") -> None:
        """Plays this behind what is still to be played."""

    def drop(self) -> None:
        """Forgets what is still to be played; a pause is over."""

    def pause(self) -> None:
        """Falls silent at once and keeps the rest."""

    def resume(self) -> None:
        """Goes on at the sample behind the last one."""

    @property
    def busy(self) -> bool:
        """Something is still to be played."""

    @property
    def place(self) -> Place | None:
        """How much of what was heard; None before all sound."""


@asynccontextmanager
async def microphone(file: Path | None = None) -> AsyncIterator[AsyncIterator[Block]]:
    """Blocks of 40 ms of what is heard; a file is heard once, at its pace, with silence behind it.

    Raises:
        DeviceError: no microphone, or no sounddevice.
        InputError: the file cannot be read.
    """
    if file is not None:
        yield _read(file)
        return
    device = _sounddevice()
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[Block] = asyncio.Queue(BACKLOG)

    def take(block: Block) -> None:
        if heard.full():
            heard.get_nowait()
        heard.put_nowait(block)

    def callback(data: Any, frames: int, time: Any, status: Any) -> None:
        loop.call_soon_threadsafe(take, np.array(data[:, 0]))

    async with _open(device, device.InputStream, "microphone", callback):
        yield _queued(heard)


async def _queued(heard: asyncio.Queue[Block]) -> AsyncIterator[Block]:
    while True:
        yield await heard.get()


async def _read(file: Path) -> AsyncIterator[Block]:
    samples, rate = wavio.read(file)
    voice = pcm.float_to_int16(np.clip(resample(samples, source=rate, target=VOICE_RATE), -1.0, 1.0))
    clock = asyncio.get_running_loop().time
    began, sent = clock(), 0
    while True:
        block = voice[sent * BLOCK : (sent + 1) * BLOCK]
        yield np.concatenate([block, QUIET[len(block) :]])
        sent += 1
        await asyncio.sleep(max(0.0, began + sent * BLOCK_S - clock()))


@asynccontextmanager
async def speaker(file: Path | None = None) -> AsyncIterator[Speaker]:
    """A loudspeaker; with a file, that holds at the end what would have been heard.

    Raises:
        DeviceError: no loudspeaker, or no sounddevice.
    """
    async with AsyncExitStack() as open_:
        if file is None:
            device = _sounddevice()
            queue = PlayQueue(behind=blocks_behind(_latency_s(device), BLOCK_S))

            def callback(data: Any, frames: int, time: Any, status: Any) -> None:
                data[:, 0] = queue.take(frames)

            await open_.enter_async_context(_open(device, device.OutputStream, "loudspeaker", callback))
        else:
            queue = PlayQueue()
            player = asyncio.create_task(_write(queue, file))
            open_.push_async_callback(_end, player)
        yield queue


async def _end(player: asyncio.Task[None]) -> None:
    player.cancel()
    await asyncio.gather(player, return_exceptions=True)


async def _write(queue: PlayQueue, file: Path) -> None:
    """Plays into a file at the pace of a loudspeaker: what was dropped before its time came is not in it."""
    clock = asyncio.get_running_loop().time
    heard: list[Block] = []
    began = clock()
    try:
        while True:
            heard.append(queue.take(BLOCK))
            await asyncio.sleep(max(0.0, began + len(heard) * BLOCK_S - clock()))
    finally:
        wavio.write(file, np.concatenate(heard or [QUIET]), rate=VOICE_RATE)


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:  # the package
        raise DeviceError(
            "The package sounddevice is not installed, which microphones need.",
            code="package_missing",
            remedy="pip install 'voiceagent[mic]', or use the page that voiceagent serve prints.",
        ) from error
    except OSError as error:  # the library under it
        raise DeviceError(
            f"sounddevice does not find PortAudio: {error}.",
            code="library_missing",
            remedy="Install it (Debian: apt-get install libportaudio2).",
        ) from error
    return sounddevice


def _latency_s(device: Any) -> float:
    """From the callback to the ear, as the loudspeaker says; 0.1 if it does not."""
    try:
        return float(device.query_devices(kind="output")["default_high_output_latency"])
    except (device.PortAudioError, AttributeError, KeyError, TypeError, ValueError):
        return 0.1


@asynccontextmanager
async def _open(device: Any, kind: Callable[..., Any], name: str, callback: Any) -> AsyncIterator[None]:
    try:
        stream = kind(samplerate=VOICE_RATE, channels=1, dtype="int16", blocksize=BLOCK, callback=callback)
        stream.start()
    except (device.PortAudioError, ValueError) as error:
        raise DeviceError(
            f"Cannot open a {name}: {error}.",
            code=f"no_{name}",
            remedy="Connect one, or choose it as the system's default.",
        ) from error
    try:
        yield
    finally:
        stream.close()
