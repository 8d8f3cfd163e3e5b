"""Access control: checks the token in the address, Host and Origin of every request, and the size of its body.

The token keeps out other users of the machine. The Host check keeps out pages that point their own name at this
address (DNS rebinding), the Origin check pages elsewhere that post to it.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY = 8 << 20
"""Bytes of a request's body."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors {ancestors}"
)
_ALONE = "'none'"
_NOTEBOOKS = "http://localhost:* http://127.0.0.1:* https://localhost:* https://127.0.0.1:* vscode-webview:"
_CHANGING = ("POST", "PUT", "DELETE", "PATCH")
_CACHE_CONTROL = (b"cache-control", b"no-store")
_HOSTS_KNOWN = 64


class Access:
    """Passes a request to `app` if its address contains the token and its Host and Origin are this server's.

    names       names of this server besides those of the loopback interface, in lower case, without port
    in_frames   whether a notebook on this machine may show the page in a frame
    """

    def __init__(self, app: ASGIApp, token: str, names: Iterable[str] = (), *, in_frames: bool = False) -> None:
        self._app, self._token, self._names = app, token, frozenset(name.lower() for name in names)
        self._start = f"/{token}/".encode()
        self._accepts = lru_cache(_HOSTS_KNOWN)(self._is_own)
        policy = POLICY.format(ancestors=_NOTEBOOKS if in_frames else _ALONE)
        self._headers = [
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refusal(scope)
        if refused is not None:
            await refused(scope, receive, self._with_headers(send))
            return
        inner = dict(scope)
        inner["path"] = scope["path"][len(self._token) + 1 :]
        inner.pop("raw_path", None)
        await self._app(inner, _limited(receive), self._with_headers(send))

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        host = _header(scope, b"host") or ""
        if not self._accepts(host):
            return PlainTextResponse("This server does not answer to that name.", 421)
        origin = _header(scope, b"origin")
        if origin is not None and not _is_of(origin, host):
            return PlainTextResponse("Requests from other pages are refused.", 403)
        head = scope["path"][: len(self._token) + 2]
        if not secrets.compare_digest(head.encode(), self._start):
            return PlainTextResponse("Use the address that wsi-pipeline view printed: it contains a token.", 404)
        if scope["method"] in _CHANGING:
            kind = _header(scope, b"content-type") or ""
            if kind.partition(";")[0] != "application/json":
                return PlainTextResponse("Changes are sent as application/json.", 415)
        return None

    def _is_own(self, host: str) -> bool:
        """Whether a Host header names this server: one of its names, or loopback with any port, as through a tunnel."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        return name in self._names or is_loopback(name)

    def _with_headers(self, send: Send) -> Send:
        async def answer(message: Message) -> None:
            """Send a message, the headers of every response added."""
            if message["type"] == "http.response.start":
                headers = [*message["headers"], *self._headers]
                if not any(name == _CACHE_CONTROL[0] for name, _ in headers):
                    headers.append(_CACHE_CONTROL)
                message = {**message, "headers": headers}
            await send(message)

        return answer


def new_token() -> str:
    """An unguessable token."""
    return secrets.token_urlsafe(18)


def is_loopback(name: str) -> bool:
    """Whether a name or address belongs to the loopback interface."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _header(scope: Scope, name: bytes) -> str | None:
    """The first header of that name (lower case), or None."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


def _is_of(origin: str, host: str) -> bool:
    """Whether a page of this Origin came from this Host."""
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _limited(receive: Receive) -> Receive:
    """Wrap `receive` so that a body beyond the limit is refused with status 413, without reading more of it."""
    seen = 0

    async def read() -> Message:
        """The next message. Raises HTTPException 413 beyond the limit."""
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MOST_BODY:
            raise HTTPException(413, f"a request may have {MOST_BODY >> 20} MB at most")
        return message

    return read
