"""A folder that shows slides in a browser from disk, without a server or Python.

index.html, page/           the viewer's page as one plain script, because pages on disk cannot load modules
s0001/tiles/LEVEL/C_R.jpg   tiles of one slide down to the requested resolution
s0001/*.js                  the answers that the server would give: size and levels, layers
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from wsi_pipeline.errors import UsageError, WsiPipelineError
from wsi_pipeline.system.atomic import make_folder, write_bytes, write_text
from wsi_pipeline.viewer.deep_zoom import PNG
from wsi_pipeline.viewer.web.viewer import Viewer

SCRIPTS = (
    "dom",
    "source",
    "layers",
    "pane",
    "sheet",
    "markstore",
    "marking",
    "teach",
    "cohort",
    "panels",
    "layerlist",
    "slide",
    "main",
)
"""The modules of the page, each after those that it imports."""
_IMPORT = re.compile(r"^import [^\n]+;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)
_PRELOAD = re.compile(r"^<link rel=\"modulepreload\"[^\n]+\n", re.MULTILINE)
_ASSUMED_MPP = 0.25
_SLACK = 0.99
_MARK = "wsi-pipeline-view.json"

Json = dict[str, Any]


@dataclass
class ExportedFolder:
    """What was written: number of slides, bytes, the page to open, and reasons for slides left out."""

    page: Path
    slides: int = 0
    bytes: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def export_folder(
    viewer: Viewer, folder: Path, slide_ids: Sequence[str], mpp: float, step: Callable[[int], object] = lambda _: None
) -> ExportedFolder:
    """Write `folder`; slides that cannot be read are left out and reported.

    mpp    finest resolution of the tiles, micrometres per pixel
    step   called with 1 after each slide

    Raises UsageError if the folder holds anything else.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / _MARK).is_file())):
        raise UsageError(
            f"{folder} already holds something else than an export of the viewer", todo="Name another folder."
        )
    make_folder(folder)
    write_text(folder / _MARK, json.dumps({"mpp": mpp, "slides": list(slide_ids)}) + "\n")
    made = ExportedFolder(folder / "index.html")
    about: Json = {**viewer.about(), "exported": True, "run": None, "slides": 0, "encoders": []}
    facts: Json = {"about": about, "rows": [], "folders": {}, "files": {}, "endings": {}}
    for number, slide_id in enumerate(slide_ids, 1):
        place = folder / f"s{number:04}"
        try:
            made.bytes += _write_slide(viewer, slide_id, place, mpp, facts)
            made.slides += 1
        except (WsiPipelineError, OSError) as error:
            made.failed[slide_id] = error.what if isinstance(error, WsiPipelineError) else str(error)
        step(1)
    about["slides"] = made.slides
    made.bytes += _write_page(folder, facts)
    return made


def bundle() -> str:
    """The page's modules as one script."""
    root = files("wsi_pipeline.viewer").joinpath("page")
    parts = [root.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    return "(() => {\n'use strict';\n" + "\n".join(_EXPORT.sub("", _IMPORT.sub("", part)) for part in parts) + "})();\n"


def _write_slide(viewer: Viewer, slide_id: str, place: Path, mpp: float, facts: Json) -> int:
    """Write the files of one slide; returns their size in bytes."""
    library = viewer.library
    known = library.facts(slide_id)
    levels = known["levels"]
    wanted: list[int] = []
    for number, level in enumerate(levels):
        spacing = (known["mpp"] or _ASSUMED_MPP) * known["width"] / level["width"]
        if spacing >= mpp * _SLACK or not wanted:
            wanted.append(number)
    written, endings = 0, []
    for shown, number in enumerate(wanted):
        level, pngs = levels[number], {}
        for row in range(-(-level["height"] // level["tile_height"])):
            for column in range(-(-level["width"] // level["tile_width"])):
                tile = library.tile(slide_id, number, column, row)
                ending = "png" if tile.media == PNG else "jpg"
                if ending == "png":
                    pngs[f"{column}_{row}"] = ending
                write_bytes(place / "tiles" / str(shown) / f"{column}_{row}.{ending}", tile.data, durable=False)
                written += len(tile.data)
        endings.append(pngs)
    thumbnail = library.thumbnail(slide_id, 512).data
    write_bytes(place / "thumbnail.jpg", thumbnail, durable=False)
    listed = viewer.layers.listed(slide_id)
    marks = viewer.marks.read(slide_id)["features"] if library.run is not None else []
    summary = viewer.rows.one(slide_id)
    trained = {name: viewer.rows.one(slide_id, name) for name in viewer.about()["trainings"]}
    said = {**known, "levels": [levels[number] for number in wanted], "layers": listed, "row": summary, "marks": marks}
    first = next(iter(trained.values()), summary)
    answers = {f"slides/{_quoted(slide_id)}": {**said, "row": first}}
    for item in listed:
        answers[f"slides/{_quoted(slide_id)}/layer?{item['key']}"] = viewer.layers.read(slide_id, item["key"])
    for number, (key, answer) in enumerate(answers.items()):
        text = f"(globalThis.WSI_DATA ||= {{}})[{_script(key)}] = {_script(answer)};\n"
        write_text(place / f"{number}.js", text, durable=False)
        facts["files"][key] = f"{place.name}/{number}.js"
        written += len(text)
    facts["folders"][slide_id], facts["endings"][slide_id] = place.name, endings
    facts["rows"].append({**summary, "by_training": trained})
    return written + len(thumbnail)


def _write_page(folder: Path, facts: Json) -> int:
    root = files("wsi_pipeline.viewer").joinpath("page")
    html = _PRELOAD.sub("", root.joinpath("index.html").read_text(encoding="utf-8"))
    plain = '<script src="page/data.js"></script>\n<script src="page/viewer.js">'
    html = html.replace('<script type="module" src="page/main.js">', plain)
    vendored = root.joinpath("openseadragon")
    written = {
        "index.html": html.encode(),
        "page/data.js": f"globalThis.WSI_EXPORT = {_script(facts)};\n".encode(),
        "page/viewer.js": bundle().encode(),
        "page/openseadragon.min.js": vendored.joinpath("openseadragon.min.js").read_bytes(),
        "page/openseadragon.LICENSE.txt": vendored.joinpath("LICENSE.txt").read_bytes(),
        "page/style.css": root.joinpath("style.css").read_bytes(),
        "page/icon.svg": root.joinpath("icon.svg").read_bytes(),
    }
    for name, data in written.items():
        write_bytes(folder / name, data, durable=False)
    return sum(map(len, written.values()))


def _script(value: Any) -> str:
    """JSON that is safe inside a script, whatever it contains."""
    return json.dumps(value, ensure_ascii=True).replace("<", "\\u003c")


def _quoted(slide_id: str) -> str:
    """A slide id, encoded as by encodeURIComponent in the page."""
    return quote(slide_id, safe="!'()*~-_.")
