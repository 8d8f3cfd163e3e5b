"""What a cohort meets on real disks: each costs the slide it befalls, with a reason, and leaves the stores whole."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.slide_files import write_pyramid_tiff
from tests.stages.cohorts import blob_slide
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.cohort.slide_status import read_status
from wsi_pipeline.config.specs import SegmentSpec, TileSpec
from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.stages import segment, tile
from wsi_pipeline.stages.engine import open_once
from wsi_pipeline.stages.engine.guards import identity_of
from wsi_pipeline.stages.engine.runner import run_cohort
from wsi_pipeline.store.files import open_store

PROGRAM = [sys.executable, "-m", "wsi_pipeline"]
ROOT = Path(__file__).parents[2]
_STARTS = "import wsi_pipeline.cli, numpy, h5py, openslide"
TILE = ["--patch-px", "64", "--workers", "0"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    for number in (0, 1):
        write_pyramid_tiff(folder / f"s{number}.svs", blob_slide(number, side=512), mpp=0.5)
    return manifest(folder / "slides.csv", {f"s{number}": folder / f"s{number}.svs" for number in (0, 1)})


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may reach and write in: those of pytest are its own user's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def manifest(path: Path, slides: dict[str, Path]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("slide_id", "path"), *slides.items()])
    return path


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A mount at `folder`; skips where this process may not mount."""
    folder.mkdir(exist_ok=True)
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", *options, str(folder)], capture_output=True).returncode
    ):
        pytest.skip("file systems cannot be mounted here (needs root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def whole(run: Path) -> list[str]:
    """Every store of a run, all of it read; raises where one is damaged."""
    found = sorted(path for suffix in (".h5", ".zarr") for path in run.rglob(f"*{suffix}") if path.name[0] != ".")
    for path in found:
        with open_store(path) as store:
            store.verify()
    return [str(path.relative_to(run)) for path in found]


def left_over(run: Path) -> list[Path]:
    return [path for path in run.rglob("*") if path.name.endswith((".tmp", ".old", ".lock", ".stolen", ".now"))]


@pytest.mark.parametrize("store", ["hdf5", "zarr"])
def test_a_full_disk_costs_slides_not_stores_and_more_room_mends_it(tmp_path: Path, cohort: Path, store: str) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=250k", "tmpfs") as disk:
        run = disk / "run"
        words = ["tile", str(cohort), "--run", str(run), "--store", store, "--pixels", "raw", *TILE]
        assert main(words) == 3
        reasons = [found.reason for s in ("s0", "s1") if (found := failed_stage(run, s))]
        assert reasons or len(whole(run)) < 4  # a status may not have found room either
        assert all("No space left on device" in reason for reason in reasons)
        whole(run)
        assert left_over(run) == []
        subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
        assert main(words) == 0
        assert len(whole(run)) == 4


def failed_stage(run: Path, slide: str):
    failed = read_status(RunDir(run).status(slide), slide).failed
    return failed[1] if failed else None


def test_a_limit_on_file_sizes_is_an_error_of_the_slide(tmp_path: Path, cohort: Path) -> None:
    run = tmp_path / "run"
    code = (
        "import resource, signal, sys; from wsi_pipeline.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        f"sys.exit(main(['tile', {str(cohort)!r}, '--run', {str(run)!r}, '--pixels', 'raw', *{TILE!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 3, done.stderr
    status = failed_stage(run, "s0")
    assert status is not None
    assert "File too large" in status.reason
    assert "ulimit -f" in status.todo
    assert not [name for name in whole(run) if name.startswith("tile/")]
    assert left_over(run) == []


def test_a_run_folder_that_cannot_be_written_is_said_once(
    tmp_path: Path, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "ro", "tmpfs") as disk:
        assert main(["tile", str(cohort), "--run", str(disk / "run"), *TILE]) == 2
    assert "Read-only file system" in capsys.readouterr().err


def test_a_stage_folder_that_cannot_be_written_costs_its_slides(tmp_path: Path, cohort: Path) -> None:
    run = tmp_path / "run"
    assert main(["segment", str(cohort), "--run", str(run), "--workers", "0"]) == 0
    with mounted(run / "tile", "-t", "tmpfs", "-o", "ro", "tmpfs"):
        assert main(["tile", str(cohort), "--run", str(run), *TILE]) == 3
        status = failed_stage(run, "s0")
        assert status is not None
        assert status.reason.startswith("Read-only file system")
        assert "--run FOLDER" in status.todo
    assert main(["tile", str(cohort), "--run", str(run), *TILE]) == 0
    assert len(whole(run)) == 4


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_permission_denied_costs_the_slide(open_folder: Path, cohort: Path) -> None:
    if os.getuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root may read everything, and setpriv is not here")
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
    if subprocess.run([*prefix, sys.executable, "-c", _STARTS], capture_output=True, cwd=ROOT).returncode:
        pytest.skip("that user may not start this Python")
    folder, run = open_folder / "cohort", open_folder / "run"
    folder.mkdir(mode=0o755)
    for number in (0, 1):
        shutil.copy(cohort.parent / f"s{number}.svs", folder)
    manifest(folder / "slides.csv", {f"s{number}": Path(f"s{number}.svs") for number in (0, 1)})
    (folder / "s0.svs").chmod(0)
    words = ["tile", str(folder / "slides.csv"), "--run", str(run), *TILE]
    done = subprocess.run([*prefix, *PROGRAM, *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 3, done.stderr
    status = failed_stage(run, "s0")
    assert status is not None
    assert "ermission denied" in status.reason
    assert whole(run) == ["segment/s1.h5", "tile/s1.h5"]


@pytest.mark.parametrize("name", ["ünïcode 切片, with space", "two\nlines [a]*?'\"$(x);&", "n" * 190])
def test_odd_folders_and_file_names_are_only_names(tmp_path: Path, cohort: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(cohort.parent / "s0.svs", folder / f"{name}.svs")
    manifest(folder / "slides.csv", {"one": Path(f"{name}.svs")})
    run = folder / "run"
    assert main(["tile", str(folder / "slides.csv"), "--run", str(run), *TILE]) == 0
    assert main(["embed", "--model", "colour", "--run", str(run)]) == 0
    assert whole(run) == ["embed/colour/one.h5", "segment/one.h5", "tile/one.h5"]
    assert left_over(run) == []


def test_a_missing_file_with_line_breaks_in_its_name_costs_one_slide(tmp_path: Path, cohort: Path) -> None:
    names = {"here": cohort.parent / "s0.svs", "gone": tmp_path / "no\nsuch\x1b[2J file.svs"}
    run = tmp_path / "run"
    assert main(["tile", str(manifest(tmp_path / "slides.csv", names)), "--run", str(run), *TILE]) == 3
    assert main(["embed", "--model", "colour", "--run", str(run)]) == 3  # the cohort is read again from the run
    assert whole(run) == ["embed/colour/here.h5", "segment/here.h5", "tile/here.h5"]


def test_a_run_folder_whose_files_get_too_long_names_is_a_reason(
    tmp_path: Path, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = tmp_path
    while len(str(deep)) < 3960:
        deep = deep / ("d" * min(200, 3970 - len(str(deep))))
    try:
        deep.mkdir(parents=True)
    except OSError:
        pytest.skip("paths of 4000 characters cannot be made here")
    csv_path = manifest(tmp_path / "slides.csv", {"s" * 150: cohort.parent / "s0.svs"})
    assert main(["tile", str(csv_path), "--run", str(deep / "run"), *TILE]) in (2, 3)
    assert "unexpected" not in capsys.readouterr().err
    shutil.rmtree(tmp_path / ("d" * 200), ignore_errors=True)


def test_links_are_followed_and_loops_and_dangling_ones_are_reasons(tmp_path: Path, cohort: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "run").symlink_to(real)
    (tmp_path / "good.svs").symlink_to(cohort.parent / "s0.svs")
    (tmp_path / "gone.svs").symlink_to(tmp_path / "nowhere.svs")
    (tmp_path / "loop.svs").symlink_to(tmp_path / "loop.svs")
    manifest(tmp_path / "slides.csv", {name: Path(f"{name}.svs") for name in ("good", "gone", "loop")})
    assert main(["tile", str(tmp_path / "slides.csv"), "--run", str(tmp_path / "run"), *TILE]) == 3
    assert whole(real) == ["segment/good.h5", "tile/good.h5"]
    for slide in ("gone", "loop"):
        status = failed_stage(real, slide)
        assert status is not None
        assert status.reason
        assert "unexpected" not in status.reason


def replaced_while(moment: str, path: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy `other` over the slide at `path` in the middle of a stage."""
    if moment == "segment":
        real = open_once.read_pictures
        monkeypatch.setattr(open_once, "read_pictures", lambda *args: (real(*args), shutil.copy(other, path))[0])
    else:
        lay = tile.lay_grid
        monkeypatch.setattr(tile, "lay_grid", lambda *args: (lay(*args), shutil.copy(other, path))[0])


@pytest.mark.parametrize("moment", ["segment", "tile"])
def test_a_slide_replaced_while_it_is_worked_on_fails_and_leaves_no_store(
    tmp_path: Path, cohort: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copy(cohort.parent / "s0.svs", tmp_path / "s.svs"))
    run = RunDir(tmp_path / "run")
    stages = [segment.SegmentStage(run, SegmentSpec()), tile.TileStage(run, TileSpec(patch_px=64, pixels="raw"))]
    with monkeypatch.context() as patch:
        replaced_while(moment, path, cohort.parent / "s1.svs", patch)
        result = run_cohort(stages, run, [SlideRecord("s", path, "s")], workers=0)
    assert result.failed[0].stage == moment
    assert "was replaced or changed" in result.failed[0].status.reason
    assert f"{moment}/s.h5" not in whole(run.root)
    result = run_cohort(stages, run, [SlideRecord("s", path, "s")], workers=0)
    assert not result.failed


def test_a_slide_replaced_between_tile_and_embed_is_not_embedded(tmp_path: Path) -> None:
    write_pyramid_tiff(tmp_path / "s.svs", blob_slide(1, side=512), mpp=0.5)
    manifest(tmp_path / "slides.csv", {"s": Path("s.svs")})
    run = tmp_path / "run"
    assert main(["tile", str(tmp_path / "slides.csv"), "--run", str(run), *TILE]) == 0
    write_pyramid_tiff(tmp_path / "s.svs", blob_slide(2, side=512), mpp=0.5)
    assert main(["embed", "--model", "colour", "--run", str(run)]) == 3
    status = failed_stage(run, "s")
    assert status is not None
    assert "was replaced or changed" in status.reason
    assert whole(run) == ["segment/s.h5", "tile/s.h5"]
    assert main(["tile", str(tmp_path / "slides.csv"), "--run", str(run), *TILE]) == 0
    assert main(["embed", "--model", "colour", "--run", str(run)]) == 0


def test_the_same_file_is_not_called_changed(cohort: Path) -> None:
    record = SlideRecord("s", cohort.parent / "s0.svs", "s")
    with open_slide(record.path) as slide:
        identity = identity_of(record, slide, segment.spacing_of(slide.info, None, None))
    segment.check_unchanged(record.path, identity)
    with pytest.raises(SlideError, match="was replaced or changed"):
        segment.check_unchanged(cohort.parent / "s1.svs", identity)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_store_is_set_aside_and_made_anew(tmp_path: Path, cohort: Path, damage: str) -> None:
    run = tmp_path / "run"
    steps = [["tile", str(cohort), "--run", str(run), *TILE], ["embed", "--model", "colour", "--run", str(run)]]
    for words in steps:
        assert main(words) == 0
    before = {name: (run / name).read_bytes() for name in whole(run)}
    for name in ("segment/s0.h5", "tile/s0.h5", "embed/colour/s0.h5"):
        data = bytearray(before[name])
        place = data.index(b"wsi-pipeline/")
        data[place] ^= 0xFF
        (run / name).write_bytes({"flip": bytes(data), "cut": before[name][:-100], "empty": b""}[damage])
        for words in steps:
            assert main(words) in (0, 3)
        for words in steps:
            assert main(words) == 0
        assert (run / f"{name}.damaged-1").exists()
    assert {name: (run / name).read_bytes() for name in whole(run)} == before


def test_damaged_rows_are_found_by_who_reads_them_and_set_aside(tmp_path: Path, cohort: Path) -> None:
    run = tmp_path / "run"
    steps = [
        ["tile", str(cohort), "--run", str(run), "--pixels", "raw", *TILE],
        ["embed", "--model", "colour", "--run", str(run)],
    ]
    assert main(steps[0]) == 0
    path = run / "tile" / "s0.h5"
    whole_bytes = path.read_bytes()
    with open_store(path) as store:
        patch = store.read("images", 3, 4).tobytes()
    data = bytearray(whole_bytes)
    data[data.index(patch[:64]) + 9] ^= 1
    path.write_bytes(data)
    assert main(steps[0]) == 0  # headers only: nothing is odd yet
    assert main(steps[1]) == 3
    status = failed_stage(run, "s0")
    assert status is not None
    assert "images" in status.reason
    assert "kept as s0.h5.damaged-1" in status.reason
    assert "wsi-pipeline tile" in status.todo
    assert main(steps[0]) == 0
    assert path.read_bytes() == whole_bytes
    assert main(steps[1]) == 0


SLIDES = 48
"""So many that no machine is done with them before it is told to end."""


def _hears_ctrl_c() -> None:
    """Tests started in the background of a shell are deaf to it, and their children with them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("sent", "code", "to_all"),
    [(signal.SIGTERM, 143, False), (signal.SIGTERM, 143, True), (signal.SIGINT, 130, True)],
)
def test_a_signal_ends_cleanly_and_the_same_command_goes_on(
    tmp_path: Path, cohort: Path, sent: signal.Signals, code: int, to_all: bool
) -> None:
    run = tmp_path / "run"
    csv_path = manifest(tmp_path / "slides.csv", {f"s{k}": cohort.parent / f"s{k % 2}.svs" for k in range(SLIDES)})
    words = ["tile", str(csv_path), "--run", str(run), "--patch-px", "64", "--workers", "2"]
    process = subprocess.Popen(
        [*PROGRAM, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=_hears_ctrl_c,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not (run / "tile" / "s1.h5").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    (os.killpg if to_all else os.kill)(process.pid, sent)
    _, said = process.communicate(timeout=300)
    assert process.returncode == code, said
    assert b"the same command continues from there" in said
    done = whole(run)
    assert 2 <= len(done) < 2 * SLIDES
    assert left_over(run) == []
    assert [s for s in (f"s{k}" for k in range(SLIDES)) if failed_stage(run, s)] == []
