"""Feature files at an address, for --features-from: fetched by the names that the table of labels has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsi_pipeline.cohort.manifest import read_cohort
from wsi_pipeline.commands.shell.console import Console
from wsi_pipeline.config.execution import CohortOptions
from wsi_pipeline.errors import MissingSlideError, SlideError, UsageError
from wsi_pipeline.exchange.readers.slide_names import without_suffixes
from wsi_pipeline.files.addresses import address_name, is_address, shown_address, slide_path
from wsi_pipeline.remote.kept_store import kept_file
from wsi_pipeline.wording import counted, listed

SUFFIX = ".h5"
_SHOWN = 5


def files_here(sources: Sequence[str], labels: str | None, cohort: CohortOptions, console: Console) -> tuple[str, ...]:
    """The sources, with files of this machine in the place of addresses.

    An address of a folder stands for `<address>/<slide_id>.h5` of every slide of the table `labels`: folders at an
    address are not searched, as web servers cannot. Prints how many slides have no file there.

    Raises UsageError for an address that cannot be read, and for a folder without a table.
    """
    found: list[str] = []
    for source in sources:
        if not is_address(source):
            found.append(source)
        elif source.split("?")[0].endswith(SUFFIX):
            found.append(str(_fetched(_path(source))))
        else:
            found += _of_table(_path(source.rstrip("/")), labels, cohort, console)
    return tuple(found)


def _path(source: str) -> Path:
    try:
        return slide_path(source)
    except ValueError as error:
        raise UsageError(f"{source.split('?')[0]} cannot be read: {error}", todo="Correct the address") from None


def _of_table(folder: Path, labels: str | None, cohort: CohortOptions, console: Console) -> list[str]:
    shown = shown_address(folder)
    if labels is None:
        raise UsageError(
            f"folders at an address are not searched: {shown}",
            todo="Name a table with a slide_id for each file (--labels labels.csv), or the files one by one",
        )
    records = read_cohort([labels], mixed_labels=True, label_column=cohort.label_column).records
    found, missing = list[str](), list[str]()
    for record in records:
        try:
            found.append(str(_fetched(folder / f"{without_suffixes(record.slide_id)}{SUFFIX}")))
        except MissingSlideError:
            missing.append(record.slide_id)
    if not found:
        raise UsageError(
            f"no {SUFFIX} file of the {counted(len(records), 'slide')} of {labels} at {shown}",
            todo=f"Files are named after slides: {shown}/{without_suffixes(records[0].slide_id)}{SUFFIX}",
        )
    if missing:
        console.note(f"{counted(len(missing), 'slide')} without a file at {shown}: {listed(missing, _SHOWN)}")
    return found


def _fetched(address: Path) -> Path:
    """The file in the cache. Raises MissingSlideError if there is none, UsageError if it cannot be had."""
    try:
        return kept_file(address)
    except MissingSlideError:
        raise
    except SlideError as error:
        raise UsageError(f"{address_name(address)}: {error.what}", todo=error.todo) from error
