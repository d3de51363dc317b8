"""An HTTP server on the loopback interface that misbehaves as it is told to."""

from __future__ import annotations

import gzip
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest


class ShardServer(ThreadingHTTPServer):
    """Serves a folder.

    Attributes:
        faults: By file name, what happens at each request in turn; afterwards the file is served. ``503`` and the like
            are statuses, ``stall`` sends half of the file and then nothing, ``cut`` half and hangs up, ``drip`` a byte
            at a time, ``page`` is a web page instead of it; without a length, ``short`` sends half of the file and
            ``endless`` does not end; ``gzip`` compresses for who takes that, ``zipped`` for everybody, ``part`` sends
            some of the file as that. A name with one fault in a tuple has it at every request.
        asked: Requests by file name.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.faults: dict[str, list[str] | tuple[str]] = defaultdict(list)
        self.asked: Counter[str] = Counter()
        self.over = Event()

        def handler(*arguments: Any) -> _Handler:
            return _Handler(*arguments, directory=str(folder))

        super().__init__(("127.0.0.1", 0), handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who hangs up on a server that stalls is no error."""

    def fault(self, name: str) -> str:
        faults = self.faults[name]
        if isinstance(faults, tuple):
            return faults[0]
        return faults.pop(0) if faults else ""


class _Handler(SimpleHTTPRequestHandler):
    server: ShardServer

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rsplit("/", 1)[-1]
        self.server.asked[name] += 1
        fault = self.server.fault(name)
        if fault.isdigit():
            self.send_error(int(fault))
        elif fault == "part":
            content = Path(self.translate_path(self.path)).read_bytes()[:5120]
            self.send_response(206)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        elif fault == "page":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<!DOCTYPE html><p>Log in first</p>")
        elif fault in ("short", "endless"):
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            with suppress(OSError):  # who has had enough hangs up
                while fault == "endless" and not self.server.over.is_set():
                    self.wfile.write(bytes(1 << 20))
        elif fault in ("gzip", "zipped"):
            content = Path(self.translate_path(self.path)).read_bytes()
            compressed = fault == "zipped" or "gzip" in self.headers.get("Accept-Encoding", "gzip")
            content = gzip.compress(content) if compressed else content
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            if compressed:
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            self.wfile.write(content)
        elif fault:
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            while fault == "drip" and not self.server.over.wait(0.1):
                self.wfile.write(b"x")
            if fault == "stall":
                self.server.over.wait()
            self.close_connection = True
        else:
            super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ShardServer]:
    """Serves ``tmp_path``."""
    server = ShardServer(tmp_path)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()
