"""No measurement: our own parsers under atheris, which makes inputs up by the lines of code that they reach.

    pip install atheris
    python benchmarks/fuzz.py                          every parser, two minutes each
    python benchmarks/fuzz.py manifest --seconds 3600  one of them, for an hour

Each input must be read, or refused by an error of this program that is short and says nothing of Python, within ten
seconds and 4 GB. It starts from the files in tests/hostile/corpus; an input that breaks a parser is kept as
fuzz/<parser>-<digest>: mend the parser and put the mildest file that its new guard refuses into that corpus.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import atheris
import numpy as np
import tifffile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
CORPUS = ROOT / "tests" / "hostile" / "corpus"
LONGEST_MESSAGE = 20_000

HERE = "--here"
"""Said to the process that does the work; only there parsers are made to tell which lines they reach."""

with atheris.instrument_imports(["wsi_pipeline", "pathotune"]) if HERE in sys.argv else contextlib.nullcontext():
    from pathotune.checkpoint import read_adapter
    from pathotune.errors import PathoTuneError
    from wsi_pipeline.cohort.manifest import read_cohort
    from wsi_pipeline.commands.run import read_plan
    from wsi_pipeline.config.specs import LabelSpec
    from wsi_pipeline.errors import WsiPipelineError
    from wsi_pipeline.geometry import Size
    from wsi_pipeline.labelled.sources.annotation_files import read_annotation
    from wsi_pipeline.labelled.sources.label_table import read_label_table
    from wsi_pipeline.labelled.sources.regions import class_areas
    from wsi_pipeline.slides.tiff.tiff_check import check_complete


@dataclass(frozen=True)
class Parser:
    """What reads a file of this suffix, and the files to begin with."""

    read: Callable[[Path], object]
    suffix: str
    seeds: Callable[[], list[bytes]]


def _areas(path: Path) -> None:
    slide = Size(1000, 1000)
    for area in class_areas(read_annotation(path).regions, slide).values():
        assert area.is_valid
        assert area.area <= slide.pixels


def _kept(pattern: str) -> Callable[[], list[bytes]]:
    return lambda: [path.read_bytes() for path in sorted(CORPUS.glob(pattern))]


def _small_tiffs() -> list[bytes]:
    found, image = [], np.zeros((64, 48, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tif"
        for order, big, tile in (("<", False, (16, 16)), (">", True, (32, 32)), ("<", True, None)):
            with tifffile.TiffWriter(path, byteorder=order, bigtiff=big) as writer:
                writer.write(image, tile=tile, photometric="rgb", subifds=1)
                writer.write(image[::2, ::2], tile=tile, photometric="rgb", subfiletype=1)
            found.append(path.read_bytes())
    return found


def _built_in_adapter() -> list[bytes]:
    folder = files("pathotune")
    return [path.read_bytes() for path in Path(str(folder)).rglob("*.safetensors") if path.stat().st_size < 1 << 20]


PARSERS = {
    "manifest": Parser(lambda path: read_cohort([path]), ".csv", _kept("manifests/*")),
    "plan": Parser(read_plan, ".yaml", _kept("plans/*")),
    "geojson": Parser(_areas, ".geojson", _kept("annotations/*.geojson")),
    "xml": Parser(_areas, ".xml", _kept("annotations/*.xml")),
    "labels": Parser(
        lambda path: read_label_table(path, LabelSpec()), ".csv", lambda: [b"path,label,group\na.png,x,g\n"]
    ),
    "tiff": Parser(check_complete, ".tif", _small_tiffs),
    "adapter": Parser(read_adapter, ".safetensors", _built_in_adapter),
}


def main() -> None:
    """One process a parser, since atheris ends its own; says how many inputs each took."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("parsers", nargs="*", help=f"of {', '.join(PARSERS)}; none: all")
    asked.add_argument("--seconds", type=int, default=120, help="for each parser")
    asked.add_argument(HERE, action="store_true", help=argparse.SUPPRESS)
    given = asked.parse_args()
    unknown = sorted(set(given.parsers) - set(PARSERS))
    if unknown:
        asked.error(f"unknown parser {', '.join(unknown)}; there are {', '.join(PARSERS)}")
    if given.here:
        _fuzz(given.parsers[0], given.seconds)
        return
    print("| parser | inputs | lines and branches reached | broken |\n|---|--:|--:|---|", flush=True)
    broken = 0
    for name in given.parsers or PARSERS:
        words = [sys.executable, __file__, name, "--seconds", str(given.seconds), HERE]
        done = subprocess.run(words, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
        broken += done.returncode != 0
        print(_row(name, done.stderr, done.returncode), flush=True)
    sys.exit(min(broken, 1))


def _row(name: str, said: str, code: int) -> str:
    inputs, reached = re.findall(r"^#(\d+)", said, re.MULTILINE), re.findall(r" (?:cov|ft): (\d+)", said)
    kept = re.findall(r"Test unit written to (\S+)", said)
    fault = f"{', '.join(kept)}: {said[-600:]!r}" if code else "0"
    return f"| {name} | {inputs[-1] if inputs else 0} | {reached[-2] if len(reached) > 1 else 0} | {fault} |"


def _fuzz(name: str, seconds: int) -> None:
    parser, kept = PARSERS[name], Path("fuzz")
    kept.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path, seeds = Path(folder) / f"input{parser.suffix}", Path(folder) / "seeds"
        seeds.mkdir()
        for number, seed in enumerate(parser.seeds()):
            (seeds / str(number)).write_bytes(seed)

        def one(data: bytes) -> None:
            path.write_bytes(data)
            try:
                parser.read(path)
            except (WsiPipelineError, PathoTuneError) as error:
                _check_words(str(error))

        limits = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=4096", "-max_len=1048576"]
        atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={kept}/{name}-", str(seeds)], one)
        atheris.Fuzz()


def _check_words(told: str) -> None:
    assert 0 < len(told) < LONGEST_MESSAGE
    assert "Traceback" not in told


if __name__ == "__main__":
    main()
