"""Takes our own voice out of what comes in, by what we sent and when it was played; it decides nothing.

The delay is searched for by correlation, the path from the loudspeaker to the microphone is followed by an adaptive
filter in the frequency domain, and what that leaves is weighed: is there more in it than our echo explains? All signals
are float32 at 16 kHz on the time line of the incoming audio.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voiceagent.units import MODEL_RATE, samples_to_ms

Samples = npt.NDArray[np.float32]
Spectrum = npt.NDArray[np.complexfloating]
Power = npt.NDArray[np.floating]

BLOCK = 256  #: samples per step of the filter, 16 ms
BINS = BLOCK + 1
TAIL = 12  #: blocks of the echo path that the filter spans, 192 ms
AHEAD = 4  #: blocks of it before the delay that was found, which is that of the strongest path
LONGEST_DELAY = MODEL_RATE * 8 // 10  #: searched for: networks, players and phone lines together
SEARCH_EVERY = MODEL_RATE // 4
SEARCH_OVER = MODEL_RATE  #: of incoming audio
FORGET = 0.7  #: of what earlier searches found
SPAN = AHEAD * BLOCK // 2  #: samples by which a delay may be off
SAME = 32  #: samples, as far as two searches may differ that found the same
PERSIST = 4  #: searches in a row that must find another delay before it is believed
CLEAR_PEAK = 20.0  #: a peak so many times the median correlation is a delay; two voices alone reach 15
DOUBT = 1.0  #: about the path at the beginning, power per bin
KEEP = 0.999  #: of the path per block: people move
NEAR = 0.9  #: of the near voices' power, per block
HUSHED = 0.03  #: of what the filter leaves while nobody speaks: 30 dB less
FADE = 0.004  #: per block, of what is reported: 4 s
QUIET = 1e-6  #: power per sample of what was played, below which no delay is searched for
SMOOTH = 0.3  #: of a block's power
RISE = 1.004  #: per block, of a minimum that is followed: twice in 3 s
DOUBTED_RISE = 1.0005  #: the same while it may be a voice that is weighed: twice in 22 s
BEST = 0.02  #: of the echo's power is left at best: a path moves faster than it is learnt
YOUNG = 30  #: blocks: so many, over those learnt from, is left of the echo's power by a young filter at best
MARGIN = 8.0  #: times what is explained is a voice: 9 dB
FLOOR = 1e-7  #: power per bin that counts as silence: -70 dB of full scale


class Track:
    """Sound on the incoming audio's time line: a ring of its last seconds, silence where nothing was written."""

    def __init__(self, seconds: float) -> None:
        self._ring: Samples = np.zeros(int(seconds * MODEL_RATE), np.float32)
        self._end = 0  # everything from here on is silence

    @property
    def end(self) -> int:
        """Where it ends, as far as is known."""
        return self._end

    def write(self, at: int, samples: Samples) -> None:
        """`samples` sound from `at` on. What lies behind them is not known yet; what was there is replaced."""
        size = len(self._ring)
        samples = samples[-size:]
        at = max(at, 0)
        if at > self._end:
            self._put(max(self._end, at - size), np.zeros(min(at - self._end, size), np.float32))
        self._put(at, samples)
        self._end = at + len(samples)

    def cut(self, at: int) -> None:
        """The player dropped what would have sounded from `at` on."""
        self._end = min(self._end, max(at, 0))

    def read(self, start: int, count: int) -> Samples:
        """Samples [start, start + count)."""
        places = np.arange(start, start + count)
        known = (places >= max(0, self._end - len(self._ring))) & (places < self._end)
        return np.where(known, self._ring[places % len(self._ring)], np.float32(0.0))

    def _put(self, at: int, samples: Samples) -> None:
        self._ring[np.arange(at, at + len(samples)) % len(self._ring)] = samples


@dataclass(slots=True)
class DelayFinder:
    """Delay between what was played and what is heard of it, by generalised cross-correlation with phase transform.

    Knapp and Carter, "The Generalized Correlation Method for Estimation of Time Delay", 1976.
    """

    delay: int | None = None  #: samples; None = there is no echo, or it is not known yet
    _cross: Spectrum | None = None
    _last: int = -1  # where the last search found another
    _again: int = 0  # how often in a row it was found

    def search(self, played: Samples, heard: Samples) -> None:
        """Weighs one more stretch: `heard` (n,), `played` (n + LONGEST_DELAY,), which ends where `heard` ends."""
        size = 1 << (len(played) + len(heard)).bit_length()
        cross = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(played, size))
        cross /= np.abs(cross) + 1e-9
        band = slice(size * 300 // MODEL_RATE, size * 3_400 // MODEL_RATE)  # what a telephone passes
        whitened = np.zeros_like(cross)
        whitened[band] = cross[band]
        self._cross = whitened if self._cross is None else FORGET * self._cross + whitened
        # heard[i] = played[i + LONGEST_DELAY - delay]
        likely = np.abs(np.fft.irfft(self._cross, size))
        likely = np.concatenate([likely[-LONGEST_DELAY:], likely[:1]])
        peak = int(likely.argmax())
        if likely[peak] <= CLEAR_PEAK * np.median(likely):
            return
        if self.delay is not None and abs(peak - self.delay) <= SPAN:
            self._again = 0  # the filter spans it
            return
        self._again = self._again + 1 if abs(peak - self._last) <= SAME else 0
        self._last = peak
        if self.delay is None or self._again >= PERSIST:
            self.delay, self._again = peak, 0


class KalmanFilter:
    """The echo path as a partitioned filter in the frequency domain; near voices slow its learning by themselves.

    Enzner and Vary, "Frequency-domain adaptive Kalman filter for acoustic echo control in hands-free telephones",
    2006; the partitions as in Kuech, Mabande and Enzner, 2014.
    """

    def __init__(self) -> None:
        self._played: Spectrum = np.zeros((TAIL, BINS), np.complex64)
        self._path: Spectrum = np.zeros((TAIL, BINS), np.complex64)
        self._doubt: Power = np.full((TAIL, BINS), DOUBT, np.float32)
        self._near: Power = np.full(BINS, FLOOR * BLOCK, np.float32)
        self._before: Samples = np.zeros(BLOCK, np.float32)
        self._turn = 0

    def step(self, played: Samples, heard: Samples) -> tuple[Samples, Samples]:
        """One block each (BLOCK,); returns what is left of `heard`, and the echo that was taken out."""
        self._played = np.roll(self._played, 1, axis=0)
        self._played[0] = np.fft.rfft(np.concatenate([self._before, played]))
        self._before = played
        echo = np.fft.irfft((self._path * self._played).sum(0))[BLOCK:].astype(np.float32)
        left = heard - echo
        error = np.fft.rfft(np.concatenate([np.zeros(BLOCK, np.float32), left]))
        self._learn(error)
        return left, echo

    def _learn(self, error: Spectrum) -> None:
        power = np.abs(self._played) ** 2
        self._near = NEAR * self._near + (1.0 - NEAR) * np.abs(error) ** 2
        explained = (power * self._doubt).sum(0)
        gain = self._doubt / (explained + 2.0 * self._near + FLOOR * BLOCK)
        self._path += gain * np.conj(self._played) * error
        self._turn = (self._turn + 1) % TAIL  # one partition at a time is held to its length, as in Speex
        path = np.fft.irfft(self._path[self._turn])
        path[BLOCK:] = 0.0
        self._path[self._turn] = np.fft.rfft(path)

        self._doubt = KEEP * (1.0 - 0.5 * gain * power) * self._doubt + (1.0 - KEEP) * np.abs(self._path) ** 2


@dataclass(slots=True)
class Weigher:
    """Whether a block holds more than what the filter leaves of our echo."""

    _floor: float = 1e-3  # of the room, power per sample
    _leak: float = 1.0  # of the echo's power that the filter leaves, at its best of late
    _left: float = 0.0
    _echo: float = 0.0
    _learnt: int = 0  # blocks with an echo

    def ours(self, left: Samples, echo: Samples) -> bool:
        """Takes one block of `KalmanFilter.step`: True if our echo and the room explain it."""
        self._left += SMOOTH * (float(np.mean(left**2)) - self._left)
        self._echo += SMOOTH * (float(np.mean(echo**2)) - self._echo)
        self._floor = min(self._floor * RISE, max(self._left, 1e-9))
        ours = self._left < MARGIN * (self._leak * self._echo + self._floor)
        if self._echo > 10.0 * self._floor:
            rise = RISE if ours else DOUBTED_RISE
            self._learnt += 1
            least = max(BEST, min(1.0, YOUNG / self._learnt))
            self._leak = max(min(self._leak * rise, self._left / self._echo, 1.0), least)
        return ours


@dataclass(frozen=True, slots=True)
class EchoReport:
    """What is known of a line's echo; None where nothing was found yet.

    Attributes:
        delay_ms: from our playing to our hearing it.
        return_loss_db: how much weaker it comes back than it was sent.
        enhancement_db: how much of it the filter takes away.
    """

    delay_ms: int | None
    return_loss_db: float | None
    enhancement_db: float | None


class EchoCanceller:
    """The incoming audio of one session without our own voice.

    Attributes:
        played: what was sent, where it sounds on the time line of `hear`.
        ours: whether our echo explains what was heard last; False while no echo is known.
        searches: how often its delay was looked for.
    """

    def __init__(self) -> None:
        self.played, self.ours, self.searches = Track(4.0), False, 0
        self._heard = Track(2.0)
        self._waiting: Samples = np.zeros(0, np.float32)  # no whole block yet
        self._done = 0  # samples that were given back
        self._finder, self._filter, self._weigher = DelayFinder(), KalmanFilter(), Weigher()
        self._gain = 1.0
        self._powers = np.zeros(
            3
        )  # of what was played, heard and left of late, while our echo was all there was

    @property
    def delay(self) -> int | None:
        """Samples from our playing to our hearing it; None = not found."""
        return self._finder.delay

    def hear(self, samples: Samples) -> Samples:
        """The next samples; returns those that are ready, in order: all but the last BLOCK - 1 at most."""
        self._waiting = np.concatenate([self._waiting, samples])
        blocks = [self._waiting[at : at + BLOCK] for at in range(0, len(self._waiting) - BLOCK + 1, BLOCK)]
        self._waiting = self._waiting[len(blocks) * BLOCK :]
        return np.concatenate([np.zeros(0, np.float32), *map(self._clean, blocks)])

    def flush(self) -> Samples:
        """What was not ready yet, as it is."""
        rest, self._waiting = self._waiting, self._waiting[:0]
        self._heard.write(self._done, rest)
        self._done += len(rest)
        return rest

    @property
    def report(self) -> EchoReport:
        """What is known of the echo."""
        played, heard, left = self._powers
        if self._finder.delay is None or not left:
            return EchoReport(None, None, None)
        loss, enhancement = 10.0 * np.log10([played / heard, heard / left])
        return EchoReport(samples_to_ms(self._finder.delay, rate=MODEL_RATE), float(loss), float(enhancement))

    def _clean(self, block: Samples) -> Samples:
        start, self._done = self._done, self._done + BLOCK
        self._heard.write(start, block)
        if self.played.end <= start - LONGEST_DELAY - TAIL * BLOCK:  # our voice has faded long ago
            self.ours, self._gain = False, 1.0
            return block
        if self._done % SEARCH_EVERY < BLOCK:
            self._search()
        if self._finder.delay is None:
            return block
        played = self.played.read(start - self._finder.delay + AHEAD * BLOCK, BLOCK)
        left, echo = self._filter.step(played, block)
        self.ours = self._weigher.ours(left, echo)
        if self.ours:
            powers = [float(np.mean(part**2)) for part in (played, block, left)]
            self._powers += FADE * (powers - self._powers)
        before, self._gain = self._gain, HUSHED if self.ours else 1.0
        return left * np.linspace(before, self._gain, BLOCK, dtype=np.float32)

    def _search(self) -> None:
        start = self._done - SEARCH_OVER
        played = self.played.read(start - LONGEST_DELAY, SEARCH_OVER + LONGEST_DELAY)
        if start < 0 or float(np.mean(played**2)) < QUIET:
            return
        before = self._finder.delay
        self.searches += 1
        self._finder.search(played, self._heard.read(start, SEARCH_OVER))
        if self._finder.delay != before:
            self._filter, self._weigher = KalmanFilter(), Weigher()
