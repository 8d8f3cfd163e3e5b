"""Which columns of a clinical table hold survival, also if there are several endpoints."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_pipeline.cohort.tables.columns import Columns, normalise
from wsi_pipeline.cohort.tables.survival_columns import SurvivalColumns, as_overall, survival_columns
from wsi_pipeline.errors import UsageError
from wsi_pipeline.wording import listed


def endpoint_columns(
    source: str, header: Sequence[str], body: Sequence[Sequence[str]], endpoint: str = ""
) -> tuple[dict[str, str], Columns]:
    """The names of the time and event columns, and their positions in the form the slide table uses.

    endpoint   only columns of that endpoint, such as `PFS`; "": same rules as for a slide table

    Raises UsageError, listing the columns, if there are no such columns or several.
    """
    names = [normalise(name) for name in header]
    found: SurvivalColumns | None = None
    if endpoint:
        found = survival_columns(as_overall(names, normalise(endpoint)), header, body)
        if endpoint.upper() == "OS" and _is_half(found):
            found = None
    if found is None:
        found = survival_columns(names, header, body)
    what = f"survival {endpoint}".strip()
    shown = listed([repr(name) for name in header if name], 30)
    if found.faults:
        raise UsageError(f"{source}, {what}: {'; '.join(found.faults)}", todo=f"Its columns: {shown}")
    if _is_half(found):
        half = "no event column" if found.time is not None else "no time column"
        hint = "".join(f". {note}" for note in found.notes)
        raise UsageError(f"{source} has {half} for {what}{hint}", todo=f"Its columns: {shown}")
    places = {key: place for key, place in (("time", found.time), ("event", found.event)) if place is not None}
    columns = Columns(places, (), (), found.notes, found)
    return _named(header, found), columns


def _is_half(found: SurvivalColumns) -> bool:
    return found.gdc is None and (found.time is None or (found.event is None and found.censored is None))


def _named(header: Sequence[str], found: SurvivalColumns) -> dict[str, str]:
    if found.gdc is not None:
        death, seen, vital = found.gdc
        event = header[death] if vital is None else header[vital]
        return {"time": f"{header[death]} + {header[seen]}", "event": event}
    place = found.event if found.event is not None else found.censored
    return {"time": header[found.time or 0], "event": header[place or 0]}
