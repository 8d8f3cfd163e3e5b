"""The sound slides that hostile ones are made from: synthetic ones always, real ones where they are here."""

from __future__ import annotations

from pathlib import Path

from tests.slide_files import write_generic_tiff, write_ome_tiff, write_pyramid_tiff, write_stripped_tiff
from tests.stages.cohorts import blob_slide

REAL = (
    "slides/CMU-1-Small-Region.svs",
    "slides/TCGA-CR-7395-01A-01-TS1.svs",
    "slides/kidney-48-5.tif",
    "slides/multiframe_camelyon_challenge_image.dcm",
    "derived/trypsin-IHC-2series.ome.tiff",
    "derived/trypsin-IHC-jp2k-tiled-nompp.tiff",
    "derived/trypsin-IHC-jpeg-stripped-singlelevel.tiff",
    "broken/small_dicom.dcm",
)
SIDE = 448


def synthetic_bases(folder: Path) -> dict[str, Path]:
    """One small slide of each kind of file this program reads; name -> path."""
    rgb = blob_slide(7, side=SIDE)
    pyramid = {"mpp": 0.5, "tile": 64, "levels": (1, 4)}
    return {
        "aperio jpeg": write_pyramid_tiff(folder / "jpeg.svs", rgb, **pyramid),
        "aperio jpeg 2000": write_pyramid_tiff(folder / "j2k.svs", rgb, compression="jpeg2000", **pyramid),
        "bigtiff jpeg": write_pyramid_tiff(folder / "big.svs", rgb, bigtiff=True, **pyramid),
        "generic lzw": write_generic_tiff(folder / "lzw.tif", rgb, mpp=0.5, tile=64),
        "generic deflate": write_generic_tiff(folder / "deflate.tif", rgb, mpp=0.5, tile=64, compression="deflate"),
        "ome lzw": write_ome_tiff(folder / "ome.ome.tif", rgb, mpp=0.5, tile=64),
        "strips jpeg": write_stripped_tiff(folder / "strips.tif", rgb, mpp=0.5),
        "strips plain": write_stripped_tiff(folder / "flat.tif", rgb, mpp=0.5, compression="none"),
    }


def real_bases(data: Path) -> dict[str, Path]:
    """The real files in the data folder that are small enough to be copied thousands of times."""
    return {f"real {Path(name).stem}": data / name for name in REAL if (data / name).is_file()}
