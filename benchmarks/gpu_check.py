"""One table of what a GPU does here: reading, decoding, embedding, training, tuning; under ten minutes.

    make gpu-check                                   on the first CUDA device, 16,000 patches
    python benchmarks/gpu_check.py --out here.md
    python benchmarks/gpu_check.py --device cpu --small    the script itself, on a machine without a GPU

It needs no data: the slide is synthetic and weights are random, which does not change a time. Each part is a process
of its own, with a limit of time: a part that fails says so in the table and leaves the others. The table is printed,
and written to --out for docs/performance.md. Ratios are of medians of rounds in which the ways take turns.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from wsi_pipeline.system.machine import prepare_process

LIMIT_S = 150
"""Seconds a part may take."""


@dataclass(frozen=True)
class Scale:
    """How much work the parts do."""

    slide_px: int
    patches: int
    rounds: int
    bags: int
    instances: int
    models: tuple[str, ...]


FULL = Scale(40_000, 4000, 3, 200, 2000, ("vit_small_patch16_224", "vit_large_patch16_224"))
SMALL = Scale(4096, 32, 1, 10, 50, ("deit_tiny_patch16_224",))


@dataclass(frozen=True)
class Row:
    """One line of the table; `rate` with its unit, `ratio` to what `beside` names."""

    what: str
    rate: str
    ratio: float | None = None
    beside: str = ""


def embedding(scale: Scale, device: str, model: str) -> list[Row]:
    """Reading, preparation and the whole of `embed`, beside the bare network."""
    import torch
    from big_slide import make_big_slide
    from embedding_ways import Bench, alternate, open_stage, tiled

    from wsi_pipeline.system.device import suggest_batch

    with tempfile.TemporaryDirectory() as folder:
        slide = make_big_slide(
            Path(folder) / "slide.svs", width=scale.slide_px, height=scale.slide_px, mpp=0.5, levels=(1, 4, 16)
        )
        with tiled(slide, scale.patches, 256) as (run, record):
            stage = open_stage(run, model, None, suggest_batch(torch.device(device)), device)
            bench = Bench(run, record, stage, 2, scale.patches)
            ways = {name: getattr(bench, name) for name in ("bare", "encode", "embed", "reading")}
            rates = {name: median(found.wall) for name, found in alternate(ways, scale.rounds).items()}
    words = {"encode": "patches in memory to features", "embed": "the stage `embed`", "reading": "reading alone"}
    rows = [Row(f"{model}: the network alone, {bench.count} patches", f"{rates['bare']:.3g} patches/s")]
    for name, text in words.items():
        rows.append(Row(f"{model}: {text}", f"{rates[name]:.3g} patches/s", rates[name] / rates["bare"], "the network"))
    return rows


def decoding(scale: Scale, device: str) -> list[Row]:
    """JPEG patches decoded on the device (`embed --gpu-decode`), beside one thread of the CPU."""
    import numpy as np
    import simplejpeg
    import torch
    from big_slide import texture

    from wsi_pipeline.encoders.nvjpeg import decode_jpegs

    pixels = texture(np.random.default_rng(0))
    jpegs = [simplejpeg.encode_jpeg(pixels, 90, colorsubsampling="422")] * min(256, scale.patches)
    there = decode_jpegs(jpegs, device).cpu().numpy()
    here = np.stack([simplejpeg.decode_jpeg(data) for data in jpegs])
    wait: Callable[[], Any] = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    rates = turns(
        {
            "cpu": lambda: [simplejpeg.decode_jpeg(data) for data in jpegs],
            "device": lambda: (decode_jpegs(jpegs, device), wait()),
        },
        len(jpegs),
        scale.rounds,
    )
    apart = int(np.abs(there.astype(int) - here.astype(int)).max())
    text = f"JPEG patches decoded on the device (largest difference {apart} grey values)"
    return [Row(text, f"{rates['device']:.3g} patches/s", rates["device"] / rates["cpu"], "one thread")]


def slide_level(scale: Scale, device: str) -> list[Row]:
    """Gated ABMIL in five folds on the device, beside the same on the CPU."""
    from mil_speed import make_work

    from wsi_pipeline.config.specs import MilSpec
    from wsi_pipeline.mil.training.fit import fit_folds
    from wsi_pipeline.mil.training.objectives import Classification

    work = make_work(scale.bags, scale.instances, 3, 8)
    spec = MilSpec(epochs=work.epochs, patience=work.epochs, batch_bags=8)
    objective = Classification(work.labels, 2, balanced=False)
    ways = {
        place: lambda place=place: fit_folds(work.bags, objective, work.folds, spec, device=place)
        for place in ("cpu", device)
    }
    rates = turns(ways, work.trained, scale.rounds)
    text = f"slide-level training, {scale.bags} bags of {scale.instances} x 384"
    return [Row(text, f"{rates[device]:.3g} bags/s", rates[device] / rates["cpu"], "the CPU")]


def tuning(scale: Scale, device: str) -> list[Row]:
    """A training step of PathoTune and LoRA, beside full fine-tuning."""
    import timm
    import torch
    from torch.nn import functional as F

    from pathotune.adapters import configure
    from pathotune.model import PathoTune
    from pathotune.training.arithmetic import Compute

    model, batch = scale.models[0], min(64, scale.patches // 8)
    images = torch.randn(batch, 3, 224, 224, device=device)
    labels = torch.randint(0, 4, (batch,), device=device)

    def stepper(method: str) -> Callable[[], None]:
        vit = timm.create_model(model, num_classes=0, dynamic_img_size=True)
        config = configure(method, classes=("a", "b", "c", "d"))
        states = torch.randn(1, config.ttp_tokens, 384) if config.ttp else None
        net = PathoTune(config, vit, states).train().to(device)
        optimizer = torch.optim.AdamW(net.trained_parameters().values(), 1e-3)

        def step() -> None:
            with Compute(device).lowered():
                loss = F.cross_entropy(net(images).float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

        return step

    rates = turns({name: stepper(name) for name in ("full", "pathotune", "lora")}, batch, max(3, scale.rounds))
    return [
        Row(f"tune, {name}, {model}", f"{rate:.3g} patches/s", rate / rates["full"], "full fine-tuning")
        for name, rate in rates.items()
    ]


def turns(ways: dict[str, Callable[[], object]], count: int, rounds: int) -> dict[str, float]:
    """Units a second of each way, the median of rounds in which they take turns after one to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if turn:
                taken[name].append(time.perf_counter() - started)
    return {name: count / median(seconds) for name, seconds in taken.items()}


def parts(scale: Scale, device: str) -> dict[str, Callable[[], list[Row]]]:
    """Name of a part -> what measures it."""
    found: dict[str, Callable[[], list[Row]]] = {
        f"embed {model}": lambda model=model: embedding(scale, device, model) for model in scale.models
    }
    return {
        **found,
        "decode": lambda: decoding(scale, device),
        "train-mil": lambda: slide_level(scale, device),
        "tune": lambda: tuning(scale, device),
    }


def apart(name: str, device: str, small: bool) -> list[Row]:
    """The rows of a part, measured in a process of its own."""
    words = [sys.executable, __file__, "--part", name, "--device", device, *(["--small"] if small else [])]
    try:
        ran = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return [Row(name, f"not measured: over {LIMIT_S} s")]
    lines = (ran.stdout if ran.returncode == 0 else ran.stderr).strip().splitlines() or ["no output"]
    if ran.returncode:
        return [Row(name, f"failed: {lines[-1][:160]}")]
    return [Row(**row) for row in json.loads(lines[-1])]


def heading(device: str) -> str:
    """Device and versions, one line."""
    import torch

    shown = platform.processor() or platform.machine()
    if device.startswith("cuda"):
        shown = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return f"{shown}; torch {torch.__version__}, Python {platform.python_version()}"


def gpu_tests() -> Row:
    """How many tests of the mark `gpu` passed."""
    words = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    ran = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    lines = (ran.stdout or ran.stderr).strip().splitlines() or ["no output"]
    return Row("tests marked `gpu`", lines[-1].strip("= "))


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| what | rate | ratio |", "|---|--:|---|"]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f} of {row.beside}"
        lines.append(f"| {row.what} | {row.rate} | {ratio} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="seconds, for a try")
    parser.add_argument("--out", type=Path, default=Path("gpu-check.md"))
    parser.add_argument("--part", help=argparse.SUPPRESS)
    args = parser.parse_args()
    prepare_process()
    scale = SMALL if args.small else FULL
    if args.part:
        print(json.dumps([asdict(row) for row in parts(scale, args.device)[args.part]()]))
        return 0
    from wsi_pipeline.errors import WsiPipelineError
    from wsi_pipeline.system.device import choose_device

    try:
        choose_device(args.device)
    except WsiPipelineError as error:
        print(error, file=sys.stderr)
        return 2
    started, rows = time.monotonic(), [] if args.small else [gpu_tests()]
    for name in parts(scale, args.device):
        rows += apart(name, args.device, args.small)
    text = f"{heading(args.device)}; {time.monotonic() - started:.0f} s\n\n{table(rows)}\n"
    args.out.write_text(text)
    print(f"{text}\nwritten to {args.out}")
    return 1 if any(row.rate.startswith(("failed", "not measured")) for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
