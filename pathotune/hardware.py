"""What this machine computes fast.

torch is imported when a device is first asked about.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CPUINFO = Path("/proc/cpuinfo")
_FAST_BF16 = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512"}


def fast_bf16(device: torch.device) -> str | None:
    """Name of the hardware that makes bf16 fast on `device`, or None.

    A CPU without it computes bf16 anyway, some products a hundred times as slowly as float32 (torch 2.15, AVX2).
    """
    import torch

    if device.type == "cuda":
        # Below compute capability 8.0 bf16 works, but is emulated.
        native = torch.cuda.get_device_capability(device)[0] >= 8
        return torch.cuda.get_device_name(device) if native else None
    if device.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        flags = cpu_flags()
        return next((label for flag, label in _FAST_BF16.items() if flag in flags), None)
    return None


def cpu_flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """Instruction-set flags of this CPU in Linux's spelling; empty if they cannot be read."""
    if platform.system() == "Linux":
        # The kernel lists AMX only if it lets programs use it; CPUID alone does not say.
        try:
            text = cpuinfo.read_text(errors="replace")
        except OSError:
            return frozenset()
        line = next((line for line in text.splitlines() if line.startswith("flags")), "")
        return frozenset(line.partition(":")[2].split())
    import torch

    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return frozenset(name for name, value in capabilities.items() if value is True)
