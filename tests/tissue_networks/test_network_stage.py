"""`tile` with networks: a small trained stand-in finds tissue, artefacts are taken out, and all of it is recorded."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.slide_files import write_pyramid_tiff
from tests.tissue import tissue_scenes
from tests.tissue_networks.network_files import fill, save, train_stand_in
from wsi_pipeline.api.find_tissue import find_tissue
from wsi_pipeline.cli import main
from wsi_pipeline.errors import SlideError
from wsi_pipeline.store.tables.segment_table import read_segment_table
from wsi_pipeline.tissue_networks.open_network import build
from wsi_pipeline.tissue_networks.published import ARTEFACTS, GRANDQC, HEST, artefact_network


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def scene(seed, height=640, width=720):
    return tissue_scenes.stained("H&E", tissue_scenes.blob(seed, height, width), seed=seed)


def with_pen(drawn):
    """The scene with a green bar across its tissue, and where that is."""
    rgb, bar = drawn.rgb.copy(), np.zeros(drawn.tissue.shape, bool)
    bar[280:340, 100:600] = True
    rgb[bar] = (20, 120, 60)
    return rgb, bar


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    taught = scene(1, 512, 512)
    train_stand_in(GRANDQC, taught.rgb, (~taught.tissue).astype(np.uint8), folder / "tissue.onnx")
    train_stand_in(HEST, taught.rgb, taught.tissue.astype(np.uint8), folder / "hest.onnx")
    rgb, bar = with_pen(scene(2, 512, 512))
    classes = np.where(bar, 4, np.where(scene(2, 512, 512).tissue, 1, 7)).astype(np.uint8)
    train_stand_in(artefact_network(2.0), rgb, classes, folder / "artefacts.onnx")
    write_pyramid_tiff(folder / "a.svs", scene(5).rgb, mpp=10.0, compression="none")
    write_pyramid_tiff(folder / "b.svs", with_pen(scene(6))[0], mpp=2.0, compression="none")
    write_pyramid_tiff(folder / "c.svs", scene(7).rgb, mpp=1.0, compression="none")
    for name in "abc":
        (folder / f"{name}.csv").write_text(f"slide_id,path\n{name},{name}.svs\n")
    return folder


def test_a_stand_in_of_grandqc_finds_the_tissue_of_another_slide(folder, tmp_path, capsys):
    words = ["segment", str(folder / "a.csv"), "--run", str(tmp_path / "run"), "--method", "grandqc", "--workers", "0"]
    given = [*words, "--weights", str(folder / "tissue.onnx"), "--mask-mpp", "20", "--device", "cpu"]
    assert main(given) == 0
    table = read_segment_table(tmp_path / "run/segment/a.h5")
    truth = scene(5).tissue.reshape(320, 2, 360, 2).mean(axis=(1, 3)) >= 0.5
    assert table.mask.pixels.shape == truth.shape
    assert dice(table.mask.pixels, truth) > 0.95
    facts = table.header.specs["networks"]["tissue"]
    assert facts["network"] == "GrandQC's tissue network"
    assert len(facts["sha256"]) == 64
    capsys.readouterr()
    assert main(given) == 0
    assert "1 up to date" in capsys.readouterr().out


def test_other_weights_make_another_digest_and_say_so(folder, tmp_path, capsys):
    taught = scene(3, 512, 512)
    other = train_stand_in(GRANDQC, taught.rgb, (~taught.tissue).astype(np.uint8), tmp_path / "other.onnx", 3)
    words = ["segment", str(folder / "a.csv"), "--run", str(tmp_path / "run"), "--method", "grandqc", "--workers", "0"]
    digests = []
    for weights in (folder / "tissue.onnx", other):
        assert main([*words, "--weights", str(weights)]) == 0
        digests.append(read_segment_table(tmp_path / "run/segment/a.h5").header.digest)
    assert digests[0] != digests[1]
    assert "1 slide recomputed, segment: other networks or weights" in capsys.readouterr().out


def test_artefacts_are_taken_out_of_the_tissue_and_stored(folder, tmp_path):
    words = ["tile", str(folder / "b.csv"), "--run", str(tmp_path / "run"), "--method", "none", "--mask-mpp", "4"]
    words += ["--artefact-weights", str(folder / "artefacts.onnx"), "--artefact-mpp", "2", "--workers", "0"]
    assert main([*words, "--mpp", "2", "--patch-px", "32"]) == 0
    table = read_segment_table(tmp_path / "run/segment/b.h5")
    drawn = scene(6)
    coarse = [part.reshape(320, 2, 360, 2).mean(axis=(1, 3)) >= 0.5 for part in (drawn.tissue, with_pen(drawn)[1])]
    tissue, pen = coarse[0] & ~coarse[1], coarse[1]
    assert dice(table.mask.pixels, tissue) > 0.9
    assert dice(table.artefacts == 1 + ARTEFACTS.index("pen"), pen) > 0.9
    assert not (table.mask.pixels & (table.artefacts > 0)).any()
    assert table.header.extra["artefacts_mm2"]["pen"] == pytest.approx(np.count_nonzero(pen) * 16e-6, rel=0.1)
    assert table.header.specs["networks"]["artefacts"]["mpp"] == 2.0
    assert json.loads((tmp_path / "run/status/b.json").read_text())["stages"]["segment"]["summary"]["artefacts_mm2"]


def test_weights_that_do_not_fit_stop_the_command_once_before_the_first_slide(folder, tmp_path, capsys):
    weights = save(fill(build(GRANDQC)), tmp_path / "other.safetensors")
    words = ["tile", str(folder / "a.csv"), "--run", str(tmp_path / "run"), "--method", "hest"]
    assert main([*words, "--weights", str(weights)]) == 2
    out = capsys.readouterr()
    assert "does not fit HEST's tissue network: 302 tensors missing" in out.err + out.out
    assert not (tmp_path / "run/status").exists()


def test_a_stand_in_of_hest_finds_tissue_from_python(folder):
    found = find_tissue(
        folder / "c.svs", method="hest", weights=folder / "hest.onnx", mask_mpp=4.0, min_tissue_um2=1000.0
    )
    truth = scene(7).tissue.reshape(160, 4, 180, 4).mean(axis=(1, 3)) >= 0.5
    assert dice(found.mask.pixels, truth) > 0.9


def test_a_slide_coarser_than_the_network_is_refused_by_name(folder):
    with pytest.raises(SlideError, match="its 10 micrometres per pixel are too coarse for HEST's tissue network"):
        find_tissue(folder / "a.svs", method="hest", weights=folder / "hest.onnx")


def test_without_a_network_torch_is_not_imported():
    """Each slide has a process of its own, so importing torch there made `tile` of small slides eight times slower."""
    code = """
import sys
import numpy as np
from wsi_pipeline.config.specs import SegmentSpec
from wsi_pipeline.slides.backends.array import ArraySlide
from wsi_pipeline.tissue_networks.find_by_network import segment_by_networks
from wsi_pipeline.tissue_networks.plan_networks import NetworkPlan
picture = np.full((64, 64, 3), 240, np.uint8)
segment_by_networks(ArraySlide(picture, mpp=8.0), 8.0, picture, SegmentSpec(), NetworkPlan(threads=1))
print("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
