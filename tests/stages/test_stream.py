"""All slides in one stream: several stages share a pass, and each keeps its own locks, faults and unfinished rows."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stages.pixel_sources import READING, SIDE, job, pixels
from tests.store.feature_files import GEOMETRY
from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.cohort.slide_status import StageStatus, read_status
from wsi_pipeline.errors import EncoderError
from wsi_pipeline.reading.patch_reader import decode_jpeg, encode_jpeg
from wsi_pipeline.stages.engine.runner import CohortResult, Freshness
from wsi_pipeline.stages.streaming import slide_rows as rows_module
from wsi_pipeline.stages.streaming.slide_rows import OutputRows, RowsPlan, Submit
from wsi_pipeline.stages.streaming.stream import Survey, Watchers, stream_cohort, survey
from wsi_pipeline.store.schema import PATCH_FORMAT, Header, SlideIdentity
from wsi_pipeline.store.tables.partial import PartialRows, RowsKey, partial_path, read_partial
from wsi_pipeline.store.tables.patch_table import PatchTable, read_patch_table, write_patches
from wsi_pipeline.system.locks import locked
from wsi_pipeline.tiling.grid import PatchGrid

SLIDES = {"a": 10, "b": 3, "empty": 0, "c": 7}


@dataclass
class Means:
    """A stage that stores the mean of each patch; fails where told, and remembers what it was given."""

    run_dir: RunDir
    label: str = "m"
    batch: int = 4
    fails_at: int | None = None
    refuses: str = ""
    seen: list[int] = field(default_factory=list)
    wrote_in: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return f"embed/{self.label}"

    def path(self, record: SlideRecord) -> Path:
        return self.run_dir.feature_store(self.label, record.slide_id).with_suffix(".npy")

    def patch_store(self, record: SlideRecord) -> Path:
        return self.run_dir.patch_store(record.slide_id)

    def check(self, record: SlideRecord) -> Freshness:
        there = self.path(record).exists()
        return Freshness(there, status=StageStatus("done", digest="d") if there else None)

    def wanted(self, record: SlideRecord, table: PatchTable) -> RowsPlan | OutputRows:
        if record.slide_id == self.refuses:
            raise EncoderError("does not fit")
        count = len(table.grid)
        if not count:
            return np.zeros((0, 3), np.float32)
        return RowsPlan(self.path(record), RowsKey("d", count, 3, "float32", self.batch))

    @property
    def submit(self) -> Submit:
        def submit(batch: Any) -> Any:
            assert batch.shape[1:] == (SIDE, SIDE, 3)
            self.seen.append(len(batch))
            means = np.asarray(batch).mean(axis=(1, 2)).astype(np.float32)
            if self.fails_at is not None and (means[:, 0] == self.fails_at).any():
                raise EncoderError("no such patch")
            return lambda: means

        return submit

    def finish(self, record: SlideRecord, table: PatchTable, rows: OutputRows) -> StageStatus:
        self.path(record).parent.mkdir(parents=True, exist_ok=True)
        np.save(self.path(record), rows)
        self.wrote_in.add(threading.current_thread().name)
        return StageStatus("done" if len(rows) else "empty", digest="d")


def write_tiles(run: RunDir, slides: dict[str, int]) -> list[tuple[SlideRecord, PatchTable]]:
    """Patch stores of slides, whose pixels come from `pixel_sources`."""
    found = []
    for slide_id, count in slides.items():
        identity = SlideIdentity(slide_id, "f", 640, 640, "v", "openslide", 20.0, 0.5, 0.5, "slide", "d")
        header = Header(PATCH_FORMAT, "digest", "parent", identity, {"tile": {"overlap_px": 0, "mpp": 0.5}}, {})
        coords = np.stack([np.arange(count) * SIDE, np.zeros(count)], axis=1).astype(np.int64)
        path = run.patch_store(slide_id)
        images = np.zeros((count, SIDE, SIDE, 3), np.uint8)  # in the store, so that no slide file is looked for
        grid = PatchGrid(coords, np.ones(count, np.float32))
        write_patches(path, header, replace(GEOMETRY, patch_px=SIDE), grid, images=[(0, images)])
        found.append((job(slide_id, 0).record, read_patch_table(path)))
    return found


def go(stages: Sequence[Means], slides: Sequence[tuple[SlideRecord, PatchTable]]) -> tuple[CohortResult, Survey, int]:
    """Stream the slides; the result, what the survey said, and how many patches were told of."""
    facts = [(record, table.facts) for record, table in slides]
    todo, told = survey(stages, stages[0].run_dir, facts), [0]

    def count(patches: int) -> None:
        told[0] += patches

    records = [record for record, _ in slides]
    result = stream_cohort(stages, stages[0].run_dir, records, todo.jobs, READING, Watchers(count))
    return result, todo, told[0]


def expected(slide_id: str, count: int) -> np.ndarray:
    means = [pixels(slide_id, row).mean(axis=(0, 1)) for row in range(count)]
    return np.array(means, np.float32).reshape(count, 3)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


@pytest.mark.parametrize("batches", [(4, 4), (4, 3), (1, 16), (5, 2)])
def test_each_stage_has_the_rows_of_its_patches(run: RunDir, batches: tuple[int, int]) -> None:
    slides = write_tiles(run, SLIDES)
    stages = [Means(run, "one", batches[0]), Means(run, "two", batches[1])]
    result, todo, told = go(stages, slides)
    assert not result.failed
    assert told == todo.patches == 2 * sum(SLIDES.values())
    for stage in stages:
        for record, table in slides:
            np.testing.assert_array_equal(np.load(stage.path(record)), expected(record.slide_id, len(table.grid)))
        assert max(stage.seen) == min(stage.batch, max(SLIDES.values()))
        assert stage.wrote_in <= {"writer_0"}
    again, todo, told = go(stages, slides)
    assert {item.action for item in again.results} == {"fresh"}
    assert (todo.patches, todo.jobs, told) == (0, (), 0)


def test_a_stage_that_is_fresh_is_left_alone(run: RunDir) -> None:
    slides = write_tiles(run, SLIDES)
    first, second = Means(run, "one"), Means(run, "two")
    go([first], slides)
    first.seen.clear()
    result, _, told = go([first, second], slides)
    assert first.seen == []
    assert told == sum(SLIDES.values())
    assert [item.action for item in result.results[:2]] == ["fresh", "made"]


def test_a_slide_that_cannot_be_read_fails_in_every_stage_and_stops_none(run: RunDir) -> None:
    slides = write_tiles(run, {"a": 5, "bad@2": 4, "crash@3": 6, "shut": 2, "b": 5})
    stages = [Means(run, "one"), Means(run, "two", 3)]
    result, _, _ = go(stages, slides)
    assert [item.slide_id for item in result.failed] == ["bad@2", "crash@3", "shut"]
    assert all(stage.path(slides[k][0]).exists() for stage in stages for k in (0, 4))
    states = read_status(run.status("crash@3"), "crash@3").stages
    assert {name: state.state for name, state in states.items()} == {"embed/one": "failed", "embed/two": "failed"}
    assert "SIGSEGV" in states["embed/one"].reason


def test_a_fault_of_one_network_is_not_the_others(run: RunDir) -> None:
    slides = write_tiles(run, SLIDES)
    value = int(pixels("a", 6).flat[0])
    result, _, _ = go([Means(run, "one", fails_at=value), Means(run, "two", refuses="b")], slides)
    by_stage = {(item.slide_id, item.stage): item.action for item in result.results}
    assert by_stage[("a", "embed/one")] == "failed"
    assert by_stage[("a", "embed/two")] == "made"
    assert by_stage[("b", "embed/one")] == "made"
    assert by_stage[("b", "embed/two")] == "failed"
    assert [item.slide_id for item in result.failed] == ["a", "b"]


def test_a_slide_that_another_process_holds_is_waited_for(run: RunDir) -> None:
    slides = write_tiles(run, {"a": 5, "b": 5})
    stages, entered = [Means(run, "one"), Means(run, "two")], threading.Event()

    def hold() -> None:
        with locked(run.lock("embed/two", "a")):
            entered.set()
            released.wait()

    released, holder = threading.Event(), threading.Thread(target=hold)
    holder.start()
    entered.wait()
    threading.Timer(0.7, released.set).start()
    result, _, _ = go(stages, slides)
    holder.join()
    assert {item.action for item in result.results} == {"made"}
    assert len(result.results) == 4
    assert not list((run.root / "locks").rglob("*.lock"))


def test_unfinished_rows_are_not_computed_again(run: RunDir) -> None:
    slides = write_tiles(run, {"a": 11})
    stage, other = Means(run, "one", 4), Means(run, "two", 4)
    partial = partial_path(stage.path(slides[0][0]))
    kept = expected("a", 8) + 0.25  # told apart from what would be computed
    PartialRows(partial, RowsKey("d", 11, 3, "float32", 4), kept)
    _, todo, told = go([stage, other], slides)
    assert (todo.patches, told) == (3 + 11, 3 + 11)
    assert stage.seen == [3]
    np.testing.assert_array_equal(np.load(stage.path(slides[0][0])), np.concatenate([kept, expected("a", 11)[8:]]))
    np.testing.assert_array_equal(np.load(other.path(slides[0][0])), expected("a", 11))
    assert not partial.exists()


@pytest.mark.parametrize("change", [{"digest": "x"}, {"rows": 12}, {"dim": 2}, {"dtype": "float16"}])
def test_rows_of_something_else_are_not_used(run: RunDir, change: dict[str, Any]) -> None:
    slides = write_tiles(run, {"a": 11})
    stage = Means(run)
    key = replace(RowsKey("d", 11, 3, "float32", 4), **change)
    PartialRows(partial_path(stage.path(slides[0][0])), key, np.ones((8, key.dim), key.dtype))
    go([stage], slides)
    np.testing.assert_array_equal(np.load(stage.path(slides[0][0])), expected("a", 11))


def test_a_slide_is_finished_in_the_batches_it_was_begun_in(run: RunDir) -> None:
    slides = write_tiles(run, {"a": 11})
    stage = Means(run, batch=8)
    PartialRows(partial_path(stage.path(slides[0][0])), RowsKey("d", 11, 3, "float32", 3), expected("a", 6))
    go([stage], slides)
    assert stage.seen == [3, 2]


def test_rows_are_kept_while_a_slide_is_under_way(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "KEEP_SECONDS", 0.0)
    slides = write_tiles(run, {"bad@9": 12})
    stage = Means(run)
    go([stage], slides)
    found = read_partial(partial_path(stage.path(slides[0][0])))
    assert found is not None
    assert len(found[1]) in (4, 8)
    np.testing.assert_array_equal(found[1], expected("bad@9", len(found[1])))


def test_patches_decoded_by_the_device_are_those_of_the_store(run: RunDir) -> None:
    identity = SlideIdentity("a", "f", 640, 640, "v", "openslide", 20.0, 0.5, 0.5, "slide", "d")
    header = Header(PATCH_FORMAT, "digest", "parent", identity, {"tile": {"overlap_px": 0, "mpp": 0.5}}, {})
    patches = np.random.default_rng(0).integers(0, 256, (11, SIDE, SIDE, 3), np.uint8)
    jpegs = [encode_jpeg(patch, 90) for patch in patches]
    grid = PatchGrid(np.zeros((11, 2), np.int64), np.ones(11, np.float32))
    write_patches(run.patch_store("a"), header, replace(GEOMETRY, patch_px=SIDE), grid, jpegs=iter([jpegs]))
    slides = [(job("a", 0).record, read_patch_table(run.patch_store("a")))]
    stage = Means(run, batch=3)
    todo = survey([stage], run, [(record, table.facts) for record, table in slides])
    reading = replace(READING, decode_on="cpu")  # torchvision decodes there too, in the same layout
    result = stream_cohort([stage], run, [slides[0][0]], todo.jobs, reading, Watchers())
    assert not result.failed
    assert stage.seen == [3, 3, 3, 2]
    means = np.stack([decode_jpeg(data).mean(axis=(0, 1)) for data in jpegs])
    np.testing.assert_allclose(np.load(stage.path(slides[0][0])), means, rtol=1e-5)
