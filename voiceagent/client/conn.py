"""The Python client: one Realtime connection over `websockets`, with the few helpers that scripts need.

It is a second, independent implementation of the wire beside the server's, so the two ends test each other.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from voiceagent.audio import pcm
from voiceagent.audio.resample import resample
from voiceagent.errors import VoiceAgentError
from voiceagent.units import VOICE_RATE

FRAME_S = 0.04  #: audio is sent in frames of this length
ANSWER_TIMEOUT_S = 120.0

ToolRunner = Callable[[str, dict[str, Any]], Awaitable[str]]


class ClientError(VoiceAgentError):
    """The server cannot be reached, refused, or answered with an error event."""

    default_code = "client_error"


@dataclass(slots=True)
class Answer:
    """One spoken answer.

    Attributes:
        heard: what the server understood, empty if it says nothing.
        said: transcript of the reply.
        thought: what the model thought before it spoke, if the session asks for that (`update(think="on")`).
        samples: the reply, int16 mono 24 kHz.
        first_audio_s: from the moment the question was committed to the first audio.
        total_s: from that moment to the end of the response.
        tools: calls that were made: name, arguments, output.
    """

    heard: str = ""
    said: str = ""
    thought: str = ""
    samples: npt.NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    first_audio_s: float | None = None
    total_s: float = 0.0
    tools: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)


class RealtimeClient:
    """An open connection; use as `async with RealtimeClient(url) as client`.

    Args:
        url: ws(s)://host:port, or a full ws URL with a path.
        api_key: sent as a Bearer key.
        model: model name for the query.
    """

    def __init__(self, url: str, *, api_key: str = "", model: str = "pocket") -> None:
        base = url.rstrip("/")
        self._url = base if "/v1/" in base else f"{base}/v1/realtime?model={model}"
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._socket: ClientConnection | None = None
        self.session: dict[str, Any] = {}

    async def __aenter__(self) -> RealtimeClient:
        """Connects and waits for session.created.

        Raises:
            ClientError: nobody listens there, or the server refused.
        """
        try:
            self._socket = await connect(
                self._url, additional_headers=self._headers, max_size=None, compression=None
            )
        except InvalidStatus as error:
            body = bytes(error.response.body or b"").decode(errors="replace")
            raise ClientError(
                f"The server refused ({error.response.status_code}): {_reason(body)}"
            ) from error
        except (OSError, InvalidHandshake, TimeoutError) as error:
            raise ClientError(
                f"Cannot connect to {self._url}: {error}.",
                remedy="Is the server running? Start it with scripts/serve.",
            ) from error
        created = await self.receive()
        self.session = created["session"]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Closes the connection."""
        if self._socket is not None:
            await self._socket.close()

    async def send(self, kind: str, **fields: Any) -> None:
        """Sends one client event."""
        await self._open_socket().send(json.dumps({"type": kind, **fields}))

    async def receive(self) -> dict[str, Any]:
        """The next server event; raises ClientError when the connection is lost."""
        try:
            event: dict[str, Any] = json.loads(await self._open_socket().recv())
        except ConnectionClosed as error:
            raise ClientError(f"The connection was closed: {error}.", code="connection_closed") from error
        return event

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Server events until the connection is lost."""
        while True:
            yield await self.receive()

    async def update(self, **session: Any) -> None:
        """Changes the session and waits until the server has taken it."""
        await self.send("session.update", session={"type": "realtime", **session})
        async for event in self.events():
            if event["type"] == "session.updated":
                self.session = event["session"]
                return
            _raise_if_error(event)

    async def append(self, samples: npt.NDArray[np.float32], rate: int, *, realtime: bool = False) -> None:
        """Sends audio, float32 mono, in 40 ms frames; `realtime` paces it as a microphone would."""
        data = pcm.float_to_int16(np.clip(resample(samples, source=rate, target=VOICE_RATE), -1.0, 1.0))
        size = int(FRAME_S * VOICE_RATE)
        clock = asyncio.get_running_loop().time
        began = clock()
        for i, start in enumerate(range(0, len(data), size)):
            frame = base64.b64encode(pcm.int16_to_bytes(data[start : start + size])).decode()
            await self.send("input_audio_buffer.append", audio=frame)
            if realtime:
                await asyncio.sleep(max(0.0, began + (i + 1) * FRAME_S - clock()))

    async def ask(
        self,
        samples: npt.NDArray[np.float32],
        rate: int,
        *,
        run_tool: ToolRunner | None = None,
        on_event: Callable[[dict[str, Any]], None] | None = None,
    ) -> Answer:
        """Asks one spoken question (manual turn) and waits for the whole answer, tool calls included.

        Raises:
            ClientError: the server answered with an error, or not within two minutes.
        """
        await self.append(samples, rate)
        await self.send("input_audio_buffer.commit")
        await self.send("response.create")
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await self._collect(run_tool, on_event)
        except TimeoutError as error:
            raise ClientError(f"No answer within {ANSWER_TIMEOUT_S:.0f} s.", code="timeout") from error

    async def _collect(
        self, run_tool: ToolRunner | None, on_event: Callable[[dict[str, Any]], None] | None
    ) -> Answer:
        answer, audio = Answer(), []
        clock = asyncio.get_running_loop().time
        began = clock()
        transcript_due, done = self._transcribes(), False
        async for event in self.events():
            if on_event is not None:
                on_event(event)
            _raise_if_error(event)
            kind: str = event["type"]
            match kind:
                case "response.output_audio.delta":
                    if answer.first_audio_s is None:
                        answer.first_audio_s = clock() - began
                    audio.append(pcm.bytes_to_int16(base64.b64decode(event["delta"])))
                case "response.thought.delta":
                    answer.thought += event["delta"]
                case "response.output_audio_transcript.done":
                    answer.said = f"{answer.said} {event['transcript']}".strip()
                case "response.output_text.done":
                    answer.said = f"{answer.said} {event['text']}".strip()
                case "conversation.item.input_audio_transcription.completed":
                    answer.heard, transcript_due = event["transcript"], False
                case "response.done":
                    answer.total_s = clock() - began
                    _raise_if_failed(event["response"])
                    done = not await self._run_tools(event["response"], answer, run_tool)
                case _:
                    pass
            if done and not transcript_due:
                break
        if audio:
            answer.samples = np.concatenate(audio)
        return answer

    def _transcribes(self) -> bool:
        return bool(self.session.get("audio", {}).get("input", {}).get("transcription"))

    async def _run_tools(self, response: dict[str, Any], answer: Answer, run_tool: ToolRunner | None) -> bool:
        """Runs the response's tool calls and asks for the next response; False if there were none."""
        calls = [item for item in response["output"] if item["type"] == "function_call"]
        if not calls or run_tool is None:
            return False
        for call in calls:
            arguments = json.loads(call["arguments"] or "{}")
            output = await run_tool(call["name"], arguments)
            answer.tools.append((call["name"], arguments, output))
            item = {"type": "function_call_output", "call_id": call["call_id"], "output": output}
            await self.send("conversation.item.create", item=item)
        await self.send("response.create")
        return True

    def _open_socket(self) -> ClientConnection:
        if self._socket is None:
            raise ClientError("Not connected.", remedy="Use `async with RealtimeClient(...)`.")
        return self._socket


def _raise_if_error(event: dict[str, Any]) -> None:
    if event["type"] == "error":
        error = event["error"]
        raise ClientError(
            error["message"], code=error.get("code") or "server_error", param=error.get("param")
        )


def _raise_if_failed(response: dict[str, Any]) -> None:
    if response["status"] == "failed":
        error = (response.get("status_details") or {}).get("error") or {}
        raise ClientError(
            error.get("message") or "The response failed.", code=error.get("code") or "server_error"
        )


def _reason(body: str) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200] or "no reason given"
