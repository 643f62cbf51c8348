"""The tools of one session: calls on their way, and servers that the session has named; both end with it.

It moves what is asked and what comes of it between the session and the toolbox, and decides nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from voiceagent.core.actions import RunTool
from voiceagent.core.events import ToolReturned
from voiceagent.core.options import Tool
from voiceagent.errors import InputError, VoiceAgentError
from voiceagent.tools.function import ToolError
from voiceagent.tools.toolbox import Toolbox
from voiceagent.wire.dialect import ConnectTools, DropTools, ToolsRequest

if TYPE_CHECKING:
    from voiceagent.tools.mcp_client import Connection

log = logging.getLogger("voiceagent.session")

OWN_SERVERS = 4  #: that a session may name
RESULT_BYTES = 64 << 10
LEAVING = "leaves a tool server"

Outcome = Sequence[Tool] | VoiceAgentError


class SessionTools:
    """What one session has to do with tools.

    Args:
        toolbox: all that there are.
        name: of the session.
        trusted: it may name servers of its own; who came with an ephemeral key may not.
        context_tokens: of the model: a result that takes most of its room would leave none for the talk; 0 = not known.
        returned: takes what has come back.
        tell: takes what a server of the session's offers, or why it does not.
    """

    def __init__(
        self,
        toolbox: Toolbox,
        *,
        name: str,
        trusted: bool,
        context_tokens: int,
        returned: Callable[[ToolReturned], None],
        tell: Callable[[ConnectTools, Outcome], None],
    ) -> None:
        self._toolbox, self._name, self._trusted = toolbox, name, trusted
        self._returned, self._tell = returned, tell
        self._limit = min(RESULT_BYTES, 2 * context_tokens or RESULT_BYTES)
        self._offers = {(offer.server.label, offer.server.name): offer for offer in toolbox.offers.values()}
        self._own: dict[str, tuple[Connection, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = False

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What the deployment offers."""
        return tuple(offer.tool for offer in self._offers.values())

    def run(self, action: RunTool) -> None:
        """A tool is to run; what comes of it is handed to `returned`, once."""
        self._begin(self._run(action))

    def ask(self, request: ToolsRequest) -> None:
        """The session names a server of its own, or gives one up."""
        match request:
            case ConnectTools():
                self._connect(request)
            case DropTools(label):
                self._drop(label)

    async def close(self) -> None:
        """The session is over: nothing more comes back. What runs is cancelled, its servers are left."""
        self._over = True
        for label in list(self._own):
            self._drop(label)
        for task in self._tasks:
            if task.get_name() != LEAVING:
                task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    # --- calls ------------------------------------------------------------------------------------------------

    async def _run(self, action: RunTool) -> None:
        server = action.tool.server
        assert server is not None
        offer = self._offers.get((server.label, server.name))
        try:
            if offer is None:
                raise ToolError(f"There is no tool {action.tool.name} any more.")
            output = await self._toolbox.run(offer, action.arguments, owner=self._name, limit=self._limit)
            self._returned(ToolReturned(action.item_id, output))
        except VoiceAgentError as error:
            log.info("session %s: the tool %s failed: %s", self._name, action.tool.name, error.code)
            self._returned(ToolReturned(action.item_id, json.dumps({"error": error.message}), failed=True))

    # --- servers of the session's own -------------------------------------------------------------------------

    def _connect(self, request: ConnectTools) -> None:
        try:
            if not self._trusted:
                raise InputError(
                    "A session of an ephemeral key may not name tool servers of its own.",
                    code="server_key_required",
                    remedy="Connect with an API key of the server.",
                )
            if request.label in self._own:
                self._drop(request.label)
            if len(self._own) >= OWN_SERVERS:
                raise InputError(
                    f"A session may name {OWN_SERVERS} tool servers.", code="too_many_mcp_servers"
                )
            connection = self._toolbox.connect(request.label, request.url, request.authorization)
        except VoiceAgentError as error:
            self._tell(request, error)
            return
        self._own[request.label] = (connection, self._begin(self._list(request, connection)))

    async def _list(self, request: ConnectTools, connection: Connection) -> None:
        outcome: Outcome
        try:
            offers = await self._toolbox.tools_of(connection, request.label)
            self._offers.update(((request.label, offer.server.name), offer) for offer in offers)
            outcome = [offer.tool for offer in offers]
        except VoiceAgentError as error:
            outcome = error
        self._tell(request, outcome)

    def _drop(self, label: str) -> None:
        if label not in self._own:
            return
        connection, task = self._own.pop(label)
        task.cancel()
        self._offers = {key: offer for key, offer in self._offers.items() if key[0] != label}
        self._begin(self._toolbox.disconnect(connection), name=LEAVING)

    def _begin(self, work: Coroutine[Any, Any, None], *, name: str = "tool") -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error(
                "session %s: a tool broke the session's part of it", self._name, exc_info=task.exception()
            )
