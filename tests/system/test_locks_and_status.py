"""Locks exclude, go stale with their holder, and are given back; status files survive damage."""

from __future__ import annotations

import errno
import itertools
import json
import math
import multiprocessing
import os
import threading
import time
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from wsi_pipeline.cohort.slide_status import StageStatus, read_status, record_status
from wsi_pipeline.system.atomic import create_text
from wsi_pipeline.system.isolate import obey_parent
from wsi_pipeline.system.locks import STALE_SECONDS, LockedError, clear_stale, locked
from wsi_pipeline.system.process_identity import ProcessIdentity, this_process


def test_a_held_lock_is_refused_and_a_released_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "a.lock"
    with locked(path), pytest.raises(LockedError), locked(path):
        pass
    assert not path.exists()
    with locked(path):
        pass


def _hold_and_die(path: Path) -> None:
    with locked(path):
        os._exit(9)


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    process = multiprocessing.get_context("spawn").Process(target=_hold_and_die, args=(path,))
    process.start()
    process.join()
    assert path.exists()
    with locked(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_reused_process_number_is_not_mistaken_for_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.write_text(json.dumps(asdict(replace(this_process(), started=1))))
    with locked(path):
        pass


@pytest.mark.parametrize(("host", "place"), [("elsewhere", ""), (this_process().host, "0badb007")])
def test_the_lock_of_another_host_or_container_is_kept_until_it_is_long_untouched(
    tmp_path: Path, host: str, place: str
) -> None:
    path = tmp_path / "a.lock"
    path.write_text(json.dumps(asdict(ProcessIdentity(host, place or this_process().place, 1, 1))))
    with pytest.raises(LockedError), locked(path):
        pass
    past = time.time() - STALE_SECONDS - 1
    os.utime(path, (past, past))
    with locked(path):
        pass


def test_a_lock_cut_off_while_it_was_written_goes_stale(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.write_text("{")
    with pytest.raises(LockedError), locked(path):
        pass
    past = time.time() - 6
    os.utime(path, (past, past))
    with locked(path):
        pass


def test_a_lock_says_who_holds_it_since_when(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with locked(path):
        facts = json.loads(path.read_text())
        assert (facts["host"], facts["pid"]) == (this_process().host, os.getpid())
        assert datetime.fromisoformat(facts["time"]).tzinfo is not None
    assert not path.exists()


def test_a_lock_that_was_taken_over_is_not_taken_from_its_new_holder(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with locked(path):
        path.write_text(json.dumps({**asdict(this_process()), "token": "of another"}))
    assert path.exists()


def test_only_the_lock_stays_where_locks_were_stolen(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.write_text(json.dumps(asdict(ProcessIdentity("elsewhere", "0", 1, 1))))
    past = time.time() - STALE_SECONDS - 1
    os.utime(path, (past, past))
    with locked(path):
        assert list(tmp_path.iterdir()) == [path]
    assert list(tmp_path.iterdir()) == []


def test_locks_of_the_dead_are_cleared_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead, far = tmp_path / "tile" / "a.lock", tmp_path / "tile" / "b.lock"
    with locked(tmp_path / "embed" / "c.lock"):
        dead.parent.mkdir()
        dead.write_text(json.dumps(asdict(replace(this_process(), started=1))))
        far.write_text(json.dumps(asdict(ProcessIdentity("elsewhere", "0", 1, 1))))
        clear_stale(tmp_path)
        assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["b.lock", "c.lock"]


def test_a_turn_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with locked(path):
        waiter = threading.Thread(target=lambda: _once(path))
        waiter.start()
        time.sleep(0.1)
        assert waiter.is_alive()
    waiter.join(300)
    assert not waiter.is_alive()


def _once(path: Path) -> None:
    with locked(path, math.inf):
        pass


def _count(path: Path, tally: Path, times: int) -> None:
    done = 0
    while done < times:
        try:
            with locked(path):
                number = int(tally.read_text())
                time.sleep(0.001)
                tally.write_text(str(number + 1))
                done += 1
        except LockedError:
            time.sleep(0.001)


def test_two_processes_never_hold_it_together(tmp_path: Path) -> None:
    tally = tmp_path / "tally"
    tally.write_text("0")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count, args=(tmp_path / "a.lock", tally, 25)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert tally.read_text() == "50"


def _take_many(folder: Path, ready: Any) -> None:
    obey_parent()
    for number in itertools.count():
        with locked(folder / f"{number % 7}.lock"):
            pass
        ready.set()


def _end_many(folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    for number in range(120):
        place, ready = folder / str(number), context.Event()
        process = context.Process(target=_take_many, args=(place, ready))
        process.start()
        ready.wait()
        time.sleep(0.00005 * number)
        process.terminate()
        process.join(300)
        assert process.exitcode == 143
        assert list(place.iterdir()) == []


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes are forked")
def test_a_process_that_is_told_to_end_leaves_no_lock_whenever_it_is_told(tmp_path: Path) -> None:
    """In a small process: a fork of the one that tests share takes a tenth of a second, whatever else it does."""
    process = multiprocessing.get_context("spawn").Process(target=_end_many, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert len(list(tmp_path.iterdir())) == 120


@pytest.mark.parametrize("links", [True, False])
def test_a_file_is_made_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    path = tmp_path / "a"
    assert [create_text(path, "one"), create_text(path, "two")] == [True, False]
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def _no_links(*args: object) -> None:
    raise OSError(errno.EPERM, "no hard links here")


def test_status_keeps_all_stages_and_tells_of_the_first_failure(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    record_status(path, "s", "segment", StageStatus("done", digest="d"))
    record_status(path, "s", "tile", StageStatus("failed", "no luck", "try again", traceback="Traceback ..."))
    record_status(path, "s", "embed/x", StageStatus("failed", "nothing to embed"))
    document = json.loads(path.read_text())
    assert (document["state"], document["stage"], document["reason"]) == ("failed", "tile", "no luck")
    assert document["traceback"] == "Traceback ..."
    assert list(document["stages"]) == ["segment", "tile", "embed/x"]
    record_status(path, "s", "tile", StageStatus("done"))
    record_status(path, "s", "embed/x", StageStatus("done"))
    assert json.loads(path.read_text())["state"] == "done"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stages": 3}', '{"stages": {"tile": {"odd": 1}}}'])
def test_a_damaged_status_file_reads_as_nothing_done(tmp_path: Path, content: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(content)
    assert read_status(path, "s").stages == {}


def test_secrets_do_not_reach_a_status_file(tmp_path: Path) -> None:
    token = "hf_" + "a1b2c3d4e5f6"
    failed = StageStatus("failed", f"refused with {token}", traceback=f"Authorization: Bearer {token}")
    record_status(tmp_path / "s.json", "s", "embed", failed)
    written = (tmp_path / "s.json").read_text()
    assert token not in written
    assert written.count("[redacted]") == 4  # reason and traceback, of the slide and of the stage
