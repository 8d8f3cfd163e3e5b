"""A sheet of an Excel workbook as rows of text, and the cells that a spreadsheet program has changed.

Cells have the text that Excel displays if that is unambiguous: `1` for 1.0, `007` for 7 in the format 000. Cells whose
meaning is lost (an id that became a date, a formula without its value, digits beyond the 15 Excel keeps) are listed in
`Sheet.troubles`, for callers that use them.
"""

from __future__ import annotations

import datetime
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_pipeline.cohort.discover import at_home
from wsi_pipeline.errors import UsageError
from wsi_pipeline.wording import counted, listed

if TYPE_CHECKING:
    from openpyxl.cell.cell import Cell
    from openpyxl.workbook import Workbook
    from openpyxl.worksheet.worksheet import Worksheet

WORKBOOKS = (".xlsx", ".xlsm")
OTHER_SPREADSHEETS = (".xls", ".xlsb", ".ods", ".numbers")
MAX_BYTES = 128 << 20
"""Size limit of all parts of a workbook together, unpacked."""
MAX_CELLS = 5_000_000
_EXACT = 10**15
"""Excel keeps 15 digits of a number."""
_FORMULA = re.compile(rb"<(\w+:)?f[\s/>]")


@dataclass(frozen=True)
class Sheet:
    """One sheet: `rows` of cells as text, each with its row number in Excel, the column names first.

    notes      how it was read
    troubles   (row number, place) -> what is wrong with that cell, in case it is used
    """

    name: str
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    notes: tuple[str, ...] = ()
    troubles: Mapping[tuple[int, int], str] = field(default_factory=dict)


def read_sheet(path: Path, wanted: str | None = None) -> Sheet:
    """Read the sheet `wanted` of a workbook; without a name, the only visible sheet that is not empty.

    Raises UsageError if the file is not a workbook, it is too large, or the sheet does not exist or is ambiguous.
    """
    formulas = _check_file(path)
    book = _load(path, values=True)
    sheet, notes = _chosen(book, path, wanted)
    if sheet.max_row * sheet.max_column > MAX_CELLS:
        raise UsageError(
            f"{path}: sheet {sheet.title!r} reaches to row {sheet.max_row} and column {sheet.max_column}",
            todo="Delete cells far below or beside the table, or save the sheet as CSV and name that",
        )
    unsaved = set(_formulas(_load(path, values=False)[sheet.title])) if formulas else set()
    texts: dict[tuple[int, int], str] = {}
    troubles: dict[tuple[int, int], str] = {}
    for row in sheet.iter_rows():
        for cell in row:
            place = (int(cell.row or 0), int(cell.column or 0) - 1)
            text, trouble = _text_of(cell)
            # A formula whose value is an empty text keeps its type; one that was never computed has none.
            if not text and place in unsaved and cell.data_type != "str":
                trouble = "is a formula whose value the file does not hold: open it in Excel, save it, or put the value"
            texts[place] = text
            if trouble:
                troubles[place] = trouble
    header, more = _header_row(sheet, texts, path)
    notes += more + _spread_merged(sheet, texts, troubles, header, path) + _hidden(sheet, header)
    rows = [
        (number, tuple(texts[number, k] for k in range(sheet.max_column)))
        for number in range(header, sheet.max_row + 1)
    ]
    return Sheet(str(sheet.title), tuple(_without_empty(rows)), tuple(notes), troubles)


def _without_empty(
    rows: Iterable[tuple[int, tuple[str, ...]]],
) -> list[tuple[int, tuple[str, ...]]]:
    """Rows that are not empty, without the empty columns at their ends."""
    kept = [(number, cells) for number, cells in rows if any(cell.strip() for cell in cells)]
    width = max((k + 1 for _, cells in kept for k, cell in enumerate(cells) if cell.strip()), default=0)
    return [(number, cells[:width]) for number, cells in kept]


def _check_file(path: Path) -> bool:
    """Whether any sheet has a formula. Raises UsageError if the file is not a workbook or is too large."""
    as_csv = "Save the table as .xlsx or CSV (UTF-8) and name that"
    try:
        with zipfile.ZipFile(path) as file:
            size = sum(item.file_size for item in file.infolist())
            if size > MAX_BYTES:
                raise UsageError(f"{path} holds {size >> 20} MB, more than {MAX_BYTES >> 20} MB", todo=as_csv)
            names = [name for name in file.namelist() if re.match(r"/?xl/worksheets/.*\.xml$", name)]
            return any(_FORMULA.search(file.read(name)) for name in names)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", todo="Name a CSV or .xlsx file") from None
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError):
        try:
            old = path.read_bytes()[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
        except OSError:
            old = False
        why = "is protected by a password, or an old .xls file under another name" if old else "is not an .xlsx file"
        raise UsageError(f"{path} {why}", todo=as_csv) from None


def _load(path: Path, *, values: bool) -> Workbook:
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about drawings, validations and extensions, which are not read
            return load_workbook(path, data_only=values)
    # The exception that openpyxl raises for broken XML depends on the place of the damage.
    except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, TypeError, SyntaxError, AttributeError,
            IndexError, EOFError) as error:  # fmt: skip
        raise UsageError(
            f"{path} cannot be read as a workbook: {str(error)[:200]}",
            todo="Open it in a spreadsheet program and save it as .xlsx or CSV (UTF-8)",
        ) from None


def _chosen(book: Workbook, path: Path, wanted: str | None) -> tuple[Worksheet, list[str]]:
    """The sheet to read. Raises UsageError if it does not exist, or if several could be meant."""
    sheets = list(book.worksheets)
    names = [str(sheet.title) for sheet in sheets]
    if wanted is not None:
        hits = [s for s in sheets if s.title == wanted] or [
            s for s in sheets if str(s.title).strip().casefold() == wanted.strip().casefold()
        ]
        if len(hits) != 1:
            raise UsageError(f"{path} has no sheet {wanted!r}", todo=f"Its sheets: {listed(map(repr, names), 20)}")
        return hits[0], []
    filled = [sheet for sheet in sheets if _holds_anything(sheet)]
    seen = [sheet for sheet in filled if sheet.sheet_state == "visible"]
    if len(seen) != 1:
        known = listed([repr(str(sheet.title)) for sheet in seen or filled], 20)
        if not filled:
            raise UsageError(f"{path} has no cells that can be read", todo="Save it again as .xlsx, or as CSV (UTF-8)")
        what = f"{len(seen)} sheets" if seen else "hidden sheets only"
        raise UsageError(f"{path} has {what}: {known}", todo=f"Say which: '{path}#{(seen or filled)[0].title}'")
    hidden = [repr(str(sheet.title)) for sheet in filled if sheet is not seen[0]]
    return seen[0], [f"hidden {'sheet is' if len(hidden) == 1 else 'sheets are'} not read: {listed(hidden)}"] * bool(
        hidden
    )


def _holds_anything(sheet: Worksheet) -> bool:
    if sheet.max_row * sheet.max_column > MAX_CELLS:
        return True
    return any(cell.value is not None for row in sheet.iter_rows() for cell in row)


def _formulas(sheet: Worksheet) -> Iterable[tuple[int, int]]:
    return (
        (int(cell.row or 0), int(cell.column or 0) - 1)
        for row in sheet.iter_rows()
        for cell in row
        if cell.data_type == "f"
    )


def _text_of(cell: Cell | Any) -> tuple[str, str | None]:
    """The text of a cell, and what is wrong with it."""
    value = cell.value
    if value is None:
        return "", None
    if isinstance(value, bool):
        return str(value).upper(), None
    if isinstance(value, int | float):
        return _number_text(value, str(cell.number_format or ""))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        value = value.date()
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
        return str(value), f"is the date or time {value}: if another value was meant, type it again in a text cell"
    return str(value).strip("\ufeff\u200b"), None


def _number_text(value: float, style: str) -> tuple[str, str | None]:
    """A number as Excel displays it: whole numbers without `.0`, with the leading zeros of a format such as 0000."""
    if value != int(value) if abs(value) < 1e300 else True:
        return f"{value:.15g}", None
    text = str(int(value))
    lost = f"is a number of {len(text.lstrip('-'))} digits, of which Excel keeps 15" if abs(value) >= _EXACT else None
    digits = re.fullmatch(r"(0+)(;.*)?", style)
    return (text.zfill(len(digits[1])) if digits else text), lost


def _header_row(sheet: Worksheet, texts: Mapping[tuple[int, int], str], path: Path) -> tuple[int, list[str]]:
    """The row of column names: the first with more than one cell filled, below a title or empty rows."""
    counts = {
        row: sum(bool(texts[row, k].strip()) for k in range(sheet.max_column)) for row in range(1, sheet.max_row + 1)
    }
    first = next((row for row, count in counts.items() if count), 1)
    row = next((row for row, count in counts.items() if count > 1), first)
    if row == 1:
        return 1, []
    above = [texts[k, place].strip() for k in range(1, row) for place in range(sheet.max_column)]
    title = next((text for text in above if text), "")
    what = f"the title {title[:60]!r} above it is not read" if title else "rows above it are empty"
    return row, [f"column names are in row {row}; {what}"]


def _spread_merged(
    sheet: Worksheet,
    texts: dict[tuple[int, int], str],
    troubles: dict[tuple[int, int], str],
    header: int,
    path: Path,
) -> list[str]:
    """Give every cell of a merged range its value. Raises UsageError if column names are merged."""
    ranges = [item for item in sheet.merged_cells.ranges if item.max_row >= header]
    for item in ranges:
        if item.min_row <= header and item.max_col > item.min_col:
            raise UsageError(
                f"{path}: column names are in merged cells ({item.coord})",
                todo="Give each column one name, in one row",
            )
        first = (item.min_row, item.min_col - 1)
        for row in range(max(item.min_row, header), item.max_row + 1):
            for place in range(item.min_col - 1, item.max_col):
                if item.min_row <= header and row > header:
                    continue  # a name that reaches down into the row below it
                texts[row, place] = texts[first]
                if first in troubles:
                    troubles[row, place] = troubles[first]
    below = [item.coord for item in ranges if item.min_row > header]
    return [f"merged cells count as if each had the value shown: {listed(sorted(below))}"] if below else []


def _hidden(sheet: Worksheet, header: int) -> list[str]:
    rows = [row for row, size in sheet.row_dimensions.items() if size.hidden and header < row <= sheet.max_row]
    return [f"{counted(len(rows), 'hidden row')} (a filter?) read like the others"] if rows else []


def split_sheet(source: str) -> tuple[Path, str | None]:
    """`clini.xlsx#Sheet 2` -> path and sheet; the whole text is the path if a file of that name exists."""
    whole = Path(at_home(source))
    name, mark, sheet = source.rpartition("#")
    if not mark or whole.exists() or Path(name).suffix.lower() not in WORKBOOKS:
        return whole, None
    return Path(at_home(name)), sheet
