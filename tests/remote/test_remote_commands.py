"""The commands after `embed`, and the viewer, on slides at addresses: the same files as for local slides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.range_server import Behaviour, RangeServer, serving
from tests.slide_files import tissue_like, write_pyramid_tiff
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.manifest import read_cohort
from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box
from wsi_pipeline.viewer.library import Library

pytest.importorskip("aiohttp", reason="needs the extra: pip install 'wsi-pipeline[remote]'")
SLIDES = 6


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    """Six slides behind a signature."""
    folder = tmp_path / "served"
    folder.mkdir()
    for number in range(SLIDES):
        write_pyramid_tiff(folder / f"p{number}.svs", tissue_like(1600, 1300, seed=number), mpp=0.5)
    with serving(folder, Behaviour(signature="sig=0123456789abcdef")) as running:
        yield running


@pytest.mark.slow
def test_training_heatmaps_and_predictions_are_equal(server: RangeServer, tmp_path: Path) -> None:
    for where, start, end in (
        ("remote", f"{server.address}/", "?sig=0123456789abcdef"),
        ("local", f"{server.folder}/", ""),
    ):
        rows = [f"{start}p{number}.svs{end},{'ab'[number % 2]},q{number}\n" for number in range(SLIDES)]
        (tmp_path / f"{where}.csv").write_text("path,label,patient_id\n" + "".join(rows))
        (tmp_path / f"{where}-new.csv").write_text(f"path\n{start}p0.svs{end}\n")
        run = ["--run", str(tmp_path / where)]
        assert main(["check", str(tmp_path / f"{where}.csv"), *run]) == 0
        assert main(["tile", str(tmp_path / f"{where}.csv"), *run, "--workers", "0"]) == 0
        assert main(["embed", "--model", "colour", *run]) == 0
        assert main(["train-mil", "--model", "mean", "--folds", "2", "--repeats", "1", *run]) == 0
        assert main(["heatmap", *run]) == 0
        trained = str(tmp_path / where / "train-mil" / "colour" / "mean")
        words = ["predict", str(tmp_path / f"{where}-new.csv"), "--trained", trained]
        assert main([*words, "--run", str(tmp_path / f"{where}-new")]) == 0
    for root in ("", "-new"):
        local, remote = tmp_path / f"local{root}", tmp_path / f"remote{root}"
        made = [
            path for path in local.rglob("*") if path.suffix in (".png", ".geojson") or path.name == "predictions.csv"
        ]
        assert len(made) >= (2 * SLIDES if not root else 2)
        for path in made:
            assert path.read_bytes() == (remote / path.relative_to(local)).read_bytes(), path
        assert not [path for path in remote.rglob("*") if path.is_file() and b"0123456789abc" in path.read_bytes()]


def test_the_viewer_shows_them(server: RangeServer) -> None:
    local = Library(read_cohort([str(server.folder / "p3.svs")]))
    remote = Library(read_cohort([f"{server.address}/p3.svs?sig=0123456789abcdef"]))
    try:
        box = Box(100, 100, 500, 400)
        assert remote.region("p3", box, 250).data == local.region("p3", box, 250).data
        facts = [library.facts("p3") for library in (remote, local)]
        assert facts[0].pop("version") != facts[1].pop("version")
        assert facts[0] == facts[1]
        assert remote.version("p3") == remote.version("p3") != "0"
        with pytest.raises(SlideError, match="p3 lies at an address"):
            remote.associated("p3")
    finally:
        remote.close()
        local.close()
