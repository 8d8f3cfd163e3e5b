"""Slides on a web server: read as local copies are, in few bytes, through failures, with every fault named."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from benchmarks.range_server import Behaviour, RangeServer, serving
from tests.slide_files import tissue_like, write_generic_tiff, write_pyramid_tiff
from tests.slides.jpeg_tiffs import Dialect, write_jpeg_tiff
from wsi_pipeline.cli import main
from wsi_pipeline.errors import MissingSlideError, SlideError
from wsi_pipeline.files.addresses import slide_path
from wsi_pipeline.reading.patch_reader import PatchReader, SlidePatches
from wsi_pipeline.remote.remote_file import HEAD_BYTES
from wsi_pipeline.remote.traffic import Traffic, traffic
from wsi_pipeline.slides.inspect.identity import quick_digest, size_in_bytes
from wsi_pipeline.slides.inspect.preflight import file_facts
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.tiling.resolve import PatchGeometry

pytest.importorskip("aiohttp", reason="needs the extra: pip install 'wsi-pipeline[remote]'")

SLIDE = tissue_like(2100, 1700)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the server has: an Aperio-like pyramid of JPEG tiles."""
    made = tmp_path / "served"
    made.mkdir()
    write_pyramid_tiff(made / "a.svs", SLIDE, mpp=0.5, levels=(1, 4))
    return made


@pytest.fixture
def server(folder: Path) -> Iterator[RangeServer]:
    with serving(folder) as running:
        yield running


def same_everywhere(one: Slide, other: Slide) -> None:
    """Both slides state the same and have the same pixels, on and beside the borders of tiles."""
    assert one.info == other.info
    for level, known in enumerate(other.info.levels):
        boxes = [(0, 0, 256, 256), (known.size.width // 3, known.size.height // 3, 300, 200)]
        boxes.append((known.size.width - 70, known.size.height - 60, 100, 100))
        for x, y, width, height in boxes:
            place = (round(x * known.downsample), round(y * known.downsample), level, width, height)
            np.testing.assert_array_equal(one.read_region(*place), other.read_region(*place))


def write_kind(folder: Path, kind: str) -> Path:
    """One of the kinds of TIFF files that our own readers read."""
    if kind == "jpeg":
        return write_pyramid_tiff(folder / "s.svs", SLIDE, mpp=0.5, levels=(1, 4))
    if kind == "bigtiff":
        return write_pyramid_tiff(folder / "s.svs", SLIDE, mpp=0.5, levels=(1, 2, 8), bigtiff=True)
    if kind == "jpeg2000":
        return write_pyramid_tiff(folder / "s.svs", SLIDE, mpp=0.5, compression="jpeg2000")
    if kind in ("lzw", "deflate", "none"):
        return write_pyramid_tiff(folder / "s.svs", SLIDE, mpp=0.5, compression=kind, levels=(1, 4))
    if kind == "webp":  # read by tiffslide
        return write_pyramid_tiff(folder / "s.svs", SLIDE, mpp=0.5, compression="webp")
    if kind == "tables":
        return write_jpeg_tiff(folder / "s.tif", SLIDE, Dialect(tables=True))
    return write_generic_tiff(folder / "s.tif", SLIDE, mpp=0.5)


@pytest.mark.parametrize("kind", ["jpeg", "bigtiff", "jpeg2000", "webp", "tables", "lzw", "deflate", "none"])
def test_it_reads_as_a_local_copy_does(folder: Path, server: RangeServer, kind: str) -> None:
    path = write_kind(folder, kind)
    address = slide_path(f"{server.address}/{path.name}")
    with open_slide(address) as remote, open_slide(path) as local:
        same_everywhere(remote, local)
        assert remote.name == path.name
    assert file_facts(address) == file_facts(path)
    assert quick_digest(address) == quick_digest(path)
    assert size_in_bytes(address) == path.stat().st_size


def test_a_slide_of_a_gigabyte_is_opened_by_its_directories(folder: Path, server: RangeServer) -> None:
    """Not compressed, in a sparse file; no other copy is read to compare with it."""
    path, side, patch = folder / "large.tif", 19_200, SLIDE[:256, :256]
    tifffile.imwrite(
        path, None, shape=(side, side, 3), dtype=np.uint8, tile=(256, 256), photometric="rgb", bigtiff=True
    )
    with tifffile.TiffFile(path) as tiff, path.open("r+b") as file:
        file.seek(tiff.pages.first.dataoffsets[5000])
        file.write(patch.tobytes())
    assert path.stat().st_size > 1 << 30
    before = traffic()
    with open_slide(f"{server.address}/large.tif") as slide:
        opened = traffic() - before
        y, x = (256 * number for number in divmod(5000, side // 256))
        np.testing.assert_array_equal(slide.read_region(x, y, 0, 256, 256), patch)
    first = traffic() - before - opened
    assert opened.nbytes < 2_000_000  # its directory and the tiles that are compared with OpenSlide
    assert (first.nbytes, first.requests) == (patch.nbytes, 1)


def test_bytes_are_those_of_the_tiles_needed(folder: Path, server: RangeServer) -> None:
    path = write_pyramid_tiff(folder / "big.svs", tissue_like(6000, 5000), mpp=0.5, tile=240)
    with open_slide(path) as local:
        tiles = local.tiles(0)
        assert tiles is not None
        every = int(tiles.counts.sum())
        whole = path.stat().st_size
    before = traffic()
    with open_slide(f"{server.address}/big.svs") as slide:
        opened = traffic() - before
        assert opened.nbytes < 0.05 * whole
        x, y = (grid.ravel() for grid in np.meshgrid(np.arange(0, 5760, 256), np.arange(0, 4864, 256)))
        coords = np.stack([x, y], axis=1).astype(np.int64)
        source = SlidePatches(slide, coords, PatchGeometry(256, 256, 256, 0, 256, 0.5, resampled=False))
        rows = sum(len(batch) for _, batch in PatchReader(source, 32))
    read = traffic() - before
    assert rows == len(coords)
    assert read.nbytes <= 1.1 * every + opened.nbytes
    assert read.requests < len(tiles.counts) / 4
    assert server.sent == read.nbytes


def test_by_columns_it_reads_each_tile_once_too(folder: Path, server: RangeServer) -> None:
    before = traffic()
    with open_slide(f"{server.address}/a.svs") as slide:
        for x in range(0, 1792, 256):
            for y in range(0, 1536, 256):
                slide.read_region(x, y, 0, 256, 256)
    assert (traffic() - before).nbytes < 1.1 * (folder / "a.svs").stat().st_size


def test_a_second_time_it_comes_from_the_cache(server: RangeServer) -> None:
    with open_slide(f"{server.address}/a.svs") as slide:
        first = slide.read_region(0, 0, 0, 1024, 1024)
    sent, before = server.sent, traffic()
    with open_slide(f"{server.address}/a.svs") as slide:
        np.testing.assert_array_equal(slide.read_region(0, 0, 0, 1024, 1024), first)
    assert server.sent - sent <= HEAD_BYTES  # the size and the tag
    assert (traffic() - before).cached > 50_000


def test_a_server_that_drops_every_tenth_request(folder: Path, server: RangeServer) -> None:
    server.behaviour.drop_every = 10
    server.behaviour.fail_every = 7
    with open_slide(f"{server.address}/a.svs") as remote, open_slide(folder / "a.svs") as local:
        same_everywhere(remote, local)
        for y in range(0, 1700, 256):
            np.testing.assert_array_equal(remote.read_region(0, y, 0, 2100, 256), local.read_region(0, y, 0, 2100, 256))
    assert server.requests > 20


def test_a_server_that_never_answers_is_named(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSI_PIPELINE_RETRY_SECONDS", "1")
    server.behaviour.fail_every = 1
    with pytest.raises(SlideError, match=r"HTTP 503, \d+ times in \d s: http://127") as caught:
        open_slide(f"{server.address}/a.svs")
    assert "WSI_PIPELINE_RETRY_SECONDS" in (caught.value.todo or "")
    assert server.requests >= 3


def test_a_server_that_stays_silent_is_waited_for_less_and_less(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSI_PIPELINE_RETRY_SECONDS", "5")
    monkeypatch.setattr("wsi_pipeline.remote.retry.LEAST_SECONDS", 0.2)
    monkeypatch.setattr("wsi_pipeline.remote.retry.random.uniform", lambda low, high: 1.0)
    slept: list[float] = []
    now = [0.0]
    monkeypatch.setattr("wsi_pipeline.remote.retry.time.monotonic", lambda: now[0])

    def sleep(pause: float) -> None:
        slept[-1] += pause
        now[0] += pause

    monkeypatch.setattr("wsi_pipeline.remote.retry.time.sleep", sleep)
    server.behaviour.fail_every = 1
    for number in range(6):
        slept.append(0.0)
        with pytest.raises(SlideError, match="HTTP 503"):
            open_slide(f"{server.address}/{number}.svs")
    limits = [5, 2.5, 1.25, 0.625, 0.3125, 0.2]
    assert all(waited <= limit for waited, limit in zip(slept, limits, strict=True))
    assert slept[0] > 2.5  # the first is waited for as long as asked
    server.behaviour.fail_every = 0
    with open_slide(f"{server.address}/a.svs"):
        pass
    server.behaviour.fail_every, slept[-1] = 1, 0.0
    with pytest.raises(SlideError, match="HTTP 503"):
        open_slide(f"{server.address}/a.svs")
    assert slept[-1] > 2.5  # it had answered


def test_a_slide_that_changes_is_named_and_nothing_is_mixed(folder: Path, server: RangeServer) -> None:
    with open_slide(f"{server.address}/a.svs") as slide:
        slide.read_region(0, 0, 0, 256, 256)
        write_pyramid_tiff(folder / "a.svs", 255 - SLIDE, mpp=0.5, levels=(1, 4))
        with pytest.raises(SlideError, match="the slide changed while it was read: http"):
            slide.read_region(1024, 1024, 0, 600, 600)
        with pytest.raises(SlideError, match="changed"):  # what was read before is not given out either
            slide.read_region(1024, 0, 0, 256, 256)
    with open_slide(f"{server.address}/a.svs") as slide, open_slide(folder / "a.svs") as local:
        same_everywhere(slide, local)


def test_without_a_tag_nothing_is_kept(folder: Path, server: RangeServer, cache: Path) -> None:
    server.behaviour.tags = False
    with open_slide(f"{server.address}/a.svs") as slide, open_slide(folder / "a.svs") as local:
        same_everywhere(slide, local)
    assert not list(cache.rglob("*-*"))


@pytest.mark.parametrize(
    ("behaviour", "name", "what"),
    [
        (Behaviour(password="me:right"), "a.svs", r"access denied \(HTTP 401\): http"),
        (Behaviour(signature="k=1"), "a.svs", r"access denied \(HTTP 403\): http"),
        (Behaviour(), "b.svs", r"not there \(HTTP 404\): http.*/b\.svs"),
        (Behaviour(ranges=False), "a.svs", r"the server does not send parts of files \(1\.\d MB\): http"),
    ],
)
def test_refusals(server: RangeServer, behaviour: Behaviour, name: str, what: str) -> None:
    server.behaviour = behaviour
    with pytest.raises(SlideError, match=what) as caught:
        open_slide(f"{server.address}/{name}")
    assert caught.value.todo
    assert isinstance(caught.value, MissingSlideError) == ("404" in what)
    with pytest.raises(SlideError, match=what):
        quick_digest(slide_path(f"{server.address}/{name}"))


def test_passwords_and_signatures_are_sent(folder: Path, server: RangeServer) -> None:
    server.behaviour = Behaviour(password="me:secret-word", signature="X-Sig=abc%2Fdef&e=1")
    port = server.server_port
    with open_slide(f"http://me:secret-word@127.0.0.1:{port}/a.svs?X-Sig=abc%2Fdef&e=1") as slide:
        assert slide.info.size.width == 2100
        assert "secret-word" not in repr(slide) + str(slide.path)


def test_a_file_fetched_whole_where_that_is_allowed(
    folder: Path, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSI_PIPELINE_WHOLE_GB", "0.01")
    server.behaviour.ranges = False
    with open_slide(f"{server.address}/a.svs") as remote, open_slide(folder / "a.svs") as local:
        same_everywhere(remote, local)
    before = traffic()
    assert quick_digest(slide_path(f"{server.address}/a.svs")) == quick_digest(folder / "a.svs")
    with open_slide(f"{server.address}/a.svs"):
        pass
    assert (traffic() - before).nbytes == 0  # it was not fetched again
    assert (traffic() - before).cached > 0


def test_what_only_openslide_reads(folder: Path, server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pyramid_tiff(folder / "packbits.svs", SLIDE, mpp=0.5, compression="packbits")
    with pytest.raises(SlideError, match=r"only OpenSlide reads it \(.*\), and it opens no address") as caught:
        open_slide(f"{server.address}/packbits.svs")
    assert "export WSI_PIPELINE_WHOLE_GB=1" in (caught.value.todo or "")
    monkeypatch.setenv("WSI_PIPELINE_WHOLE_GB", "1")
    with open_slide(f"{server.address}/packbits.svs") as remote, open_slide(path) as local:
        same_everywhere(remote, local)
        assert str(remote.path) == f"{server.address}/packbits.svs"


@pytest.mark.parametrize("name", ["a.mrxs", "a.vms", "a.dcm"])
def test_slides_of_several_files_are_refused_unasked(server: RangeServer, name: str) -> None:
    with pytest.raises(SlideError, match="consist of several files, which are not read from an address") as caught:
        open_slide(f"{server.address}/{name}")
    assert "Copy the slide with all its files" in (caught.value.todo or "")
    assert server.requests == 0


@pytest.mark.parametrize(
    ("content", "what"), [(b"", "empty file"), (b"II*\0", "truncated TIFF"), (b"hello", "not a TIFF")]
)
def test_files_that_are_no_slides(folder: Path, server: RangeServer, content: bytes, what: str) -> None:
    (folder / "x.svs").write_bytes(content)
    with pytest.raises(SlideError, match=what):
        open_slide(f"{server.address}/x.svs")


def test_a_truncated_slide_is_told_as_a_local_one_is(folder: Path, server: RangeServer) -> None:
    data = (folder / "a.svs").read_bytes()
    (folder / "cut.svs").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(SlideError) as remote:
        open_slide(f"{server.address}/cut.svs")
    with pytest.raises(SlideError) as local:
        open_slide(folder / "cut.svs")
    assert remote.value.what == local.value.what


def test_stores_equal_those_of_local_slides(
    folder: Path, server: RangeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.behaviour = Behaviour(signature="sig=0123456789abcdef", drop_every=10)
    shutil.copy(folder / "a.svs", folder / "b.svs")
    write_pyramid_tiff(folder / "b.svs", tissue_like(2100, 1700, seed=3), mpp=0.5, levels=(1, 4))
    for where, start, end in (("remote", f"{server.address}/", "?sig=0123456789abcdef"), ("local", f"{folder}/", "")):
        rows = "".join(f"{start}{name}{end}\n" for name in ("a.svs", "b.svs", "gone.svs"))
        (tmp_path / f"{where}.csv").write_text(f"path\n{rows}")
        run = ["--run", str(tmp_path / where), "--workers", "0"]
        assert main(["tile", str(tmp_path / f"{where}.csv"), *run]) == 3
        assert main(["tile", str(tmp_path / f"{where}.csv"), *run]) == 3  # nothing to do
        assert main(["embed", "--model", "colour", "--run", str(tmp_path / where)]) == 3
    shown = capsys.readouterr()
    assert "not there (HTTP 404)" in shown.out
    for store in sorted((tmp_path / "local").rglob("*.h5")):
        with h5py.File(store) as one, h5py.File(tmp_path / "remote" / store.relative_to(tmp_path / "local")) as other:
            assert set(one) == set(other)
            assert {key: str(value) for key, value in one.attrs.items()} == {
                key: str(value) for key, value in other.attrs.items()
            }
            for key in one:
                np.testing.assert_array_equal(one[key][...], other[key][...])
    written = [path for path in (tmp_path / "remote").rglob("*") if path.is_file()]
    assert len(written) > 8
    assert not [path for path in written if b"0123456789abcdef" in path.read_bytes()]
    assert "0123456789abcdef" not in shown.out + shown.err


def test_closing_ends_the_reading(server: RangeServer) -> None:
    with closing(open_slide(f"{server.address}/a.svs")) as slide:
        pass
    with pytest.raises(SlideError, match="closed"):
        slide.read_region(0, 0, 0, 256, 256)
    assert traffic() - traffic() == Traffic()


def test_a_slide_without_a_small_level_is_read_once(
    folder: Path, server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSI_PIPELINE_CACHE_GB", "0")  # so that nothing hides what is read twice
    path = write_pyramid_tiff(folder / "flat.svs", tissue_like(4000, 3000), mpp=0.5, levels=(1,))
    (tmp_path / "flat.csv").write_text(f"path\n{server.address}/flat.svs\n")
    before, digests = traffic(), 3 * (384 << 10)
    assert main(["tile", str(tmp_path / "flat.csv"), "--run", str(tmp_path / "run"), "--workers", "0"]) == 0
    assert (traffic() - before).nbytes <= 1.1 * path.stat().st_size + digests
