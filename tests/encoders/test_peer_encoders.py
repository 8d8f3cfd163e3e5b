"""Every encoder that TRIDENT, STAMP and LazySlide offer is here: built, or named with the reason why it is not."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from wsi_pipeline.encoders.slide_zoo.slide_facts import SlidePreset, list_slide_encoders, slide_zoo
from wsi_pipeline.encoders.zoo.facts import Preset, list_encoders, zoo

PEERS = tomllib.loads((Path(__file__).parent / "peer_encoders.toml").read_text(encoding="utf-8"))
DOCS = Path(__file__).parents[2] / "docs"


def ours(kind: str) -> Sequence[Preset | SlidePreset]:
    return list_encoders() if kind == "patch" else list_slide_encoders()


def named(tool: str, kind: str) -> dict[str, Preset | SlidePreset]:
    """Ours by the name that a tool gives it; what follows a space is a remark."""
    found = [(one.names[tool].split(" ")[0], one) for one in ours(kind) if tool in one.names]
    assert len(dict(found)) == len(found), "two encoders of one name"
    return dict(found)


@pytest.mark.parametrize("kind", ["patch", "slide"])
@pytest.mark.parametrize("tool", sorted(PEERS))
def test_every_encoder_of_a_peer_is_named(tool: str, kind: str) -> None:
    assert sorted(named(tool, kind)) == sorted(PEERS[tool][kind])
    for one in named(tool, kind).values():
        assert one.built != bool(one.reason)


@pytest.mark.parametrize(("kind", "page"), [("patch", "encoders.md"), ("slide", "slide_encoders.md")])
def test_the_pages_count_them(kind: str, page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for tool, facts in PEERS.items():
        every = named(tool, kind).values()
        built = sum(one.built for one in every)
        assert f"| {facts['version']} | {len(every)} | {built} | {len(every) - built} |" in text


@pytest.mark.parametrize(("kind", "page"), [("patch", "encoders.md"), ("slide", "slide_encoders.md")])
def test_the_pages_give_the_source_of_each_fact(kind: str, page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert "not verified" not in text
    for one in ours(kind):
        assert f"| `{one.name}` | {sources_of(one, kind)} |" in text
    for name, place in (zoo() if kind == "patch" else slide_zoo()).sources.items():
        assert f"| {name} | {place} |" in text


def sources_of(one: Preset | SlidePreset, kind: str) -> str:
    """One column per group of facts."""
    groups = {"patch": ("network", "pixels", "feature", "resolution", "licence", "weights"),
              "slide": ("network", "input", "resolution", "licence", "weights")}[kind]  # fmt: skip
    return " | ".join(", ".join(one.sources.get(group, ())) or "none stated" for group in groups)


@pytest.mark.parametrize("kind", ["patch", "slide"])
def test_sources_are_places_and_unknown_is_said(kind: str) -> None:
    sources = (zoo() if kind == "patch" else slide_zoo()).sources
    used = {name for one in ours(kind) for group in one.sources.values() for name in group}
    assert used == set(sources)
    for place in sources.values():
        assert place.startswith(("github.com/", "pypi.org/project/"))
    for one in ours(kind):
        assert one.gate in ("request", "none", "unknown")
        assert "verified" not in one.licence
        assert "unknown" not in one.licence or one.licence == "unknown: ask its authors"


def test_where_a_tool_takes_another_feature_it_is_another_encoder() -> None:
    """These names meant features of another length, or of other pixels, than the tool gives them."""
    found = {name: named(tool, "patch")[name] for tool, name in (
        ("stamp", "virchow"), ("stamp", "virchow-full"), ("stamp", "virchow2"), ("trident", "virchow2-cls"),
        ("stamp", "musk"), ("lazyslide", "lunit-dino-s8-moozy"), ("stamp", "red-dino"))}  # fmt: skip
    assert {name: (one.name, one.dim) for name, one in found.items()} == {
        "virchow": ("virchow-class-token", 1280), "virchow-full": ("virchow", 2560),
        "virchow2": ("virchow2-class-token", 1280), "virchow2-cls": ("virchow2-class-token", 1280),
        "musk": ("musk-multiscale", 2048), "lunit-dino-s8-moozy": ("lunit-dino-s8-moozy", 384),
        "red-dino": ("red-dino", 1024),
    }  # fmt: skip
    by_name = {one.name: one for one in list_encoders()}
    assert by_name["red-dino"].interpolation == "bicubic"
    assert by_name["rudolfv2"].mean == (0.7072, 0.5787, 0.7036)
    assert (by_name["phikon"].file, by_name["midnight"].gate) == ("pytorch_model.bin", "none")
    assert (by_name["lunit-dino-s8-moozy"].resize_px, by_name["lunit-dino-s8-moozy"].mean[0]) == (248, 0.485)
