"""The worker process by its pipe alone: what ends it, and with which exit code."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from voiceagent.engine import api
from voiceagent.engine.codec import FrameReader, encode
from voiceagent.engine.fake import Script
from voiceagent.engine.pipe import WorkerSpec, environment


@contextmanager
def worker(spec: WorkerSpec) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    with ours, theirs:
        fd = theirs.fileno()
        with subprocess.Popen(
            spec.argv(fd), pass_fds=[fd], env=environment(), stderr=subprocess.DEVNULL
        ) as process:
            theirs.close()
            try:
                yield process, ours
            finally:
                process.kill()


def replies(pipe: socket.socket) -> Iterator[api.Reply]:
    reader: FrameReader[api.Reply] = FrameReader(api.Reply)
    while chunk := pipe.recv(65536):
        yield from reader.feed(chunk)


FAKE = WorkerSpec(fake=Script())


def test_it_says_what_it_is_and_answers_pings() -> None:
    with worker(FAKE) as (process, pipe):
        incoming = replies(pipe)
        ready = next(incoming)
        assert isinstance(ready, api.Ready)
        assert ready.max_sessions == 4
        pipe.sendall(encode(api.Ping(5)))
        assert next(incoming) == api.Pong(5)
        pipe.sendall(encode(api.Shutdown()))
        assert process.wait(10) == 0


def test_the_end_of_the_pipe_ends_it() -> None:
    with worker(FAKE) as (process, pipe):
        assert isinstance(next(replies(pipe)), api.Ready)
        pipe.close()
        assert process.wait(10) == 0


def test_the_end_of_the_pipe_ends_it_even_in_the_middle_of_a_step() -> None:
    with worker(WorkerSpec(fake=Script(first_delay_s=60))) as (process, pipe):
        incoming = replies(pipe)
        next(incoming)
        options = api.Options(
            spoken=True, instructions="", tools=(), tool_choice="auto", voice="", temperature=None, top_p=None,
            top_k=None, repetition_penalty=None, max_tokens=None,
        )  # fmt: skip
        for command in (api.OpenSession(1), api.Begin(1, 1, (), options)):
            pipe.sendall(encode(command))
        pipe.close()
        assert process.wait(10) == 0


def test_a_server_that_speaks_nonsense_ends_it() -> None:
    with worker(FAKE) as (process, pipe):
        next(replies(pipe))
        pipe.sendall(b"\xff" * 100)
        assert process.wait(10) == 70


def test_a_model_that_does_not_load_is_told_before_the_exit() -> None:
    with worker(WorkerSpec(model="/nowhere/at/all")) as (process, pipe):
        *loading, last = replies(pipe)
        assert all(isinstance(reply, api.Loading) for reply in loading)
        assert isinstance(last, api.Fatal)
        assert "/nowhere/at/all" in last.message
        assert process.wait(10) == 3
