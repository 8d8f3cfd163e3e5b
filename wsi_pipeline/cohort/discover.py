"""Slides named by folders, globs or single files, without a CSV."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.errors import UsageError
from wsi_pipeline.files.addresses import address_name, is_address, slide_path
from wsi_pipeline.files.dicom_header import DicomHeader, is_dicom, read_dicom_header
from wsi_pipeline.files.foreign_formats import KINDS, elsewhere, foreign_kind
from wsi_pipeline.files.path_choices import id_of_part, split_choice, with_choice
from wsi_pipeline.files.slide_ids import Named, distinct_ids
from wsi_pipeline.files.suffixes import DICOM_SUFFIXES, PICTURE_SUFFIXES, SLIDE_SUFFIXES, slide_id_of
from wsi_pipeline.system.redaction import redact

__all__ = [
    "PICTURE_SUFFIXES", "SLIDE_SUFFIXES", "FoundSlides", "at_home", "find_slides", "is_slide_file", "slide_id_of",
    "with_suffix_found",
]  # fmt: skip

_PICTURES_BESIDE = (".vms", ".vmu", ".dzi")
"""Slides that consist of JPEG files in their folder."""
_NOT_A_SLIDE = "DICOM that is not a whole-slide image"
_NO_ACCESS = "unreadable folder"
_CONTENTS = "Give a CSV, a folder of slides, or a quoted glob like 'slides/*.svs'"


@dataclass(frozen=True)
class FoundSlides:
    """Slides with their ids, in the order of their paths, and notes about the other files found."""

    slides: tuple[tuple[str, Path], ...]
    notes: tuple[str, ...] = ()


def find_slides(sources: Sequence[str | Path]) -> FoundSlides:
    """Slides from folders (searched recursively, following links), globs, single files and addresses; each once.

    Globs and files may select a part of each file: `slide.ome.tif#scene=1`.
    Hidden files and folders are skipped, and so are the TIFF overlays of `heatmap`. DICOM files of one folder
    and series are one slide. Files of unsupported kinds are counted. Slides with the same file name get ids with the
    names of their folders.

    Raises UsageError naming a source that yields nothing.
    """
    search = _Search()
    for source in sources:
        search.add(str(source))
    named, parts = _as_slides(list(search.found))
    ids, notes = distinct_ids(named)
    search.skipped[_NOT_A_SLIDE] += parts
    if not named:
        raise _nothing(" ".join(map(str, sources)), search.skipped)
    skipped = [*_skipped_note(search.skipped), *notes]
    return FoundSlides(tuple(zip(ids, (item.path for item in named), strict=True)), tuple(skipped))


def with_suffix_found(path: Path) -> Path:
    """`path`, or if it does not exist the one slide beside it whose name only adds a suffix (CLAM's ids have none)."""
    if path.exists() or path.suffix.lower() in SLIDE_SUFFIXES or not path.name:
        return path
    beside = [path.with_name(path.name + suffix) for suffix in sorted(SLIDE_SUFFIXES)]
    found = [candidate for candidate in beside if candidate.exists()]
    return found[0] if len(found) == 1 else path


def is_slide_file(path: Path) -> bool:
    """Whether a file found in a folder counts as a slide: by its suffix, unless it is hidden (`._a.svs` of macOS)."""
    return path.suffix.lower() in SLIDE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def at_home(path: str | Path) -> str:
    """`~` and `~name` as home folders; unknown users are left unchanged."""
    return os.path.expanduser(path)  # noqa: PTH111 - pathlib's raises for unknown users


_ADDRESSES = "Name single slides, or list them in a CSV: addresses are not searched"


class _Search:
    """The slides found in folders, each folder and file once, however many links lead to it."""

    def __init__(self) -> None:
        self.found: dict[Path, None] = {}
        self.skipped: Counter[str] = Counter()
        self._folders: set[tuple[int, int]] = set()
        self._files: set[Path] = set()
        self._hits = 0

    def add(self, source: str) -> None:
        """Add one source. Raises UsageError if it yields nothing."""
        if is_address(source):
            self._take_address(source)
            return
        path = Path(source)
        if path.is_dir() and (kind := foreign_kind(path)):
            raise UsageError(f"{source} is {kind[0]}, which is not supported", todo=kind[1])
        skipped, self._hits = self.skipped.copy(), 0
        if path.is_dir():
            self._walk(path)
        elif path.exists():
            self._take(path)
        else:
            file, chosen = split_choice(path)
            for item in sorted(glob.glob(str(file) if chosen else source, recursive=True)):  # noqa: PTH207
                if Path(item).is_file() and not _is_overlay(Path(item)):
                    self._take(with_choice(Path(item), chosen))
            if chosen and not self._hits and file.is_file():  # a name with brackets
                self._take(path)
        if not self._hits:
            raise _nothing(source, self.skipped - skipped)

    def _take(self, path: Path) -> None:
        real = path.resolve()
        self._hits += 1
        if real not in self._files:
            self._files.add(real)
            self.found[path.absolute()] = None

    def _take_address(self, source: str) -> None:
        try:
            path = slide_path(source)
            if "*" in path.name:
                raise ValueError("it is a pattern")
        except ValueError as error:
            raise UsageError(f"{redact(source)} cannot be used: {error}", todo=_ADDRESSES) from None
        self.found[path] = None

    def _walk(self, folder: Path) -> None:
        """Walk folders first, then links: a slide is listed under its own path if it has one."""
        linked = []
        pending = [folder]
        while pending:
            here = pending.pop()
            below, links = self._look(here)
            pending += reversed(below)
            linked += links
        for link in linked:
            self._walk(link)

    def _look(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Take the slides of one folder; returns the folders below it, and those that are links."""
        try:
            status = folder.stat()
            entries = sorted(folder.iterdir())
        except OSError:
            self.skipped[_NO_ACCESS] += 1
            return [], []
        if (status.st_dev, status.st_ino) in self._folders:
            self._hits += 1  # its slides are already listed
            return [], []
        self._folders.add((status.st_dev, status.st_ino))
        entries = [item for item in entries if not item.name.startswith(".")]
        suffixes = {item.suffix.lower() for item in entries}
        below: list[Path] = []
        links: list[Path] = []
        for item in entries:
            if item.is_dir():
                if foreign_kind(item) == KINDS[".zarr"]:
                    self.skipped[".zarr"] += 1
                elif not _is_data_of_slide(item):
                    (links if item.is_symlink() else below).append(item)
            elif item.is_file() and not _is_overlay(item):
                self._judge(item, suffixes)
        return below, links

    def _judge(self, path: Path, beside: set[str]) -> None:
        suffix = path.suffix.lower()
        if suffix in SLIDE_SUFFIXES or (_may_be_dicom(path) and _has_dicom(path)):
            self._take(path)
        elif suffix in PICTURE_SUFFIXES:
            self.skipped[suffix] += not beside.intersection(_PICTURES_BESIDE)
        elif suffix in KINDS and suffix != ".gz":
            self.skipped[suffix] += 1


def _as_slides(paths: list[Path]) -> tuple[list[Named], int]:
    """Files as slides: DICOM by series; and how many DICOM files are not part of a slide."""
    others, series = [], dict[tuple[Path, str], list[tuple[Path, DicomHeader]]]()
    left_out = 0
    for path in paths:
        header = _header(path)
        if header and header.sop_class and not header.is_slide:
            left_out += 1
        elif header is None or not header.series:
            file, chosen = split_choice(path)
            name = Path(address_name(file)) if is_address(file) else file
            others.append(Named(id_of_part(slide_id_of(name), chosen), path, path.parent))
        else:
            series.setdefault((path.parent, header.series), []).append((path, header))
    in_folder = Counter(folder for folder, _ in series)
    made = [_series(folder, uid, files, in_folder[folder] == 1) for (folder, uid), files in series.items()]
    return sorted([*others, *made], key=lambda item: item.path), left_out


def _series(folder: Path, uid: str, files: list[tuple[Path, DicomHeader]], alone: bool) -> Named:
    """One DICOM series as a slide, by its largest level; named after its only file, its folder, or itself."""
    path = min(files, key=lambda item: (not item[1].is_level, -item[1].width * item[1].height, item[0]))[0]
    if len(files) == 1:
        return Named(slide_id_of(path), path, folder)
    return Named(folder.name, path, folder.parent) if alone and folder.name else Named(uid, path, folder)


def _header(path: Path) -> DicomHeader | None:
    if is_address(path) or not _may_be_dicom(path):
        return None
    try:
        return read_dicom_header(path)
    except OSError:
        return None


def _may_be_dicom(path: Path) -> bool:
    """Whether the name allows DICOM: a DICOM suffix, no suffix, or the last number of a UID."""
    suffix = path.suffix.lower()
    return suffix in DICOM_SUFFIXES or not suffix or suffix[1:].isdecimal()


def _has_dicom(path: Path) -> bool:
    try:
        return is_dicom(path)
    except OSError:
        return False


def _is_data_of_slide(folder: Path) -> bool:
    """The folder that belongs to a MIRAX slide, or to an Olympus one (`_name_`)."""
    if (folder / "Slidedat.ini").is_file():
        return True
    name = folder.name
    return name.startswith("_") and name.endswith("_") and folder.with_name(f"{name[1:-1]}.vsi").is_file()


def _is_overlay(path: Path) -> bool:
    """Whether a file lies in the folder `heatmap` of a run."""
    return any(part.name == "heatmap" and RunDir(part.parent).cohort_csv.is_file() for part in path.absolute().parents)


def _skipped_note(skipped: Counter[str]) -> list[str]:
    """`skipped: 1 .vsi, 2 .isyntax`, with an explanation if it is of one kind."""
    counts = sorted(((count, name) for name, count in skipped.items() if count), key=lambda item: (-item[0], item[1]))
    if not counts:
        return []
    foreign = [name for _, name in counts if name in KINDS]
    hint = f" ({KINDS[foreign[0]][0]}). {KINDS[foreign[0]][1].rstrip('.')}" if len(foreign) == 1 else ""
    pictures = any(skipped[name] for name in PICTURE_SUFFIXES)
    listed = ", ".join(f"{count:,} {name}" for count, name in counts)
    return [f"skipped: {listed}{hint}{_PICTURES if pictures else ''}"]


_PICTURES = "; pictures count as slides if a CSV lists them with an mpp, or a glob names them with --default-mpp"


def _nothing(source: str, skipped: Counter[str]) -> UsageError:
    if problem := elsewhere(source):
        return UsageError(f"{source} is {problem[0]}", todo=problem[1])
    note = _skipped_note(skipped)
    todo = _FEATURES.format(source) if _holds_features(Path(source)) else _CONTENTS
    return UsageError(f"no slides at {source}{f'; {note[0]}' if note else ''}", todo=todo)


_FEATURES = "Features of another tool are brought in with: wsi-pipeline import features {}"
_OF_FEATURES = (".h5", ".pt", ".npy", ".npz", ".safetensors")


def _holds_features(folder: Path) -> bool:
    return folder.is_dir() and any(item.suffix.lower() in _OF_FEATURES for item in folder.iterdir())
