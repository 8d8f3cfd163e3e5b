"""How this process uses the machine: settings of the C libraries below torch, made before torch is imported.

Both were found by measuring (benchmarks/thread_waiting.py, docs/performance.md), and both matter on CPUs alone.
"""

from __future__ import annotations

import ctypes
import os
import sys

_SPINS = "10000"
"""Turns an OpenMP thread waits awake before it sleeps: some tens of microseconds, longer than the gaps between the
operators of a network, far shorter than a time slice that somebody else could use."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _OWN_MAPPING_BYTES = 512 << 20, 64 << 20


def prepare_process() -> None:
    """Set what makes torch fast on a CPU, unless the user's environment says otherwise."""
    _wait_shortly()
    _keep_freed_memory()


def _wait_shortly() -> None:
    """OpenMP threads sleep soon.

    Those that spin on take the cores from the threads that read patches, and from other jobs on a shared node: two busy
    cores made a ViT ten times slower. Those that sleep at once lose a fifth of an idle machine to waking up.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # where libgomp reads both, this one counts


def _keep_freed_memory() -> None:
    """glibc gives every freed array of some megabytes back, and the kernel clears its pages when it is asked for again.

    A network makes and frees the same arrays in each batch: keeping them takes a quarter off its time.
    """
    if sys.platform != "linux" or {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & os.environ.keys():
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
