"""What `embedding.py` measures: the network alone, the stage, and what lies between. See there."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file

from wsi_pipeline.cli import main as command
from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.config.specs import EmbedSpec
from wsi_pipeline.encoders.names import plan_encoder
from wsi_pipeline.encoders.torch_encoder import TorchEncoder, prepare
from wsi_pipeline.reading.patch_reader import PatchReader
from wsi_pipeline.stages.embed import EmbedStage
from wsi_pipeline.stages.streaming.reader_client import PixelFeed, warm_up
from wsi_pipeline.stages.streaming.reader_process import Reading, SlideJob, open_patches
from wsi_pipeline.stages.streaming.stream import Watchers, stream_cohort, survey
from wsi_pipeline.store.tables.patch_table import PatchTable, read_patch_table, write_patches
from wsi_pipeline.tiling.grid import PatchGrid


class Bench:
    """One tiled slide and one encoder, loaded."""

    def __init__(self, run: RunDir, record: SlideRecord, stage: EmbedStage, readers: int, patches: int) -> None:
        self.run, self.record, self.stage, self.readers = run, record, stage, readers
        self.table: PatchTable = read_patch_table(stage.patch_store(record))
        self.count = min(patches, len(self.table.grid))
        assert isinstance(stage.encoder, TorchEncoder)
        self.encoder = stage.encoder
        side, batch = self.table.geometry.patch_px, stage.batch
        self.random = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
        with torch.inference_mode():
            self.tensor = prepare(self.random, self.encoder.info, torch.device(self.encoder.device))

    def bare(self) -> int:
        """The network alone."""
        encoder = self.encoder
        lowered = encoder.precision.dtype != torch.float32
        done = 0
        with torch.inference_mode(), torch.autocast(self.tensor.device.type, encoder.precision.dtype, enabled=lowered):
            while done < self.count:
                encoder._forward(self.tensor).float().cpu()
                done += len(self.tensor)
        return done

    def encode(self) -> int:
        """Bytes in memory to features."""
        done = 0
        while done < self.count:
            self.encoder.encode(self.random)
            done += len(self.random)
        return done

    def embed(self) -> int:
        """The stage on the first patches of the slide."""
        return self.stream([self.stage])

    def stream(self, stages: list[EmbedStage]) -> int:
        """Several stages in one pass; returns patches times stages."""
        for stage in stages:
            self.run.feature_store(stage.spec.model, self.record.slide_id).unlink(missing_ok=True)
        todo = survey(stages, self.run, [(self.record, self.table.facts)])
        reading = Reading(self.table.geometry.patch_px, self.stage.batch, self.readers)
        result = stream_cohort(stages, self.run, [self.record], todo.jobs, reading, Watchers())
        assert not result.failed, result.failed[0].status.reason
        return todo.patches

    def in_threads(self) -> int:
        """Read by threads here."""
        out = np.zeros((len(self.table.grid), self.encoder.info.dim), np.float16)
        for first, batch in self._patches():
            out[first : first + len(batch)] = self.encoder.encode(batch)
        return len(out)

    def read_here(self) -> int:
        """Reading by threads here, alone."""
        return sum(len(batch) for _, batch in self._patches())

    def reading(self) -> int:
        """The reading process alone."""
        job = self._job()
        with PixelFeed([job], Reading(self.table.geometry.patch_px, self.stage.batch, self.readers)) as feed:
            return sum(len(block) for _, block in feed.blocks(job))

    def _job(self) -> SlideJob:
        return SlideJob(self.record, self.stage.patch_store(self.record), len(self.table.grid))

    def _patches(self) -> Iterator[tuple[int, np.ndarray]]:
        with closing(open_patches(self._job())) as source:
            yield from PatchReader(source, self.stage.batch, self.readers)


@dataclass
class Rates:
    """Of one way: patches per second, and processor milliseconds a patch, of each round."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def alternate(ways: dict[str, Callable[[], int]], rounds: int) -> dict[str, Rates]:
    """Each way in each round, after one round to warm up."""
    rates = {name: Rates() for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            started, used = time.perf_counter(), time.process_time()
            done = way()
            if turn:
                rates[name].wall.append(done / (time.perf_counter() - started))
                rates[name].processor.append((time.process_time() - used) / done * 1e3)
    return rates


@contextmanager
def tiled(slide: Path, patches: int, patch_px: int) -> Iterator[tuple[RunDir, SlideRecord]]:
    """A run with one slide, tiled, with `patches` of its patches."""
    with tempfile.TemporaryDirectory() as folder:
        warm_up()
        csv = Path(folder) / "slides.csv"
        csv.write_text(f"slide_id,path,mpp\ns,{slide.resolve()},\n")
        run = RunDir(Path(folder) / "run")
        command(["tile", str(csv), "--run", str(run.root), "--patch-px", str(patch_px), "--quiet", "--workers", "1"])
        _keep_first(run.patch_store("s"), patches)
        yield run, SlideRecord("s", slide.resolve(), "s")


def _keep_first(path: Path, count: int) -> None:
    table = read_patch_table(path)
    middle = max(0, (len(table.grid) - count) // 2)
    rows = slice(middle, middle + count)
    grid = PatchGrid(table.grid.coords[rows], table.grid.coverage[rows])
    header = replace(table.header, extra={**table.header.extra, "patches": len(grid)})
    write_patches(path, header, table.geometry, grid)


def open_stage(run: RunDir, model: str, weights: Path | None, batch: int, device: str) -> EmbedStage:
    """The stage of one encoder, with random weights where none are given."""
    if weights is None:
        torch.manual_seed(0)
        weights = run.root / f"{model}.safetensors"
        save_file({k: v.contiguous() for k, v in timm.create_model(model).state_dict().items()}, weights)
    return EmbedStage(run, EmbedSpec(model=model), plan_encoder(model, weights=weights), device, batch)


def show(rates: dict[str, Rates], against: str) -> None:
    """One line for each way: medians, and median and range of its ratio to `against` round by round."""
    for name, found in rates.items():
        ratios = [value / base for value, base in zip(found.wall, rates[against].wall, strict=True)]
        span = f"{statistics.median(ratios):.3f}  [{min(ratios):.2f}, {max(ratios):.2f}]"
        rate, spent = statistics.median(found.wall), statistics.median(found.processor)
        print(f"  {name:<12}{rate:>8.1f}/s {spent:>8.2f} ms   {span}")
