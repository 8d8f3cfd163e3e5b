"""The cache: bounded, least recently used first, whole parts only, shared by processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wsi_pipeline.cli import main
from wsi_pipeline.errors import SlideError, UsageError
from wsi_pipeline.files.addresses import parse_address
from wsi_pipeline.remote.coalesce import FIRST_BYTES, FIRST_CHUNK_BYTES, MOST_BYTES
from wsi_pipeline.remote.range_cache import RangeCache
from wsi_pipeline.remote.remote_file import RemoteFile
from wsi_pipeline.remote.servers.answer import Answer, TryAgainError
from wsi_pipeline.remote.settings import remote_settings
from wsi_pipeline.system.locks import locked


def version_of(cache: RangeCache, name: str = "a") -> Path:
    version = cache.version(f"s3://b/{name}", 10, "tag")
    assert version is not None
    return version


def test_parts_come_back_and_damaged_ones_do_not(cache: Path) -> None:
    kept = RangeCache(cache, 1 << 20)
    version = version_of(kept)
    kept.write(version, 100, b"x" * 50)
    kept.write(version, 20, b"y" * 10)
    assert kept.parts(version) == [(20, 30), (100, 150)]
    assert kept.read(version, 100, 150) == b"x" * 50
    part = version / "100-150"
    for damage in (b"", b"z" * 54, part.read_bytes()[:-1]):
        part.write_bytes(damage)
        assert kept.read(version, 100, 150) is None
        assert not part.exists()
        kept.write(version, 100, b"x" * 50)


def test_another_size_or_tag_is_another_file(cache: Path) -> None:
    kept = RangeCache(cache, 1 << 20)
    assert len({kept.version("s3://b/a", size, tag) for size in (1, 2) for tag in ("x", "y")}) == 4
    assert kept.version("s3://b/a", 1, "") is None
    assert RangeCache(cache, 0).version("s3://b/a", 1, "x") is None


def test_it_stays_below_its_limit_and_drops_what_was_used_least(cache: Path) -> None:
    kept = RangeCache(cache, 100_000)
    version = version_of(kept)
    for number in range(9):
        kept.write(version, number * 10_000, bytes(10_000))
        os.utime(version / f"{number * 10_000}-{number * 10_000 + 10_000}", (number, number))
    assert kept.read(version, 0, 10_000) is not None  # used now
    for number in range(9, 15):
        kept.write(version, number * 10_000, bytes(10_000))
    left = kept.parts(version)
    assert sum(stop - start for start, stop in left) <= 100_000
    assert (0, 10_000) in left
    assert (10_000, 20_000) not in left
    assert (140_000, 150_000) in left


def test_processes_share_it(cache: Path) -> None:
    code = (
        "import sys, random; from pathlib import Path; from wsi_pipeline.remote.range_cache import RangeCache\n"
        "kept = RangeCache(Path(sys.argv[1]), 300_000); version = kept.version('s3://b/a', 10, 'tag')\n"
        "random.seed(int(sys.argv[2]))\n"
        "for _ in range(150):\n"
        "    start = random.randrange(60) * 10_000; data = kept.read(version, start, start + 10_000)\n"
        "    assert data in (None, bytes([start // 10_000]) * 10_000)\n"
        "    data or kept.write(version, start, bytes([start // 10_000]) * 10_000)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(cache), str(seed)]) for seed in range(3)]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    total = sum(path.stat().st_size for path in cache.rglob("*-*"))
    assert total <= 300_000 * (1 + 3 / 16) + 30_000


def test_a_process_waits_for_its_turn_to_shrink(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where it waits in vain, it goes on and tries again after the next sixteenth of the limit."""
    monkeypatch.setattr("wsi_pipeline.remote.range_cache._PATIENCE_SECONDS", 0.1)
    kept = RangeCache(cache, 100_000)
    version = version_of(kept)
    with locked(cache / "lock"):
        for number in range(12):
            kept.write(version, number * 10_000, bytes(10_000))
        assert len(kept.parts(version)) == 12
    kept.write(version, 120_000, bytes(10_000))
    assert sum(stop - start for start, stop in kept.parts(version)) <= 100_000


def test_the_turn_of_another_process_is_waited_for(cache: Path) -> None:
    kept = RangeCache(cache, 100_000)
    version = version_of(kept)
    with ThreadPoolExecutor(1) as pool:
        with locked(cache / "lock"):
            writing = pool.submit(lambda: [kept.write(version, k * 10_000, bytes(10_000)) for k in range(12)])
            time.sleep(0.3)
            assert not writing.done()
        writing.result(60)
    assert sum(stop - start for start, stop in kept.parts(version)) <= 100_000


def test_a_full_disk_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    kept = RangeCache(tmp_path / "file" / "cache", 1 << 20)
    kept.write(version_of(kept), 0, b"abc")
    assert kept.parts(version_of(kept)) == []


class Memory:
    """A server of bytes that notes what it is asked; every other request fails if `shaky`."""

    def __init__(self, data: bytes, *, shaky: bool = False) -> None:
        self.data, self.shaky, self.asked = data, shaky, list[tuple[int, int]]()

    def get(self, start: int, stop: int, tag: str = "") -> Answer:
        self.asked.append((start, stop))
        if self.shaky and len(self.asked) % 2:
            raise TryAgainError("HTTP 503")
        return Answer(self.data[start:stop], len(self.data), '"1"')

    def whole(self, write: object) -> str:
        raise AssertionError


def test_threads_and_reading_ahead_give_the_right_bytes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setenv("WSI_PIPELINE_CACHE_GB", "0")
    data = os.urandom(3 << 20)
    server = Memory(data, shaky=True)
    file = RemoteFile(parse_address("s3://b/a.svs"), server=server)
    ranges = [(at, at + 3000) for at in range(16 << 10, (3 << 20) - 3000, 3000)]
    file.read_ahead(ranges)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda part: file.read(part[0], part[1] - part[0]), ranges))
    assert found == [data[start:stop] for start, stop in ranges]
    # A thousand ranges in a few requests: the head, short ones at the beginning, the rest.
    assert len(set(server.asked)) <= 3 + FIRST_CHUNK_BYTES // FIRST_BYTES + (1 << 20) // MOST_BYTES
    assert file.read(len(data) - 10, 100) == data[-10:]
    assert file.read(len(data) + 5, 100) == b""
    file.close()
    with pytest.raises(SlideError, match="closed"):
        file.read(0, 10)


def test_settings_that_are_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSI_PIPELINE_CACHE_GB", "much")
    with pytest.raises(UsageError, match="WSI_PIPELINE_CACHE_GB must be a number from 0 on, got 'much'"):
        remote_settings()


def test_a_run_folder_is_on_this_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path\na.svs\n")
    assert main(["tile", str(tmp_path / "a.csv"), "--run", "s3://bucket/run"]) == 2
    assert "--run must be a folder of this machine, got s3://bucket/run" in capsys.readouterr().err
