"""Which columns hold survival: a time with an event, portal pairs (`OS`, `OS.time`), or GDC's three columns.

Names are as `columns.normalise` gives them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from wsi_pipeline.cohort.table_words import is_missing
from wsi_pipeline.cohort.tables import cells

TIMES = (
    "survival_time", "time_to_event", "follow_up", "followup", "follow_up_time", "survival_days", "survival_months",
    "duration", "os_time", "os_days", "os_months", "overall_survival_days", "overall_survival_months",
)  # fmt: skip
EVENTS = (
    "event_observed", "os_event", "os_status", "vital_status", "death", "dead", "deceased", "survival_status", "status",
    "os", "overall_survival_status",
)  # fmt: skip
"""Other names of `time` and `event`."""

CENSORED = ("censorship", "censored", "is_censored", "right_censored", "os_censorship", "os_censored")
"""Columns that say the opposite of `event`, as in tables of multimodal survival models (`survival_months`)."""

DEATH = ("days_to_death", "death_days_to")
LAST_SEEN = ("days_to_last_follow_up", "days_to_last_followup", "last_contact_days_to")
VITAL = "vital_status"
"""GDC: the time is the first column if the patient is dead, else the second."""

_ENDPOINTS = {
    "OS": ("os", "overall_survival"),
    "PFS": ("pfs", "progression_free_survival", "progress_free_survival"),
    "PFI": ("pfi", "progression_free_interval"),
    "DFS": ("dfs", "disease_free_survival"),
    "DFI": ("dfi", "disease_free_interval"),
    "DSS": ("dss", "disease_specific_survival"),
    "RFS": ("rfs", "relapse_free_survival", "recurrence_free_survival"),
    "EFS": ("efs", "event_free_survival"),
}
_UNITS = ("time", "days", "months", "years")
_PART = re.compile(
    r"^(cases_(0_)?)?((demographic|diagnos[ei]s|follow_ups|clinical|patient)_(0_)?)?(?=days_|vital_|last_|death_)"
)
"""Prefixes that portal exports put before column names."""
_WEAK = ("duration", "status", "os", "survival_status")
"""Ambiguous names: they count only together with the other half of an outcome."""


@dataclass(frozen=True)
class SurvivalColumns:
    """Where time and event are found.

    time, event   positions of the columns; None if there is none
    used          positions of all columns that are read, including GDC's three
    faults        sentences naming columns the user must choose between
    notes         what the user should know about the choice
    gdc           positions of death, last follow-up and vital status (or None), if time is given that way
    censored      position of a column of censoring, the opposite of an event, if there is no column of events
    endpoint      `os`, `pfs`, ... if time and event are a pair of one endpoint
    """

    time: int | None = None
    event: int | None = None
    used: frozenset[int] = frozenset()
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    gdc: tuple[int, int, int | None] | None = None
    censored: int | None = None
    endpoint: str = ""


def survival_columns(names: Sequence[str], shown: Sequence[str], body: Sequence[Sequence[str]]) -> SurvivalColumns:
    """Find them in a header. `names` are normalised, `shown` as written; `body` are the rows below.

    Our own names win over others. A pair of one endpoint wins over columns of different ones, overall survival over
    other endpoints.
    """
    names = [_PART.sub("", name) for name in names]
    exact = {ours: [i for i, name in enumerate(names) if name == ours] for ours in ("time", "event")}
    if any(len(places) > 1 for places in exact.values()):
        return SurvivalColumns(faults=tuple(_keep_one(shown, p, ours) for ours, p in exact.items() if len(p) > 1))
    time, event = (places[0] if places else None for places in exact.values())
    if time is not None and event is not None:
        return _found(time, event)
    if time is None and event is None and (pair := _pair(names, shown, body)):
        return pair
    gdc = _gdc(names)
    times = [i for i, name in enumerate(names) if name in TIMES] if time is None else [time]
    if gdc and time is None and not _strong(times, names):
        vital = event if event is not None else gdc[2]
        how = f"dead by {shown[vital]!r}" if vital is not None else f"{shown[gdc[0]]!r} is filled in"
        note = f"survival: time is {shown[gdc[0]]!r} where {how}, else {shown[gdc[1]]!r}"
        used = frozenset(place for place in (gdc[0], gdc[1], vital) if place is not None)
        return SurvivalColumns(used=used, notes=(note,), gdc=(gdc[0], gdc[1], vital))
    events = [i for i, name in enumerate(names) if name in EVENTS] if event is None else [event]
    return _by_censoring(_single(times, events, names, shown, body), times, names, shown)


def as_overall(names: Sequence[str], endpoint: str) -> list[str]:
    """Rename columns of `endpoint` to overall survival (`pfs_months` -> `os_months`); empty names for other columns."""
    starts = next((known for known in _ENDPOINTS.values() if endpoint in known), (endpoint,))
    ends = ("", *(f"_{end}" for end in (*_UNITS, "event", "status", "censorship", "censored")))
    known = {f"{start}{end}": f"os{end}" for start in starts for end in ends}
    return [known.get(name, "") for name in names]


def with_survival(columns: SurvivalColumns, row: Sequence[str]) -> tuple[str, str]:
    """Time and event of a row from GDC's three columns, as text; empty if not given."""
    if columns.gdc is None:
        return "", ""
    death, seen, vital = (
        "" if place is None or place >= len(row) or is_missing(row[place]) else row[place].strip()
        for place in columns.gdc
    )
    if columns.gdc[2] is None:
        return (death, "1") if death else (seen, "0" if seen else "")
    try:
        dead = cells.event(vital) == 1 if vital else None
    except ValueError:  # the fault is reported when the event is parsed
        return "", vital
    return ("", "") if dead is None else (death, vital) if dead else (seen, vital)


def event_of_censored(cell: str) -> str:
    """The `event` of a column of censoring: codes are inverted; words are kept, because they state the outcome."""
    try:
        seen = cells.event(cell)
    except ValueError:
        return "1" if cell.strip().lower() == "uncensored" else cell
    return str(1 - seen if cells.is_code(cell) else seen)


def _pair(names: Sequence[str], shown: Sequence[str], body: Sequence[Sequence[str]]) -> SurvivalColumns | None:
    """Time and event of the first endpoint that has both."""
    pairs = {}
    for endpoint, starts in _ENDPOINTS.items():
        times = _named(names, [f"{start}_{unit}" for start in starts for unit in _UNITS])
        events = _named(names, [f"{start}_{end}" for start in starts for end in ("event", "status")])
        alone = _named(names, list(starts))
        if times and not events:
            events = [place for place in alone if _readable(place, body)]
        elif events and not times:
            times = alone
        if times and events:
            pairs[endpoint] = (times, events)
    if not pairs:
        return None
    chosen, (times, events) = next(iter(pairs.items()))
    plain = [i for i, name in enumerate(names) if name in ("survival_time", "time_to_event", "survival_days",
             "survival_months", "event_observed")]  # fmt: skip
    if chosen != "OS" and plain:
        return None
    if faults := _several(shown, times, events):
        return SurvivalColumns(used=frozenset([*times, *events]), faults=faults)
    notes = []
    if len(pairs) > 1 or chosen != "OS":
        more = f"; {', '.join(name for name in pairs if name != chosen)} not used" if len(pairs) > 1 else ""
        notes.append(
            f"survival is {chosen} ({shown[times[0]]!r}, {shown[events[0]]!r}){more}: "
            "to use another endpoint, name its columns time and event"
        )
    return replace(_found(times[0], events[0], notes), endpoint=chosen.lower())


def _single(
    times: Sequence[int],
    events: Sequence[int],
    names: Sequence[str],
    shown: Sequence[str],
    body: Sequence[Sequence[str]],
) -> SurvivalColumns:
    """One column each for time and event; ambiguous names count only if the other half exists."""
    strong_times, strong_events = _strong(times, names), _strong(events, names)
    usable = [place for place in events if _readable(place, body) or place in strong_events]
    times = strong_times or (list(times) if usable else [])
    events = strong_events or (usable if times else [])
    if faults := _several(shown, times, events):
        return SurvivalColumns(used=frozenset([*times, *events]), faults=faults)
    return _found(times[0] if times else None, events[0] if events else None, _of_r(times, events, names, shown, body))


def _by_censoring(
    found: SurvivalColumns, times: Sequence[int], names: Sequence[str], shown: Sequence[str]
) -> SurvivalColumns:
    """`found` with a column of censoring instead of the event, if no column states the event."""
    places = _named(names, CENSORED)
    time = times[0] if found.time is None and len(times) == 1 else found.time
    if not places or time is None or found.event is not None or found.faults:
        return found
    if len(places) > 1:
        return SurvivalColumns(used=frozenset([*found.used, *places]), faults=(_keep_one(shown, places, "event"),))
    note = f"survival: event is the opposite of {shown[places[0]]!r}, where 1 is a patient without the event"
    return SurvivalColumns(time, None, frozenset([time, places[0]]), (), (note,), censored=places[0])


def _of_r(
    times: Sequence[int],
    events: Sequence[int],
    names: Sequence[str],
    shown: Sequence[str],
    body: Sequence[Sequence[str]],
) -> list[str]:
    """A note on a column coded 1 and 2, as in R's survival package: the coding of the event is ambiguous."""
    if not times or events:
        return []
    for place, name in enumerate(names):
        values = {row[place].strip() for row in body if place < len(row) and not is_missing(row[place])}
        if name in EVENTS and values == {"1", "2"}:
            return [f"column {shown[place]!r} holds 1 and 2: write 1 if the event was seen and 0 if not"]
    return []


def _found(time: int | None, event: int | None, notes: Sequence[str] = ()) -> SurvivalColumns:
    used = frozenset(place for place in (time, event) if place is not None)
    return SurvivalColumns(time, event, used, (), tuple(notes))


def _gdc(names: Sequence[str]) -> tuple[int, int, int | None] | None:
    places: Mapping[str, int] = {name: i for i, name in reversed(list(enumerate(names)))}
    death, seen = (next((places[name] for name in known if name in places), None) for known in (DEATH, LAST_SEEN))
    return None if death is None or seen is None else (death, seen, places.get(VITAL))


def _named(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    return [i for i, name in enumerate(names) if name in wanted]


def _strong(places: Sequence[int], names: Sequence[str]) -> list[int]:
    return [place for place in places if names[place] not in _WEAK]


def _readable(place: int, body: Sequence[Sequence[str]]) -> bool:
    """Whether a column has values, and all of them are valid event words."""
    values = [row[place] for row in body if place < len(row) and not is_missing(row[place])]
    return bool(values) and all(_is_event(cell) for cell in values)


def _is_event(cell: str) -> bool:
    try:
        cells.event(cell)
    except ValueError:
        return False
    return True


def _keep_one(shown: Sequence[str], places: Sequence[int], ours: str) -> str:
    return f"columns {', '.join(repr(shown[i]) for i in places)} all mean {ours}; keep one"


def _several(shown: Sequence[str], times: Sequence[int], events: Sequence[int]) -> tuple[str, ...]:
    """Faults if several columns could be the time, or the event."""
    found = (("time", times), ("event", events))
    return tuple(_keep_one(shown, places, ours) for ours, places in found if len(places) > 1)
