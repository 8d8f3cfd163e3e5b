"""Class folders and CSVs of images: the same patches and labels, in a stable order, with their groups and faults."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.labelled.images import picture, save, write_table
from wsi_pipeline.config.execution import TableOptions
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.errors import LabelError, UsageError
from wsi_pipeline.labelled.labelled_patches import LabelledPatches
from wsi_pipeline.labelled.open_labelled import open_labelled


def class_folders(root: Path, *, grouped: bool = False, per_class: int = 3) -> Path:
    for k, name in enumerate(("stroma", "tumour")):
        for i in range(per_class):
            folder = root / name / (f"p{i % 2}" if grouped else "")
            save(folder / f"{name[0]}{i}.png", picture(10 * k + i))
    return root


def groups_of(patches: LabelledPatches, label: int) -> set[str]:
    """Groups that hold patches of a class."""
    return {group for group, own in zip(patches.groups, patches.labels, strict=True) if own == label}


def test_class_folders(tmp_path: Path) -> None:
    patches = open_labelled(class_folders(tmp_path / "set"))
    assert patches.classes == ("stroma", "tumour")
    assert patches.names[:2] == ("stroma/s0.png", "stroma/s1.png")
    assert patches.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert patches.groups == patches.names
    assert patches.patch_px == 32
    assert patches.mpp is None
    assert patches.splits is None
    assert any("no groups given" in note for note in patches.notes)
    batch = patches.read([4, 0, 4])
    np.testing.assert_array_equal(batch, np.stack([picture(11), picture(0), picture(11)]))


def test_a_folder_between_is_the_group_of_both_classes(tmp_path: Path) -> None:
    patches = open_labelled(class_folders(tmp_path, grouped=True))
    assert set(patches.groups) == {"p0", "p1"}
    assert [len(groups_of(patches, label)) for label in (0, 1)] == [2, 2]
    assert not any("no groups" in note for note in patches.notes)


def test_folders_of_parts_give_the_split(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        class_folders(tmp_path / part, per_class=1)
    patches = open_labelled(tmp_path)
    assert sorted(patches.splits or ()) == ["test", "test", "train", "train", "val", "val"]
    assert patches.classes == ("stroma", "tumour")
    assert any("copies of one another" in note for note in patches.notes), "the same pictures were written thrice"


def test_a_pattern_finds_groups_in_names(tmp_path: Path) -> None:
    root = class_folders(tmp_path)
    patches = open_labelled(root, LabelSpec(group_pattern=r"[st](\d)\.png$"))
    assert patches.groups == ("0", "1", "2", "0", "1", "2")
    with pytest.raises(UsageError, match="group_pattern is not a regular expression"):
        LabelSpec(group_pattern="(")


def test_hidden_and_loose_files_are_not_taken(tmp_path: Path) -> None:
    root = class_folders(tmp_path)
    save(root / "loose.png", picture(90))
    save(root / "tumour" / ".thumbnails" / "x.png", picture(91))
    (root / "tumour" / "._t0.png").write_bytes(b"\0\5\x16\7")
    (root / "tumour" / "notes.txt").write_text("none of ours")
    patches = open_labelled(root)
    assert len(patches) == 6
    assert f"1 image directly in {root.name}, outside any class folder: not used" in patches.notes


def test_copies_share_a_group(tmp_path: Path) -> None:
    root = class_folders(tmp_path)
    shutil.copy(root / "stroma" / "s1.png", root / "stroma" / "again.png")
    shutil.copy(root / "stroma" / "s2.png", root / "tumour" / "other.png")
    patches = open_labelled(root)
    group = dict(zip(patches.names, patches.groups, strict=True))
    assert group["stroma/again.png"] == group["stroma/s1.png"]
    assert group["stroma/s2.png"] == group["tumour/other.png"]
    assert len(set(patches.groups)) == 6
    assert any("more than one class" in note for note in patches.notes)


def test_csv_and_folders_agree(tmp_path: Path) -> None:
    root = class_folders(tmp_path)
    from_folders = open_labelled(root)
    rows = [(name, name.split("/")[0], f"g{k % 2}") for k, name in enumerate(from_folders.names)]
    patches = open_labelled(write_table(root / "labels.csv", ("Image Path", "Class", "Patient ID"), rows))
    assert patches.names == from_folders.names
    assert patches.labels.tolist() == from_folders.labels.tolist()
    assert patches.groups == tuple(f"g{k % 2}" for k in range(6))
    np.testing.assert_array_equal(patches.read(range(6)), from_folders.read(range(6)))


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_marks_and_named_columns(tmp_path: Path, separator: str) -> None:
    root = class_folders(tmp_path)
    rows = [("stroma/s0.png", "x", "1", "a"), ("tumour/t0.png", "y", "2", "b")]
    path = write_table(root / "labels.csv", ("file", "label", "kind", "block"), rows, separator)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    patches = open_labelled(path, LabelSpec(label_column="kind", group_column="Block"))
    assert patches.classes == ("1", "2")
    assert patches.groups == ("a", "b")
    with pytest.raises(LabelError, match="no column 'stage'"):
        open_labelled(path, LabelSpec(label_column="stage"))


def test_bad_rows_are_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = class_folders(tmp_path)
    (root / "torn.png").write_bytes((root / "stroma" / "s0.png").read_bytes()[:300])
    rows = [
        ("stroma/s0.png", "a"), ("gone.png", "a"), ("torn.png", "b"), ("stroma/s1.png", ""), ("", "a"),
        ("tumour/t0.png", "b"),
    ]  # fmt: skip
    path = write_table(root / "labels.csv", ("path", "label"), rows)
    with caplog.at_level(logging.WARNING):
        patches = open_labelled(path)
    assert patches.names == ("stroma/s0.png", "tumour/t0.png")
    assert any(note.startswith("4 of 6 images left out: row 3: gone.png: no such file") for note in patches.notes)
    assert "row 4: torn.png: damaged image" in caplog.text
    assert "row 5: no label" in caplog.text
    with pytest.raises(LabelError, match="none of 4 images can be used"):
        open_labelled(write_table(root / "bad.csv", ("path", "label"), rows[1:5]))


def test_a_given_split_is_kept_and_gaps_refused(tmp_path: Path) -> None:
    root = class_folders(tmp_path)
    rows = [("stroma/s0.png", "a", "Train"), ("stroma/s1.png", "b", "validation"), ("tumour/t0.png", "b", "test")]
    assert open_labelled(write_table(root / "l.csv", ("path", "label", "split"), rows)).splits == (
        "train",
        "val",
        "test",
    )
    rows[1] = ("stroma/s1.png", "b", "")
    with pytest.raises(LabelError, match=r"every row or in none, got '' in row 3"):
        open_labelled(write_table(root / "l.csv", ("path", "label", "split"), rows))


def test_sizes_are_brought_to_the_most_common_one(tmp_path: Path) -> None:
    images = {"a/0.png": picture(0, 32, 32), "a/1.png": picture(1, 40, 32), "b/2.png": picture(2, 64, 64)}
    for name, image in images.items():
        save(tmp_path / name, image)
    patches = open_labelled(tmp_path, LabelSpec(image_mpp=0.5))
    assert patches.patch_px == 32
    assert patches.mpp is None
    assert any("1 of 3 images are not square (such as 40 x 32)" in note for note in patches.notes)
    assert any("1 of 3 images are resized to 32 x 32" in note for note in patches.notes)
    batch = patches.read([0, 1, 2])
    np.testing.assert_array_equal(batch[1], images["a/1.png"][:, 4:36])
    means = images["b/2.png"].reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(batch[2] - means).max() <= 0.51


def test_resolution_follows_the_resizing(tmp_path: Path) -> None:
    patches = open_labelled(class_folders(tmp_path), LabelSpec(image_mpp=0.25, resize_px=16))
    assert patches.read([0]).shape == (1, 16, 16, 3)
    assert patches.mpp == 0.5


def test_classes_are_chosen_and_sampled(tmp_path: Path) -> None:
    root = class_folders(tmp_path, per_class=6)
    save(root / "blood" / "b.png", picture(80))
    assert open_labelled(root, LabelSpec(drop_classes="blood")).classes == ("stroma", "tumour")
    assert open_labelled(root, LabelSpec(classes="tumour, blood")).class_counts() == {"blood": 1, "tumour": 6}
    few = open_labelled(root, LabelSpec(max_per_class=2))
    assert few.class_counts() == {"blood": 1, "stroma": 2, "tumour": 2}
    assert list(few.names) == sorted(few.names)
    assert few.names == open_labelled(root, LabelSpec(max_per_class=2)).names
    assert len({open_labelled(root, LabelSpec(max_per_class=2, sample_seed=seed)).names for seed in range(5)}) > 1
    with pytest.raises(LabelError, match="no patches of class 'necrosis'"):
        open_labelled(root, LabelSpec(classes="necrosis"))
    with pytest.raises(LabelError, match="only the class blood"):
        open_labelled(root, LabelSpec(classes="blood"))


def test_numbers_as_classes_are_sorted_as_numbers(tmp_path: Path) -> None:
    for name in ("10", "9", "0"):
        save(tmp_path / name / "a.png", picture(int(name)))
    assert open_labelled(tmp_path).classes == ("0", "9", "10")


def test_the_digest_tells_changes_from_moves(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "one")
    digest = open_labelled(root).digest
    shutil.copytree(root, tmp_path / "two")
    os.utime(tmp_path / "two" / "tumour" / "t0.png", (1, 1))
    assert open_labelled(tmp_path / "two").digest == digest
    assert open_labelled(root, LabelSpec(resize_px=16)).digest != digest
    assert open_labelled(root, LabelSpec(max_per_class=2)).digest != digest
    (root / "tumour" / "t0.png").rename(root / "stroma" / "t0.png")
    assert open_labelled(root).digest != digest
    save(tmp_path / "two" / "tumour" / "t1.png", picture(99))
    assert open_labelled(tmp_path / "two").digest != digest


def test_a_part_reads_the_same_pixels(tmp_path: Path) -> None:
    patches = open_labelled(class_folders(tmp_path))
    part = patches.take([5, 1])
    assert part.names == (patches.names[5], patches.names[1])
    assert part.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(part.read([0, 1]), patches.read([5, 1]))
    assert part.take([1]).contents() == [patches.contents()[1]]


def test_an_image_that_goes_away_is_named(tmp_path: Path) -> None:
    root = class_folders(tmp_path)
    patches = open_labelled(root)
    (root / "tumour" / "t0.png").unlink()
    with pytest.raises(LabelError, match=r"t0\.png"):
        patches.read([3])


def test_what_is_no_source_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_text("name,colour\nx,red\n")
    (tmp_path / "b.csv").write_text("")
    for name, words in {
        "gone": "does not exist",
        "empty": "has no class folders",
        "a.csv": "no column path and label",
        "b.csv": "table",
    }.items():
        with pytest.raises(LabelError, match=words):
            open_labelled(tmp_path / name)


def test_slides_without_annotation_are_no_patches(tmp_path: Path) -> None:
    rows = [("s1.svs", "tumour", ""), ("s2.svs", "normal", "")]
    path = write_table(tmp_path / "slides.csv", ("path", "label", "annotation"), rows)
    with pytest.raises(LabelError, match=r"row 2: s1\.svs is a slide: its patches need a column annotation"):
        open_labelled(path)


def table(path: Path, text: str) -> Path:
    """Write a table as it stands."""
    path.write_bytes(text.encode())
    return path


def test_a_stray_separator_is_refused_with_its_row(tmp_path: Path) -> None:
    class_folders(tmp_path)
    path = table(tmp_path / "l.csv", "\npath,label\nstroma/s0.png,a, invasive\nstroma/s1.png,b\n")
    with pytest.raises(LabelError, match=r"row 3: 3 cells where the header has 2"):
        open_labelled(path)


def test_empty_cells_and_rows_of_a_spreadsheet_do_no_harm(tmp_path: Path) -> None:
    class_folders(tmp_path)
    rows = "path,label\r\n\r\nstroma/s0.png,a,,\r\n,,\r\nstroma/s1.png\r\nstroma/s2.png,b\r\n"
    patches = open_labelled(table(tmp_path / "l.csv", rows))
    assert patches.names == ("stroma/s0.png", "stroma/s2.png")
    assert any("1 of 3 images left out: row 5: no label" in note for note in patches.notes)


def test_the_first_of_two_columns_of_one_name_counts(tmp_path: Path) -> None:
    class_folders(tmp_path)
    path = table(tmp_path / "l.csv", "path,label,label\nstroma/s0.png,a,c\nstroma/s1.png,b,d\n")
    assert open_labelled(path).classes == ("a", "b")


@pytest.mark.parametrize("name", ["x" * 5000, "null\0.png", "~nobody-here/x.png"], ids=["long", "null", "home"])
def test_a_path_that_can_name_no_file_is_left_out(tmp_path: Path, name: str) -> None:
    class_folders(tmp_path)
    rows = f"path,label\n{name},a\nstroma/s0.png,a\nstroma/s1.png,b\n"
    patches = open_labelled(table(tmp_path / "l.csv", rows))
    assert any(note.startswith("1 of 3 images left out: row 2") for note in patches.notes)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux alone")
@pytest.mark.parametrize("name", [b"stroma/s\xf6.png", b"tum\xf6r/a.png"])
def test_names_that_could_not_be_written_again_are_refused(tmp_path: Path, name: bytes) -> None:
    root = class_folders(tmp_path)
    save(root / os.fsdecode(name), picture(70))
    with pytest.raises(LabelError, match=r"is not UTF-8.*\n.*ename"):
        open_labelled(root)


def test_a_class_over_several_lines_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path)
    path = table(tmp_path / "l.csv", 'path,label\nstroma/s0.png,"a\nstroma/s1.png,b"\nstroma/s2.png,c\n')
    with pytest.raises(LabelError, match="line break"):
        open_labelled(path)


def test_ucsb(data_dir: Path) -> None:
    patches = open_labelled(data_dir / "patches" / "ucsb_breast" / "labels.csv")
    assert patches.class_counts() == {"benign": 32, "malignant": 26}
    assert [len(groups_of(patches, label)) for label in (0, 1)] == [5, 4]
    assert patches.patch_px == 768
    assert patches.read([0, 57]).shape == (2, 768, 768, 3)


@pytest.mark.parametrize("name", ["P{p:02d}_{k}.png", "TCGA-A1-{p:04d}-01Z_{k}.png", "patient{p} ({k}).png"])
@pytest.mark.parametrize("source", ["folders", "csv"])
def test_images_named_as_of_one_patient_need_groups(tmp_path: Path, name: str, source: str) -> None:
    rows = []
    for p in range(4):
        for k in range(3):
            path = f"{'ab'[p % 2]}/{name.format(p=p, k=k)}"
            save(tmp_path / path, picture(10 * p + k))
            rows.append((path, "ab"[p % 2]))
    given = tmp_path
    if source == "csv":
        given = tmp_path / "l.csv"
        given.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    with pytest.raises(
        LabelError, match=r"image names share prefixes.*\(4 prefixes over 12 images, 3 of them"
    ) as caught:
        open_labelled(given)
    assert "--each-slide-a-patient" in str(caught.value.todo)
    each = open_labelled(given, options=TableOptions(each_slide_a_patient=True))
    assert len(set(each.groups)) == 12
    assert any("no groups given" in note for note in each.notes)
    told = open_labelled(given, LabelSpec(group_pattern=r"/(\D+[\d-]*\d)(?:-01Z)?[_ ]"))
    assert len(set(told.groups)) == 4
