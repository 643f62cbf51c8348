"""When a lost connection is worth another try, and how long to wait before it. Knows no socket."""

from __future__ import annotations

import random
from dataclasses import dataclass

RETRYABLE = frozenset({1001, 1005, 1006, 1011, 1012, 1013})
"""Close codes behind which the server may answer again: going away, none, lost, error, restart, overload."""
BUSY = frozenset({429, 500, 502, 503, 504})  #: HTTP statuses of a server that may let us in later


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double, each shortened at random so that many clients do not come back in the same instant.

    Args:
        attempts: tries before giving up; 0 = a lost connection is an error at once.
        first_s: longest wait before the second try; there is none before the first.
        most_s: no wait is longer.
        jitter: the part of a wait that chance may take away, 0 to 1.
    """

    attempts: int = 8
    first_s: float = 0.5
    most_s: float = 15.0
    jitter: float = 0.5

    def wait_s(self, attempt: int) -> float:
        """Seconds to wait before try number `attempt`, which counts from 0."""
        if attempt == 0:
            return 0.0
        longest = min(self.most_s, self.first_s * 2.0 ** (attempt - 1))
        return longest * (1.0 - self.jitter * random.random())
