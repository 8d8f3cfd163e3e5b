"""What is set before torch is imported, and what the user's environment keeps."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_SHOW = "import os; print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT'))"
_PREPARED = f"from wsi_pipeline.system.machine import prepare_process; prepare_process(); {_SHOW}"
_FAULTS = """
import sys
if sys.argv[1] == "prepared":
    from wsi_pipeline.system.machine import prepare_process
    prepare_process()
import resource
for _ in range(50):
    arrays = [b"x" * 20_000_000 for _ in range(3)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def _said(code: str, *words: str, **environment: str) -> str:
    left_out = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
    env = {key: value for key, value in os.environ.items() if key not in left_out} | environment
    done = subprocess.run([sys.executable, "-c", code, *words], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_threads_sleep_after_a_short_while() -> None:
    assert _said(_PREPARED) == "PASSIVE 10000"


@pytest.mark.parametrize("own", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}])
def test_the_users_environment_wins(own: dict[str, str]) -> None:
    wait, spins = _said(_PREPARED, **own).split()
    assert wait == own.get("OMP_WAIT_POLICY", "PASSIVE")
    assert spins == own.get("GOMP_SPINCOUNT", "None")


@pytest.mark.skipif(sys.platform != "linux" or not os.confstr("CS_GNU_LIBC_VERSION"), reason="needs glibc")
def test_freed_memory_is_used_again_without_asking_the_kernel_for_pages() -> None:
    pages = 50 * 3 * 20_000_000 // 4096
    prepared, plain = (int(_said(_FAULTS, words, MALLOC_ARENA_MAX="1")) for words in ("prepared", "plain"))
    assert prepared < pages / 5 < plain
