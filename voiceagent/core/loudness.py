"""How loudly the person of a call speaks: the energy of their voice of late. It tells no voices apart."""

from __future__ import annotations

from math import log10

KNOWN = 16  #: windows of a person's speech, from which on their level is known
WELL_KNOWN = 24  #: and from which on a weak voice may be another's
MEMORY = 100  #: windows over which it is taken, 3 s


def power(level: float) -> float:
    """Of a level in decibels."""
    return float(10.0 ** (level / 10.0))


def decibels(power: float) -> float:
    """The level of a power."""
    return 10.0 * log10(max(power, 1e-12))


class Loudness:
    """The running level of one person.

    Attributes:
        windows: of speech that it was learnt from of late.
    """

    def __init__(self) -> None:
        self.windows = 0
        self._power = 0.0

    @property
    def known(self) -> bool:
        """Whether enough of them was heard."""
        return self.windows >= KNOWN

    @property
    def well_known(self) -> bool:
        """Whether so much was heard that who is far below it may be somebody else."""
        return self.windows >= WELL_KNOWN

    def learn(self, level: float) -> None:
        """A window of their speech, in decibels of full scale."""
        self.windows = min(self.windows + 1, MEMORY)
        self._power += (power(level) - self._power) / self.windows

    def forget(self) -> None:
        """They speak otherwise now."""
        self.windows, self._power = 0, 0.0

    def above(self, level: float) -> float:
        """Decibels by which they usually speak louder than this; 0 if that is not known."""
        return decibels(self._power) - level if self.known else 0.0
