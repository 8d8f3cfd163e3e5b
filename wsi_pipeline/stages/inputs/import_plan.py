"""Which file of another tool is read for which slide, and as whose features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wsi_pipeline.cohort.run_dir import slug
from wsi_pipeline.errors import UsageError
from wsi_pipeline.exchange.readers.find_files import FoundFiles
from wsi_pipeline.exchange.readers.foreign_file import ForeignFile
from wsi_pipeline.exchange.readers.slide_names import Matches, match_names, without_suffixes
from wsi_pipeline.wording import counted, listed

_SHOWN = 4


@dataclass(frozen=True)
class ImportPlan:
    """Files by the slide they are of.

    encoder   whose features they are; "" for coordinates alone. stated_by: file, folder or user
    dim       features of a patch; 0 for coordinates alone
    files     slide_id -> its file; `beside`: slide_id -> the file of coordinates that belongs to it
    faults    slide_id -> why its file is not used, a sentence
    notes     what else was there
    matches   ids of the table and names of the files
    """

    encoder: str
    stated_by: str
    dim: int
    files: Mapping[str, ForeignFile]
    beside: Mapping[str, ForeignFile] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    matches: Matches = field(default_factory=lambda: Matches({}, (), ()))

    @property
    def tools(self) -> str:
        """`TRIDENT`, or several: `CLAM layout (38), .pt file (2)`."""
        counts = Counter(f"{item.stated.tool} {item.stated.version}".strip() for item in self.files.values())
        return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{k} ({n})" for k, n in counts.most_common())

    def for_slides(self, ids: Sequence[str], table: str, where: str) -> ImportPlan:
        """The same by the ids of a cohort. Raises UsageError where no id has a file.

        table, where   the names of both in messages
        """
        matches = match_names(ids, dict.fromkeys([*self.files, *self.faults]))
        if not matches.names:
            raise UsageError(
                f"none of the {counted(len(ids), 'slide')} of {table} has a file in {where}: the table has "
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
    """One file of features for each slide, all of one encoder and width; what differs is a fault of its slide.

    Raises UsageError where there is nothing to choose by: several encoders, none stated, widths that are as common.
    """
    if not found.features:
        raise UsageError(
            f"no features in {where}{_why_none(found)}",
            todo="Files of TRIDENT, CLAM, STAMP, AtlasPatch, LazySlide, or .npy, .npz, .pt and .safetensors are read",
        )
    chosen, name, stated_by, left = _of_encoder(found.features, where, encoder)
    by_name, faults = _one_each(chosen)
    for path, why in found.unreadable.items():
        if (stem := without_suffixes(path.name)) not in by_name:
            faults.setdefault(stem, why)
    for file in left:
        faults.update({} if file.name in by_name else {file.name: _nobody(file, name)})
    dim, wrong = _width(by_name, where)
    faults |= wrong
    files = {key: file for key, file in by_name.items() if key not in wrong}
    if len(faults) and not files:
        raise UsageError(f"no file of {where} can be read, the first: {next(iter(faults.values()))}")
    beside, notes = _beside(found.coordinates, files)
    notes += list(dict.fromkeys(file.note for file in files.values() if file.note))[:_SHOWN]
    return ImportPlan(name, stated_by, dim, files, beside, faults, tuple(notes))


def plan_patches(found: FoundFiles, where: str) -> ImportPlan:
    """One file of coordinates for each slide; files of features with coordinates and sizes are as good."""
    usable = [*found.coordinates, *(item for item in found.features if item.coords and item.stated.patch_px)]
    if not usable:
        raise UsageError(
            f"no coordinates of patches in {where}{_why_none(found)}",
            todo="Files of TRIDENT, CLAM, hs2p, AtlasPatch and LazySlide are read",
        )
    by_name, faults = _one_each(found.coordinates or usable)
    faults.update((stem, why) for path, why in found.unreadable.items() if (stem := path.stem) not in by_name)
    return ImportPlan("", "", 0, by_name, faults=faults)


def _why_none(found: FoundFiles) -> str:
    first = next(iter(found.unreadable.values()), "")
    return f": {first}" if first else ""


def _of_encoder(
    files: Sequence[ForeignFile], where: str, asked: str | None
) -> tuple[list[ForeignFile], str, str, list[ForeignFile]]:
    """The files of one encoder, its name, who states it, and files of the same folders that state none."""
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
        told = ", ".join(f"{name} ({counted(len(own), 'file')}: {_names(own)})" for name, own in stated.items())
        raise UsageError(
            f"{where} holds features of {len(stated)} encoders: {told}",
            todo=f"Name one: --encoder {next(iter(stated))}",
        )
    name, own = next(iter(stated.items()))
    return own, name, own[0].named_by, unnamed


def _nobody(file: ForeignFile, encoder: str) -> str:
    return f"{file.path.name} does not say which encoder made it, the others say {encoder}"


def _one_each(files: Iterable[ForeignFile]) -> tuple[dict[str, ForeignFile], dict[str, str]]:
    """Name -> its file, the one that states most where a slide has several kinds; and faults of those with two."""
    groups: dict[str, list[ForeignFile]] = {}
    for file in files:
        groups.setdefault(file.name, []).append(file)
    chosen, faults = {}, {}
    for name, group in groups.items():
        ranks = [(file.coords is not None, len(file.stated.known())) for file in group]
        best = [file for file, rank in zip(group, ranks, strict=True) if rank == max(ranks)]
        if len(best) > 1:
            faults[name] = f"two files of this slide: {best[0].path} and {best[1].path}"
        else:
            chosen[name] = best[0]
    return chosen, faults


def _width(files: Mapping[str, ForeignFile], where: str) -> tuple[int, dict[str, str]]:
    """The width of most files, and a fault for each of another. Raises UsageError where no width is that of most."""
    counts = Counter(file.dim for file in files.values() if file.rows)
    if not counts:
        return 0, {}
    (dim, most), total = counts.most_common(1)[0], sum(counts.values())
    assert dim is not None
    if 2 * most <= total:
        told = ", ".join(
            f"{width} ({_names([file for file in files.values() if file.dim == width])})" for width in counts
        )
        raise UsageError(
            f"{where} holds features of different widths: {told}", todo="Name the files of one encoder only"
        )
    wrong = {
        name: f"{file.path.name} has {file.dim} features a patch, {most} of {total} files here have {dim}"
        for name, file in files.items()
        if file.rows and file.dim != dim
    }
    return dim, wrong


def _beside(
    coordinates: Sequence[ForeignFile], files: Mapping[str, ForeignFile]
) -> tuple[dict[str, ForeignFile], list[str]]:
    """The coordinates that belong to files of features, by name; a note where several would do."""
    by_name, doubles = _one_each(coordinates)
    matched = match_names(list(files), by_name).names
    found = {name: by_name[other] for name, other in matched.items()}
    several = [name for name in files if name in doubles]
    note = f"coordinates of {counted(len(several), 'slide')} are there twice and not used: {listed(several, _SHOWN)}"
    return found, [note] if several else []


def _names(files: Sequence[ForeignFile]) -> str:
    return listed([Path(file.path).name for file in files], _SHOWN)
