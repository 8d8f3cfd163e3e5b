"""Stores and feature files in S3: as local copies; faults by name; keys nowhere in what is written or shown."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsi_pipeline as wp
from tests.exchange import foreign_files as files
from tests.remote.conftest import KEY, SECRET, make_runs
from wsi_pipeline.cli import main
from wsi_pipeline.errors import StoreError, UsageError
from wsi_pipeline.files.addresses import slide_path
from wsi_pipeline.store.files import amend_store, create_store, open_store
from wsi_pipeline.store.tables.patch_table import read_patch_table

pytest.importorskip("s3fs", reason="needs the extra: pip install 'wsi-pipeline[remote]'")
pytest.importorskip("moto.server", reason="needs moto[s3], flask and flask-cors (extra dev)")

STORES = ("hdf5/embed/colour/s0.h5", "zarr/embed/colour/s0.zarr")
QUICK = ("--folds", "2", "--epochs", "2", "--bootstrap", "100", "--allow-few")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs of the same slide: `hdf5` and `zarr`."""
    return make_runs(tmp_path_factory.mktemp("s3-stores"), 1)


@pytest.fixture
def stored(bucket: Any, folder: Path, request: pytest.FixtureRequest) -> Any:
    """The bucket with both runs in it, or with that whose store is the test's parameter `name`."""
    name = request.node.callspec.params.get("name")
    for run in [name.partition("/")[0]] if name else ["hdf5", "zarr"]:
        for path in sorted((folder / run).rglob("*")):
            if path.is_file():
                bucket.upload_file(str(path), "slides", path.relative_to(folder).as_posix())
    return bucket


class _Unreliable(BaseHTTPRequestHandler):
    """Hands requests on to the S3 server; every tenth is cut in the middle of its answer."""

    protocol_version = "HTTP/1.1"
    target, count, dropped = ("", 0), 0, 0
    lock = threading.Lock()

    def log_message(self, *args: object) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        """Any request without a body."""
        with self.lock:
            type(self).count += 1
            cut = self.count % 10 == 0
        onward = HTTPConnection(*self.target, timeout=20)
        onward.request(self.command, self.path, headers=dict(self.headers.items()))
        answer = onward.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "server", "date"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            type(self).dropped += 1
            self.close_connection = True

    def do_HEAD(self) -> None:
        """As GET; the answer has no body."""
        self.do_GET()


@contextmanager
def unreliable(endpoint: str) -> Iterator[str]:
    host, port = endpoint.removeprefix("http://").split(":")
    handler = type("Handler", (_Unreliable,), {"target": (host, int(port))})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
        assert handler.dropped > 0, "no answer was cut: the test tested nothing"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("name", STORES)
def test_features_and_patches_are_those_of_a_local_store(name: str, folder: Path) -> None:
    remote, local = wp.read_features(f"s3://slides/{name}"), wp.read_features(folder / name)
    assert remote.header == local.header
    np.testing.assert_array_equal(remote.features, local.features)
    patches = name.replace("embed/colour", "tile")
    one, other = read_patch_table(f"s3://slides/{patches}"), read_patch_table(folder / patches)
    np.testing.assert_array_equal(one.grid.coords, other.grid.coords)
    assert (one.geometry, one.pixels) == (other.geometry, "jpeg")


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("name", STORES)
def test_a_server_that_drops_every_tenth_request_loses_nothing(
    name: str, folder: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    with unreliable(endpoint) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        s3fs.S3FileSystem.clear_instance_cache()
        for kind in ("embed/colour", "tile", "segment"):
            where = name.replace("embed/colour", kind)
            for slide in ("s0", "s1"):
                path = where.replace("s0", slide)
                with open_store(f"s3://slides/{path}") as remote:
                    remote.verify()
        remote_features = wp.read_features(f"s3://slides/{name}").features
    np.testing.assert_array_equal(remote_features, wp.read_features(folder / name).features)


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("name", STORES)
def test_a_missing_store_and_a_missing_bucket_are_named(name: str) -> None:
    for address in (f"s3://slides/{name.replace('s0', 'nobody')}", f"s3://no-such-bucket/{name}"):
        with pytest.raises(StoreError, match=rf"not there \(HTTP 404\): {address}"):
            wp.read_features(address)


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("name", STORES)
def test_a_wrong_key_is_named_and_not_shown(name: str, endpoint: str) -> None:
    import requests

    requests.post(f"{endpoint}/moto-api/reset-auth", data="0", timeout=10)
    try:
        with pytest.raises(StoreError, match=rf"access denied \(HTTP 403\): s3://slides/{name}") as caught:
            wp.read_features(f"s3://slides/{name}")
    finally:
        requests.post(f"{endpoint}/moto-api/reset-auth", data="1000000", timeout=10)
    told = str(caught.value) + repr(caught.value.__cause__) + (caught.value.todo or "")
    assert SECRET not in told
    assert KEY not in told


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_writing_is_refused_by_name(suffix: str, stored: Any, capsys: pytest.CaptureFixture[str]) -> None:
    before = {item["Key"]: item["ETag"] for item in stored.list_objects_v2(Bucket="slides")["Contents"]}
    assert main(["status", "--run", "s3://slides/run"]) == 2
    assert "--run must be a folder of this machine, got s3://slides/run" in capsys.readouterr().err
    with pytest.raises(UsageError, match="a run must be a folder of this machine, got s3://slides/hdf5"):
        wp.open_run("s3://slides/hdf5")
    assert main(["status", "--run", "https://me:my-password@127.0.0.1:9/run?token=my-token"]) == 2
    said = capsys.readouterr().err
    assert "got https://127.0.0.1:9/run" in said
    assert "my-" not in said
    assert main(["status", "--run", "s3://slides"]) == 2
    assert "got s3://slides" in capsys.readouterr().err
    address = slide_path(f"s3://slides/new{suffix}")
    with (
        pytest.raises(StoreError, match="stores are not written to an address: s3://slides/new"),
        create_store(address),
    ):
        pass
    existing = slide_path(f"s3://slides/{STORES[suffix == '.zarr']}")
    with pytest.raises(StoreError, match="stores are not written to an address: s3://slides/"), amend_store(existing):
        pass
    assert before == {item["Key"]: item["ETag"] for item in stored.list_objects_v2(Bucket="slides")["Contents"]}


def test_training_from_s3_shows_no_key(bucket: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Features of another tool; the predictions of local files, and the key in no file, message or table."""
    local = tmp_path / "served" / "features_uni_v1"
    for number in range(8):
        rows = files.features_of(9 + number, 8, number, signal=4.0 * (number % 2))
        path = files.trident(local / f"s{number}.h5", rows[None], files.coords_of(9 + number)[None])
        bucket.upload_file(str(path), "slides", f"features_uni_v1/s{number}.h5")
    labels = files.labels_csv(tmp_path / "labels.csv", [(f"p{k}", f"s{k}.svs", "ab"[k % 2]) for k in range(9)])
    words = ["train-mil", "--labels", str(labels), "--encoder", "uni_v1", *QUICK]
    for name, source in (("remote", "s3://slides/features_uni_v1"), ("local", str(local))):
        run = ["--run", str(tmp_path / name)]
        for command in ([*words, "--features-from", source, *run], ["report", *run], ["status", *run]):
            assert main(command) in (0, 3)
    shown = "".join(capfd.readouterr())
    assert "1 slide without a file at s3://slides/features_uni_v1" in shown
    one, other = (tmp_path / name / "train-mil/uni_v1/gated-abmil/predictions.csv" for name in ("remote", "local"))
    assert one.read_bytes() == other.read_bytes()
    written = [path for path in (tmp_path / "remote").rglob("*") if path.is_file()]
    assert {"report.html", "run.log"} <= {path.name for path in written}
    for secret in (SECRET, KEY):
        assert secret not in shown
        assert not [path for path in written if secret.encode() in path.read_bytes()]
