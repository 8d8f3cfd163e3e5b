"""One file at an address, read in ranges: each range once over the network, then from memory or the cache."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from wsi_pipeline.errors import SlideError
from wsi_pipeline.files.addresses import address_name, shown_address
from wsi_pipeline.remote.coalesce import JoinedRange, Range, coalesce
from wsi_pipeline.remote.fetch_ahead import FetchAhead
from wsi_pipeline.remote.parts import Part, Parts
from wsi_pipeline.remote.range_cache import RangeCache
from wsi_pipeline.remote.retry import retried
from wsi_pipeline.remote.servers.answer import Answer, ChangedError, NoRangesError, RangeServer
from wsi_pipeline.remote.servers.connect import server_of
from wsi_pipeline.remote.settings import RemoteSettings, remote_settings
from wsi_pipeline.remote.traffic import Traffic, count

HEAD_BYTES = 64 << 10
"""Read when a file is opened: its kind, size and tag, and often its first directory with the places of its tiles."""


class RemoteFile:
    """The file at an address. For several threads.

    size      bytes
    head      bytes read when it is opened
    tag       ETag or time of the last change, by which a change is noticed; empty if the server states neither
    ranges    whether the server sends parts of it; if not, only `whole_file` reads it

    Raises SlideError if it is not there, may not be read, or the server does not answer for long.
    """

    def __init__(self, path: Path, *, head: int = HEAD_BYTES, server: RangeServer | None = None) -> None:
        self.path, self.address, self.name = path, shown_address(path), address_name(path)
        self.settings: RemoteSettings = remote_settings()
        self.server = server or server_of(path)
        self.cache = RangeCache(self.settings.folder, self.settings.cache_bytes)
        self.size, self.tag, self.ranges = -1, "", True
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._ahead: FetchAhead | None = None
        self._fault: SlideError | None = None
        try:
            first = self.ask(0, head)
            self.size, self.tag = first.size, first.tag
        except NoRangesError as error:
            first, self.ranges, self.size, self.tag = None, False, error.size, error.tag
        self.version = self.cache.version(self.address, self.size, self.tag)
        self._parts = Parts(self.cache.parts(self.version) if self.version else ())
        if first is not None:
            known: Future[bytes] = Future()
            known.set_result(first.data)
            self._parts.add(Part(0, len(first.data), known))

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset` on, fewer at the end of the file. Raises SlideError if they cannot be had."""
        start, stop = offset, min(offset + count, self.size)
        if stop <= start:
            return b""
        if self._ahead is not None:
            self._ahead.reached(start)
        return self._cut(start, stop)

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """The bytes of several (start, stop), joined into few requests that run at the same time."""
        inside = [(start, min(stop, self.size)) for start, stop in ranges]
        runs = coalesce(self._missing(inside))
        for run in runs if len(runs) > 1 else ():
            self._request(run)
        return [self._cut(start, stop) if stop > start else b"" for start, stop in inside]

    def read_ahead(self, ranges: Iterable[Range]) -> None:
        """Begin to read ranges in the order in which `read` will be asked for them."""
        wanted = self._missing(ranges)
        ahead = FetchAhead(wanted, self._request) if wanted else None
        before, self._ahead = self._ahead, ahead
        if before is not None:
            before.stop()
        if ahead is not None:
            ahead.begin()

    def close(self) -> None:
        """Stop reading ahead; requests not begun are dropped. Reading after it raises SlideError."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.stop()
        with self._lock:
            self._fault = self._fault or SlideError("slide is closed")
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)

    def _missing(self, ranges: Iterable[Range]) -> list[Range]:
        return [item for item in ranges if item[1] > item[0] and self._parts.covering(*item) is None]

    def _cut(self, start: int, stop: int) -> bytes:
        """The bytes of a range from the part that covers it; if none does, it is read now, by this thread."""
        if self._fault is not None:
            raise self._fault
        part, data, own = self._covering(start, stop)
        if own:
            self._read_now(part, data)
        try:
            found = data.result()
        except CancelledError:
            raise SlideError("slide is closed") from None
        self._parts.used(part)
        return found if (start, stop) == (part.start, part.stop) else found[start - part.start : stop - part.start]

    def _covering(self, start: int, stop: int) -> tuple[Part, Future[bytes], bool]:
        """The part that covers a range, its bytes, and whether the caller has to read them."""
        with self._parts.lock:
            part = self._parts.covering(start, stop)
            if part is not None and part.data is not None:
                return part, part.data, False
            future: Future[bytes] = Future()
            if part is None:
                part = Part(start, stop, future)
                self._parts.add(part)
            part.data = future
            return part, future, True

    def _read_now(self, part: Part, future: Future[bytes]) -> None:
        try:
            future.set_result(self._read_part(part))
        except SlideError as error:
            future.set_exception(error)
        finally:
            future.cancel()  # on any other error: no thread may wait for ever

    def _request(self, run: JoinedRange) -> None:
        """Begin to read a run in another thread."""
        with self._lock:
            if self._fault is not None:
                return
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.settings.requests, thread_name_prefix="ranges")
            with self._parts.lock:
                part = Part(run.start, run.stop, None)
                part.data = self._pool.submit(self._read_part, part)
                self._parts.add(part)

    def _read_part(self, part: Part) -> bytes:
        """The bytes of a part; one that cannot be read is forgotten, and asked for again."""
        read = False
        try:
            data = self._from_disk_or_server(part)
            read = True
        finally:
            if not read:
                self._parts.remove(part)
        self._parts.used(part)
        return data

    def _from_disk_or_server(self, part: Part) -> bytes:
        if part.on_disk and self.version is not None:
            data = self.cache.read(self.version, part.start, part.stop)
            if data is not None:
                count(self.address, Traffic(cached=len(data)))
                return data
            part.on_disk = False
        data = self.ask(part.start, part.stop).data
        if self.version is not None:
            self.cache.write(self.version, part.start, data)
            part.on_disk = True
        return data

    def ask(self, start: int, stop: int) -> Answer:
        """A range from the server, tried again if it fails; the file must be the one that was opened."""
        try:
            answer = retried(partial(self.server.get, start, stop, self.tag), self.settings.seconds, self.address)
        except ChangedError:
            raise self.changed() from None
        except NoRangesError:
            if self.size < 0:
                raise
            raise self.changed() from None
        count(self.address, Traffic(len(answer.data), 1))
        if self.size >= 0 and answer.size != self.size:
            raise self.changed()
        return answer

    def changed(self) -> SlideError:
        """The error for a file that is no longer the one that was opened; every later read raises it too."""
        self._fault = SlideError(
            f"the slide changed while it was read: {self.address}", todo="Run the same command again."
        )
        return self._fault
