"""How slides at an address are read: where the cache is and how large, how long to try, whether to fetch whole files.

All by environment variables, so that workers and cluster jobs have the same (docs/remote.md lists them).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from wsi_pipeline.errors import UsageError

CACHE, CACHE_GB, WHOLE_GB, SECONDS, REQUESTS = (
    "WSI_PIPELINE_CACHE",
    "WSI_PIPELINE_CACHE_GB",
    "WSI_PIPELINE_WHOLE_GB",
    "WSI_PIPELINE_RETRY_SECONDS",
    "WSI_PIPELINE_REQUESTS",
)
_GB = 1_000_000_000


@dataclass(frozen=True)
class RemoteSettings:
    """Settings of remote reading.

    folder        of the cache
    cache_bytes   most bytes the cache keeps; 0: no cache
    whole_bytes   largest file that may be fetched whole; 0: none
    seconds       how long a request is tried again before its slide fails
    requests      requests of one slide at the same time
    """

    folder: Path
    cache_bytes: int = 10 * _GB
    whole_bytes: int = 0
    seconds: float = 60.0
    requests: int = 16


def remote_settings() -> RemoteSettings:
    """The settings of this process's environment. Raises UsageError for a value that is not a number."""
    usual = RemoteSettings(_folder())
    return RemoteSettings(
        folder=usual.folder,
        cache_bytes=int(_number(CACHE_GB, usual.cache_bytes / _GB) * _GB),
        whole_bytes=int(_number(WHOLE_GB, 0) * _GB),
        seconds=_number(SECONDS, usual.seconds),
        requests=max(1, int(_number(REQUESTS, usual.requests))),
    )


def _folder() -> Path:
    named = os.environ.get(CACHE, "")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "wsi-pipeline" / "slides"


def _number(name: str, otherwise: float) -> float:
    text = os.environ.get(name, "").strip()
    try:
        value = float(text) if text else otherwise
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"{name} must be a number from 0 on, got {text!r}", todo=f"Correct it, or run: unset {name}")
    return value
