"""Notes about files are used while a file is as it was, and never for one that changed in whatever way."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from tests.stages.cohorts import write_cohort
from wsi_pipeline.cli import main
from wsi_pipeline.stages.engine.known_files import SETTLED_SECONDS, known_files, look_up
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.store import Store


def reader(values: list[Any]) -> Callable[[], Any]:
    """Returns one value after the other."""
    return lambda: values.pop(0)


def asked(notes: Path, file: Path, values: list[Any], settled_seconds: float = 0.0) -> Any:
    with known_files(notes):
        return look_up(file, "what", reader(values), settled_seconds)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("abc")
    return path


def test_an_unchanged_file_is_read_once(file: Path, tmp_path: Path) -> None:
    assert [asked(tmp_path / "notes.json", file, [1]), asked(tmp_path / "notes.json", file, [2])] == [1, 1]


def test_without_notes_everything_is_read(file: Path) -> None:
    assert [look_up(file, "what", reader([n])) for n in (1, 2)] == [1, 2]


def test_same_size_and_time_do_not_hide_other_bytes(file: Path, tmp_path: Path) -> None:
    asked(tmp_path / "notes.json", file, [1])
    before = file.stat()
    time.sleep(0.02)  # longer than a tick of the file system's clock
    file.write_text("xyz")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert asked(tmp_path / "notes.json", file, [2]) == 2


def test_a_replaced_file_is_read(file: Path, tmp_path: Path) -> None:
    asked(tmp_path / "notes.json", file, [1])
    other = tmp_path / "other"
    other.write_text("xyz")
    other.replace(file)
    assert asked(tmp_path / "notes.json", file, [2]) == 2


def test_a_file_replaced_while_it_is_read_is_not_noted(file: Path, tmp_path: Path) -> None:
    def read() -> int:
        file.write_text("longer")
        return 1

    with known_files(tmp_path / "notes.json"):
        look_up(file, "what", read)
    assert asked(tmp_path / "notes.json", file, [2]) == 2


def test_a_file_changed_just_now_is_not_noted(file: Path, tmp_path: Path) -> None:
    assert [asked(tmp_path / "notes.json", file, [n], SETTLED_SECONDS) for n in (1, 2)] == [1, 2]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"what/a/b": 1}', "\x00"])
def test_damaged_notes_are_as_good_as_none(text: str, file: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.json"
    notes.write_text(text)
    assert [asked(notes, file, [1]), asked(notes, file, [2])] == [1, 1]


def test_what_was_made_is_known_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second command opens no store, not only the third."""
    run, csv = ["--run", str(tmp_path / "run")], write_cohort(tmp_path, per_class=1, broken=False)
    tile, embed = ["tile", str(csv), "--workers", "1", *run], ["embed", "--model", "colour", *run]
    assert [main(tile), main(embed)] == [0, 0]
    opened: list[Path] = []

    def watched(path: Path) -> Store:
        opened.append(path)
        return open_store(path)

    for module in ("stages.engine.freshness", "store.tables.patch_table"):
        monkeypatch.setattr(f"wsi_pipeline.{module}.open_store", watched)
    assert [main(tile), main(embed), len(opened)] == [0, 0, 0]
    shutil.rmtree(tmp_path / "run" / "status" / "known")
    assert [main(tile), main(embed)] == [0, 0]
    assert {path.parent.name for path in opened} == {"segment", "tile", "colour"}


def test_damage_and_changes_are_still_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, csv = tmp_path / "run", write_cohort(tmp_path, per_class=1, broken=False)
    tile = ["tile", str(csv), "--workers", "0", "--run", str(run)]
    main(tile)
    assert json.loads((run / "status" / "known" / "s0.json").read_text())
    with h5py.File(run / "tile" / "s0.h5", "r+") as store:
        store.attrs["digest"] = store.attrs["digest"][::-1]
    main(tile)
    assert (run / "tile" / "s0.h5.damaged-1").exists()
    slide = tmp_path / "s1.svs"
    slide.write_bytes((tmp_path / "s0.svs").read_bytes())
    capsys.readouterr()
    main(tile)
    assert "1 slide recomputed, segment: its input has changed" in capsys.readouterr().out
