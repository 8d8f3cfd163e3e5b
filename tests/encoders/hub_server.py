"""A small web server that answers as the Hugging Face hub does: files, missing files, gated and unknown models.

`ask` is what is said when encoders are opened, with that server or without a network.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np

from wsi_pipeline.encoders.names import open_encoder
from wsi_pipeline.errors import EncoderError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Hub(BaseHTTPRequestHandler):
    """Serves ROOT/ORG/NAME/FILE at /ORG/NAME/resolve/main/FILE; ORG `gated` is refused."""

    root: Path

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        org, name, *rest = self.path.strip("/").split("?")[0].split("/")
        if org == "gated":
            return self._send(401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "restricted"})
        folder = self.root / org / name
        if len(rest) != 3 or rest[0] != "resolve" or not folder.is_dir():
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        file = folder / rest[2]
        if not file.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        content = file.read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        return self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body=body)

    def _send(self, code: int, content: bytes, headers: dict[str, str], *, body: bool = True) -> None:
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test output quiet."""


@contextmanager
def hub_serving(root: Path) -> Iterator[str]:
    """The server's address while it runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Hub", (_Hub,), {"root": root}))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def ask(names: Sequence[str]) -> str:
    """What is said when encoders are opened, and the log."""
    said = io.StringIO()
    handler, logger = logging.StreamHandler(said), logging.getLogger("wsi_pipeline")
    handler.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    for name in names:
        try:
            encoder = open_encoder(name, device="cpu")
            shape = encoder.encode(np.full((1, 64, 64, 3), 90, np.uint8)).shape
            print("OPENED", name, shape, encoder.fingerprint, file=said)
        except EncoderError as error:
            print("REFUSED", name, str(error).replace("\n", " | "), file=said)
    logger.removeHandler(handler)
    return said.getvalue()
