"""Quality in the stage `tile`: columns in the store, dropped patches with their reasons, older stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage as ndi

from tests.slide_files import write_pyramid_tiff
from tests.stages.cohorts import blob_slide, write_cohort
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.cohort.slide_status import read_status
from wsi_pipeline.quality.measures import NAMES, UNITS
from wsi_pipeline.report.maps.artefact_overlay import COLOURS
from wsi_pipeline.stages.engine.freshness import read_header
from wsi_pipeline.store.files import amend_store
from wsi_pipeline.store.schema import PATCH_FORMAT, QUALITY
from wsi_pipeline.store.tables.feature_table import read_feature_table
from wsi_pipeline.store.tables.patch_labels import write_labels
from wsi_pipeline.store.tables.patch_table import PatchTable, read_patch_table

TILE = ["--patch-px", "128", "--workers", "0"]


def tiled(folder: Path, *options: str, code: int = 0) -> Path:
    """Tile the cohort in a folder; the run folder."""
    run = folder / "run"
    assert main(["tile", str(folder / "slides.csv"), *TILE, "--run", str(run), *options]) == code
    return run


def store_of(run: Path, slide_id: str) -> PatchTable:
    return read_patch_table(RunDir(run).patch_store(slide_id))


def test_every_patch_has_its_row_of_measures_and_quality_changes_no_patch(tmp_path: Path) -> None:
    write_cohort(tmp_path, per_class=1, broken=False)
    run = tiled(tmp_path, "--quality", "none")
    before = store_of(run, "s0")
    assert before.quality is None
    tiled(tmp_path)
    sampled = store_of(run, "s0")
    assert sampled.quality is not None
    assert (sampled.quality.names, sampled.quality.units) == (NAMES, UNITS)
    assert sampled.quality.values.shape == (len(sampled.grid), len(NAMES))
    assert 0 < np.count_nonzero(~np.isnan(sampled.quality.column("focus"))) <= 8
    assert not np.isnan(sampled.quality.column("haematoxylin")).any()
    tiled(tmp_path, "--quality", "all")
    every = store_of(run, "s0")
    assert np.isfinite(every.quality.column("focus")).all()
    known = ~np.isnan(sampled.quality.values)
    assert np.array_equal(sampled.quality.values[known], every.quality.values[known])
    for table in (sampled, every):
        assert np.array_equal(table.grid.coords, before.grid.coords)
        assert table.header.digest == before.header.digest


def test_measuring_again_keeps_labels_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cohort(tmp_path, per_class=1, broken=False)
    run = tiled(tmp_path, "--quality", "none", "--pixels", "jpeg")
    path = RunDir(run).patch_store("s0")
    write_labels(path, np.zeros(len(store_of(run, "s0").grid), np.int64), ["tumour"])
    tiled(tmp_path, "--pixels", "jpeg")
    assert "its quality has not been measured" in capsys.readouterr().out
    assert store_of(run, "s0").labels.classes == ("tumour",)
    tiled(tmp_path, "--pixels", "jpeg", "--quality", "all")
    assert "quality sample -> all" in capsys.readouterr().out
    tiled(tmp_path, "--pixels", "jpeg")
    assert "2 up to date" in capsys.readouterr().out  # all includes the sample


def test_changed_measures_are_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cohort(tmp_path, per_class=1, broken=False)
    run = tiled(tmp_path)
    digest = store_of(run, "s0").header.digest
    for module in ("stages.tile", "stages.engine.freshness"):
        monkeypatch.setattr(f"wsi_pipeline.{module}.QUALITY_REVISION", 99)
    capsys.readouterr()
    tiled(tmp_path)
    assert "measures of quality revision 2 -> 99" in capsys.readouterr().out
    assert store_of(run, "s0").header.digest == digest


def test_a_store_without_quality_opens(tmp_path: Path) -> None:
    write_cohort(tmp_path, per_class=1, broken=False)
    run = tiled(tmp_path)
    path = RunDir(run).patch_store("s0")
    with amend_store(path) as writer:
        writer.remove(QUALITY)
    assert read_patch_table(path).quality is None


def test_artefacts_are_dropped_and_counted_with_their_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cohort(tmp_path, per_class=1, broken=False)
    picture = blob_slide(0)
    picture[:, 512:] = ndi.gaussian_filter(picture[:, 512:], (4, 4, 0))  # the right half is out of focus
    write_pyramid_tiff(tmp_path / "s0.svs", picture, mpp=0.5)
    run = tiled(tmp_path, "--drop-artefacts")
    out = capsys.readouterr().out
    table = store_of(run, "s0")
    counts = table.header.extra["dropped"]
    n = counts["out of focus"]
    assert set(counts) == {"out of focus"}
    assert n > 5
    assert (table.grid.coords[:, 0] < 512).all()
    assert (table.dropped.coords[:, 0] >= 512).all()
    assert table.dropped.counts() == counts
    assert len(table.grid) + n == table.header.extra["laid"]
    assert len(table.quality) == len(table.grid)
    assert f"{n} of {table.header.extra['laid']} patches dropped: {n} out of focus" in out
    assert f"{n} dropped as artefacts: {n} out of focus" in out
    assert store_of(run, "s1").header.extra["dropped"] == {}


def test_the_overlay_shows_which_patch_is_flagged_for_what(tmp_path: Path) -> None:
    write_cohort(tmp_path, per_class=1, broken=False)
    picture = blob_slide(0)
    picture[:, 512:] = ndi.gaussian_filter(picture[:, 512:], (4, 4, 0))
    write_pyramid_tiff(tmp_path / "s0.svs", picture, mpp=0.5)
    run = tiled(tmp_path, "--quality", "none")

    def overlay() -> np.ndarray:
        return np.asarray(Image.open(RunDir(run).overlay("s0"))).astype(int)

    def orange(table: PatchTable, coords: np.ndarray) -> np.ndarray:
        """Whether the middle of each patch is nearer to the colour of `out of focus` than before."""
        scale = drawn.shape[0] / table.header.slide.size.height
        x, y = ((coords + table.geometry.patch_level0 * 0.4) * scale).astype(int).T
        target = np.array(COLOURS[0])
        away = [np.abs(picture[y, x] - target).sum(axis=1) for picture in (drawn, plain)]
        return away[0] < 0.7 * away[1]

    plain = overlay()
    tiled(tmp_path, "--quality", "all")  # measuring again draws again
    drawn, table = overlay(), store_of(run, "s0")
    flagged = table.flagged()
    assert set(flagged.kind) == {0}
    assert flagged.kept == len(flagged.coords) > 5
    assert flagged.of == len(table.grid)
    beyond = table.quality.column("focus") > 0.5
    assert np.array_equal(flagged.coords, table.grid.coords[beyond])
    assert orange(table, flagged.coords).mean() > 0.8
    assert not orange(table, table.grid.coords[~beyond]).any()
    legend = (np.abs(drawn - COLOURS[0]).sum(axis=2) < 12)[-60:, -150:]
    assert legend.sum() >= 100, "a square of the colour, bottom right"
    tiled(tmp_path, "--drop-artefacts")
    drawn, table = overlay(), store_of(run, "s0")
    assert len(table.flagged().coords) == len(table.dropped.coords) > 5
    assert table.flagged().kept == 0
    assert orange(table, table.dropped.coords).mean() > 0.8
    assert not orange(table, table.grid.coords).any()


def test_a_slide_all_out_of_focus_has_no_patch_and_the_cohort_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cohort(tmp_path, per_class=1, broken=False)
    blurred = ndi.gaussian_filter(blob_slide(0), (5, 5, 0))
    write_pyramid_tiff(tmp_path / "s0.svs", blurred, mpp=0.5)
    run = tiled(tmp_path)
    assert "out of focus: 100% of" in capsys.readouterr().out, "measuring alone says so too"
    patches = len(store_of(run, "s0").grid)
    tiled(tmp_path, "--drop-artefacts", "--quality", "all")
    status = read_status(RunDir(run).status("s0"), "s0").stages["tile"]
    assert status.state == "empty"
    assert status.note.startswith(f"all {patches} patches dropped: {patches} out of focus")
    assert len(store_of(run, "s0").grid) == 0
    assert len(store_of(run, "s1").grid) > 0
    assert main(["embed", "--model", "colour", "--run", str(run)]) == 0
    assert len(read_feature_table(run / "embed/colour/s1.h5").features) == len(store_of(run, "s1").grid)
    assert len(read_feature_table(run / "embed/colour/s0.h5").features) == 0


def test_keeping_artefacts_after_dropping_them_tiles_again(tmp_path: Path) -> None:
    write_cohort(tmp_path, per_class=1, broken=False)
    run = tiled(tmp_path, "--drop-artefacts")
    path = RunDir(run).patch_store("s0")
    dropped = read_header(path, PATCH_FORMAT).digest
    tiled(tmp_path)
    assert read_header(path, PATCH_FORMAT).digest != dropped
    assert store_of(run, "s0").dropped is None


def test_dropping_without_measuring_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cohort(tmp_path, per_class=1, broken=False)
    tiled(tmp_path, "--drop-artefacts", "--quality", "none", code=2)
    assert "needs the quality of all patches" in capsys.readouterr().err


def test_python_measures_what_tile_stores(tmp_path: Path) -> None:
    import wsi_pipeline as wp

    write_cohort(tmp_path, per_class=1, broken=False)
    run = tiled(tmp_path, "--quality", "all")
    with wp.open_slide(tmp_path / "s0.svs") as slide:
        patches = wp.lay_patches(slide, patch_px=128)
        quality = wp.measure_quality(slide, patches)
        assert np.array_equal(quality.values, store_of(run, "s0").quality.values, equal_nan=True)
        sample = wp.measure_quality(slide, patches, pixels="sample")
        assert 0 < np.count_nonzero(~np.isnan(sample.column("focus"))) < len(patches)
        with pytest.raises(wp.WsiPipelineError, match="pixels must be all or sample"):
            wp.measure_quality(slide, patches, pixels="some")


def test_a_zarr_store_keeps_quality_too(tmp_path: Path) -> None:
    write_cohort(tmp_path, per_class=1, broken=False)
    run = tiled(tmp_path, "--store", "zarr", "--drop-artefacts")
    table = read_patch_table(RunDir(run).patch_store("s0", "zarr"))
    assert table.quality.names == NAMES
    assert table.dropped.counts() == {}
    tiled(tmp_path, "--store", "zarr")
    assert read_patch_table(RunDir(run).patch_store("s0", "zarr")).dropped is None
