"""Read what other tools have written, by their own code: `python benchmarks/exchange/read_peers.py PEER [CLONE]`.

Makes a small slide, has the peer tile it and compute features (a mean of colours stands for the encoder), reads
the files with our readers, and prints a row: rows, width, places on the slide, and whether each row is the mean colour
of the patch that its coordinates name.

Peers: trident, clam, stamp, atlaspatch need CLONE, a folder with their repository; hs2p and lazyslide (wsidata) are
installed with pip. Run it with a Python that has the peer's own needs; nothing of a peer is kept here.
"""

from __future__ import annotations

import importlib.metadata
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.slide_files import tissue_like, write_pyramid_tiff  # noqa: E402
from wsi_pipeline.exchange.readers.find_files import find_files  # noqa: E402
from wsi_pipeline.exchange.readers.foreign_file import ForeignFile  # noqa: E402
from wsi_pipeline.exchange.readers.imported_rows import place  # noqa: E402
from wsi_pipeline.slides.open import open_slide  # noqa: E402

WIDTH, HEIGHT, MPP, SIDE = 1280, 896, 0.5, 128
SIZES = {"stamp": (4096, 4096)}
"""STAMP reads squares of up to 4096 pixels, and keeps tiles off the slide where no filter for tissue is set."""
TOLERANCE = 6.0
"""Of 255: peers shrink patches in other ways, STAMP also stores float16."""


def trident(slide: Path, out: Path) -> None:
    """TRIDENT: extract_tissue_coords, then extract_patch_features."""
    import geopandas
    from shapely.geometry import box
    from trident.wsi_objects.OpenSlideWSI import OpenSlideWSI

    wsi = OpenSlideWSI(slide_path=str(slide), lazy_init=False, mpp=MPP)
    wsi.gdf_contours = geopandas.GeoDataFrame({"tissue_id": [0]}, geometry=[box(0, 0, 1100, 800)])
    coords = wsi.extract_tissue_coords(
        target_mag=10, patch_size=SIDE // 2, save_coords=str(out / "job"), overlap=0, min_tissue_proportion=0.5
    )
    encoder = _colours(lambda images: images.mean((2, 3)))
    encoder.enc_name, encoder.eval_transforms = "colours", _as_tensor
    for saveas in ("h5", "pt"):
        wsi.extract_patch_features(
            encoder, coords, str(out / f"features_colours_{saveas}"), device="cpu", saveas=saveas, batch_limit=32
        )


def clam(slide: Path, out: Path) -> None:
    """CLAM: process_contours, then save_hdf5 and torch.save as extract_features_fp.py calls them."""
    import torch
    from utils.file_utils import save_hdf5
    from wsi_core.WholeSlideImage import WholeSlideImage

    wsi = WholeSlideImage(str(slide))
    wsi.contours_tissue = [np.array([[[0, 0]], [[1100, 0]], [[1100, 800]], [[0, 800]]], np.int32)]
    wsi.holes_tissue = [[]]
    (out / "patches").mkdir()
    wsi.process_contours(str(out / "patches"), patch_level=0, patch_size=SIDE, step_size=SIDE)
    (coords_file,) = find_files([out / "patches"]).coordinates
    assert coords_file.coords is not None
    coords = np.asarray(coords_file.coords())
    features = _means(slide, coords)
    (out / "h5_files").mkdir()
    mode = "w"
    for first in range(0, len(coords), 16):
        part = slice(first, first + 16)
        assets = {"features": features[part], "coords": coords[part].astype(np.int32)}
        save_hdf5(str(out / "h5_files" / "s1.h5"), assets, attr_dict=None, mode=mode)
        mode = "a"
    (out / "pt_files").mkdir()
    torch.save(torch.from_numpy(features), out / "pt_files" / "s1.pt")


def stamp(slide: Path, out: Path) -> None:
    """STAMP: extract_ with an extractor of our own. It asks for its version, which a clone has in pyproject.toml."""
    own = tomllib.loads(Path(sys.path[0], "../pyproject.toml").read_text())["project"]["version"]
    installed = importlib.metadata.version
    importlib.metadata.version = lambda name: own if name == "stamp" else installed(name)
    from stamp.preprocessing import extract_
    from stamp.preprocessing.extractor import Extractor

    model = _colours(lambda images: images.mean((2, 3)))
    extract_(
        wsi_dir=slide.parent,
        output_dir=out,
        wsi_list=None,
        cache_dir=None,
        cache_tiles_ext="jpg",
        extractor=Extractor(model=model, transform=_as_tensor, identifier="colours"),
        tile_size_px=SIDE // 2,
        tile_size_um=SIDE * MPP,
        max_workers=1,
        device="cpu",
        default_slide_mpp=None,
        brightness_cutoff=None,
        canny_cutoff=None,
        generate_hash=False,
    )


def atlaspatch(slide: Path, out: Path) -> None:
    """AtlasPatch: H5PatchWriter.write_coords and append_features, as its services call them."""
    _packages_without_code("atlas_patch", "atlas_patch.services")
    from atlas_patch.services.storage import H5PatchWriter

    writer = H5PatchWriter(
        chunk_rows=64, patch_size=SIDE // 2, patch_size_level0=SIDE, level0_mag=20, target_mag=10,
        level0_wh=(WIDTH, HEIGHT), overlap=0, slide_stem="s1", wsi_path=str(slide), extra_file_attrs={"mpp": MPP},
    )  # fmt: skip
    grid = [(x, y) for y in range(0, HEIGHT - SIDE, SIDE) for x in range(0, WIDTH - SIDE, SIDE)]
    entries: list[tuple[Any, ...]] = [(x, y, SIDE, SIDE, 0, None) for x, y in grid]
    path = out / "s1.h5"
    writer.write_coords(path, entries, batch=16)
    with open_slide(slide) as opened:
        patches = [(*entry[:5], opened.read_region(*entry[:2], 0, SIDE, SIDE)) for entry in entries]
    writer.append_features(
        output_path=path,
        entries=patches,
        feature_name="colours",
        feature_fn=lambda images: np.stack([image.mean((0, 1)) / 255 for image in images]),
        feature_attrs={"name": "colours", "embedding_dim": 3},
        feature_batch=16,
    )


def hs2p(slide: Path, out: Path) -> None:
    """hs2p: tile_slide and save_tiling_result."""
    from hs2p import FilterConfig, SegmentationConfig, SlideSpec, TilingConfig, save_tiling_result, tile_slide

    result = tile_slide(
        SlideSpec(sample_id="s1", image_path=slide, spacing_at_level_0=MPP),
        tiling=TilingConfig(
            requested_spacing_um=1.0, requested_tile_size_px=SIDE // 2, tolerance=0.05, overlap=0.0, backend="openslide"
        ),
        segmentation=SegmentationConfig(method="hsv", downsample=8),
        filtering=FilterConfig(a_t=1, a_h=1),
    )
    save_tiling_result(next(iter(result.values())) if isinstance(result, dict) else result, out)


def lazyslide(slide: Path, out: Path) -> None:
    """wsidata, in which LazySlide keeps its results: add_tiles and add_features."""
    from wsidata import TileSpec, open_wsi
    from wsidata.io import add_features, add_tiles

    wsi = open_wsi(str(slide))
    spec = TileSpec.from_wsidata(wsi, tile_px=SIDE // 2, mpp=1.0)
    grid = np.array([(x, y) for y in range(0, HEIGHT - SIDE, SIDE) for x in range(0, WIDTH - SIDE, SIDE)])
    grid = np.random.default_rng(0).permutation(grid)
    add_tiles(wsi, "tiles", grid, spec, np.zeros(len(grid), int))
    add_features(wsi, "colours_tiles", "tiles", _means(slide, grid))
    wsi.write(out / "s1.zarr")


PEERS: dict[str, Callable[[Path, Path], None]] = {
    "trident": trident, "clam": clam, "stamp": stamp, "atlaspatch": atlaspatch, "hs2p": hs2p, "lazyslide": lazyslide,
}  # fmt: skip


def main(peer: str, clone: str | None = None) -> int:
    """Print a row for each file that the peer has written; returns 1 where one is not read right."""
    if clone:
        sys.path.insert(0, str(Path(clone) / "src" if (Path(clone) / "src").is_dir() else clone))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "slides").mkdir()
        width, height = SIZES.get(peer, (WIDTH, HEIGHT))
        slide = write_pyramid_tiff(Path(folder) / "slides" / "s1.svs", tissue_like(width, height), mpp=MPP)
        out = Path(folder) / "out"
        out.mkdir()
        PEERS[peer](slide, out)
        found = find_files([out])
        for path, why in found.unreadable.items():
            print(f"{peer:10s}  {path.relative_to(out)}: NOT READ: {why.what}")
        rows = [_row(file, slide, out) for file in (*found.features, *found.coordinates)]
    for text, _ in rows:
        print(f"{peer:10s}  {text}")
    return 0 if rows and all(right for _, right in rows) and not found.unreadable else 1


def _row(file: ForeignFile, slide: Path, out: Path) -> tuple[str, bool]:
    with open_slide(slide) as opened:
        placed = place(file, None, opened.info, MPP)
    said = f"{file.path.relative_to(out)}: {file.stated.tool} {file.stated.version}".strip()
    said += f", encoder {file.stated.encoder or 'not stated'}, {file.rows} x {file.dim or '-'}"
    if placed.frame == "none":
        return f"{said}, no coordinates", file.rows > 0
    side, mpp = placed.geometry.patch_level0 or SIDE, placed.geometry.mpp
    said += f", patches of {side} level-0 px, {mpp:.3g} mpp" if mpp else ", size of patches not stated"
    if file.features is None:
        return said, file.rows > 0 and side == SIDE
    features = np.asarray(file.features(), np.float32)
    features = features[0] if features.ndim == 3 else features
    far = float(np.abs(255 * features[:, :3] - 255 * _means(slide, placed.coords)).max())
    return f"{said}, mean colours differ by at most {far:.2f} of 255", far < TOLERANCE and side == SIDE


def _means(slide: Path, coords: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Mean colour of each patch, 0 to 1, float32 (N, 3)."""
    with open_slide(slide) as opened:
        regions = [opened.read_region(int(x), int(y), 0, SIDE, SIDE) for x, y in coords]
    return np.stack([region.mean((0, 1)) / 255 for region in regions]).astype(np.float32)


def _colours(function: Callable[[Any], Any]) -> Any:
    import torch

    class Colours(torch.nn.Module):
        def forward(self, images: Any) -> Any:
            return function(images)

    return Colours()


def _as_tensor(image: Any) -> Any:
    import torch

    return torch.from_numpy(np.asarray(image.convert("RGB"), np.float32) / 255).permute(2, 0, 1)


def _packages_without_code(*names: str) -> None:
    """Packages by their folders alone: their __init__ imports networks that writing files does not need."""
    for name in names:
        folder = next(
            Path(place) / name.replace(".", "/") for place in sys.path if (Path(place) / "atlas_patch").is_dir()
        )
        module = ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:3]))
