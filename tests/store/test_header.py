"""Root attributes of a store that somebody else wrote, or that were damaged where no checksum looks."""

import json
from typing import Any

import pytest

from wsi_pipeline.errors import StoreError
from wsi_pipeline.store.schema import PATCH_FORMAT, Header, SlideIdentity

HEADER = Header(
    PATCH_FORMAT,
    "digest",
    "parent",
    SlideIdentity("a", "a.svs", 10, 20, "aperio", "openslide", 40.0, 0.25, 0.25, "slide", "abc"),
    {"grid": {"patch_px": 256}},
    {},
)


def test_comes_back_as_written() -> None:
    assert Header.parse(HEADER.attrs(), PATCH_FORMAT, "a.h5") == HEADER


@pytest.mark.parametrize("name", ["slide", "specs", "extra"])
@pytest.mark.parametrize("text", ["", "nonsense", "[1, 2]", '"text"', "3", "null", json.dumps({"slide_id": "a"})[:-1]])
def test_attributes_that_are_no_objects_are_refused(name: str, text: str) -> None:
    attrs: dict[str, Any] = {**HEADER.attrs(), name: text}
    with pytest.raises(StoreError, match=r"a\.h5: damaged attributes"):
        Header.parse(attrs, PATCH_FORMAT, "a.h5")


@pytest.mark.parametrize("name", ["slide", "specs", "extra", "digest", "parent_digest"])
def test_missing_attributes_are_refused(name: str) -> None:
    attrs = {key: value for key, value in HEADER.attrs().items() if key != name}
    with pytest.raises(StoreError, match="damaged attributes"):
        Header.parse(attrs, PATCH_FORMAT, "a.h5")
