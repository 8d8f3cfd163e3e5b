"""Each measure on pictures whose truth is known: drawn edges, blurred real patches, doubled density, lines, ink."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage as ndi

from wsi_pipeline.config.specs import SegmentSpec
from wsi_pipeline.geometry import Size
from wsi_pipeline.images.shrink import area_resize
from wsi_pipeline.quality.blocks import blockiness
from wsi_pipeline.quality.focus import WIDEST_PX, edge_width
from wsi_pipeline.quality.measures import ARTEFACTS, LEAST_BLUR_PX, LEAST_SCAN_BLUR_PX, MEASURES, NAMES, limit_of
from wsi_pipeline.quality.overview import Overview, measure_overview
from wsi_pipeline.quality.patch_pixels import measure_pixels
from wsi_pipeline.quality.patch_quality import PatchQuality, artefact_of, sample_rows, summary_of
from wsi_pipeline.tissue.segmentation import segment_tissue

GLASS = 244


def squares(sigma: float, contrast: int = 80, side: int = 256) -> np.ndarray:
    """Dark squares whose edges are blurred by a Gaussian of `sigma` pixels."""
    plane = np.full((side, side), 200.0)
    for y in range(16, side, 64):
        for x in range(16, side, 64):
            plane[y : y + 32, x : x + 32] -= contrast
    return np.repeat(np.rint(ndi.gaussian_filter(plane, sigma)).astype(np.uint8)[..., None], 3, axis=2)


def real_patches(data_dir: Path) -> list[np.ndarray]:
    """Patches of H&E slides and images, and of a pale IHC slide."""
    from wsi_pipeline.slides.open import open_slide

    found = [np.asarray(Image.open(path).convert("RGB"))[:256, :256]
             for path in sorted((data_dir / "patches/crc_nuclei/images").iterdir())[:4]]  # fmt: skip
    places = {"metaplasia-HE.svs": (3000, 4000), "metaplasia-trypsin-IHC.svs": (2000, 3400),
              "lung-SCC-HE3.svs": (9000, 7600), "CMU-1-Small-Region.svs": (900, 1500)}  # fmt: skip
    for name, (x, y) in places.items():
        with open_slide(data_dir / "slides" / name) as slide:
            found.append(slide.read_region(x, y, 0, 256, 256))
    return found


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("contrast", [40, 120])
def test_the_width_of_an_edge_is_the_blur_that_made_it(sigma: float, contrast: int) -> None:
    assert edge_width(squares(sigma, contrast)) == pytest.approx(sigma, rel=0.16)


def test_a_patch_without_edges_has_no_width() -> None:
    rng = np.random.default_rng(0)
    noise = np.clip(rng.normal(240, 1.5, (256, 256, 3)), 0, 255).astype(np.uint8)
    assert np.isnan(edge_width(noise))
    assert np.isnan(edge_width(np.full((256, 256, 3), 255, np.uint8)))


def test_edges_wider_than_can_be_told_count_as_the_widest() -> None:
    assert edge_width(squares(12.0, 180)) <= WIDEST_PX


@pytest.mark.data
def test_a_blurred_patch_ranks_below_its_sharp_self_at_every_stain(data_dir: Path) -> None:
    for patch in real_patches(data_dir):
        widths = [edge_width(_blurred(patch, sigma)) for sigma in (0, 1, 1.5, 2, 3)]
        assert widths == sorted(widths), widths
        assert widths[1] > widths[0] + 0.15
        assert 1.1 < widths[3] < 2.6, "a blur of two pixels is told at every stain"


@pytest.mark.data
def test_a_clean_patch_raises_nothing_and_one_out_of_focus_is_told(data_dir: Path) -> None:
    for patch in real_patches(data_dir):
        assert _artefact(patch) == -1
        assert ARTEFACTS[_artefact(_blurred(patch, 3))].artefact == "out of focus"


def _artefact(patch: np.ndarray) -> int:
    columns = {name: np.array([value]) for name, value in zip(
        ("focus", "blocks", "clipped"), measure_pixels(patch, 0.5, True), strict=True)}  # fmt: skip
    return int(artefact_of(PatchQuality.of(columns, 1), 0.5, 0.5)[0])


def _blurred(patch: np.ndarray, sigma: float) -> np.ndarray:
    return ndi.gaussian_filter(patch, (sigma, sigma, 0))


@pytest.mark.data
def test_stronger_compression_shows_more_blocks(data_dir: Path) -> None:
    for patch in real_patches(data_dir)[:4]:
        values = [blockiness(_jpeg(patch, quality)) for quality in (70, 50, 30, 10)]
        assert values == sorted(values)
        assert values[-1] > blockiness(patch) + 0.4


def _jpeg(patch: np.ndarray, quality: int) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(patch).save(out, "JPEG", quality=quality)
    return np.asarray(Image.open(out))


def test_blocks_need_pixels_as_stored() -> None:
    names = dict(zip(("focus", "blocks", "clipped"), measure_pixels(squares(1), 0.5, False), strict=True))
    assert np.isnan(names["blocks"])
    assert names["focus"] == pytest.approx(0.5, rel=0.16)
    assert names["clipped"] == 0


# The overview: a drawn slide of 4 x 4 mm at 16 um per pixel, tissue in the middle.

HAEMATOXYLIN_EOSIN = np.array([0.20, 0.36, 0.17])
SIDE = 250


def drawn(density: np.ndarray = HAEMATOXYLIN_EOSIN) -> tuple[np.ndarray, np.ndarray]:
    """Optical density (h, w, 3) of a slide with an even piece of tissue, slightly grained, and where it is."""
    tissue = np.zeros((SIDE, SIDE), bool)
    tissue[40:210, 40:210] = True
    grain = 1 + 0.08 * ndi.gaussian_filter(np.random.default_rng(1).normal(0, 1, (SIDE, SIDE)), 1)
    return density * (tissue * grain)[..., None], tissue


def measured(density: np.ndarray, tissue: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All measures on a grid of patches of 128 um, and the patches' places in pixels."""
    rgb = np.clip(np.rint((GLASS + 1) * 10.0**-density - 1), 0, 255).astype(np.uint8)
    coords = np.array([(x, y) for y in range(48, 200, 8) for x in range(48, 200, 8)], np.int64)
    overview = Overview.of(rgb, tissue, 16.0)
    return dict(measure_overview(overview, coords * 32, 256, Size(SIDE * 32, SIDE * 32))), coords


def test_clean_tissue_raises_nothing() -> None:
    for stain in (HAEMATOXYLIN_EOSIN, HAEMATOXYLIN_EOSIN / 4, np.array([0.10, 0.11, 0.06])):
        columns, coords = measured(*drawn(stain))
        quality = PatchQuality.of(columns, len(coords))
        assert (artefact_of(quality, 0.5, 0.5) == -1).all()
        for name in ("pen", "fold", "edge"):
            assert not columns[name].any(), name


@pytest.mark.parametrize("stain", [(0.20, 0.36, 0.17), (0.06, 0.11, 0.05), (0.10, 0.11, 0.06)])
def test_a_fold_of_doubled_density_is_found_where_it_lies(stain: tuple[float, float, float]) -> None:
    density, tissue = drawn(np.array(stain))
    density[100:110, 60:190] *= 2
    columns, coords = measured(density, tissue)
    fold = columns["fold"]
    inside = (coords[:, 1] >= 98) & (coords[:, 1] <= 104) & (coords[:, 0] < 180) & (coords[:, 0] >= 64)
    far = (coords[:, 1] < 88) | (coords[:, 1] > 116)
    assert fold[inside].min() > 0.4
    assert fold[far].max() == 0
    assert {ARTEFACTS[i].artefact for i in artefact_of(PatchQuality.of(columns, len(coords)), 0.5, 0.5)[inside]} == {
        "fold"
    }


def test_crowded_nuclei_are_no_fold() -> None:
    density, tissue = drawn()
    density[100:110, 60:190] += np.array([0.30, 0.30, 0.08])  # haematoxylin alone more than doubles red
    assert not measured(density, tissue)[0]["fold"].any()


def test_the_rim_of_a_bubble_is_an_edge_and_a_streak_of_tissue_is_not() -> None:
    density, tissue = drawn()
    yy, xx = np.mgrid[:SIDE, :SIDE]
    rim = np.abs(np.hypot(yy - 125, xx - 125) - 45) < 1.2
    density[rim] += 0.6
    edge = measured(density, tissue)[0]["edge"]
    assert edge.max() > 0.2
    plain, _ = drawn()
    plain[100:102, 60:190] += np.array([0.35, 0.40, 0.12])  # a long thin streak of nuclei has a colour
    assert not measured(plain, tissue)[0]["edge"].any()


def test_pen_over_tissue_is_told_from_the_tissue() -> None:
    density, tissue = drawn()
    density[90:130, 30:200] += np.array([1.0, 0.45, 0.10])  # blue felt tip
    columns, coords = measured(density, tissue)
    pen = columns["pen"]
    assert pen[(coords[:, 1] >= 96) & (coords[:, 1] <= 114)].min() > 0.9
    assert pen[(coords[:, 1] < 72) | (coords[:, 1] > 144)].max() == 0


def test_stains_are_told_apart_and_measured() -> None:
    pink = 0.25 * np.array([0.65, 0.70, 0.29]) + 0.2 * np.array([0.07, 0.99, 0.11])
    columns, _ = measured(*drawn(pink))
    assert np.isnan(columns["dab"]).all()
    assert np.median(columns["eosin"]) == pytest.approx(0.2, abs=0.02)
    assert np.median(columns["haematoxylin"]) == pytest.approx(0.25, abs=0.02)
    brown = 0.1 * np.array([0.65, 0.70, 0.29]) + 0.3 * np.array([0.27, 0.57, 0.78])
    columns, _ = measured(*drawn(brown))
    assert np.isnan(columns["eosin"]).all()
    assert np.median(columns["dab"]) == pytest.approx(0.3, abs=0.02)
    assert np.median(columns["haematoxylin"]) == pytest.approx(0.1, abs=0.02)


def test_pen_and_yellowish_eosin_are_not_taken_for_dab() -> None:
    """Eosin of real slides absorbs more blue light than by its vector; red ink over it, black ink and frames more."""
    pink = 0.15 * np.array([0.65, 0.70, 0.29]) + 0.3 * np.array([0.11, 0.93, 0.50])
    for ink in ((0.0, 0.0, 0.0), (0.08, 0.85, 0.75), (1.3, 1.3, 1.3)):
        density, tissue = drawn(pink)
        density[60:140, 60:120] += np.array(ink)
        columns, _ = measured(density, tissue)
        assert np.isnan(columns["dab"]).all(), ink
        assert np.nanmedian(columns["eosin"]) > 0.15, ink
    brown = 0.15 * np.array([0.65, 0.70, 0.29]) + 0.3 * np.array([0.27, 0.57, 0.78])
    density, tissue = drawn(0.25 * np.array([0.65, 0.70, 0.29]))
    density[60:80, 60:120] = brown  # a small stained part on blue tissue
    assert np.isnan(measured(density, tissue)[0]["eosin"]).all()


@pytest.mark.data
def test_real_slides_are_told_apart_by_their_second_stain(data_dir: Path) -> None:
    """Three of these H&E slides were measured as DAB, and so were four of five H&E pictures with pen."""
    from wsi_pipeline.slides.open import open_slide
    from wsi_pipeline.slides.thumbnail import read_whole

    kinds = {"metaplasia-HE.svs": "eosin", "lung-SCC-HE3.svs": "eosin", "CMU-1-Small-Region.svs": "eosin",
             "metaplasia-trypsin-IHC.svs": "dab"}  # fmt: skip
    pictures = {}
    for name, kind in kinds.items():
        with open_slide(data_dir / "slides" / name) as slide:
            pictures[name] = kind, read_whole(slide, slide.info.mpp or 0.5, 16.0), 16.0
    for path in sorted((data_dir / "thumbnails_pen").iterdir()):
        pictures[path.name] = "eosin", np.asarray(Image.open(path).convert("RGB")), 37.0
    for name, (kind, rgb, mpp) in pictures.items():
        size = Size(rgb.shape[1], rgb.shape[0])
        overview = Overview.of(rgb, segment_tissue(rgb, size, mpp, SegmentSpec()).mask.pixels, mpp)
        found = measure_overview(overview, np.zeros((1, 2), np.int64), max(rgb.shape), size)
        measured = [stain for stain in ("eosin", "dab") if not np.isnan(found[stain]).all()]
        assert measured == [kind], name


def test_a_coarse_picture_tells_neither_folds_nor_edges() -> None:
    overview = Overview.of(np.full((50, 50, 3), 244, np.uint8), np.ones((50, 50), bool), 64.0)
    found = measure_overview(overview, np.zeros((1, 2), np.int64), 256, Size(6400, 6400))
    assert {"fold", "edge"}.isdisjoint(found)


# The table and the columns.


def test_the_table_names_every_measure_once_with_its_unit() -> None:
    assert len(set(NAMES)) == len(MEASURES)
    assert {measure.unit for measure in MEASURES} == {"um", "OD", ""}
    assert all((measure.limit is None) == (measure.artefact == "") for measure in MEASURES)


def test_the_limit_of_focus_is_not_below_the_pixels_of_patch_and_scan() -> None:
    focus = MEASURES[0]
    assert limit_of(focus, 0.25, 0.25) == focus.limit
    assert limit_of(focus, 2.0, 0.25) == LEAST_BLUR_PX * 2.0
    assert limit_of(focus, 1.0, 1.0) == LEAST_SCAN_BLUR_PX, "unshrunk pixels are wider blurred than shrunk ones"
    assert limit_of(focus, 0.5, 1.0) == LEAST_SCAN_BLUR_PX, "enlarging a scan does not make it out of focus"


@pytest.mark.data
@pytest.mark.parametrize(("mpp", "sigma_um"), [(0.5, 1.0), (1.0, 2.0), (2.0, 4.0)])
def test_at_every_resolution_sharp_patches_pass_and_blurred_ones_do_not(
    data_dir: Path, mpp: float, sigma_um: float
) -> None:
    from wsi_pipeline.slides.open import open_slide

    limit, factor = limit_of(MEASURES[0], mpp, 0.5), round(mpp / 0.5)
    places = {"metaplasia-trypsin-IHC.svs": (2000, 3400), "CMU-1-Small-Region.svs": (900, 1500)}
    for name, (x, y) in places.items():
        with open_slide(data_dir / "slides" / name) as slide:
            rgb = slide.read_region(x, y, 0, 160 * factor, 160 * factor)
        sharp, blurred = (area_resize(one, Size(160, 160)) for one in (rgb, _blurred(rgb, sigma_um / 0.5)))
        assert mpp * edge_width(sharp) < limit < mpp * edge_width(blurred), name


def test_the_summary_counts_only_what_was_measured() -> None:
    quality = PatchQuality.of({"focus": np.array([0.2, np.nan, 2.0, 0.3])}, 4)
    row = summary_of(quality, 0.5, 0.5)
    assert row["focus"] == {"median": 0.3, "measured": 3, "beyond": pytest.approx(1 / 3, abs=1e-4)}
    assert row["pen"] == {"median": None, "measured": 0, "beyond": None}
    assert artefact_of(quality, 0.5, 0.5).tolist() == [-1, -1, 0, -1]


@pytest.mark.parametrize(("count", "rows"), [(0, 0), (1, 1), (5, 5), (52, 5), (400, 6), (20_000, 42)])
def test_a_sample_is_spread_over_the_slide(count: int, rows: int) -> None:
    found = sample_rows(count)
    assert len(found) == rows
    assert not rows or (found[0] == 0 and found[-1] == count - 1)
