"""Find files of other tools in folders; the content of a file decides what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wsi_pipeline.errors import ExchangeError, UsageError
from wsi_pipeline.exchange.readers import array_files, hdf5_layouts
from wsi_pipeline.exchange.readers.foreign_file import REMAKE, ForeignFile
from wsi_pipeline.exchange.readers.hs2p_tiles import ENDING, META, read_hs2p
from wsi_pipeline.exchange.readers.slide_names import without_suffixes
from wsi_pipeline.exchange.readers.wsidata_zarr import is_wsidata, read_wsidata

_HEAD = 16
_IN_A_NAME = ("features_", "feats_", "h5_features_")
_TORCH = (".pt", ".pth")


@dataclass
class FoundFiles:
    """The files found.

    features      files of features; a file with several encoders gives one entry for each
    coordinates   files of coordinates only
    unreadable    file -> why it is not read, and what to do
    """

    features: list[ForeignFile] = field(default_factory=list)
    coordinates: list[ForeignFile] = field(default_factory=list)
    unreadable: dict[Path, ExchangeError] = field(default_factory=dict)

    def add(self, path: Path) -> None:
        """Look at one file or Zarr folder; unknown kinds are skipped."""
        try:
            found = _read(path)
        except ExchangeError as error:
            self.unreadable[path] = error
            return
        for file in found:
            (self.coordinates if file.features is None else self.features).append(_with_encoder(file))


def find_files(sources: Sequence[str | Path]) -> FoundFiles:
    """Everything in these files and folders, searched recursively; hidden names are skipped.

    Raises UsageError naming a source that does not exist.
    """
    found = FoundFiles()
    for source in sources:
        path = Path(source).expanduser()
        if not path.exists():
            raise UsageError(f"no file or folder {source}", todo="Name a folder of feature files, or the files")
        for item in [path] if path.is_file() or is_wsidata(path) else _walk(path):
            found.add(item.absolute())
    return found


def slide_of(path: Path) -> str:
    """The slide that a file belongs to, judged by its name: `s1_patches.h5` -> `s1`."""
    name = path.name.removesuffix(META).removesuffix(ENDING)
    return without_suffixes(name).removesuffix("_patches")


def _walk(folder: Path) -> list[Path]:
    """Files and Zarr folders below a folder, in order; a Zarr folder is not entered."""
    taken: list[Path] = []
    for item in sorted(folder.iterdir()):
        if item.name.startswith("."):
            continue
        if item.is_dir() and not is_wsidata(item):
            taken += _walk(item) if not item.is_symlink() else []
        else:
            taken.append(item)
    return taken


def _read(path: Path) -> list[ForeignFile]:
    if path.is_dir():
        return read_wsidata(path)
    if path.name.endswith(META):
        return read_hs2p(path)
    if path.name.endswith(ENDING):
        return []  # read with the description beside it
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise ExchangeError(f"{path.name} cannot be read: {error.strerror}", todo=REMAKE) from None
    if head.startswith(hdf5_layouts.MAGIC):
        return hdf5_layouts.read_hdf5(path)
    if head.startswith(array_files.NPY_MAGIC):
        return array_files.read_npy(path)
    if head.startswith(array_files.ZIP_MAGIC):
        return array_files.read_zip(path)
    if head.startswith(array_files.PICKLE_MAGIC) and path.suffix.lower() in (*_TORCH, ".pkl", ".pickle"):
        return array_files.read_torch(path)
    if array_files.may_be_safetensors(head):
        return array_files.read_safetensors(path)
    if path.suffix.lower() in (".h5", ".hdf5", ".npy", ".npz", ".safetensors", *_TORCH):
        raise ExchangeError(f"{path.name} is not what its suffix says, or is cut short", todo=REMAKE)
    return []


def _with_encoder(file: ForeignFile) -> ForeignFile:
    """The file with the encoder from its folder's name (as TRIDENT names folders), unless the file states one."""
    folder = file.path.parent.name
    start = next((word for word in _IN_A_NAME if folder.startswith(word)), None)
    if file.features is None or file.stated.encoder or start is None or len(folder) == len(start):
        return file
    return replace(file, stated=replace(file.stated, encoder=folder[len(start) :]), named_by="folder")
