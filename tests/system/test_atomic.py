"""What is written whole stays whole: flushed in the right order, siblings told apart, the living left alone."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from wsi_pipeline.system import atomic
from wsi_pipeline.system.atomic import atomic_path, make_folder, recover, write_text
from wsi_pipeline.system.process_identity import ProcessIdentity, parse_identity, this_process


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def owner_of(pid: int) -> ProcessIdentity:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return replace(this_process(), pid=pid, started=int(fields[19]))


def test_an_owner_lives_as_long_as_its_process_and_no_longer() -> None:
    process = sleeper()
    owner = owner_of(process.pid)
    assert owner.alive
    assert not replace(owner, started=owner.started - 1).alive  # its number is another process's now
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not owner.alive  # dead, though nobody has fetched it
    process.wait()
    assert not owner.alive


def test_an_owner_elsewhere_is_taken_to_live() -> None:
    assert ProcessIdentity("elsewhere", "00000000", 1, 1).alive
    assert replace(this_process(), place="00000000", started=1).alive


def test_owners_are_read_back_from_file_names() -> None:
    assert parse_identity(str(this_process())) == this_process()
    assert parse_identity("a.b.c") is None


def test_the_disk_is_told_before_and_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def told(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        seen.append("folder" if path == folder else "file" if path.name.startswith(".a.txt") else str(path))
        fsync(handle)

    def renamed(path: Path, target: Path) -> Path:
        seen.append("rename")
        return rename(path, target)

    folder = tmp_path / "new"
    monkeypatch.setattr(os, "fsync", told)
    monkeypatch.setattr(Path, "replace", renamed)
    write_text(folder / "a.txt", "x")
    assert seen == [str(tmp_path), "file", "rename", "folder"]


def test_what_the_disk_refuses_at_the_flush_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("swap", [True, False])
def test_folders_change_places(tmp_path: Path, swap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not swap:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    target = tmp_path / "a.zarr"
    for text in ("one", "two"):
        with atomic_path(target) as temporary:
            temporary.mkdir()
            (temporary / "x").write_text(text)
    assert (target / "x").read_text() == "two"
    assert list(tmp_path.iterdir()) == [target]


def test_a_living_writer_between_its_two_renames_is_waited_for(tmp_path: Path) -> None:
    target, process = tmp_path / "a.zarr", sleeper()
    aside = tmp_path / f".a.zarr.0.{owner_of(process.pid)}.old"
    aside.mkdir()
    (aside / "old").touch()

    def finish() -> None:
        target.mkdir()

    timer = threading.Timer(0.2, finish)
    timer.start()
    recover(target)
    process.kill()
    process.wait()
    assert target.is_dir()
    assert aside.is_dir()  # its owner's to remove


def test_only_siblings_of_the_dead_are_swept(tmp_path: Path) -> None:
    process = sleeper()
    living = tmp_path / f".other.h5.0.{owner_of(process.pid)}.tmp"
    dead = tmp_path / f".other.h5.0.{replace(this_process(), started=1)}.tmp"
    far = tmp_path / f".other.h5.0.{ProcessIdentity('elsewhere', '00', 1, 1)}.tmp"
    long_ago = tmp_path / f".old.h5.0.{ProcessIdentity('elsewhere', '00', 1, 1)}.tmp"
    mine = tmp_path / ".notes.tmp"
    for path in (living, dead, far, long_ago, mine):
        path.touch()
    os.utime(long_ago, (1e9, 1e9))
    write_text(tmp_path / "a.txt", "x")
    process.kill()
    process.wait()
    assert sorted(tmp_path.iterdir()) == sorted([living, far, mine, tmp_path / "a.txt"])


@pytest.mark.parametrize("name", ["n" * 255, "ä" * 127, "a b\nc ünï [x]*?.h5", "x" * 251 + ".old"])
def test_any_name_that_the_file_system_takes_can_be_written(tmp_path: Path, name: str) -> None:
    for text in ("one", "two"):
        write_text(tmp_path / name, text)
    assert (tmp_path / name).read_text() == "two"
    assert len(list(tmp_path.iterdir())) == 1


def test_threads_of_one_process_do_not_share_a_sibling(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as one, atomic_path(tmp_path / "a") as other:
        assert one != other
        one.write_text("1")
        other.write_text("2")
    assert (tmp_path / "a").read_text() == "1"


def test_folders_above_are_made(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
