"""Recordings over HTTP: what there is, its files, and deleting it. The gate lets no ephemeral key come here."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from voiceagent.server.auth import Refused
from voiceagent.server.recorder import JOURNAL, SOUND, Recordings

SWEEP_S = 600.0
KINDS = {JOURNAL: "application/jsonl", SOUND: "audio/wav"}


class RecordingsRest:
    """Handlers of /v1/recordings; `None` = this server records nothing."""

    def __init__(self, recordings: Recordings | None) -> None:
        self._recordings = recordings
        self._sweeper: asyncio.Task[None] | None = None

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [
            web.get("/v1/recordings", self.list),
            web.get("/v1/recordings/{name}/{file}", self.file),
            web.delete("/v1/recordings/{name}", self.delete),
        ]

    async def start(self) -> None:
        """Begins to delete what is old."""
        if self._recordings is not None:
            self._sweeper = asyncio.create_task(self._sweep(self._recordings), name="recordings sweeper")

    async def stop(self) -> None:
        """Waits until all is written."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
        if self._recordings is not None:
            await self._recordings.close()

    async def list(self, _: web.Request) -> web.Response:
        """Names of the calls, the newest first."""
        found = [] if self._recordings is None else await asyncio.to_thread(self._recordings.found)
        data: list[dict[str, Any]] = [
            {"object": "recording", "id": each.name, "created_at": each.created, "complete": each.complete}
            for each in found
        ]
        return web.json_response({"object": "list", "data": data})

    async def file(self, request: web.Request) -> web.StreamResponse:
        """The journal or the sound of a call."""
        name, file = request.match_info["name"], request.match_info["file"]
        path = None if self._recordings is None else self._recordings.path(name, file)
        if path is None:
            raise _missing(name)
        return web.FileResponse(path, headers={"Content-Type": KINDS[file], "Cache-Control": "no-store"})

    async def delete(self, request: web.Request) -> web.Response:
        """All traces of a call."""
        name = request.match_info["name"]
        if self._recordings is None or not await self._recordings.delete(name):
            raise _missing(name)
        return web.json_response({"id": name, "object": "recording", "deleted": True})

    async def _sweep(self, recordings: Recordings) -> None:
        while True:
            recordings.sweep()
            await asyncio.sleep(SWEEP_S)


def _missing(name: str) -> Refused:
    return Refused(
        f"There is no recording {name[:64]!r}.",
        status=404,
        code="recording_not_found",
        remedy="GET /v1/recordings lists what there is; recordings are deleted when they are old.",
    )
