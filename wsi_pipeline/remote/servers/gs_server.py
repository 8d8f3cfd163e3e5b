"""Ranges of an object in Google Cloud Storage, through gcsfs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wsi_pipeline.remote.servers.answer import Answer, ChangedError, NoRangesError, TryAgainError, checked, size_of
from wsi_pipeline.remote.servers.http_status import no_key, refused, will_pass

_CHANGED = 412


class GsServer:
    """One object; `system` is gcsfs's file system."""

    def __init__(self, system: Any, address: str) -> None:
        self._system, self._address = system, address

    def get(self, start: int, stop: int, tag: str = "") -> Answer:
        """See `RangeServer.get`."""
        from fsspec.asyn import sync

        answer: Answer = sync(self._system.loop, self._get, start, stop, tag)
        return answer

    async def _get(self, start: int, stop: int, tag: str) -> Answer:
        import aiohttp
        from gcsfs.retry import HttpError
        from google.auth.exceptions import GoogleAuthError

        url = self._system.url(self._address.removeprefix("gs://"))
        try:
            headers, data = await self._system._call("GET", url, headers={"Range": f"bytes={start}-{stop - 1}"})
        except FileNotFoundError:
            raise refused(self._address, 404) from None
        except FileExistsError:  # gcsfs says so for 412
            raise ChangedError from None
        except ValueError:  # and this for 400 and 416
            raise refused(self._address, 400) from None
        except HttpError as error:
            raise self._refusal(int(getattr(error, "code", 0) or 0)) from None
        except GoogleAuthError as error:
            raise no_key(self._address, type(error).__name__) from None
        except (TimeoutError, aiohttp.ClientError, OSError, RuntimeError) as error:
            if type(error) is OSError and str(error).startswith("Forbidden"):  # and this for 403
                raise refused(self._address, 403) from None
            raise TryAgainError(f"no answer from the server ({type(error).__name__})") from None
        found = headers.get("X-Goog-Generation", "") or headers.get("ETag", "")
        return checked(data, size_of(headers, start), start, stop, found, tag)

    def _refusal(self, status: int) -> Exception:
        if status == _CHANGED:
            return ChangedError()
        return TryAgainError(f"HTTP {status}") if will_pass(status) or not status else refused(self._address, status)

    def whole(self, write: Callable[[bytes], None]) -> str:
        """Never needed: these servers send ranges."""
        raise NoRangesError(-1, "")
