"""How much this process has read from addresses: for the results of slides, the log and benchmarks."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Traffic:
    """Bytes that came over the network, in how many requests, and bytes that the cache supplied instead."""

    nbytes: int = 0
    requests: int = 0
    cached: int = 0

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(self.nbytes - other.nbytes, self.requests - other.requests, self.cached - other.cached)

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.nbytes + other.nbytes, self.requests + other.requests, self.cached + other.cached)

    def __bool__(self) -> bool:
        return bool(self.nbytes or self.cached)

    def __str__(self) -> str:
        parts = [f"{megabytes(self.nbytes)} read from its address in {self.requests} requests"]
        return " and ".join(parts + ([f"{megabytes(self.cached)} from the cache"] if self.cached else []))


_lock = threading.Lock()
_total = Traffic()


def count(more: Traffic) -> None:
    """Add what was read."""
    global _total
    with _lock:
        _total = _total + more


def traffic() -> Traffic:
    """What this process has read so far."""
    return _total


def megabytes(count: int) -> str:
    """`1.2 MB`; small amounts in kB."""
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
