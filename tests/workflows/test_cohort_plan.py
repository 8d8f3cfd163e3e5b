"""Chunks hold every slide once under stable names; options come out as the command line reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cohort_chunks import chunk_name, make_chunks
from cohort_options import read_section
from cohort_plan import KEYS, make_plan
from hypothesis import given
from hypothesis import strategies as st

from tests.workflows.snakemake_calls import WORKFLOWS
from wsi_pipeline.cohort.manifest import Cohort, SlideRecord, id_problem
from wsi_pipeline.commands.run import TOP_KEYS, read_plan
from wsi_pipeline.commands.shell.parser import build_parser
from wsi_pipeline.commands.shell.sections import split_sections
from wsi_pipeline.config.execution import ClinicalOptions
from wsi_pipeline.config.specs import EmbedSpec, MilSpec, TileSpec
from wsi_pipeline.errors import UsageError

IDS = st.lists(
    st.text(min_size=1, max_size=12).filter(lambda text: id_problem(text) is None and "," not in text),
    min_size=1,
    max_size=20,
    unique=True,
)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    (tmp_path / "slides.csv").write_text("slide_id,path,label\ns1,s1.svs,a\ns2,s2.svs,b\n")
    return tmp_path / "slides.csv"


def _cohort(ids: list[str]) -> Cohort:
    return Cohort(tuple(SlideRecord(name, Path("/slides") / name, name) for name in ids), "slides.csv")


@given(IDS, st.integers(1, 25))
def test_chunks_hold_every_slide_once_in_order(ids: list[str], size: int) -> None:
    chunks = make_chunks(_cohort(ids), size)
    assert [name for chunk in chunks.values() for name in chunk.only.split(",")] == ids
    assert len(chunks) == -(-len(ids) // size)
    assert all(id_problem(name) is None for name in chunks)


@given(IDS, st.integers(1, 6))
def test_a_longer_cohort_keeps_the_full_chunks_it_had(ids: list[str], size: int) -> None:
    before, after = make_chunks(_cohort(ids), size), make_chunks(_cohort([*ids, "one more slide"]), size)
    first, *rest = list(before)[: len(ids) // size] or [None]
    assert all(after[name] == before[name] for name in rest)
    assert first is None or after[first].watched != before[first].watched


def test_ids_that_look_alike_as_file_names_have_chunks_of_their_own() -> None:
    ids = ["a b", "a_b", "a/b".replace("/", ":"), "a+b", "A_b"]
    assert len(make_chunks(_cohort(ids), 1)) == len(ids)
    assert chunk_name(_cohort(["s1", "s2", "s3"]).records) == "s1+2"


def test_a_label_is_watched_by_the_first_chunk_only() -> None:
    before = _cohort(["s1", "s2", "s3"])
    after = replace(before, records=(*before.records[:2], replace(before.records[2], label="tumour")))
    changed = {name for name, chunk in make_chunks(after, 1).items() if chunk != make_chunks(before, 1)[name]}
    assert changed == {"s1"}


def test_a_spacing_is_watched_by_its_own_chunk() -> None:
    before = _cohort(["s1", "s2", "s3"])
    after = replace(before, records=(*before.records[:2], replace(before.records[2], mpp=0.25)))
    changed = {name for name, chunk in make_chunks(after, 1).items() if chunk != make_chunks(before, 1)[name]}
    assert changed == {"s1", "s3"}


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "two"])
def test_a_chunk_is_a_whole_number_of_slides(size: object) -> None:
    with pytest.raises(UsageError, match="chunk must be a whole number"):
        make_chunks(_cohort(["s1"]), size)


def test_an_id_that_only_cannot_name_is_refused() -> None:
    with pytest.raises(UsageError, match="holds a comma"):
        make_chunks(_cohort(["Smith, John"]), 1)


@pytest.mark.parametrize(
    ("command", "section", "kind"),
    [
        ("tile", {"mpp": 0.25, "patch-px": 512, "allow_upsample": True, "workers": 0, "store": "zarr"}, TileSpec),
        ("embed", {"model": "hf-hub:org/name", "weights": "my weights.safetensors", "device": "cuda"}, EmbedSpec),
        ("train-mil", {"class-weights": False, "allow-few": True, "learning_rate": 1e-05}, MilSpec),
        ("train-mil", {"clinical": "c.xlsx#S 1", "target": ["KRAS", "survival:OS"]}, ClinicalOptions),
        ("predict", {"trained": "-odd folder"}, None),
        ("tile", None, TileSpec),
    ],
)
def test_options_come_out_as_the_command_line_reads_them(command: str, section: object, kind: type | None) -> None:
    call = read_section(command, section)
    parsed = vars(build_parser().parse_args([command, *call.flags]))
    (read,) = split_sections(tuple(type(item) for item in call.options), parsed)
    assert read == call.options
    assert kind is None or call.get(kind)
    assert bool(call.flags) == bool(section)


def test_a_gpu_is_asked_for_by_device_cuda() -> None:
    assert read_section("embed", {"device": "cuda:1"}).gpus == 1
    assert read_section("embed", {"device": "cpu"}).gpus == read_section("embed", None).gpus == 0


def test_segment_gets_the_options_it_shares_with_tile() -> None:
    call = read_section("tile", {"mpp": 1.0, "mask-mpp": 4.0, "default-mpp": 0.5})
    assert set(call.as_command("segment").flags) == {"--mask-mpp=4.0", "--default-mpp=0.5"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slide": "x"}, "unknown key slide"),
        ({"slides": None}, "`slides` is missing"),
        ({"tile": {"mmp": 1}}, "configuration, tile: unknown key mmp"),
        ({"tile": {"patch-px": 3}}, "configuration, tile: patch-px must be"),
        ({"tile": ["mpp"]}, "must hold option names and values"),
        ({"embed": [{"model": "colour"}, {"model": "colour"}]}, "an encoder is given twice"),
        ({"embed": []}, "need features"),
        ({"train_mil": {"features": "other"}}, "no features of other"),
        ({"train_mil": {"features": "colour+mean"}}, r"no features of colour\+mean"),
        ({"embed_slides": {"features": "other"}}, "embed-slides: no features of other"),
        ({"embed_slides": [None, {"model": "mean"}]}, "a slide encoder is given twice"),
        ({"embed_slides": {"modle": "mean"}}, "configuration, embed-slides: unknown key modle"),
        ({"train-mil": None}, "train_mil and train-mil are the same key"),
    ],
)
def test_a_wrong_configuration_is_refused(manifest: Path, change: dict[str, object], message: str) -> None:
    good = {"slides": str(manifest), "embed": None, "train_mil": None}
    assert make_plan(good).trained == ("colour",)
    with pytest.raises(UsageError, match=message):
        make_plan({**good, **change})


def test_a_clinical_table_is_watched_by_the_training(manifest: Path) -> None:
    table = manifest.parent / "clini.csv"
    table.write_text("PATIENT,KRAS\n")
    config = {"slides": str(manifest), "embed": {"model": "colour"}}
    assert make_plan({**config, "train-mil": {"clinical": str(table), "target": "KRAS"}}).clinical == (str(table),)
    assert make_plan({**config, "train-mil": None}).clinical == ()
    assert make_plan(config).clinical == ()


def test_slide_embeddings_are_planned_and_trained_on(manifest: Path) -> None:
    sections = [{"model": "mean"}, {"trained": "models/gated-abmil", "features": "colour"}]
    config = {"slides": str(manifest), "embed": [{"model": "colour"}, {"model": "vit-mini"}], "embed-slides": sections}
    plan = make_plan({**config, "train-mil": {"model": "linear", "features": "vit-mini+mean"}})
    assert tuple(plan.pooled) == ("mean", "trained.gated-abmil")
    assert plan.pooled_of("mean") == ("colour", "vit-mini")
    assert plan.pooled_of("trained.gated-abmil") == ("colour",)
    assert plan.trained == ("vit-mini+mean",)
    assert plan.embeddings_for("vit-mini+mean") == ("mean",)
    assert plan.embeddings_for("colour+trained.gated-abmil") == ("trained.gated-abmil",)
    assert plan.embeddings_for("colour") == ()
    assert make_plan({**config, "train-mil": None}).trained == ("colour", "vit-mini"), "patch features alone"


def test_predict_needs_a_model(manifest: Path) -> None:
    slides = str(manifest)
    with pytest.raises(UsageError, match="no model is trained here"):
        make_plan({"slides": slides, "embed": None, "predict": None})
    plan = make_plan({"slides": slides, "embed": None, "predict": {"trained": "elsewhere"}})
    assert plan.foreign_model == "elsewhere"


def test_the_example_shares_its_sections_with_the_run_command(manifest: Path) -> None:
    text = (WORKFLOWS / "config" / "config.yaml").read_text()
    assert set(KEYS) > set(TOP_KEYS)
    without_chunk = "\n".join(line for line in text.split("\n") if not line.startswith("chunk"))
    (manifest.parent / "cohort.yaml").write_text(without_chunk)
    assert make_plan({**read_plan(manifest.parent / "cohort.yaml"), "slides": str(manifest)}).trained == ("colour",)
