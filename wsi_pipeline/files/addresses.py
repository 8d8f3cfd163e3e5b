"""Slides named by an address: `s3://bucket/key`, `gs://bucket/key`, `https://host/path`.

An address travels through the program as a path (`AddressPath`), so whatever takes the path of a slide takes an
address too. The path never shows a secret: a query (signed URLs keep their key there) and `user:password@` are taken
off and kept in the memory of this process only, where nothing but the reader asks for them. Workers are sent them with
the path.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

SCHEMES = ("s3", "gs", "http", "https")
SIGNED_VARIABLE = "WSI_PIPELINE_SIGNED_URLS"
"""Names a text file with one signed URL a line, for commands that are not given the table with the addresses."""

_ADDRESS = re.compile(r"(?P<scheme>s3|gs|gcs|https?):/{1,2}(?P<rest>[^/].*)", re.IGNORECASE | re.DOTALL)
_CHOICE = re.compile(r"#(?:(?:scene|image|series|channel|plane)=[^&]*&?)+$", re.IGNORECASE)
_secrets: dict[str, str] = {}


class AddressPath(type(Path())):  # type: ignore[misc]
    """An address as a path: `name`, `suffix`, `parent` work; no file of this machine has it, so `exists()` is False."""

    def __str__(self) -> str:
        return _with_two_slashes(super().__str__())

    def __fspath__(self) -> str:
        return str(self)

    def __hash__(self) -> int:
        return hash(str(self))

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, AddressPath) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (str(self), _secrets.get(_without_choice(str(self)), ""))

    def absolute(self) -> AddressPath:
        """The address itself."""
        return self

    def resolve(self, strict: bool = False) -> AddressPath:
        """The address itself."""
        return self


def is_address(name: str | os.PathLike[str]) -> bool:
    """Whether a name is the address of a slide rather than a path of this machine."""
    return isinstance(name, AddressPath) or _ADDRESS.match(str(name)) is not None


def may_exist(path: Path) -> bool:
    """Whether a path may name a slide: its file is there, or it is an address, which only reading it tells."""
    return is_address(path) or path.exists()


def slide_path(name: str | os.PathLike[str]) -> Path:
    """A name as a path: an AddressPath for an address, without its secrets. Raises ValueError as `parse_address`."""
    if isinstance(name, AddressPath):
        return name
    return parse_address(str(name)) if is_address(name) else Path(name)


def parse_address(text: str) -> AddressPath:
    """An address as a path; its query and password are remembered, not shown. A choice (`#scene=1`) stays at its end.

    Raises ValueError, saying what is wrong, for an address that names no file or that a path cannot hold.
    """
    found = _ADDRESS.match(text.strip())
    if found is None:
        raise ValueError("it is not an s3://, gs://, http:// or https:// address")
    choice = _CHOICE.search(found["rest"])
    rest = found["rest"][: choice.start()] if choice else found["rest"]
    scheme = {"gcs": "gs"}.get(found["scheme"].lower(), found["scheme"].lower())
    host, _, key = rest.partition("/")
    secret = ""
    if scheme.startswith("http"):
        key = key.partition("#")[0]
        key, mark, query = key.partition("?")
        user, at, host = host.rpartition("@")
        secret = f"{scheme}://{user}{at}{host}/{key}{mark}{query}" if user or query else ""
        host = host.lower()
    elif "@" in host or ":" in host:
        raise ValueError("a bucket has no user, password or port: give keys and the endpoint by the environment")
    if not host or not key or key.endswith("/"):
        raise ValueError("it names no file")
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError("it has an empty part, '.' or '..' between two slashes, which a path cannot hold")
    if any(ord(char) < 32 or ord(char) == 127 for char in key + host):
        raise ValueError("it holds a control character")
    clean = f"{scheme}://{host}/{key}"
    if secret:
        _secrets[clean] = secret
    return AddressPath(f"{clean}{choice[0] if choice else ''}")


def shown_address(path: Path) -> str:
    """The address of a path without a choice and without secrets: for messages, stores and tables."""
    return _without_choice(_with_two_slashes(str(path)))


def named_address(name: str | os.PathLike[str]) -> str:
    """An address of anything, a bucket too, without password and query: for messages that refuse it."""
    return re.sub(r"//[^/]*@", "//", _with_two_slashes(os.fspath(name)), count=1).partition("?")[0]


def secret_address(path: Path) -> str:
    """The address to read from, with the query or the password it was given with. Never to be shown or stored."""
    clean = shown_address(path)
    if clean not in _secrets:
        _read_signed()
    return _secrets.get(clean, clean)


def address_name(path: Path) -> str:
    """The last part of an address, that of a web address decoded (`a%20b.svs` -> `a b.svs`); a local file's name."""
    on_web = is_address(path) and str(path).startswith("http")
    return unquote(path.name).replace("/", "_") if on_web else path.name


def _restored(clean: str, secret: str) -> AddressPath:
    if secret:
        _secrets[_without_choice(clean)] = secret
    return AddressPath(clean)


def _read_signed() -> None:
    """Remember the addresses of the file that WSI_PIPELINE_SIGNED_URLS names; it may be the table of slides itself."""
    name = os.environ.get(SIGNED_VARIABLE, "")
    if not name:
        return
    try:
        text = Path(name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for found in re.findall(r"https?://[^\s\"'<>]+", text):
        if urlsplit(found).query:
            try:
                parse_address(found.rstrip(",;"))
            except ValueError:
                continue


def _with_two_slashes(text: str) -> str:
    """pathlib makes one slash of the two behind the scheme."""
    found = _ADDRESS.match(text)
    return f"{found['scheme']}://{found['rest']}" if found else text


def _without_choice(text: str) -> str:
    return _CHOICE.sub("", text)
