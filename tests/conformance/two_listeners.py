"""One engine with the pocket checkpoint behind listeners, plain and TLS: each is what some client insists on.

One more runs the tool of an example. `python -m tests.conformance.two_listeners CERTIFICATE KEY` prints one line
of JSON with the addresses when it is ready, and ends well on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import AsyncExitStack

from voiceagent.config import Config, ServerConfig, ToolsConfig
from voiceagent.engine.client import LocalEngine
from voiceagent.engine.pipe import WorkerSpec
from voiceagent.models.folder import find_model
from voiceagent.server.app import Server

EXAMPLE = ("scripts.examples.server_tool:get_weather",)
LOAD_S = 300.0  #: it takes 3 s on an idle machine
HANG_S = 30.0


async def serve(cert: str, key: str) -> None:
    stopping = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    found = find_model("pocket")
    spec = WorkerSpec(model=str(found.folder), name=found.name, voices=str(found.folder), max_sessions=8)
    engine = LocalEngine(spec, hang_s=HANG_S, load_s=LOAD_S)
    addresses = {}
    async with AsyncExitStack() as running:
        running.push_async_callback(engine.stop)
        ready = await engine.start()
        listeners = {
            "http": ServerConfig(port=0),
            "https": ServerConfig(port=0, tls_cert=cert, tls_key=key),
            "tools": ServerConfig(port=0),
        }
        for name, listener in listeners.items():
            tools = ToolsConfig(functions=EXAMPLE if name == "tools" else ())
            server = Server(Config(server=listener, tools=tools), engine)
            running.push_async_callback(server.stop)
            scheme = "https" if name == "https" else "http"
            addresses[name] = f"{scheme}://localhost:{(await server.start())[1]}/v1"
        sys.stdout.write(json.dumps({"model": ready.model, **addresses}) + "\n")
        sys.stdout.flush()
        await stopping.wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
