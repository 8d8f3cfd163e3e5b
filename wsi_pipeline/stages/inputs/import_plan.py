"""Which file of another tool is read for which slide, and which encoder its features come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wsi_pipeline.cohort.run_dir import POOLED_MARK, slug
from wsi_pipeline.errors import ExchangeError, UsageError
from wsi_pipeline.exchange.readers.find_files import FoundFiles, slide_of
from wsi_pipeline.exchange.readers.foreign_file import ForeignFile, Stated
from wsi_pipeline.exchange.readers.imported_rows import OTHER_WIDTH
from wsi_pipeline.exchange.readers.slide_names import Matches, match_names
from wsi_pipeline.wording import agreed, counted, listed

_SHOWN = 4
_ALSO_PATCHES = "Name the tool's folder of coordinates as well: patches/ of TRIDENT and CLAM, *.coordinates.npz of hs2p"


@dataclass(frozen=True)
class ImportPlan:
    """The file of each slide.

    encoder     encoder of the features, or `patch encoder+slide encoder`; "" for coordinates only
    stated_by   source of the encoder's name: file, folder or user
    dim         features per patch; 0 for coordinates only
    files       slide_id -> its file
    beside      slide_id -> the coordinate file that belongs to it
    faults      slide_id -> why its file is not used, and what to do
    notes       sentences on other files
    matches     how ids of the table and names of the files match
    """

    encoder: str
    stated_by: str
    dim: int
    files: Mapping[str, ForeignFile]
    beside: Mapping[str, ForeignFile] = field(default_factory=dict)
    faults: Mapping[str, ExchangeError] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    matches: Matches = field(default_factory=lambda: Matches({}, (), ()))

    @property
    def tools(self) -> str:
        """`TRIDENT`, `STAMP 2.5.0`, or several: `CLAM by layout (38), .pt files (2)`."""
        counts = Counter(_called(item.stated) for item in self.files.values())
        return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{k} ({n})" for k, n in counts.most_common())

    @property
    def counts(self) -> tuple[int, str]:
        """Number of slides that have a file, with `, 2 of them not usable` if so."""
        bad = len(self.faults)
        return len(self.files) + bad, f", {bad} of them not usable" if bad else ""

    def for_slides(self, ids: Sequence[str], table: str, where: str) -> ImportPlan:
        """The same plan with the slide ids of a cohort. Raises UsageError if no id has a file.

        table, where   names of the cohort and of the files in messages
        """
        matches = match_names(ids, dict.fromkeys([*self.files, *self.faults]))
        if not matches.names:
            several = f"none of the {counted(len(ids), 'slide')} of {table} has a file"
            raise UsageError(
                f"{several if len(ids) > 1 else f'the only slide of {table} has no file'} in {where}: the table has "
                f"{listed(ids, _SHOWN)}, the files are {listed(matches.left, _SHOWN)}",
                todo="Ids match with or without suffixes (.svs, .h5); correct the column slide_id, or name other files",
            )
        names = matches.names.items()
        return replace(
            self,
            files={one: self.files[name] for one, name in names if name in self.files},
            beside={one: self.beside[name] for one, name in names if name in self.beside},
            faults={one: self.faults[name] for one, name in names if name in self.faults},
            matches=matches,
        )


def plan_features(found: FoundFiles, where: str, encoder: str | None = None) -> ImportPlan:
    """One feature file per slide, all of one encoder and width; a file that differs is a fault of its slide.

    Raises UsageError if the choice is ambiguous: several encoders, none stated, or no width shared by a majority.
    """
    if not found.features:
        raise UsageError(
            f"no features in {where}{_why_none(found)}",
            todo=next((why.todo for why in found.unreadable.values()), None)
            or "Files of TRIDENT, CLAM, STAMP, AtlasPatch, LazySlide, or .npy, .npz, .pt and .safetensors are read",
        )
    chosen, name, stated_by, left = _of_encoder(_of_one_kind(found.features, encoder), where, encoder)
    if POOLED_MARK in name and chosen[0].pools is None:
        raise UsageError(f"encoder {name!r} has a {POOLED_MARK}, which marks slide embeddings: name it without")
    by_name, faults = _one_each(chosen)
    faults = _unreadable(found, by_name) | faults
    for file in left:
        faults.update({} if file.name in by_name else {file.name: _nobody(file, name)})
    dim, wrong = _width(by_name, where)
    faults |= wrong
    files = {key: file for key, file in by_name.items() if key not in wrong}
    if len(faults) and not files:
        first = next(iter(faults.values()))
        raise UsageError(f"no file of {where} can be used, the first: {first.what}", todo=first.todo)
    beside, notes = _beside([] if chosen[0].pools is not None else found.coordinates, files)
    notes += list(dict.fromkeys(file.note for file in files.values() if file.note))[:_SHOWN]
    return ImportPlan(name, stated_by, dim, files, beside, faults, tuple(notes))


def plan_patches(found: FoundFiles, where: str) -> ImportPlan:
    """One coordinate file per slide, or a feature file that holds coordinates and patch size.

    Raises UsageError if no file has coordinates and patch size, saying which is missing.
    """
    of_features = {file.path: file for file in found.features}  # each file once, even with features of several encoders
    usable = [file for file in of_features.values() if file.coords and file.stated.patch_px]
    if not found.coordinates and not usable:
        raise _no_patches(found, list(of_features.values()), where)
    by_name, faults = _one_each(found.coordinates)
    more, twice = _one_each(file for file in usable if file.name not in {*by_name, *faults})
    by_name, faults = by_name | more, faults | twice
    for file in of_features.values():
        if file.name not in {*by_name, *faults}:
            lacks = "the size of its patches" if file.coords else "coordinates"
            faults[file.name] = ExchangeError(f"{file.path.name} holds features without {lacks}", todo=_ALSO_PATCHES)
    return ImportPlan("", "", 0, by_name, faults=_unreadable(found, by_name) | faults)


def _no_patches(found: FoundFiles, features: Sequence[ForeignFile], where: str) -> UsageError:
    """Why there are no patches to import: what the files contain and what they lack."""
    unsized = [file for file in features if file.coords]
    if unsized:
        return UsageError(
            f"{counted(len(unsized), 'file')} in {where} {agreed(len(unsized), 'holds')} coordinates, but not the size "
            f"of the patches: {_names(unsized)}",
            todo=_ALSO_PATCHES,
        )
    if features:
        note = next((f": {file.note}" for file in features if file.note), "")
        return UsageError(
            f"{counted(len(features), 'file')} in {where} {agreed(len(features), 'holds')} features without coordinates"
            f"{note}",
            todo=_ALSO_PATCHES,
        )
    return UsageError(
        f"no patch coordinates in {where}{_why_none(found)}",
        todo="Files of TRIDENT, CLAM, STAMP, hs2p, AtlasPatch and LazySlide are read",
    )


def _called(stated: Stated) -> str:
    """`STAMP 2.5.0`, `CLAM by layout`, `.npy files`: the tool that wrote the files."""
    kind = {"CLAM layout": "CLAM by layout", "HDF5": "HDF5 files"}.get(stated.tool, stated.tool)
    kind = f"{kind}s" if kind.endswith(" file") else kind
    return f"{kind} {stated.version}".strip()


def _unreadable(found: FoundFiles, by_name: Mapping[str, ForeignFile]) -> dict[str, ExchangeError]:
    """The faults of slides without a readable file."""
    return {name: why for path, why in found.unreadable.items() if (name := slide_of(path)) not in by_name}


def _why_none(found: FoundFiles) -> str:
    first = next(iter(found.unreadable.values()), None)
    return f": {first.what}" if first else ""


def _of_one_kind(files: Sequence[ForeignFile], asked: str | None) -> list[ForeignFile]:
    """Patch features if there are any, else slide embeddings; these also if they are asked for by name."""
    vectors = [file for file in files if file.pools is not None]
    named = asked is not None and slug(asked) in {slug(file.stated.encoder) for file in vectors}
    return vectors if named or len(vectors) == len(files) else [file for file in files if file.pools is None]


def _of_encoder(
    files: Sequence[ForeignFile], where: str, asked: str | None
) -> tuple[list[ForeignFile], str, str, list[ForeignFile]]:
    """Files of one encoder, its name, the source of the name; and files in the same folders that state no encoder."""
    stated: dict[str, list[ForeignFile]] = {}
    for file in files:
        stated.setdefault(file.stated.encoder, []).append(file)
    unnamed = stated.pop("", [])
    if not stated:
        if asked is None:
            raise UsageError(f"{where} does not say which encoder made the features", todo="Name it: --encoder NAME")
        return unnamed, asked, "user", []
    if asked is not None:
        same = [name for name in stated if slug(name) == slug(asked)]
        if not same:
            raise UsageError(
                f"no features of {asked} in {where}: its files say {listed(list(stated), _SHOWN)}",
                todo="Leave --encoder out, or name one of these",
            )
        return stated[same[0]], same[0], stated[same[0]][0].named_by, []
    if len(stated) > 1:
        counts = ", ".join(f"{name} ({counted(len(own), 'file')}: {_names(own)})" for name, own in stated.items())
        raise UsageError(
            f"{where} holds features of {len(stated)} encoders: {counts}",
            todo=f"Name one: --encoder {next(iter(stated))}",
        )
    name, own = next(iter(stated.items()))
    return own, name, own[0].named_by, unnamed


def _nobody(file: ForeignFile, encoder: str) -> ExchangeError:
    return ExchangeError(
        f"{file.path.name} does not say which encoder made it, the others say {encoder}",
        todo=f"Put it into a folder features_{encoder} if it is of that encoder, else take it out.",
    )


def _one_each(files: Iterable[ForeignFile]) -> tuple[dict[str, ForeignFile], dict[str, ExchangeError]]:
    """Name -> its file (of several kinds, the one with most information), and faults of names with two equal files."""
    groups: dict[str, list[ForeignFile]] = {}
    for file in files:
        groups.setdefault(file.name, []).append(file)
    chosen: dict[str, ForeignFile] = {}
    faults: dict[str, ExchangeError] = {}
    for name, group in groups.items():
        ranks = [(file.coords is not None, len(file.stated.known())) for file in group]
        best = [file for file, rank in zip(group, ranks, strict=True) if rank == max(ranks)]
        if len(best) > 1:
            places = f"{best[0].path} and {best[1].path}"
            faults[name] = ExchangeError(
                f"two files of this slide: {places}", todo="Take one of them out of the folder."
            )
        else:
            chosen[name] = best[0]
    return chosen, faults


def _width(files: Mapping[str, ForeignFile], where: str) -> tuple[int, dict[str, ExchangeError]]:
    """The width of more than half of the files, and a fault for each other file. Raises UsageError if there is none."""
    counts = Counter(file.dim for file in files.values() if file.rows)
    if not counts:
        return 0, {}
    (dim, most), total = counts.most_common(1)[0], sum(counts.values())
    assert dim is not None
    if 2 * most <= total:
        widths = ", ".join(
            f"{width} ({_names([file for file in files.values() if file.dim == width])})" for width in counts
        )
        raise UsageError(
            f"{where} holds features of different widths: {widths}", todo="Name the files of one encoder only"
        )
    wrong = {
        name: ExchangeError(
            f"{file.path.name} has {file.dim} features per patch, {most} of {counted(total, 'file')} here have {dim}",
            todo=OTHER_WIDTH,
        )
        for name, file in files.items()
        if file.rows and file.dim != dim
    }
    return dim, wrong


def _beside(
    coordinates: Sequence[ForeignFile], files: Mapping[str, ForeignFile]
) -> tuple[dict[str, ForeignFile], list[str]]:
    """Name -> the coordinate file that belongs to the feature file; a note if several match."""
    by_name, doubles = _one_each(coordinates)
    matched = match_names(list(files), by_name).names
    found = {name: by_name[other] for name, other in matched.items()}
    several = [name for name in files if name in doubles]
    note = (
        f"coordinates of {counted(len(several), 'slide')} are in several files and not used: {listed(several, _SHOWN)}"
    )
    return found, [note] if several else []


def _names(files: Sequence[ForeignFile]) -> str:
    return listed([Path(file.path).name for file in files], _SHOWN)
