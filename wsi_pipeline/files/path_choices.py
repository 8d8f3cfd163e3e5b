"""Selecting part of a slide file at the end of its path: `slide.ome.tif#scene=1&channel=DAPI@200-6000&plane=2`.

Anything that names a slide by its path (tables, stores, workers) can thus name a part as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote

_KEYS = {"scene": "image", "image": "image", "series": "image", "channel": "channel", "plane": "plane"}
_WRITTEN = {"image": "scene", "channel": "channel", "plane": "plane"}
_ENDING = re.compile(r"^(?P<file>.+?)#(?P<parts>(?:(?:scene|image|series|channel|plane)=[^&]*&?)+)$", re.IGNORECASE)
_PLAIN = " @+-.,:()"
_ID = re.compile(r"[\w.-]{1,40}")


def split_choice(path: Path) -> tuple[Path, dict[str, str]]:
    """The file of a path and what it selects (image, channel, plane); an existing file with that name is whole."""
    found = _ENDING.match(path.name) if "#" in path.name else None
    if found is None or path.exists():
        return path, {}
    pairs = (part.partition("=") for part in found["parts"].split("&") if part)
    chosen = {_KEYS[key.lower()]: unquote(value).strip() for key, _, value in pairs}
    return path.with_name(found["file"]), {key: value for key, value in chosen.items() if value}


def with_choice(path: Path, chosen: Mapping[str, str | None]) -> Path:
    """A path that selects part of its file; `chosen` adds to what the path selects already."""
    file, before = split_choice(path)
    merged = {**before, **{key: value for key, value in chosen.items() if value}}
    parts = [f"{_WRITTEN[key]}={quote(merged[key], safe=_PLAIN)}" for key in _WRITTEN if key in merged]
    return file.with_name(f"{file.name}#{'&'.join(parts)}") if parts else file


def id_of_part(slide_id: str, chosen: Mapping[str, str]) -> str:
    """A slide id for one image of a file (`a_scene1`); the file's own if no image or an odd name is chosen."""
    image = chosen.get("image", "")
    return f"{slide_id}_scene{image}" if _ID.fullmatch(image) else slide_id
