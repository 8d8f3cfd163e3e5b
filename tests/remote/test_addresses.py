"""Addresses as paths: what they name, and that they never show a key."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from wsi_pipeline.cohort.manifest import read_cohort, to_csv
from wsi_pipeline.errors import ManifestError, UsageError
from wsi_pipeline.files.addresses import (
    AddressPath,
    address_name,
    is_address,
    parse_address,
    secret_address,
    shown_address,
    slide_path,
)
from wsi_pipeline.files.path_choices import split_choice, with_choice
from wsi_pipeline.system.redaction import redact

SIGNED = "https://me:pass@Host.org:8443/a/b%20c.ome.tif?X-Sig=abc/def//g#scene=1"
CLEAN = "https://host.org:8443/a/b%20c.ome.tif"


@pytest.mark.parametrize(
    ("given", "shown", "name"),
    [
        ("s3://bucket/a/x.svs", "s3://bucket/a/x.svs", "x.svs"),
        ("S3://bucket/a?b#c.svs", "s3://bucket/a?b#c.svs", "a?b#c.svs"),
        ("gcs://bucket/x.svs", "gs://bucket/x.svs", "x.svs"),
        (SIGNED, CLEAN, "b c.ome.tif"),
        ("http:/host/x.svs", "http://host/x.svs", "x.svs"),
    ],
)
def test_what_an_address_names(given: str, shown: str, name: str) -> None:
    path = parse_address(given)
    assert shown_address(path) == shown
    assert address_name(split_choice(path)[0]) == name


def test_the_key_goes_with_the_path_and_is_never_shown() -> None:
    path = parse_address(SIGNED)
    assert isinstance(path, AddressPath)
    assert str(path) == f"{CLEAN}#scene=1"
    again = pickle.loads(pickle.dumps(path))
    assert again == path
    assert hash(again) == hash(path)
    assert secret_address(again) == "https://me:pass@Host.org:8443/a/b%20c.ome.tif?X-Sig=abc/def//g"
    for text in (repr(path), str(path.parent), path.name, f"{path}"):
        assert "pass" not in text
        assert "abc" not in text


def test_a_key_reaches_another_process() -> None:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    path = parse_address("https://elsewhere.org/x.svs?key=0123")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(secret_address, path).result() == "https://elsewhere.org/x.svs?key=0123"


def test_a_path_made_of_it_is_still_an_address() -> None:
    path = Path(parse_address("s3://bucket/a/x.svs"))
    assert is_address(path)
    assert str(slide_path(path)) == "s3://bucket/a/x.svs"
    assert not path.exists()


def test_part_of_a_file() -> None:
    path = with_choice(parse_address("https://host/x.tif?key=1"), {"image": "2"})
    assert str(path) == "https://host/x.tif#scene=2"
    assert secret_address(path) == "https://host/x.tif?key=1"
    assert split_choice(path) == (parse_address("https://host/x.tif"), {"image": "2"})


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("s3://bucket", "names no file"),
        ("s3://bucket/folder/", "names no file"),
        ("s3://bucket/a//b.svs", "empty part"),
        ("https://host/../b.svs", "empty part"),
        ("s3://key:secret@bucket/b.svs", "no user, password"),
        ("s3://bucket/a\x07.svs", "control character"),
    ],
)
def test_addresses_that_cannot_be_used(tmp_path: Path, given: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_address(given)
    table = tmp_path / "m.csv"
    table.write_text(f"path\n{given}\n")
    with pytest.raises(ManifestError, match=why) as caught:
        read_cohort([table])
    assert ":secret" not in str(caught.value)
    with pytest.raises(UsageError, match=why):
        read_cohort([given])


def test_local_paths_are_none() -> None:
    for name in ("a.svs", "/data/s3/a.svs", "C:\\a.svs", "s3", "s3:", "file:///a.svs", "./http:/a", "ftp://h/a.svs"):
        assert not is_address(name), name
        assert type(slide_path(name)) is type(Path("a"))


def test_a_table_of_addresses(tmp_path: Path) -> None:
    table = tmp_path / "m.csv"
    table.write_text(
        "path,label\ns3://b/siteA/x.svs,a\ns3://b/siteB/x.svs,b\nhttps://h/d/y%201.ome.tif?sig=geheim,a\nz.svs,b\n"
    )
    cohort = read_cohort([table])
    assert [record.slide_id for record in cohort.records] == ["siteA-x", "siteB-x", "y 1", "z"]
    assert str(cohort.records[0].path) == "s3://b/siteA/x.svs"
    assert cohort.records[3].path == tmp_path / "z.svs"
    assert [note.message for note in cohort.notes if "not found" in note.message] == [
        f"file not found: {tmp_path / 'z.svs'}"
    ]
    written = to_csv(cohort)
    assert "geheim" not in written
    (tmp_path / "again.csv").write_text(written)
    again = read_cohort([tmp_path / "again.csv"])
    assert [record.path for record in again.records] == [record.path for record in cohort.records]
    assert secret_address(again.records[2].path).endswith("?sig=geheim")


def test_addresses_without_a_table() -> None:
    cohort = read_cohort(["s3://b/siteA/x.svs", "s3://b/siteB/x.svs", "gs://b/y.tif#scene=1"])
    assert [record.slide_id for record in cohort.records] == ["y_scene1", "siteA-x", "siteB-x"]


def test_two_files_that_only_their_query_tells_apart_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "m.csv"
    table.write_text("slide_id,path\na,https://h/get?file=1\nb,https://h/get?file=2\n")
    with pytest.raises(ManifestError, match="only by its query"):
        read_cohort([table])


def test_signed_addresses_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "signed.csv"
    table.write_text("slide_id,path\na,https://private.org/a.svs?sig=1234\nb,https://private.org/b.svs?sig=5678\n")
    path = AddressPath("https://private.org/b.svs")
    assert secret_address(path) == "https://private.org/b.svs"
    monkeypatch.setenv("WSI_PIPELINE_SIGNED_URLS", str(table))
    assert secret_address(path) == "https://private.org/b.svs?sig=5678"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("at https://h/a.svs?X-Sig=abc&b=c: no", "at https://h/a.svs?[redacted] no"),
        ("https://me:pw@h/a.svs", "https://[redacted]@h/a.svs"),
        ("https:/me:pw@h/a.svs?k=1 x", "https:/[redacted]@h/a.svs?[redacted] x"),
        ("is it s3://b/k? yes", "is it s3://b/k? yes"),
    ],
)
def test_messages(text: str, clean: str) -> None:
    assert redact(text, {}) == clean
