"""Settings of the C libraries below torch, applied before torch is imported.

Both were found by measurement (benchmarks/thread_waiting.py, docs/performance.md) and matter only on CPUs.
"""

from __future__ import annotations

import ctypes
import os
import sys

_SPINS = "10000"
"""Iterations an OpenMP thread spins before it sleeps: some tens of microseconds, longer than the gaps between the
operators of a network, far shorter than a scheduler time slice."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _OWN_MAPPING_BYTES = 512 << 20, 64 << 20


def prepare_process() -> None:
    """Apply the settings that make torch fast on a CPU, unless the user's environment sets them."""
    _wait_shortly()
    _keep_freed_memory()


def _wait_shortly() -> None:
    """Let OpenMP threads sleep soon.

    Spinning threads take the cores from the threads that read patches and from other jobs on a shared node: two busy
    cores made a ViT ten times slower. Sleeping at once costs a fifth of the speed on an idle machine.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # if both are set, libgomp uses this one


def _keep_freed_memory() -> None:
    """Keep freed memory: glibc returns large freed arrays to the kernel, which clears the pages on the next request.

    A network allocates and frees the same arrays for each batch: keeping them saves a quarter of its time.
    """
    if sys.platform != "linux" or {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & os.environ.keys():
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
