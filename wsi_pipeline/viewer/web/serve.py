"""The process that serves a viewer: address, token, start, browser."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvicorn

from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.errors import UsageError
from wsi_pipeline.system.atomic import make_folder
from wsi_pipeline.viewer.web.access import new_token
from wsi_pipeline.viewer.web.app import make_app
from wsi_pipeline.viewer.web.viewer import Viewer

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8765
_PORTS_TRIED = 20
_ANY = ("0.0.0.0", "::", "")
_TOKEN_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_START_SECONDS = 20.0
SETTINGS: dict[str, Any] = {
    "lifespan": "off", "log_level": "warning", "access_log": False, "server_header": False, "date_header": False,
    "proxy_headers": False, "timeout_keep_alive": 30, "timeout_graceful_shutdown": 2,
}  # fmt: skip
"""Of uvicorn."""


@dataclass(frozen=True)
class Address:
    """Where a viewer is served."""

    host: str
    port: int
    token: str

    @property
    def url(self) -> str:
        """The address to open."""
        name = socket.getfqdn() if self.host in _ANY else f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.port}/{self.token}/"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Port 0: the default port, or the next free one if it is taken.

    Raises UsageError if the port or the address cannot be used.
    """
    wanted = [port] if port else [*range(DEFAULT_PORT, DEFAULT_PORT + _PORTS_TRIED), 0]
    problem: OSError | None = None
    for number in wanted:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            made = socket.create_server((host, number), family=family, backlog=128)
        except OSError as error:
            problem = error
        else:
            # asyncio sends at once only on sockets that state their protocol; others hold the second part of each
            # answer back for 40 ms (Nagle's algorithm).
            return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=made.detach())
    reason = problem.strerror if problem else "unknown"
    raise UsageError(f"cannot listen on {host}:{port or DEFAULT_PORT}: {reason}", todo="Choose another with --port")


def token_of(run: RunDir | None) -> str:
    """The token of a run, stored there readable by the user only, so that open pages survive a restart."""
    if run is None:
        return new_token()
    path = run.view / "token"
    try:
        known = path.read_text(encoding="ascii").strip()
        if len(known) >= 16 and set(known) <= _TOKEN_CHARACTERS and path.stat().st_mode & 0o077 == 0:
            return known
    except (OSError, UnicodeDecodeError):
        pass
    token = new_token()
    try:
        make_folder(path.parent)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token)
    except OSError:  # a read-only run gets a new token each time
        logging.getLogger(__name__).info("the token cannot be kept in %s", path)
    return token


def server_of(viewer: Viewer, address: Address, *, in_frames: bool = False) -> uvicorn.Server:
    """The server, not yet started."""
    names = {address.host} if address.host not in _ANY else {socket.gethostname(), socket.getfqdn(), *_own_addresses()}
    app = make_app(viewer, address.token, names, in_frames=in_frames)
    return uvicorn.Server(uvicorn.Config(app, **SETTINGS))


def serve(viewer: Viewer, host: str, port: int, *, browser: bool, tell: Callable[[str], None]) -> None:
    """Serve until Ctrl-C. `tell` is called with the address once the server answers."""
    with listen(host, port) as listening:
        address = Address(host, listening.getsockname()[1], token_of(viewer.library.run))
        server = server_of(viewer, address)
        threading.Thread(target=_when_ready, args=(server, address, browser, tell), daemon=True).start()
        threading.Thread(target=_warm_up, args=(viewer,), daemon=True).start()
        try:
            server.run(sockets=[listening])
        finally:
            viewer.library.close()


def serve_in_thread(viewer: Viewer, *, in_frames: bool = True) -> tuple[uvicorn.Server, Address]:
    """Serve on a free loopback port from a thread of this process, for notebooks and tests."""
    listening = listen(LOOPBACK, 0)
    address = Address(LOOPBACK, listening.getsockname()[1], new_token())
    server = server_of(viewer, address, in_frames=in_frames)
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    _wait(server)
    return server, address


def _when_ready(server: uvicorn.Server, address: Address, browser: bool, tell: Callable[[str], None]) -> None:
    _wait(server)
    tell(address.url)
    if browser:
        webbrowser.open(address.url)


def _wait(server: uvicorn.Server) -> None:
    end = time.monotonic() + _START_SECONDS
    while not server.started and time.monotonic() < end:
        time.sleep(0.02)


def _warm_up(viewer: Viewer) -> None:
    """Import torch early, so that the first request for a model's layer need not wait for it."""
    if viewer.library.trainings():
        import torch  # noqa: F401


def _own_addresses() -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        return set()
