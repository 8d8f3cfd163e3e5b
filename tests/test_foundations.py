"""Errors, units, geometry, registry, specs and atomic writing: what everything else stands on."""

from __future__ import annotations

import dataclasses
import os
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.config import execution, specs
from wsi_pipeline.config.fields import canonical_json, digest_of, from_mapping
from wsi_pipeline.config.specs import EmbedSpec, MilSpec, SegmentSpec, TileSpec
from wsi_pipeline.config.units import is_plausible_mpp
from wsi_pipeline.errors import SlideError, UsageError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.registry import Registry
from wsi_pipeline.system.atomic import atomic_path, recover, write_text, write_text_if_changed
from wsi_pipeline.system.process_identity import this_process
from wsi_pipeline.wording import counted, listed

SPECS = [SegmentSpec, TileSpec, EmbedSpec, MilSpec]


def test_errors_say_what_which_slide_and_what_to_do_and_cross_processes() -> None:
    error = pickle.loads(pickle.dumps(SlideError("it is torn", slide="s1", todo="copy it again")))
    assert type(error) is SlideError
    assert str(error) == "s1: it is torn\ncopy it again"


@pytest.mark.parametrize("value", [0.04, 20.1, float("nan"), float("inf"), -1, 0])
def test_implausible_resolutions_are_none(value: float) -> None:
    assert not is_plausible_mpp(value)


@given(*[st.integers(-50, 50)] * 2, *[st.integers(1, 80)] * 4)
def test_clipping_a_box_keeps_exactly_what_is_inside(x: int, y: int, w: int, h: int, width: int, height: int) -> None:
    inside = {(i, j) for i in range(x, x + w) for j in range(y, y + h) if 0 <= i < width and 0 <= j < height}
    box = Box(x, y, w, h).clipped(Size(width, height))
    kept = {(i, j) for i in range(box.x, box.right) for j in range(box.y, box.bottom)} if box else set()
    assert kept == inside


def test_registry_refuses_a_second_of_a_name_and_lists_names_on_a_miss() -> None:
    registry: Registry[int] = Registry("thing")
    registry.register("one")(1)
    with pytest.raises(UsageError, match="twice"):
        registry.register("one")(2)
    with pytest.raises(UsageError, match="Known: one"):
        registry.get("two")


@pytest.mark.parametrize(
    ("kind", "values", "told"),
    [
        (TileSpec, {"patch_px": 0}, "patch_px must be between 16 and 8192, got 0"),
        (TileSpec, {"patch_px": 256.5}, "patch_px must be of type int"),
        (TileSpec, {"patch_px": True}, "patch_px must be of type int"),
        (TileSpec, {"overlap_px": 256}, "overlap_px must be smaller than patch_px"),
        (TileSpec, {"mpp": 352.8}, "mpp must be between"),
        (TileSpec, {"pixels": "png"}, "pixels must be one of none, jpeg, raw"),
        (TileSpec, {"mpp_tolerance": float("nan")}, "mpp_tolerance must be"),
        (EmbedSpec, {"model": " "}, "model must name an encoder"),
        (MilSpec, {"folds": 1}, "folds must be between 2 and 100, got 1"),
    ],
)
def test_specs_refuse_wrong_values_naming_field_and_expectation(
    kind: type, values: dict[str, object], told: str
) -> None:
    with pytest.raises(UsageError) as caught:
        kind(**values)
    assert told in str(caught.value)


def test_unknown_keys_are_refused_and_dashes_equal_underscores() -> None:
    assert from_mapping(TileSpec, {"patch-px": 512}, "x").patch_px == 512
    with pytest.raises(UsageError, match="unknown key patchpx"):
        from_mapping(TileSpec, {"patchpx": 512}, "cohort.yaml, tile")


@pytest.mark.parametrize("kind", SPECS)
def test_every_field_of_a_spec_is_in_its_digest(kind: type) -> None:
    base = kind()
    for field in dataclasses.fields(kind):
        value = getattr(base, field.name)
        if isinstance(value, bool):
            other: object = not value
        elif field.metadata["choices"]:
            other = next(choice for choice in field.metadata["choices"] if choice != value)
        else:
            tried = (224, 7) if isinstance(value, int) else (0.1, 0.9) if isinstance(value, float) else ("x",)
            check = field.metadata["check"]
            other = next(item for item in tried if item != value and (check is None or check[1](item)))
        changed = dataclasses.replace(base, **{field.name: other})
        assert digest_of(spec=changed) != digest_of(spec=base), field.name


def test_canonical_json_does_not_depend_on_order_and_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": [1, 2]}) == canonical_json({"a": [1, 2], "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_torn_replacement_of_a_folder_is_repaired(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    target.mkdir()
    (target / "x").write_text("two")
    recover(target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    dead = dataclasses.replace(this_process(), started=1)
    target.rename(tmp_path / f".a.zarr.0.{dead}.old")  # killed between two renames, where folders cannot change places
    recover(target)
    assert (target / "x").read_text() == "two"


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from wsi_pipeline.system.atomic import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as t:\n t.write_text('half'); os._exit(9)\n"
    )
    target = tmp_path / "a.txt"
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    write_text(target, "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_unchanged_text_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert write_text_if_changed(path, "x")
    before = path.stat().st_mtime_ns
    time.sleep(0.01)
    assert not write_text_if_changed(path, "x")
    assert path.stat().st_mtime_ns == before
    assert write_text_if_changed(path, "y")
    assert os.listdir(tmp_path) == ["a.txt"]  # noqa: PTH208


def test_a_registry_knows_declared_names_before_their_home_is_imported() -> None:
    registry: Registry[int] = Registry("thing", ("one", "two"), home="wsi_pipeline.errors")
    assert registry.names() == ("one", "two")
    registry.register("two")(2)
    registry.register("three")(3)
    assert (registry.get("two"), registry.names()) == (2, ("one", "two", "three"))
    with pytest.raises(UsageError, match="nothing is registered as thing 'one'"):
        registry.get("one")
    with pytest.raises(UsageError, match="unknown thing 'four'\nKnown: one, two, three"):
        registry.check("four")


@pytest.mark.parametrize("name", ["device", "precision", "store", "bootstrap", "default_mpp", "mpp_tolerance", "seed"])
def test_options_that_commands_share_are_stated_once(name: str) -> None:
    kinds = [kind for room in (specs, execution) for kind in vars(room).values() if dataclasses.is_dataclass(kind)]
    same = [field for kind in kinds for field in dataclasses.fields(kind) if field.name == name]
    texts = {re.sub(r"resamples of .*? for|seed of .*", "", field.metadata["help"]) for field in same}
    assert len(same) > 1
    assert len(texts) == 1
    assert len({str(field.metadata["choices"]) for field in same}) == 1


def test_messages_count_and_list() -> None:
    assert [counted(n, "slide") for n in (0, 1, 2482)] == ["0 slides", "1 slide", "2 482 slides"]
    assert counted(2, "patch", "patches") == "2 patches"
    assert listed(range(5)) == "0, 1, 2, 3, 4"
    assert listed("abcdef", 2) == "a, b and 4 more"
    assert listed((name for name in "abc"), 1, "; ", "sites") == "a; and 2 more sites"
    assert listed([]) == ""
