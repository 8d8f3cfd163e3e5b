"""The server of an address: the file system of fsspec for its scheme, one per process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsi_pipeline.errors import SlideError
from wsi_pipeline.files.addresses import secret_address, shown_address
from wsi_pipeline.remote.servers.answer import RangeServer
from wsi_pipeline.remote.servers.gs_server import GsServer
from wsi_pipeline.remote.servers.http_server import HttpServer
from wsi_pipeline.remote.servers.http_status import EXTRA
from wsi_pipeline.remote.servers.s3_server import S3Server

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}


def server_of(path: Path) -> RangeServer:
    """The server that holds the file of an address. Raises SlideError if the packages that speak to it are missing."""
    address = shown_address(path)
    scheme = address.partition(":")[0]
    try:
        if scheme == "s3":
            return S3Server(_system("s3"), address)
        if scheme == "gs":
            return GsServer(_system("gs"), address)
        return HttpServer(_system("http", client_kwargs=_client()), address, secret_address(path))
    except ImportError:
        raise SlideError(f"{scheme}:// addresses need the package {_PACKAGES[scheme]}: {address}", todo=EXTRA) from None


def _system(scheme: str, **more: Any) -> Any:
    import fsspec

    return fsspec.filesystem(scheme, **more)


def _client() -> dict[str, Any]:
    """aiohttp's settings: the user's of fsspec, and proxies and ~/.netrc as other programs use them."""
    from fsspec.config import conf

    return {"trust_env": True, **dict(conf.get("http", {}).get("client_kwargs", {}))}
