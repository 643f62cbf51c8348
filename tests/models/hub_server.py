"""A stand-in for the Hugging Face hub: one repository from a folder, on this machine only, with what a client asks."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"


class HubServer(ThreadingHTTPServer):
    """Serves `folder` as `repository`; `cut` ends the next answer to a GET of that file after so many bytes."""

    daemon_threads = True

    def __init__(self, folder: Path, repository: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.repository = folder, repository
        self.asked: list[tuple[str, str, str]] = []  #: method, path and range of every request
        self.cut: dict[str, int] = {}
        self.failing = False  #: answers 503 to everything

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def sent(self) -> set[str]:
        """Files whose bytes were asked for."""
        names = {path.partition(f"/resolve/{SHA}/")[2] for method, path, _ in self.asked if method == "GET"}
        return names - {""}


@contextmanager
def hub_server(folder: Path, repository: str) -> Iterator[HubServer]:
    with HubServer(folder, repository) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on standard error."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if hub.failing:
            self.send_error(503)
        elif path.startswith(f"/api/models/{hub.repository}/tree/"):
            self._json([self._entry(file) for file in self._files()])
        elif path in (f"/api/models/{hub.repository}", f"/api/models/{hub.repository}/revision/main"):
            siblings = [{"rfilename": self._name(file)} for file in self._files()]
            self._json({"id": hub.repository, "modelId": hub.repository, "sha": SHA, "siblings": siblings})
        elif path.startswith(f"/{hub.repository}/resolve/"):
            self._file(hub.folder / path.split("/", 5)[5])
        else:
            self._json({"error": "Repository not found"}, status=404, error="RepoNotFound")

    def _files(self) -> list[Path]:
        return sorted(file for file in self.server.folder.rglob("*") if file.is_file())

    def _name(self, file: Path) -> str:
        return file.relative_to(self.server.folder).as_posix()

    def _entry(self, file: Path) -> dict[str, object]:
        oid = hashlib.sha1(file.read_bytes()).hexdigest()
        return {"type": "file", "path": self._name(file), "size": file.stat().st_size, "oid": oid}

    def _json(self, value: object, *, status: int = 200, error: str = "") -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        self.wfile.write(body)

    def _file(self, file: Path) -> None:
        if not file.is_file():
            self._json({"error": "Entry not found"}, status=404, error="EntryNotFound")
            return
        whole = file.read_bytes()
        asked = self.headers.get("Range", "")
        first = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        body = whole[first:]
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{hashlib.sha1(whole).hexdigest()}"')
        self.send_header("X-Repo-Commit", SHA)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{len(whole) - 1}/{len(whole)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: self.server.cut.pop(self._name(file), len(body))])
            self.close_connection = True
