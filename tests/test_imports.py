"""What importing costs and drags in: every module stands alone, and the server never sees torch."""

import pkgutil
import subprocess
import sys

import pytest

import voiceagent

EACH_ALONE = """
import importlib, os, sys, warnings
warnings.simplefilter("error")
failed = []
for name in sys.argv[1:]:
    child = os.fork()  # a fresh interpreter state for each module, without paying for a fresh interpreter
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
sys.exit(len(failed))
"""


def modules() -> list[str]:
    found = [m.name for m in pkgutil.walk_packages(voiceagent.__path__, "voiceagent.")]
    return [name for name in found if not name.endswith("__main__")]


def test_every_module_imports_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EACH_ALONE, *modules()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "module",
    [
        "voiceagent.server.app",
        "voiceagent.client.conn",
        "voiceagent.engine.client",
        "voiceagent.wire.realtime",
        "voiceagent.wire.live",
        "voiceagent.tools.toolbox",
    ],
)
def test_torch_stays_out_of(module: str) -> None:
    heavy = ("torch", "onnxruntime", "transformers", "mcp", "httpx2", "opentelemetry")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_core_needs_no_loop_and_no_clock() -> None:
    code = (
        "import sys; before = set(sys.modules); import voiceagent.core.controller; "
        "print(sorted({'asyncio', 'torch', 'aiohttp', 'socket'} & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
