"""The Python client: one Realtime conversation over `websockets`, with what scripts and programs need of it.

It is a second, independent implementation of the wire beside the server's, so the two ends test each other.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import numpy.typing as npt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from voiceagent.audio import pcm, wavio
from voiceagent.audio.resample import resample
from voiceagent.client import tools as functions
from voiceagent.client.answers import ANSWER_TIMEOUT_S, Answer, Collector
from voiceagent.client.errors import ClientError, closed, raise_if_failed, refused, unreachable
from voiceagent.client.events import Done, Event, Failed, Raw, Reconnected, decode
from voiceagent.client.memory import Memory
from voiceagent.client.retry import Backoff
from voiceagent.client.tools import Tool
from voiceagent.units import VOICE_RATE

FRAME_S = 0.04  #: audio is sent in frames of this length
PING_S = 10.0  #: a line that is dead is known to be after twice this time
KEY_PROTOCOL = "openai-insecure-api-key."

__all__ = ["FRAME_S", "Answer", "ClientError", "RealtimeClient", "Tool"]


class RealtimeClient:
    """An open conversation; use as `async with RealtimeClient(url) as client`.

    `ask`, `ask_file` and `ask_text` put one question and wait for the whole answer. `stream` with `send_microphone`
    is a conversation: its events come as they happen, functions are run, and a connection that was lost comes back.

    Args:
        url: HOST:PORT, ws(s):// or http(s)://, with or without /v1, or a full ws URL with a path.
        api_key: the server's key, or an ephemeral one.
        model: model name for the query.
        tools: functions that the model may call.
        ca: certificate (PEM) to trust beside those of the system.
        key_in_subprotocol: send the key as browsers must, not as a Bearer header.
        backoff: how a lost connection is made again.
        resumable: ask the server to keep the session for a while when the connection is lost.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str = "",
        model: str = "pocket",
        tools: Sequence[Tool] = (),
        ca: Path | None = None,
        key_in_subprotocol: bool = False,
        backoff: Backoff | None = None,
        resumable: bool = True,
    ) -> None:
        self.url = address(url, model)
        self._bearer = {"Authorization": f"Bearer {api_key}"} if api_key and not key_in_subprotocol else {}
        self._protocols = [Subprotocol("realtime")]
        if api_key and key_in_subprotocol:
            self._protocols.append(Subprotocol(KEY_PROTOCOL + api_key))
        self._offers = self._protocols if key_in_subprotocol else None
        self._tools = {tool.name: tool for tool in tools}
        self._ca = ca
        self._backoff = backoff or Backoff()
        self._settings: Raw = {"tools": [tool.described for tool in tools]} if tools else {}
        self._memory = Memory()
        self._resumable = resumable
        self._token = ""  # of the session, if it can be resumed
        self._received = 0  # frames of the session
        self._owed: list[tuple[str, Raw]] = []  # what it waits for, and could not be sent
        self._running: set[asyncio.Task[None]] = set()
        self._socket: ClientConnection | None = None
        self.session: dict[str, Any] = {}

    async def __aenter__(self) -> RealtimeClient:
        """Connects and waits for session.created.

        Raises:
            ClientError: nobody listens there, or the server refused.
        """
        try:
            await self._begin()
        except BaseException:
            await self._hang_up()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Closes the connection; functions that still run are cancelled."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._hang_up()

    # --- the connection -------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """A new session."""
        self._token, self._received, self._owed = "", 0, []
        await self._connect({"resumable": "true"} if self._resumable else {})
        created = await self.receive()
        raise_if_failed(_failure(created))
        self.session = created["session"]
        await self._restore()

    async def _resume(self) -> bool:
        """The session that lost its connection; False if the server does not have it any more."""
        if not self._token:
            return False
        try:
            await self._connect({"resume": self._token, "received": str(self._received)})
        except ClientError as error:
            if not error.code.startswith("resume_"):
                raise
            return False
        await self.receive()
        owed, self._owed = self._owed, []
        for kind, fields in owed:
            await self._owe(kind, **fields)
        return True

    async def _connect(self, query: dict[str, str]) -> None:
        try:
            self._socket = await connect(
                _asking(self.url, query),
                additional_headers=self._bearer,
                subprotocols=self._offers,
                ssl=self._trust(),
                max_size=None,
                compression=None,
                ping_interval=PING_S,
                ping_timeout=PING_S,
            )
        except InvalidStatus as error:
            raise refused(error) from error
        except (OSError, InvalidHandshake, InvalidURI, TimeoutError) as error:
            raise unreachable(self.url, error) from error

    def _trust(self) -> ssl.SSLContext | None:
        if not self.url.startswith("wss:"):
            return None
        try:
            context = ssl.create_default_context()
            if self._ca is not None:
                context.load_verify_locations(self._ca)
            return context
        except (OSError, ssl.SSLError) as error:
            raise ClientError(
                f"Cannot use the certificate {self._ca}: {error}.", code="invalid_certificate"
            ) from error

    async def _restore(self) -> None:
        """What a new session must know: the settings of the old one, and what was said in it."""
        if self._settings:
            await self._apply(self._settings)
        for item in self._memory.forget():
            await self.send("conversation.item.create", item=item)

    async def _reconnect(self, lost: ClientError) -> Reconnected:
        problem = lost
        for attempt in range(self._backoff.attempts):
            await self._hang_up()
            await asyncio.sleep(self._backoff.wait_s(attempt))
            try:
                resumed = await self._resume()
                if not resumed:
                    await self._begin()
            except ClientError as error:
                if not error.retryable:
                    raise
                problem = error
            else:
                return Reconnected(lost.message, attempt + 1, resumed)
        raise problem

    async def _hang_up(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    async def send(self, kind: str, **fields: Any) -> None:
        """Sends one client event; ClientError if the connection is lost."""
        try:
            await self._open_socket().send(json.dumps({"type": kind, **fields}))
        except ConnectionClosed as error:
            raise closed(error) from error

    async def receive(self) -> Raw:
        """The next server message as it is; raises ClientError when the connection is lost."""
        try:
            message: Raw = json.loads(await self._open_socket().recv())
        except ConnectionClosed as error:
            raise closed(error) from error
        if message["type"] == "session.resumable":
            self._token = message["token"]
        self._received += message["type"] != "session.resumed"
        self._memory.take(message)
        return message

    async def events(self) -> AsyncIterator[Raw]:
        """Server messages as they are, until the connection is lost; no function is run."""
        while True:
            yield await self.receive()

    async def update(self, **session: Any) -> None:
        """Changes the session and waits until the server has taken it; a new connection gets the same settings."""
        await self._apply(session)
        self._settings = _merged(self._settings, session)

    async def _apply(self, session: Raw) -> None:
        await self.send("session.update", session={"type": "realtime", **session})
        async for raw in self.events():
            raise_if_failed(_failure(raw))
            if raw["type"] == "session.updated":
                self.session = raw["session"]
                return

    # --- conversations --------------------------------------------------------------------------------------

    async def stream(self) -> AsyncIterator[Event]:
        """What happens, as typed events. Functions that the model asks for are run meanwhile, and their results sent.

        A connection that is lost in a way that may pass is made again (see `Backoff`), with `Reconnected` to tell so.

        Raises:
            ClientError: it is lost for good.
        """
        while True:
            try:
                event = decode(await self.receive())
            except ClientError as error:
                if not error.retryable:
                    raise
                yield await self._reconnect(error)
                continue
            if isinstance(event, Done) and event.calls and self._tools:
                self._start(self._answer_calls(event))
            yield event

    async def send_microphone(self, block: npt.NDArray[np.int16]) -> None:
        """Sends what a microphone just heard, int16 mono 24 kHz; without a connection there is nobody to hear it."""
        await self._send_if_there("input_audio_buffer.append", audio=_base64(block))

    async def played(self, response_id: str, ms: int) -> None:
        """Says how much of a response was heard, of which the conversation then keeps no more than that.

        Once a player has said so, the server goes by its word alone: ten times a second, and where it stands when it
        stops. `talk` does it.
        """
        await self._send_if_there("output_audio_buffer.played", response_id=response_id, audio_end_ms=ms)

    async def _send_if_there(self, kind: str, **fields: Any) -> None:
        """What means nothing any more once a lost connection is there again."""
        if self._socket is None:
            return
        try:
            await self.send(kind, **fields)
        except ClientError as error:
            if not error.retryable:
                raise

    async def say(self, text: str) -> None:
        """Puts a typed message into the conversation and asks for an answer to it."""
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        await self.send("conversation.item.create", item=item)
        await self.send("response.create")

    async def append(self, samples: npt.NDArray[np.float32], rate: int, *, realtime: bool = False) -> None:
        """Sends audio, float32 mono, in 40 ms frames; `realtime` paces it as a microphone would."""
        data = pcm.float_to_int16(np.clip(resample(samples, source=rate, target=VOICE_RATE), -1.0, 1.0))
        size = int(FRAME_S * VOICE_RATE)
        clock = asyncio.get_running_loop().time
        began = clock()
        for i, start in enumerate(range(0, len(data), size)):
            await self.send("input_audio_buffer.append", audio=_base64(data[start : start + size]))
            if realtime:
                await asyncio.sleep(max(0.0, began + (i + 1) * FRAME_S - clock()))

    def _start(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer_calls(self, done: Done) -> None:
        outputs = [await functions.run(call, self._tools) for call in done.calls]
        for call, output in zip(done.calls, outputs, strict=True):
            item = {"type": "function_call_output", "call_id": call.call_id, "output": output}
            await self._owe("conversation.item.create", item=item)
        await self._owe("response.create")

    async def _owe(self, kind: str, **fields: Any) -> None:
        """Sends what the session waits for, now or once its connection is there again; with the session it is gone."""
        try:
            await self.send(kind, **fields)
        except ClientError:
            self._owed.append((kind, fields))

    # --- questions ------------------------------------------------------------------------------------------

    async def ask(
        self,
        samples: npt.NDArray[np.float32],
        rate: int,
        *,
        on_event: Callable[[Event], None] | None = None,
    ) -> Answer:
        """Asks one spoken question (as a whole turn, faster than it sounds) and waits for the whole answer.

        Functions that the model asks for are run.

        Raises:
            ClientError: the server answered with an error, or not within two minutes.
        """
        await self._by_turns()
        await self.append(samples, rate)
        await self.send("input_audio_buffer.commit")
        await self.send("response.create")
        return await self._collect(
            on_event, heard_due=bool(self.session["audio"]["input"].get("transcription"))
        )

    async def ask_file(self, path: str | Path, *, on_event: Callable[[Event], None] | None = None) -> Answer:
        """Asks what is said in an audio file; see `ask`. InputError if it cannot be read."""
        samples, rate = wavio.read(path)
        return await self.ask(samples, rate, on_event=on_event)

    async def ask_text(self, text: str, *, on_event: Callable[[Event], None] | None = None) -> Answer:
        """Asks a typed question; see `ask`."""
        await self._by_turns()
        await self.say(text)
        return await self._collect(on_event, heard_due=False)

    async def _by_turns(self) -> None:
        """One question is one turn, and its answer may come faster than it is played."""
        if self._socket is None or self._socket.close_code is not None:
            await self._reconnect(ClientError("The connection was lost.", code="connection_closed"))
        if self.session["audio"]["input"].get("turn_detection") is not None:
            await self.update(audio={"input": {"turn_detection": None}}, output_lead_ms=None)

    async def _collect(self, on_event: Callable[[Event], None] | None, *, heard_due: bool) -> Answer:
        collector = Collector(asyncio.get_running_loop().time, heard_due=heard_due, calls=bool(self._tools))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                while not collector.complete:
                    event = decode(await self.receive())
                    if on_event is not None:
                        on_event(event)
                    collector.take(event)
                    if isinstance(event, Done) and event.calls and self._tools:
                        await self._answer_calls(event)
        except TimeoutError as error:
            raise ClientError(f"No answer within {ANSWER_TIMEOUT_S:.0f} s.", code="timeout") from error
        return collector.answer()

    def _open_socket(self) -> ClientConnection:
        if self._socket is None:
            raise ClientError(
                "Not connected.",
                code="connection_closed",
                remedy="Use `async with RealtimeClient(...)`.",
                retryable=True,
            )
        return self._socket


def address(url: str, model: str) -> str:
    """The full address of the Realtime endpoint, from whatever a person would write.

    >>> address("localhost:8080", "pocket")
    'ws://localhost:8080/v1/realtime?model=pocket'
    """
    full = url if "://" in url else f"ws://{url}"
    full = full.replace("http", "ws", 1) if full.startswith("http") else full
    path = urlsplit(full).path.rstrip("/")
    if path not in ("", "/v1"):
        return full
    return f"{full.rstrip('/').removesuffix('/v1')}/v1/realtime?model={model}"


def _asking(url: str, query: dict[str, str]) -> str:
    if not query:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(query)}"


def _base64(samples: npt.NDArray[np.int16]) -> str:
    return base64.b64encode(pcm.int16_to_bytes(samples)).decode()


def _failure(raw: Raw) -> Failed | Done:
    """What of a message `raise_if_failed` is to look at."""
    event = decode(raw) if raw["type"] == "error" else None
    return event if isinstance(event, Failed) else Done("", "completed")


def _merged(old: Raw, new: Raw) -> Raw:
    both = dict(old)
    for key, value in new.items():
        inner = both.get(key)
        both[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return both
