"""Image, channel and plane of a slide file: columns of the manifest and the end of a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_pipeline.cohort.manifest import read_cohort, to_csv
from wsi_pipeline.files.path_choices import split_choice, with_choice


def table(folder: Path, text: str) -> Path:
    """A manifest beside two files."""
    for name in ("a.ome.tif", "b.ome.tif"):
        (folder / name).write_bytes(b"II*\0")
    path = folder / "slides.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "chosen",
    [
        {"image": "1"},
        {"channel": "DAPI@200-6000"},
        {"plane": "2"},
        {"image": "A & B #2/3", "channel": "0+1+2", "plane": "0"},
        {"channel": "100% CD3=x"},
    ],
)
def test_what_is_chosen_survives_its_path(chosen: dict[str, str]) -> None:
    path = with_choice(Path("/data/a.ome.tif"), chosen)
    assert path.parent == Path("/data")
    assert split_choice(Path(str(path))) == (Path("/data/a.ome.tif"), chosen)


def test_names_with_a_hash_stay_whole(tmp_path: Path) -> None:
    for name in ("slide #4.svs", "a#b=c.svs", "a.svs#page=2"):
        assert split_choice(tmp_path / name) == (tmp_path / name, {})
    (tmp_path / "a.svs#scene=1").write_bytes(b"")
    assert split_choice(tmp_path / "a.svs#scene=1") == (tmp_path / "a.svs#scene=1", {})


def test_columns_choose_and_come_back_from_a_run(tmp_path: Path) -> None:
    path = table(tmp_path, "path,image,channel,plane\na.ome.tif,1,DAPI@2-9,\na.ome.tif,0,,3\nb.ome.tif,,,\n")
    cohort = read_cohort([path])
    assert [record.slide_id for record in cohort.records] == ["a_scene1", "a_scene0", "b"]
    parts = [split_choice(record.path)[1] for record in cohort.records]
    assert parts == [{"image": "1", "channel": "DAPI@2-9"}, {"image": "0", "plane": "3"}, {}]
    assert not [note for note in cohort.notes if "not found" in str(note)]
    again = tmp_path / "again.csv"
    again.write_text(to_csv(cohort))
    assert [record.path for record in read_cohort([again]).records] == [record.path for record in cohort.records]


def test_a_path_names_a_scene(tmp_path: Path) -> None:
    cohort = read_cohort([table(tmp_path, "slide_id,path\nx,a.ome.tif#scene=1\ny,a.ome.tif#series=2\n")])
    assert [split_choice(record.path)[1] for record in cohort.records] == [{"image": "1"}, {"image": "2"}]


def test_a_column_image_of_files_is_still_the_path(tmp_path: Path) -> None:
    (record,) = read_cohort([table(tmp_path, "image,label\na.ome.tif,x\n")]).records
    assert (record.path.name, record.slide_id) == ("a.ome.tif", "a")
