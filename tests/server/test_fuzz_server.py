"""R20, the daily dose: 10,000 messages to a whole server over live sockets; see fuzz_server.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "wire"))  # the grammar

from fuzz_server import fuzz_server


async def test_no_crash_no_traceback_and_the_call_beside_it_is_whole() -> None:
    report = await fuzz_server("0", count=10_000)
    assert not report.problems
    assert report.messages >= 10_000
    assert report.asked > 10
    assert report.answers > 5_000
    assert len(report.closed) > 2
    assert report.rss_after - report.rss_before < 100
