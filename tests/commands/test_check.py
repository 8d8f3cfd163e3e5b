"""`check`: what it says of a cohort before a run, what it writes, and what makes it ask for attention."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from tests.slide_files import damage_tile, write_pyramid_tiff, write_stripped_tiff
from tests.stages.cohorts import blob_slide, write_cohort
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.commands.checks import check_cohort
from wsi_pipeline.commands.checks.check_slide import check_slide
from wsi_pipeline.config.specs import TileSpec
from wsi_pipeline.slides.inspect.preflight import look, sample_boxes
from wsi_pipeline.slides.open import open_slide


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("check"), broken=False)


def _check(words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["check", *words, "--run", str(folder / "none")])
    return code, capsys.readouterr().out


def _rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["slide_id"]: row for row in csv.DictReader(file)}


def test_a_good_cohort_is_described_and_ends_with_0(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = _check([str(cohort), "--csv", str(tmp_path / "check.csv")], tmp_path, capsys)
    assert code == 0
    assert re.search(r"^s0 +aperio \(\w+\) +JPEG +1024 x 1024 +2 +0\.5000 slide +20x", out, re.M)
    assert "labels  a 2 slides of 2 patients; b 2 slides of 2 patients" in out
    assert "4 slides can be tiled, 0 cannot" in out
    row = _rows(tmp_path / "check.csv")["s0"]
    assert (row["state"], row["codec"], row["levels"], row["mpp_source"]) == ("ok", "JPEG", "1 4", "slide")
    assert int(row["bytes"]) == (cohort.parent / "s0.svs").stat().st_size
    assert not (tmp_path / "none").exists()


def test_the_patches_expected_are_about_those_laid(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--run", str(tmp_path / "r"), "--patch-px", "64"]
    main(["check", str(cohort), "--csv", str(tmp_path / "check.csv"), *run])
    main(["tile", str(cohort), "--workers", "0", *run])
    out = capsys.readouterr().out
    expected = {name: int(row["patches"]) for name, row in _rows(tmp_path / "check.csv").items()}
    laid = {name: int(n) for name, n in re.findall(r"^(s\d) +(\d+) +\d+\.\d", out, re.M)}
    assert set(laid) == set(expected)
    for name, count in laid.items():
        assert abs(expected[name] - count) <= 0.25 * count


def test_what_needs_attention_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write_pyramid_tiff(tmp_path / "good.svs", blob_slide(0, side=512), mpp=0.5)
    (tmp_path / "same.svs").write_bytes(good.read_bytes())
    torn = write_pyramid_tiff(tmp_path / "torn.svs", blob_slide(1, side=512), mpp=0.5)
    torn.write_bytes(torn.read_bytes()[:-900])
    hurt = write_pyramid_tiff(tmp_path / "hurt.svs", blob_slide(2, side=512), mpp=0.5, levels=(1,), tile=512)
    damage_tile(hurt, 0)
    write_pyramid_tiff(tmp_path / "plain.svs", blob_slide(3, side=512), mpp=None)
    write_pyramid_tiff(tmp_path / "forgotten.svs", blob_slide(4, side=512), mpp=0.5)
    (tmp_path / "._good.svs").write_bytes(b"what macOS keeps of a file")
    table = tmp_path / "slides.csv"
    table.write_text("path,label\ngood.svs,a\nsame.svs,b\ntorn.svs,a\nhurt.svs,a\nplain.svs,b\ngone.svs,b\n")
    code, out = _check([str(table), "--csv", str(tmp_path / "out.csv")], tmp_path, capsys)
    assert code == 3
    for line in (
        r"^same .*COPY of good",
        r"^torn .*FAILED truncated TIFF",
        r"^hurt .*FAILED .*does not decode",
        r"^plain .*FAILED no mpp",
        r"^gone .*FAILED file not found",
        r"^note +1 label without a slide: gone",
        r"^note +1 slide file in the same folders not listed in the table: forgotten.svs",
        r"^2 slides can be tiled, 4 cannot; 1 slide with the same content as another",
        r"^  plain: Add an mpp column",
    ):
        assert re.search(line, out, re.M), line
    states = {name: row["state"] for name, row in _rows(tmp_path / "out.csv").items()}
    assert states == {**dict.fromkeys(("torn", "hurt", "plain", "gone"), "failed"), "good": "ok", "same": "copy"}


def test_a_hundred_slides_are_checked(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = (cohort.parent / "s0.svs").read_bytes()
    for k in range(100):  # bytes after the last directory leave the slide as it is, but make it another file
        (tmp_path / f"t{k:03}.svs").write_bytes(content + k.to_bytes(2, "little"))
    code, out = _check([str(tmp_path)], tmp_path, capsys)
    assert code == 0
    assert "100 slides can be tiled, 0 cannot" in out


def test_a_slide_is_looked_at_in_eleven_places_at_most(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, ...]] = []
    with open_slide(cohort.parent / "s0.svs") as slide:
        kind = type(slide)
    plain = kind.read_region
    monkeypatch.setattr(kind, "read_region", lambda self, *where: read.append(where) or plain(self, *where))
    found = check_slide(SlideRecord("s0", cohort.parent / "s0.svs", "p"), TileSpec(patch_px=64), None)
    assert found.failure == ""
    assert len(read) == 11  # nine regions, the last corner, the coarsest level


def test_a_disk_too_small_is_said(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_cohort, "_free", lambda folder: 1000)
    code, out = _check([str(cohort)], tmp_path, capsys)
    assert code == 3
    assert "not enough free disk space for the run" in out


def test_texts_of_a_slide_file_do_not_become_formulas_in_the_csv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "=cmd").mkdir()
    slide = write_pyramid_tiff(tmp_path / "=cmd" / "a.svs", blob_slide(0, side=512), mpp=0.5)
    _check([str(slide), "--csv", str(tmp_path / "out.csv")], tmp_path, capsys)
    for row in csv.reader((tmp_path / "out.csv").open(newline="")):
        assert not any(cell.startswith(("=", "+", "@", "-")) and len(cell) > 1 for cell in row)


def test_samples_cover_the_ninths_and_the_last_corner(tmp_path: Path) -> None:
    path = write_stripped_tiff(tmp_path / "a.tif", blob_slide(0, side=600), mpp=0.5)
    with open_slide(path) as slide:
        boxes = sample_boxes(slide.info, 0, 100)
        assert len(boxes) == 10
        assert (boxes[0].x, boxes[0].y, boxes[4].x, boxes[4].y) == (50, 50, 250, 250)
        assert (boxes[-1].right, boxes[-1].bottom) == (600, 600)
        assert {(box.width, box.height) for box in boxes} == {(100, 100)}
        whole = sample_boxes(slide.info, 0, 5000)
        assert all((box.x, box.y, box.width, box.height) == (0, 0, 600, 600) for box in whole)
        seen = look(slide, 0, 100)
    assert seen.tissue is not None
    assert seen.sample.shape == (100, 100, 3)
    assert 0.2 < seen.fraction < 0.6  # a disc of radius 0.36, ragged
    assert np.isclose(seen.fraction, seen.tissue.mean())
