"""Short-lived keys (`ek_...`) that a page may hold, each with the session settings that it opens; kept in memory only.

It knows times as numbers given to it, and settings as the text that the wire will read.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from voiceagent.errors import CapacityError

PREFIX = "ek_"
DEFAULT_S, SHORTEST_S, LONGEST_S = 600, 10, 7200
MOST = 10_000  #: keys at once; a program that leaks them must not grow the server


@dataclass(frozen=True, slots=True)
class EphemeralKey:
    """A key with its end in seconds since 1970, and the session object (JSON text) that its sessions begin with."""

    value: str
    expires_at: int
    session: str


@dataclass(slots=True)
class EphemeralKeys:
    """The keys that are valid now.

    Attributes:
        clock: seconds since 1970.
    """

    clock: Callable[[], float]
    _keys: dict[str, EphemeralKey] = field(default_factory=dict)

    def issue(self, *, seconds: int = DEFAULT_S, session: str = "{}") -> EphemeralKey:
        """A new key that may open sessions for `seconds`; a session outlives its key.

        Raises:
            CapacityError: too many keys are valid at once.
        """
        now = self.clock()
        self._keys = {value: key for value, key in self._keys.items() if key.expires_at > now}
        if len(self._keys) >= MOST:
            raise CapacityError(
                f"{MOST} ephemeral keys are valid at once.",
                remedy="Ask for a shorter `expires_after`, or try again when some have expired.",
            )
        key = EphemeralKey(PREFIX + secrets.token_urlsafe(32), int(now) + seconds, session)
        self._keys[key.value] = key
        return key

    def find(self, value: str) -> EphemeralKey | None:
        """The key, if it was issued here and has not expired."""
        key = self._keys.get(
            value
        )  # found by hash of 256 random bits: nothing to learn from the time it takes
        return key if key is not None and key.expires_at > self.clock() else None
