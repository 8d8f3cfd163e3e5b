"""A small web server for slides on the loopback: with and without ranges, slow, failing, behind a key, changing.

`python -m benchmarks.range_server FOLDER` serves a folder and prints its port; tests use `RangeServer` in a thread.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")
_PIECE = 64 << 10


@dataclass
class Behaviour:
    """How the server answers; may be changed while it runs.

    ranges       send parts of files
    tags         state an ETag and the time of the last change
    drop_every   close the connection in the middle of every n-th answer; 0: never
    fail_every   answer every n-th request with HTTP 503; 0: never
    password     `user:password` that requests must carry; empty: none
    signature    query that requests must carry; empty: none
    delay        seconds before each answer
    bytes_per_second   of all answers together; 0: unlimited
    """

    ranges: bool = True
    tags: bool = True
    drop_every: int = 0
    fail_every: int = 0
    password: str = ""
    signature: str = ""
    delay: float = 0.0
    bytes_per_second: float = 0.0


class Link:
    """Paces all connections together as one link of a given speed would."""

    def __init__(self) -> None:
        self._lock, self._free_at = threading.Lock(), 0.0

    def wait(self, nbytes: int, bytes_per_second: float) -> None:
        """Wait until the link has carried `nbytes` more."""
        if not bytes_per_second:
            return
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + nbytes / bytes_per_second
            until = self._free_at
        time.sleep(max(0.0, until - time.monotonic()))


class RangeServer(ThreadingHTTPServer):
    """Serves the files of `folder` at http://127.0.0.1:PORT/NAME and counts what it sends."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path, behaviour: Behaviour | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.behaviour = folder, behaviour or Behaviour()
        self.lock, self.link = threading.Lock(), Link()
        self.requests = self.sent = 0
        self.tags: dict[Path, tuple[float, str]] = {}

    @property
    def address(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.server_port}"

    def number(self) -> int:
        """Count a request; its number from 1 on."""
        with self.lock:
            self.requests += 1
            return self.requests

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *args: object) -> None:
        """Nothing on the terminal."""

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self.do_GET()

    def do_GET(self) -> None:
        """One file or a part of it."""
        how, number = self.server.behaviour, self.server.number()
        time.sleep(how.delay)
        place, _, query = self.path.partition("?")
        path = self.server.folder / place.lstrip("/")
        if how.fail_every and number % how.fail_every == 0:
            self._plain(503)
        elif (how.password and not self._has_password(how.password)) or (how.signature and query != how.signature):
            self._plain(403 if how.signature else 401)
        elif not path.is_file():
            self._plain(404)
        else:
            self._file(path, how, drop=bool(how.drop_every and number % how.drop_every == 0))

    def _has_password(self, password: str) -> bool:
        from base64 import b64encode

        return self.headers.get("Authorization", "") == f"Basic {b64encode(password.encode()).decode()}"

    def _plain(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _file(self, path: Path, how: Behaviour, *, drop: bool) -> None:
        size, tag = path.stat().st_size, self._tag(path)
        start, stop = 0, size
        asked = _RANGE.match(self.headers.get("Range", "")) if how.ranges else None
        if asked:
            start, stop = int(asked[1]), min(size, int(asked[2]) + 1 if asked[2] else size)
        if how.tags and self.headers.get("If-Match", tag) != tag:
            return self._plain(412)
        if asked and start >= size:
            return self._plain(416)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        if how.tags:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command == "GET":
            self._send(path, start, stop, how, drop=drop)
        return None

    def _send(self, path: Path, start: int, stop: int, how: Behaviour, *, drop: bool) -> None:
        end = start + (stop - start) // 2 if drop else stop
        with path.open("rb") as file:
            for at in range(start, end, _PIECE):
                file.seek(at)
                data = file.read(min(_PIECE, end - at))
                self.server.link.wait(len(data), how.bytes_per_second)
                self.wfile.write(data)
                with self.server.lock:
                    self.server.sent += len(data)
        if drop:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def _tag(self, path: Path) -> str:
        changed = path.stat().st_mtime_ns
        known = self.server.tags.get(path)
        if known is None or known[0] != changed:
            digest = hashlib.sha256(f"{path.name} {path.stat().st_size} {changed}".encode()).hexdigest()[:16]
            known = self.server.tags[path] = (changed, f'"{digest}"')
        return known[1]


@contextmanager
def serving(folder: Path, behaviour: Behaviour | None = None) -> Iterator[RangeServer]:
    """A server of a folder in a thread of this process."""
    server = RangeServer(folder, behaviour)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    """Serve a folder until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--gbit", type=float, default=0.0)
    given = parser.parse_args()
    server = RangeServer(given.folder, Behaviour(delay=given.delay_ms / 1000, bytes_per_second=given.gbit * 1e9 / 8))
    print(server.server_port, flush=True)
    sys.stdout.close()
    server.serve_forever()


if __name__ == "__main__":
    main()
