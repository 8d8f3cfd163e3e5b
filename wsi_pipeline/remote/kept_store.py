"""Stores at an address, for reading: fetched into the cache, which knows a store by its address, size and tag.

Who reads a store reads nearly all of it, so it is fetched as a whole, whatever its size. A Zarr store is a folder of
files, whose names follow from its metadata: no server is asked to list anything, which web servers cannot. If it was
replaced while it was fetched, its checksums tell.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path

from wsi_pipeline.errors import MissingSlideError, SlideError, StoreError
from wsi_pipeline.remote.remote_file import RemoteFile
from wsi_pipeline.remote.settings import CACHE_GB
from wsi_pipeline.remote.whole_file import whole_file
from wsi_pipeline.system.atomic import atomic_path
from wsi_pipeline.system.locks import locked

ZARR = ".zarr"
_MEMBER_BYTES = 64 << 20
"""Read of a member at once; the shards of stores have 16 MB."""
_WHY = "a store is fetched whole"
_NAME = re.compile(r"[a-z0-9_]+")
"""Names of arrays come from the server and become names of files here: nothing else is taken."""
_MOST_SHARDS = 100_000
"""Files of one array, at 16 MB each more than any slide has."""


def kept_store(address: Path) -> Path:
    """A store at an address as a file or folder of this machine.

    Raises StoreError if it is not there, may not be read, or the cache cannot hold it.
    """
    try:
        return _zarr(address) if address.suffix == ZARR else kept_file(address)
    except SlideError as error:
        raise StoreError(error.what, todo=error.todo) from error


def kept_file(address: Path) -> Path:
    """A file at an address, in the cache. Raises SlideError."""
    with closing(RemoteFile(address)) as file:
        return whole_file(file, _WHY, any_size=True)


def _zarr(address: Path) -> Path:
    with closing(RemoteFile(address / "zarr.json", head=_MEMBER_BYTES)) as root:
        if root.version is None:
            raise SlideError(
                f"{_WHY} into the cache, which is off, or the server states neither an ETag nor a time of change: "
                f"{root.address}",
                todo=f"Copy it to this machine, or switch the cache on: unset {CACHE_GB}",
            )
        place = root.version / address.name
        with locked(root.version / "store.lock", math.inf):
            if not place.is_dir():
                with atomic_path(place) as folder:
                    _fetch(address, root, folder)
                root.cache.count(sum(file.stat().st_size for file in place.rglob("*") if file.is_file()))
        return place


def _fetch(address: Path, root: RemoteFile, folder: Path) -> None:
    data = root.read(0, root.size)
    folder.mkdir()
    (folder / "zarr.json").write_bytes(data)
    for name in _arrays(data, root.address):
        described = _member(address / name / "zarr.json")
        if described is None:
            continue
        (folder / name).mkdir()
        (folder / name / "zarr.json").write_bytes(described)
        for key in _shards(described, root.address):
            member = _member(address.joinpath(name, *key.split("/")))
            if member is not None:  # zarr writes no shard that holds only zeros
                (folder / name / key).parent.mkdir(parents=True, exist_ok=True)
                (folder / name / key).write_bytes(member)


def _arrays(data: bytes, shown: str) -> Iterator[str]:
    """Names that the arrays of our stores may have, by the list of their checksums."""
    try:
        names = json.loads(json.loads(data)["attributes"]["checksums"])["arrays"]
        if not all(_NAME.fullmatch(name) for name in names):
            raise ValueError("an array is not named as ours are")
    except (ValueError, KeyError, TypeError):
        raise _not_ours(shown) from None
    for name in names:
        yield from (name, f"{name}_crc32c", f"{name}_offsets")


def _shards(described: bytes, shown: str) -> Iterator[str]:
    """Names of the files of a Zarr v3 array, relative to its folder."""
    try:
        array = json.loads(described)
        shape, shard = array["shape"], array["chunk_grid"]["configuration"]["chunk_shape"]
        separator = array["chunk_key_encoding"].get("configuration", {}).get("separator", "/")
        counts = [-(-size // step) for size, step in zip(shape, shard, strict=True)]
        if separator not in ("/", ".") or not 0 <= math.prod(counts) <= _MOST_SHARDS:
            raise ValueError("files are not named or not cut as ours are")
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
        raise _not_ours(shown) from None
    for place in product(*map(range, counts)):
        yield separator.join(["c", *map(str, place)])


def _not_ours(shown: str) -> SlideError:
    return SlideError(f"not a store of wsi-pipeline: {shown}", todo="Copy it here to convert it.")


def _member(address: Path) -> bytes | None:
    """The bytes of a file of a Zarr store; None if there is none."""
    try:
        with closing(RemoteFile(address, head=_MEMBER_BYTES)) as file:
            return file.read(0, file.size)
    except MissingSlideError:
        return None
