"""One row of a manifest as a slide record; every problem becomes a fault with its row number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from wsi_pipeline.cohort.discover import slide_id_of, with_suffix_found
from wsi_pipeline.cohort.records import OUTCOME, Fault, SlideRecord
from wsi_pipeline.cohort.table_words import is_missing, split_word
from wsi_pipeline.cohort.tables import cells
from wsi_pipeline.cohort.tables.table_checks import SHOWN
from wsi_pipeline.files.addresses import address_name, is_address, slide_path
from wsi_pipeline.files.foreign_formats import base_name, elsewhere, local_name
from wsi_pipeline.files.path_choices import id_of_part, split_choice, with_choice
from wsi_pipeline.system.redaction import redact

V = TypeVar("V")

SPLITS = ("train", "val", "test")


def record_of(row: int, given: list[str], columns: dict[str, int], base: Path, faults: list[Fault]) -> SlideRecord:
    """The record of one row; `columns` is our name -> position, `base` the folder of relative paths.

    `label` is as written; `patient_id` is the slide's id if none is given.
    """

    def cell(name: str) -> str:
        index = columns.get(name)
        return given[index].strip() if index is not None and index < len(given) else ""

    def optional(name: str) -> str | None:
        return None if is_missing(cell(name)) else cell(name)

    name = local_name(cell("path") or (cell("slide_id") if "path" not in columns else ""))
    part = {key: optional(key) for key in ("image", "channel", "plane")}
    path = with_choice(_path(row, "path", name, base, faults), part)
    file, chosen = split_choice(path)
    own_name = file.name if chosen or ("\\" in name and file.exists()) else base_name(name)
    own_name = address_name(file) if is_address(file) else own_name
    slide_id = cell("slide_id") if "path" in columns and cell("slide_id") else ""
    slide_id = slide_id or id_of_part(slide_id_of(Path(own_name)), chosen)
    if not name:
        faults.append(Fault(row, "path is empty" if "path" in columns else "the name of the slide is empty"))
    elif not slide_id:
        faults.append(Fault(row, f"path {name!r} does not name a slide"))
    elif is_address(file):
        pass  # whether it is there is known when it is read: a table of 10,000 addresses is not asked for one by one
    elif problem := elsewhere(file):
        faults.append(Fault(row, f"path is {problem[0]}. {problem[1]}", fatal=False))
    elif not file.exists():
        shown = str(file) if str(file).isprintable() else repr(str(file))
        how = "" if "path" in columns else " by the slide's name, as there is no column `path`"
        faults.append(Fault(row, f"file not found{how}: {shown}", fatal=False))
    time, event = (optional(key) for key in OUTCOME)
    if note := _outcome_note(slide_id or name, columns, time, event):
        faults.append(Fault(row, note, fatal=False))
    side = optional("split")
    split = split_word(side) if side else None
    if side and split is None:
        faults.append(Fault(row, f"split must be one of {', '.join(SPLITS)}, got {side!r}"))
    outlines, tissue = optional("annotation"), optional("tissue")
    return SlideRecord(
        slide_id=slide_id,
        path=path,
        patient_id=optional("patient_id") or slide_id,
        label=cell("label") or None,
        mpp=_parsed(row, "mpp", optional("mpp"), cells.mpp, faults),
        site=optional("site"),
        stain=optional("stain"),
        split=split,
        annotation=_path(row, "annotation", outlines, base, faults) if outlines else None,
        time=_time(row, slide_id, time, faults),
        **chosen,
        event=_parsed(row, f"event of {slide_id}", event, cells.event, faults),
        tissue=_path(row, "tissue", tissue, base, faults) if tissue else None,
        tissue_mpp=_parsed(row, "tissue_mpp", optional("tissue_mpp"), cells.mask_mpp, faults),
    )


def _path(row: int, column: str, name: str, base: Path, faults: list[Fault]) -> Path:
    """The file a cell names; a fault if it cannot be a path."""
    try:
        if "\0" in name:
            raise ValueError("it holds a null character")
        if column == "path" and is_address(name):
            return slide_path(name)
        if elsewhere(name):
            return Path(name)
        path = (base / Path(name).expanduser()).absolute()
        if "\\" in name and not path.exists():  # a relative path in Windows notation
            turned = (base / name.replace("\\", "/")).absolute()
            path = turned if turned.exists() else path
        return with_suffix_found(path) if column == "path" else path
    except (OSError, RuntimeError, ValueError) as error:  # name too long, or ~user without a home folder
        faults.append(Fault(row, f"{column} {redact(name)[:SHOWN]!r} cannot name a file: {error}"))
        return base / "-"


def _parsed(row: int, what: str, text: str | None, parse: Callable[[str], V], faults: list[Fault]) -> V | None:
    """A cell parsed by a parser of `cells`; a fault if that fails."""
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        faults.append(Fault(row, f"{what} {error}"))
        return None


def _time(row: int, slide: str, text: str | None, faults: list[Fault]) -> float | None:
    """The time, or None with a note if it is not positive."""
    value = _parsed(row, f"time of {slide}", text, cells.time, faults)
    if value is None or value > 0:
        return value
    faults.append(
        Fault(row, f"time of {slide} is {text}: not used for survival, which needs times above 0", fatal=False)
    )
    return None


def _outcome_note(slide: str, columns: dict[str, int], time: str | None, event: str | None) -> str | None:
    """A note if only one of time and event is given."""
    if "time" in columns and "event" in columns and (time is None) != (event is None):
        return f"empty {'time' if time is None else 'event'}: {slide} is not used for survival"
    return None
