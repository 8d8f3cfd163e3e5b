"""`wp.import_features` and `wp.import_patches` make the run that the command makes, and refuse what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import wsi_pipeline as wp
from benchmarks.torture.compare import differences
from tests.exchange import foreign_files as files
from tests.slide_files import tissue_like, write_pyramid_tiff
from wsi_pipeline.cli import main

IDS = ("s1", "s2", "s3")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Features of three slides, of which s3 has another width; labels in a column KRAS; slides of s1 and s2."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slides").mkdir()
    for number, name in enumerate(IDS):
        dim = 8 if name != "s3" else 5
        path = tmp_path / "features_uni_v1" / f"{name}.h5"
        files.trident(path, files.features_of(10 + number, dim, number), files.coords_of(10 + number))
    for name in IDS[:2]:
        pixels = tissue_like(files.WIDTH, files.HEIGHT)
        write_pyramid_tiff(tmp_path / "slides" / f"{name}.svs", pixels, mpp=0.5)
    table = "slide_id,case_id,KRAS\ns1.svs,p1,wt\ns2.svs,p1,wt\ns3.svs,p2,mut\n"
    (tmp_path / "labels.csv").write_text(table)
    return tmp_path


def test_features_as_the_command_imports_them(folder: Path) -> None:
    run = wp.import_features(folder / "features_uni_v1", "labels.csv", run="python", label_column="KRAS")
    words = ["import", "features", "features_uni_v1", "--labels", "labels.csv", "--label-column", "KRAS"]
    assert main([*words, "--run", "command"]) == 3
    assert differences(Path("python"), Path("command")) == []
    assert Path("python/cohort.csv").read_bytes() == Path("command/cohort.csv").read_bytes()
    assert run.encoders == ("uni_v1",)
    states = run.table.set_index("slide_id")
    assert states["state"].to_dict() == {"s1": "done", "s2": "done", "s3": "failed"}
    assert "s3.h5 has 5 features per patch" in states.loc["s3", "note"]
    slides = run.features("uni_v1")
    assert np.array_equal(slides.bags.features[:10], files.features_of(10, 8, 0))
    assert list(slides.table["label"]) == ["wt", "wt"]


def test_patches_are_checked_with_their_slides(folder: Path) -> None:
    run = wp.import_patches(["features_uni_v1/s1.h5", "features_uni_v1/s2.h5"], "slides", run="patches")
    assert main(["import", "patches", "features_uni_v1/s1.h5", "features_uni_v1/s2.h5", "--slides", "slides",
                 "--run", "command"]) == 0  # fmt: skip
    assert differences(run.folder, Path("command")) == []
    assert list(run.table["patches"]) == [10, 11]


def test_what_the_command_refuses(folder: Path) -> None:
    Path("other.csv").write_text("slide_id,label\nx1,a\n")
    with pytest.raises(wp.WsiPipelineError, match=r"the only slide of other\.csv has no file"):
        wp.import_features("features_uni_v1", "other.csv")
    with pytest.raises(wp.WsiPipelineError, match=r"holds features of different widths"):
        wp.import_features(["features_uni_v1/s1.h5", "features_uni_v1/s3.h5"])
    assert not Path("wsi-run").exists()
