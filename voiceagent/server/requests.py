"""Counts plain requests: by route and outcome, how long they took, the sound in them; never what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

from aiohttp import web

from voiceagent.server.metrics import Metrics

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LEFT, BROKEN = "left", "broken"
"""Outcomes that have no status: the client has gone; the answer had begun when we failed."""


@dataclass(slots=True)
class Work:
    """What was done for one request, as far as it went.

    Attributes:
        heard_s, spoken_s: seconds of sound that were listened to, and made.
        outcome: if it has no status.
    """

    heard_s: float = 0.0
    spoken_s: float = 0.0
    outcome: str = ""


WORK: web.RequestKey[Work] = web.RequestKey("work", Work)


class Requests:
    """The requests of one server.

    Args:
        metrics: where they are counted.
        apart: paths that are not: those of calls, which are counted as such.
    """

    def __init__(self, metrics: Metrics, *, apart: frozenset[str]) -> None:
        self._metrics, self._apart = metrics, apart

    @web.middleware
    async def count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around all other middlewares, so that what they refuse is counted too."""
        work = request[WORK] = Work()
        if request.path in self._apart or not request.path.startswith("/v1/"):
            return await handler(request)
        began, status = monotonic(), "500"
        try:
            response = await handler(request)
            status = str(response.status)
            return response
        except web.HTTPException as error:
            status = str(error.status)
            raise
        except (asyncio.CancelledError, ConnectionResetError):
            status = LEFT
            raise
        finally:
            self._take(_route(request), work.outcome or status, monotonic() - began, work)

    def _take(self, route: str, status: str, seconds: float, work: Work) -> None:
        self._metrics.count("voiceagent_requests", route, status)
        self._metrics.time("voiceagent_request_seconds", seconds, route)
        for direction, sound in (("heard", work.heard_s), ("spoken", work.spoken_s)):
            if sound:
                self._metrics.count("voiceagent_request_audio_seconds", route, direction, by=sound)


def _route(request: web.Request) -> str:
    """The route as it is declared, without the names in it; "other" for what there is not."""
    resource = request.match_info.route.resource
    return "other" if resource is None else resource.canonical.removeprefix("/v1/")
