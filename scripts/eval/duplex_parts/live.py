"""Callers of a real server: microphones and loudspeakers in real time on its socket, and what they get to hear when."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from scripts.eval.duplex_parts import settings, sounds
from scripts.eval.duplex_parts.player import Player
from scripts.eval.duplex_parts.turns import percentile, share
from voiceagent.audio.g711 import mulaw_decode, mulaw_encode
from voiceagent.audio.pcm import float_to_int16, int16_to_bytes
from voiceagent.audio.polyphase import LiveResampler
from voiceagent.audio.resample import resample
from voiceagent.client.conn import RealtimeClient
from voiceagent.client.errors import ClientError
from voiceagent.models.silero import Silero, VadStream
from voiceagent.units import MODEL_RATE, VOICE_RATE

FRAME_S = 0.02
PATIENCE_S = 15.0
SERVER_VAD = "server_vad 500 ms"
ONSET_WINDOWS = 3
SURE, UNSURE = (
    0.5,
    0.35,
)  #: probabilities at which the server's voice detection goes on, and is sure that nobody speaks
Pcm = npt.NDArray[np.int16]


@dataclass(slots=True)
class Response:
    """One response as its listener got it; times on the loop's clock.

    Attributes:
        asked: when the last word before it was over; None = it was asked for without words.
        text: of its transcript so far.
        status: when it was done.
        parts: of `response.latency`.
        received: samples.
    """

    number: int
    item_id: str = ""
    asked: float | None = None
    text: str = ""
    status: str = ""
    parts: dict[str, int] = field(default_factory=dict)
    received: int = 0


class Onset:
    """When the server can first know of a voice: the third window of speech in a row, by the same detector."""

    def __init__(self, silero: Silero, rate: int) -> None:
        self._thin = LiveResampler(source=rate, target=MODEL_RATE)
        self._vad = VadStream(silero)
        self._place = self._run = 0
        self.times: list[float] = []  #: of every onset
        self._on = False

    def hear(self, pcm: Pcm, now: float) -> None:
        """What the microphone sends now."""
        thin = self._thin.push(pcm.astype(np.float32) / 32768)
        found = self._vad.push(self._place, thin)
        self._place += len(thin)
        for _, p, *_ in found:
            self._run = self._run + 1 if p >= SURE else 0 if p < UNSURE else self._run
            if self._run >= ONSET_WINDOWS and not self._on:
                self.times.append(now)
                self._on = True
            elif p < UNSURE:
                self._on = False


class Caller:
    """One caller on a connection of their own; use as `async with Caller(...)`.

    Args:
        url: of the server.
        silero: tells when the server can first know of a voice.
        phone: G.711 both ways.
        turn_detection: of the session, and what its latencies are known by.
    """

    def __init__(
        self, url: str, silero: Silero, *, phone: bool = False, turn_detection: str = SERVER_VAD
    ) -> None:
        self._client = RealtimeClient(url)
        self.name = f"{turn_detection}, telephone" if phone else turn_detection
        self._session = settings.session(settings.turn_ends()[turn_detection])
        self._phone = phone
        self._rate = sounds.PHONE_RATE if phone else VOICE_RATE
        self._random = np.random.default_rng(0)
        self._coming: list[tuple[int, Pcm]] = []
        self._sent = 0
        self.onset = Onset(silero, self._rate)
        self.player = Player()
        self.responses: dict[str, Response] = {}
        self.truncated: dict[str, int] = {}  #: milliseconds that the server says were heard, by item
        self.retrieved: dict[str, dict[str, Any]] = {}
        self.guesses: dict[str, int] = {}  #: what replies on a guess brought and cost so far
        self.errors: list[str] = []
        self.last_word: float | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Caller:
        await self._client.__aenter__()
        asked = self._session
        if self._phone:
            asked["audio"]["input"]["format"] = {"type": "audio/pcmu"}
            asked["audio"]["output"] = {"format": {"type": "audio/pcmu"}}
        await self._client.update(**asked)
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._tasks = [asyncio.create_task(self._speak()), asyncio.create_task(self._listen())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.__aexit__(None, None, None)

    # --- what a trial does ----------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds."""
        return self._clock()

    def say(self, sound: sounds.Samples, *, meant: bool = True) -> tuple[float, float]:
        """Sounds from now on; returns from when to when. `meant`: it is to be answered."""
        pcm = float_to_int16(resample(sound, source=MODEL_RATE, target=self._rate).clip(-1, 1))
        self._coming.append((self._sent, pcm))
        begin = self._began + self._sent / self._rate
        end = begin + len(sound) / MODEL_RATE
        if meant:
            self.last_word = end
        return begin, end

    async def until(self, there: Callable[[], Any], *, most: float = PATIENCE_S) -> bool:
        """Waits until something is so; False if it never was."""
        deadline = self.now() + most
        while not there():
            if self.now() > deadline or any(task.done() for task in self._tasks):
                return False
            await asyncio.sleep(0.01)
        return True

    async def reply(self, known: set[str]) -> Response | None:
        """The next response, once its first sound plays; None if there is none."""

        def fresh() -> list[Response]:
            return [r for key, r in self.responses.items() if key not in known and r.received]

        return fresh()[0] if await self.until(fresh) else None

    async def played(self, response: Response) -> bool:
        """Waits until a response is done and was played."""
        return await self.until(lambda: response.status and self.player.until <= self.now())

    async def look_up(self, item_id: str) -> dict[str, Any] | None:
        """The item as the server's history has it."""
        self.retrieved.pop(item_id, None)
        await self._client.send("conversation.item.retrieve", item_id=item_id)
        await self.until(lambda: item_id in self.retrieved, most=3.0)
        return self.retrieved.get(item_id)

    # --- the microphone and the socket ----------------------------------------------------------------------

    async def _speak(self) -> None:
        size = int(FRAME_S * self._rate)
        while True:
            frame = self._random.normal(0, sounds.ROOM_NOISE * 32768, size)
            for start, pcm in self._coming:
                part = pcm[max(0, self._sent - start) :][:size]
                frame[: len(part)] += part
            self._coming = [(s, p) for s, p in self._coming if s + len(p) > self._sent + size]
            pcm = np.clip(np.round(frame), -32768, 32767).astype(np.int16)
            self._sent += size
            await asyncio.sleep(max(0.0, self._began + self._sent / self._rate - self._clock()))
            raw = mulaw_encode(pcm) if self._phone else int16_to_bytes(pcm)
            heard = mulaw_decode(raw) if self._phone else pcm
            self.onset.hear(heard, self._clock())
            await self._client.send("input_audio_buffer.append", audio=base64.b64encode(raw).decode())

    async def _listen(self) -> None:
        async for event in self._client.events():
            await self._take(event)

    async def _take(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "response.created":
                number = len(self.responses) + 1
                self.responses[event["response"]["id"]] = Response(number, asked=self.last_word)
            case "response.output_audio.delta":
                response = self.responses[event["response_id"]]
                response.item_id = event["item_id"]
                pcm = self._decoded(base64.b64decode(event["delta"]))
                response.received += len(pcm)
                self.player.receive(response.number, pcm, self._clock())
            case "response.output_audio_transcript.delta":
                self.responses[event["response_id"]].text += event["delta"]
            case "response.latency":
                self.responses[event["response_id"]].parts = event["parts"]
                self.guesses = event.get("speculation", self.guesses)
            case "response.done":
                self.responses[event["response"]["id"]].status = event["response"]["status"]
            case "input_audio_buffer.speech_started" | "output_audio_buffer.cleared":
                await self._stop()
            case "conversation.item.truncated":
                self.truncated[event["item_id"]] = event["audio_end_ms"]
            case "conversation.item.retrieved":
                self.retrieved[event["item"]["id"]] = event["item"]
            case "error":
                self.errors.append(event["error"]["message"])
            case _:
                pass

    async def _stop(self) -> None:
        """As a client does that is told of a voice: it stops its player, and says where that stood."""
        now = self._clock()
        if self.player.until <= now:
            return
        playing = self.player.playing(now)
        self.player.flush(None, now)
        for response in self.responses.values():
            if response.number == playing and response.item_id:
                ms = len(self.player.pcm(response.number)) * 1000 // VOICE_RATE
                await self._client.send(
                    "conversation.item.truncate", item_id=response.item_id, content_index=0, audio_end_ms=ms
                )

    def _decoded(self, raw: bytes) -> Pcm:
        if not self._phone:
            return np.frombuffer(raw, "<i2").astype(np.int16)
        return np.repeat(mulaw_decode(raw), VOICE_RATE // sounds.PHONE_RATE)


# --- what they do -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Figures:
    """What all callers together got; seconds.

    Attributes:
        latency: from the last word to the first audible sample, by kind of line.
        parts: of each response, milliseconds by name.
        from_onset, from_hold: yielding, by phase.
        events: of each sound that was no turn: its kind, whether the response was cut by it, whether it was heard
            whole.
        drift_ms, drift_words: what the history has more than was played.
        spoken_s: that was played in all.
    """

    latency: dict[str, list[float]] = field(default_factory=dict)
    parts: list[dict[str, int]] = field(default_factory=list)
    from_onset: dict[str, list[float]] = field(default_factory=dict)
    from_hold: dict[str, list[float]] = field(default_factory=dict)
    interruptions: int = 0
    yielded: int = 0
    events: list[tuple[str, bool, bool]] = field(default_factory=list)
    drift_ms: list[float] = field(default_factory=list)
    drift_words: list[int] = field(default_factory=list)
    underruns: int = 0
    spoken_s: float = 0.0
    unanswered: int = 0
    errors: list[str] = field(default_factory=list)
    guesses: dict[str, int] = field(default_factory=dict)
    talks: int = 0


async def measure(url: str, *, seconds: float, sessions: int) -> Figures:
    """Callers of every kind, so many at once, for about so long."""
    figures, silero, clock = Figures(), Silero(), asyncio.get_running_loop().time
    end = clock() + seconds
    jobs = (_interrupt, _talk, _false_alarms, _talk, _interrupt, _phone)

    async def caller(number: int) -> None:
        for turn in itertools.count():
            job = jobs[(number * 2 + turn) % len(jobs)]
            try:
                await job(url, silero, figures, random.Random(1000 * number + turn))
            except ClientError as error:
                figures.errors.append(error.message)
            if clock() >= end:
                return

    await asyncio.gather(*(caller(number) for number in range(sessions)))
    return figures


@contextlib.asynccontextmanager
async def _calling(url: str, silero: Silero, figures: Figures, **line: Any) -> AsyncIterator[Caller]:
    """A caller whose playing and errors are counted in the end."""
    async with Caller(url, silero, **line) as caller:
        await asyncio.sleep(0.3)
        yield caller
        figures.errors += caller.errors
        for name, count in caller.guesses.items():
            figures.guesses[name] = figures.guesses.get(name, 0) + count
        for response in caller.responses.values():
            figures.spoken_s += len(caller.player.pcm(response.number)) / VOICE_RATE
            if response.parts:
                figures.parts.append(response.parts)


async def _ask(caller: Caller, figures: Figures, order: random.Random) -> Response | None:
    """Asks something and waits for the first sound of the answer."""
    known = set(caller.responses)
    caller.say(sounds.recorded(order.choice(list(sounds.recorded_texts()))))
    return await _answer(caller, figures, known)


async def _answer(caller: Caller, figures: Figures, known: set[str]) -> Response | None:
    response = await caller.reply(known)
    if response is None or response.asked is None:
        figures.unanswered += 1
        return None
    span = caller.player.span(response.number)
    assert span is not None
    figures.latency.setdefault(caller.name, []).append(span[0] - response.asked)
    return response


async def _talk(url: str, silero: Silero, figures: Figures, order: random.Random) -> None:
    """Questions and answers, nobody interrupts."""
    patience = ("semantic_vad high", SERVER_VAD, "semantic_vad medium")[figures.talks % 3]
    figures.talks += 1
    async with _calling(url, silero, figures, turn_detection=patience) as caller:
        for _ in range(3):
            response = await _ask(caller, figures, order)
            if response is not None:
                await caller.played(response)
                figures.underruns += len(caller.player.gaps(response.number, over=0.02))
            await asyncio.sleep(0.3)


async def _phone(url: str, silero: Silero, figures: Figures, order: random.Random) -> None:
    """A telephone: one answer to its end, one that is interrupted."""
    async with _calling(url, silero, figures, phone=True) as caller:
        response = await _ask(caller, figures, order)
        if response is not None:
            await caller.played(response)
            figures.underruns += len(caller.player.gaps(response.number, over=0.02))
        response = await _ask(caller, figures, order)
        if response is not None:
            await _break_in(caller, figures, response, "telephone", 0.8, order)


async def _interrupt(url: str, silero: Silero, figures: Figures, order: random.Random) -> None:
    """Answers that are interrupted by the next question, at every phase."""
    phases = {"first 200 ms": 0.1, "middle": 1.0, "late": 2.0}
    async with _calling(url, silero, figures) as caller:
        response = await _ask(caller, figures, order)
        for phase in order.sample(list(phases), len(phases)) * 2:
            if response is None:
                return
            response = await _break_in(caller, figures, response, phase, phases[phase], order)
        if response is not None:
            await caller.played(response)


async def _break_in(
    caller: Caller, figures: Figures, response: Response, phase: str, after: float, order: random.Random
) -> Response | None:
    """Interrupts a response so long after its first sound; returns the answer to the interruption."""
    span = caller.player.span(response.number)
    assert span is not None
    await asyncio.sleep(max(0.0, span[0] + after - caller.now()))
    known, onsets = set(caller.responses), len(caller.onset.times)
    name = order.choice(list(sounds.recorded_texts()))
    if caller.player.until < caller.now() + 0.3 and response.status:
        caller.say(sounds.recorded(name))  # it was too short to be interrupted
        return await _answer(caller, figures, known)
    figures.interruptions += 1
    onset, _ = caller.say(sounds.recorded(name))
    answer = await _answer(caller, figures, known)
    span = caller.player.span(response.number)
    assert span is not None
    cut = response.status == "cancelled" or len(caller.player.pcm(response.number)) < response.received
    figures.yielded += span[1] - onset <= 2.0
    heard = caller.onset.times[onsets : onsets + 1]
    if cut and heard and span[1] > heard[0]:  # it was audible when they began
        figures.from_onset.setdefault(phase, []).append(span[1] - onset)
        figures.from_hold.setdefault(phase, []).append(max(0.0, span[1] - heard[0]))
        await _look_for_drift(caller, figures, response)
    return answer


async def _look_for_drift(caller: Caller, figures: Figures, response: Response) -> None:
    item = await caller.look_up(response.item_id)
    if item is None:
        return
    played = len(caller.player.pcm(response.number)) / VOICE_RATE
    content = item["content"][0] if item["content"] else {}
    kept = len(base64.b64decode(content.get("audio") or "")) / 2 / VOICE_RATE
    figures.drift_ms.append(round((kept - played) * 1000, 1))
    words = len((content.get("transcript") or "").split())
    figures.drift_words.append(round(words * (kept - played) / max(kept, 0.2)))


async def _false_alarms(url: str, silero: Silero, figures: Figures, order: random.Random) -> None:
    """Answers over which something sounds that nobody meant for us."""
    noises = np.random.default_rng(order.randrange(1 << 30))
    async with _calling(url, silero, figures) as caller:
        for _ in range(4):
            response = await _ask(caller, figures, order)
            if response is None:
                continue
            kind = order.choice(["backchannel", "backchannel", "cough", "noise burst"])
            sound = {
                "backchannel": lambda: order.choice(sounds.backchannels())[1],
                "cough": lambda: sounds.cough(noises),
                "noise burst": lambda: sounds.burst(noises),
            }[kind]()
            await asyncio.sleep(order.uniform(0.2, 1.0))
            if response.status:
                await caller.played(response)
                continue
            known = set(caller.responses)
            caller.say(sound, meant=False)
            await caller.played(response)
            whole = len(caller.player.pcm(response.number)) == response.received
            completed = response.status == "completed" and whole
            figures.events.append((kind, not completed, completed))
            await asyncio.sleep(1.0)
            for key in set(caller.responses) - known:  # it was taken for a turn
                await caller.played(caller.responses[key])


def summary(figures: Figures) -> dict[str, Any]:
    """What is reported of them."""
    onset = [s for found in figures.from_onset.values() for s in found]
    hold = [s for found in figures.from_hold.values() for s in found]
    return {
        "response_latency_ms": {name: _spread(found) for name, found in sorted(figures.latency.items())},
        "latency_parts_ms": _middle(figures.parts),
        "interruptions": figures.interruptions,
        "yield_rate": share([True] * figures.yielded + [False] * (figures.interruptions - figures.yielded)),
        "yield_from_onset_ms": _spread(onset),
        "yield_from_hold_ms": _spread(hold),
        "yield_from_hold_by_phase_ms": {phase: _spread(s) for phase, s in sorted(figures.from_hold.items())},
        "not_meant": len(figures.events),
        "selectivity": {
            kind: share(not cut for found, cut, _ in figures.events if found == kind)
            for kind in sorted({kind for kind, _, _ in figures.events})
        },
        "drift_ms": _ends(figures.drift_ms),
        "drift_words": _ends(figures.drift_words),
        "underruns": figures.underruns,
        "spoken_s": round(figures.spoken_s, 1),
        "unanswered": figures.unanswered,
        "speculation": {name: count for name, count in figures.guesses.items() if name != "saved_ms"},
        "errors": sorted(set(figures.errors)),
    }


def _spread(seconds: list[float]) -> dict[str, Any]:
    return {"count": len(seconds), **{f"p{q}": percentile(seconds, q) for q in (50, 90, 99)}}


def _middle(parts: list[dict[str, int]]) -> dict[str, float]:
    """The mean of each part: means add up as the parts do."""
    names = list(dict.fromkeys(name for found in parts for name in found))
    return {name: round(float(np.mean([found.get(name, 0) for found in parts])), 1) for name in names}


def _ends(found: list[Any]) -> dict[str, Any] | None:
    if not found:
        return None
    none = sum(value == 0 for value in found)
    return {"least": min(found), "most": max(found), "none": round(none / len(found), 4), "count": len(found)}
