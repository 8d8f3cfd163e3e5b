"""Files of Hugging Face repositories: from the local cache, else downloaded with a log line on source and size.

The hub client retries a failed request for minutes; here one request with a time limit precedes any download,
so that a machine without a network reports within seconds which file it needs.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TypeVar

from wsi_pipeline.errors import EncoderError

log = logging.getLogger(__name__)
T = TypeVar("T")

ASK_SECONDS = 5.0
"""How long the hub may take to answer one request."""
GIVE_UP_SECONDS = 15.0
"""Time limit of that request in total, name resolution and redirects included."""


@dataclass(frozen=True)
class HubFile:
    """One file of a repository `org/name` (or `org/name@revision`) on the Hugging Face hub."""

    repo: str
    name: str

    @property
    def repo_id(self) -> str:
        """Repository without its revision."""
        return self.repo.partition("@")[0]

    @property
    def revision(self) -> str | None:
        """Branch, tag or commit, or None for the default branch."""
        return self.repo.partition("@")[2] or None

    @property
    def page(self) -> str:
        """Web address of the repository, for messages."""
        return f"https://huggingface.co/{self.repo_id}"


def is_offline() -> bool:
    """True when HF_HUB_OFFLINE forbids the network."""
    from huggingface_hub import constants

    asked = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    return asked or bool(constants.HF_HUB_OFFLINE)


def find_cached(file: HubFile) -> Path | None:
    """The file in the local Hugging Face cache (HF_HOME, HF_HUB_CACHE), or None."""
    found = _look_up(file)
    return Path(found) if isinstance(found, str) else None


def fetch(file: HubFile, *, bring: tuple[str, ...] = ()) -> Path:
    """The file from the cache, else from the hub.

    `bring` names all files the encoder needs, for the message. Raises EncoderError without a network, without
    access, or if there is no such file, with what to do about it.
    """
    found = fetch_if_there(file, bring=bring)
    if found is None:
        raise EncoderError(f"{file.repo} on the Hugging Face hub has no {file.name}", todo=f"See {file.page}")
    return found


def fetch_if_there(file: HubFile, *, bring: tuple[str, ...] = ()) -> Path | None:
    """Like `fetch`, but None if the repository is known to have no such file."""
    found = _look_up(file)
    if isinstance(found, str):
        return Path(found)
    if found is not None:
        # The cache records that the hub had no such file when last asked.
        return None
    needed = bring or (file.name,)
    if is_offline():
        raise _unreachable(file, needed, "HF_HUB_OFFLINE forbids the network")
    size = _ask(file, needed)
    if size is None:
        return None
    log.info("downloading %s (%s) from %s", file.name, _megabytes(size), file.page)
    return _download(file, needed)


def _look_up(file: HubFile) -> object:
    """Path as str if the file is cached, None if nothing is known, another object if it is known to be absent."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        return huggingface_hub.try_to_load_from_cache(file.repo_id, file.name, revision=file.revision)
    except HFValidationError:
        raise EncoderError(f"{file.repo_id!r} is not a Hugging Face id; expected ORG/NAME") from None


def _ask(file: HubFile, needed: tuple[str, ...]) -> int | None:
    """Size of the file in bytes as the hub states it, or None if the repository has no such file."""
    import huggingface_hub
    from huggingface_hub import errors

    url = huggingface_hub.hf_hub_url(file.repo_id, file.name, revision=file.revision)
    try:
        facts = _within(GIVE_UP_SECONDS, lambda: huggingface_hub.get_hf_file_metadata(url, timeout=ASK_SECONDS))
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(file, needed, str(error)) from None
    except errors.EntryNotFoundError:
        return None
    except errors.RepositoryNotFoundError as error:
        raise _refused(file, needed, error) from None
    except _network_errors() as error:
        raise _unreachable(file, needed, str(error) or type(error).__name__) from None
    return int(facts.size or 0)


def _download(file: HubFile, needed: tuple[str, ...]) -> Path:
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.hf_hub_download(file.repo_id, file.name, revision=file.revision, etag_timeout=ASK_SECONDS)
        )
    except _network_errors() as error:
        raise _unreachable(file, needed, f"the download broke off: {error}") from None


def _network_errors() -> tuple[type[Exception], ...]:
    """What the hub client raises without a network; its HTTP library differs between versions."""
    from huggingface_hub import errors

    return OSError, getattr(errors, "HTTPError", OSError)


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Result of `call`, or TimeoutError after `seconds`: name resolution has no time limit itself.

    The pool's one thread is a daemon: a request that hangs does not keep the program alive.
    """
    pool = ThreadPool(1)
    waiting = pool.apply_async(call)
    pool.close()
    try:
        return waiting.get(seconds)
    except multiprocessing.TimeoutError:
        raise TimeoutError(f"no answer within {seconds:g} s") from None


def _unreachable(file: HubFile, needed: tuple[str, ...], reason: str) -> EncoderError:
    return EncoderError(
        f"{file.name} of {file.repo} is not in the Hugging Face cache and cannot be downloaded: "
        f"{reason.strip().splitlines()[0]}",
        todo=f"Download {_how_to_bring(needed)} from {file.page} where there is a network, {_how_to_name(needed)}, "
        "or set HF_HOME to a cache that has it.",
    )


def _refused(file: HubFile, needed: tuple[str, ...], error: Exception) -> EncoderError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return EncoderError(
            f"{file.repo} is gated: its authors grant access on request",
            todo=f"Ask for access at {file.page}, then run huggingface-cli login (newer: hf auth login), "
            f"or bring {_how_to_bring(needed)} {_how_to_name(needed)}.",
        )
    return EncoderError(
        f"{file.repo} is not on the Hugging Face hub, or it is private",
        todo="Check the spelling ORG/NAME; for a private repository run huggingface-cli login (newer: hf auth login).",
    )


def _how_to_bring(needed: tuple[str, ...]) -> str:
    return needed[0] if len(needed) == 1 else f"{', '.join(needed[:-1])} and {needed[-1]}"


def _how_to_name(needed: tuple[str, ...]) -> str:
    return (
        "and name it with --weights FILE" if len(needed) == 1 else "into one folder and name it with --weights FOLDER"
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size else "size not stated"
