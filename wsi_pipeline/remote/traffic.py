"""How much this process has read from addresses: for the results of slides, the log and benchmarks."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wsi_pipeline.files.addresses import shown_address
from wsi_pipeline.wording import counted


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

    @classmethod
    def parse(cls, facts: Mapping[str, int]) -> Traffic:
        """From `as_facts`."""
        return cls(*(int(facts.get(name, 0)) for name in ("bytes", "requests", "cached_bytes")))

    def as_facts(self) -> dict[str, int]:
        """For a status file."""
        return {"bytes": self.nbytes, "requests": self.requests, "cached_bytes": self.cached}

    def __bool__(self) -> bool:
        return bool(self.nbytes or self.cached)

    def __str__(self) -> str:
        parts = [f"{megabytes(self.nbytes)} in {counted(self.requests, 'request')}"]
        return ", ".join(parts + ([f"{megabytes(self.cached)} from the cache"] if self.cached else []))


_lock = threading.Lock()
_by_address: dict[str, Traffic] = {}


def count(address: str, more: Traffic) -> None:
    """Add what was read from an address."""
    with _lock:
        _by_address[address] = _by_address.get(address, Traffic()) + more


def traffic(path: Path | None = None) -> Traffic:
    """What this process has read so far, of one slide or of all."""
    with _lock:
        if path is not None:
            return _by_address.get(shown_address(path), Traffic()) if _by_address else Traffic()
        return sum(_by_address.values(), Traffic())


def megabytes(count: int) -> str:
    """`1.2 MB`; small amounts in kB."""
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
