"""Where an encoder computes and how, and that devices which are not there are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pathotune import hardware
from pathotune.hardware import cpu_flags
from pathotune.training.arithmetic import Compute
from wsi_pipeline.errors import UsageError
from wsi_pipeline.system.device import choose_device, choose_precision, suggest_batch

CPU = torch.device("cpu")
no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")


def with_flags(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset(flags))


def test_the_cpu_is_always_there() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in {"cpu", "cuda", "mps"}
    assert suggest_batch(CPU) == 16


@pytest.mark.parametrize("name", ["", "gpu", "cuda:x", "meta", "xpu", "tpu"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="device must be auto, cpu, cuda, cuda:N or mps"):
        choose_device(name)


@no_cuda
def test_a_missing_device_is_refused() -> None:
    with pytest.raises(UsageError, match="finds no CUDA device"):
        choose_device("cuda:1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_beyond_the_last_is_refused() -> None:
    assert choose_device("cuda") == torch.device("cuda", 0)
    with pytest.raises(UsageError, match="only cuda:0 to cuda:"):
        choose_device("cuda:99")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("avx512_bf16", "amx_bf16"), "bf16 (AMX)"),
        (("avx2", "avx512_bf16"), "bf16 (AVX-512)"),
        (("avx2", "avx512f"), "fp32"),
        ((), "fp32"),
    ],
)
def test_auto_takes_bf16_where_the_cpu_is_fast_at_it(
    monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], said: str
) -> None:
    with_flags(monkeypatch, *flags)
    assert str(choose_precision("auto", CPU)) == said
    assert Compute().arithmetic == said.split()[0]


def test_what_the_user_asks_for_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    with_flags(monkeypatch)
    slow = choose_precision("bf16", CPU)
    assert slow.dtype == torch.bfloat16
    assert "no bf16 hardware" in str(slow)
    with_flags(monkeypatch, "amx_bf16")
    assert choose_precision("fp32", CPU).dtype == torch.float32
    with pytest.raises(UsageError, match="precision must be one of auto, bf16, fp32, got 'fp16'"):
        choose_precision("fp16", CPU)


@pytest.mark.parametrize(
    ("system", "text", "expected"),
    [
        ("Linux", "processor\t: 0\nflags\t\t: fpu avx2 amx_bf16\nbugs\t: x\n", {"fpu", "avx2", "amx_bf16"}),
        ("Linux", "Processor : ARMv8\nFeatures : fp asimd bf16\n", set()),
        ("Linux", "", set()),
        ("Linux", None, set()),
    ],
)
def test_cpu_flags_are_read_safely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, text: str | None, expected: set[str]
) -> None:
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr("platform.system", lambda: system)
    assert cpu_flags(file) == expected


def test_elsewhere_flags_come_from_torch_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": False, "neon": True, "name": "M2"}, False)
    assert cpu_flags() == {"neon"}
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert cpu_flags() == frozenset()
