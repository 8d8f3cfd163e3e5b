"""`robustness` with normalised stain, and of several adapters: rows, files, and what normalisation undoes."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.adapter_files import write_adapter, write_backbone
from tests.stains.stained_slides import DAB, HAEMATOXYLIN, write_stained
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.manifest import read_csv
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.report.figures.robustness_figure import robustness_figure
from wsi_pipeline.robustness.perturbations import Perturbation
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.stages import measure_robustness
from wsi_pipeline.stages.inputs.stain_files import StainTarget, read_profile
from wsi_pipeline.stages.measure_robustness import Normalisation, choose_sample
from wsi_pipeline.stages.results.robustness_files import Way, read_results
from wsi_pipeline.stains.recolour import Recolouring

SLIDES = {"pale": {"amounts": (0.7, 0.7)}, "middle": {}, "dark": {"amounts": (1.4, 1.3)},
          "ihc": {"vectors": (HAEMATOXYLIN, DAB)}}  # fmt: skip


FEW = (Perturbation("blur", 2.0, "um"), Perturbation("haematoxylin", 0.7, "times"),
       Perturbation("haematoxylin", 1.3, "times"), Perturbation("gamma", 1.3, ""))  # fmt: skip


@pytest.fixture(autouse=True)
def few_changes(monkeypatch) -> None:
    monkeypatch.setattr(measure_robustness, "all_perturbations", lambda: FEW)


@pytest.fixture(scope="module")
def tiled(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("normalised")
    lines = ["slide_id,path,patient_id,label,site"]
    for seed, (name, how) in enumerate(SLIDES.items()):
        write_stained(folder / f"{name}.svs", seed, **how)
        lines.append(f"{name},{name}.svs,p{seed},{'ab'[seed % 2]},{'xy'[seed // 2 % 2]}")
    (folder / "slides.csv").write_text("\n".join(lines) + "\n")
    words = ["tile", str(folder / "slides.csv"), "--run", str(folder / "run"), "--patch-px", "128", "--workers", "0"]
    assert main([*words, "--quiet"]) == 0
    return folder


@pytest.fixture
def run(tiled, tmp_path) -> Path:
    shutil.copytree(tiled / "run", tmp_path / "run")
    return tmp_path / "run"


def measure(run: Path, *words: str) -> int:
    return main(["robustness", "--run", str(run), "--n-patches", "10", "--device", "cpu", *words])


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "robustness/robustness.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def relative(run: Path, encoder: str, kind: str, strength: float) -> float:
    return next(float(row["relative"]) for row in rows_of(run)
                if (row["encoder"], row["kind"], float(row["strength"])) == (encoder, kind, strength))  # fmt: skip


def test_normalisation_has_rows_of_its_own_and_undoes_a_change_of_stain(run, capsys):
    assert measure(run) == 0
    assert measure(run, "--stain-norm", "macenko") == 0
    shown = "".join(capsys.readouterr())
    assert "ihc keeps its own stain: its stain is brown (as DAB), the target's H&E" in shown
    assert measure(run, "--stain-norm", "macenko", "--stain-target", "dark") == 0
    names = list(dict.fromkeys(row["encoder"] for row in rows_of(run)))
    assert names == ["colour", "colour, macenko", "colour, macenko to dark"]
    for strength in (0.7, 1.3):
        plain, normalised = (relative(run, name, "haematoxylin", strength) for name in names[:2])
        assert normalised < plain / 2  # three slides of four are given back the stain they had
    assert {row["own_stain"] for row in rows_of(run) if row["encoder"] == "colour"} == {""}
    assert min(int(row["own_stain"]) for row in rows_of(run) if row["encoder"] != "colour") == 1
    files = {path: path.stat().st_mtime_ns for path in (run / "robustness").iterdir()}
    assert len([path for path in files if path.suffix == ".json"]) == 3
    capsys.readouterr()
    assert measure(run, "--stain-norm", "macenko") == 0
    assert "colour, macenko: up to date" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (run / "robustness").iterdir()} == files
    assert "colour, macenko to dark" in (run / "robustness/robustness.svg").read_text()
    assert main(["report", "--run", str(run)]) == 0
    page = (run / "report/report.html").read_text()
    assert len(re.findall(r'<th scope="row">colour, macenko to dark</th>', page)) == 2
    assert "1 slide with their own stain (ihc)" in page or "1 slide with its own stain (ihc)" in page


def test_the_profile_is_that_of_embed_and_follows_the_change(run, tiled):
    assert main(["stain", "--run", str(run), "--stain-norm", "macenko", "--quiet"]) == 0
    (slide,) = choose_sample(RunDir(run), read_csv(tiled / "slides.csv").records[1:2], 4, 0)
    of_embed = read_profile(run / "stain/macenko/middle.json")[1]
    stain, changes = Normalisation(RunDir(run), StainTarget(of_embed, "middle", "", {})), FEW
    with open_slide(slide.record.path) as opened:
        plain, *changed = stain.profiles(slide, opened, changes)
    assert plain == of_embed
    strong, dim = (next(at for at, one in enumerate(FEW) if (one.kind, one.strength) == wanted)
                   for wanted in (("haematoxylin", 1.3), ("gamma", 1.3)))  # fmt: skip
    assert 1.2 < changed[strong].strength[0] / plain.strength[0] < 1.4
    assert plain.glass_from == "background"
    assert changed[dim].glass == pytest.approx([255 * (value / 255) ** 1.3 for value in plain.glass], abs=1)
    pixels = np.random.default_rng(0).integers(40, 200, (1, 16, 16, 3), np.uint8)
    assert not np.array_equal(Recolouring(changed[strong], of_embed)(pixels).numpy(), pixels)


def test_measuring_with_one_target_leaves_the_one_that_auto_chose(run):
    assert main(["stain", "--run", str(run), "--stain-norm", "macenko", "--quiet"]) == 0
    before = (run / "stain/macenko/target.json").read_bytes()
    assert measure(run, "--stain-norm", "macenko", "--stain-target", "pale", "--quiet") == 0
    assert (run / "stain/macenko/target.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--stain-norm", "macenko", "--stain-target", "nowhere"], "neither a tiled slide of this run nor a file"),
        (["--stain-norm", "macenko", "--stain-target", "{blank}"], "too little tissue: 0 stained pixels"),
        (["--stain-target", "dark"], "--stain-target needs --stain-norm"),
    ],
)
def test_a_target_that_cannot_be_used_is_refused_in_one_sentence(run, tmp_path, capsys, words, told):
    Image.new("RGB", (300, 300), (243, 243, 243)).save(tmp_path / "blank.png")
    assert measure(run, *(word.format(blank=tmp_path / "blank.png") for word in words)) == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert "Traceback" not in shown
    assert not (run / "robustness").exists()


def test_two_adapters_and_two_weights_of_one_encoder_have_a_row_each(run, tmp_path, capsys):
    weights = write_backbone(tmp_path / "w.safetensors")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    files = [
        tmp_path / "one/jitter.safetensors",
        tmp_path / "one/plain.safetensors",
        tmp_path / "two/plain.safetensors",
    ]
    for seed, file in enumerate(files):
        write_adapter(file, weights, seed=seed)
        assert measure(run, "--model", "pathotune", "--adapter", str(file), "--weights", str(weights)) == 0
    results = read_results(RunDir(run))
    assert [result["name"] for result in results] == [
        "pathotune, jitter, w", "pathotune, plain, w", "pathotune, plain, w"
    ]  # fmt: skip
    rows = [result["row"] for result in results]
    assert rows[0] == "pathotune, jitter, w"
    assert all(re.fullmatch(r"pathotune, plain, w [0-9a-f]{8}", row) for row in rows[1:])
    assert len(set(rows)) == len(list((run / "robustness").glob("*.json"))) == 3
    assert len({row["median"] for row in rows_of(run) if (row["kind"], row["strength"]) == ("blur", "2")}) == 3
    # The same file by another path is the same row; another adapter in its place is measured anew, in its row.
    write_adapter(files[0], weights, seed=7)
    assert measure(run, "--model", "pathotune", "--adapter", f"{tmp_path}/two/../one/jitter.safetensors",
                   "--weights", str(weights)) == 0  # fmt: skip
    again = {result["row"]: result["digest"] for result in read_results(RunDir(run))}
    assert list(again) == rows
    assert again[rows[0]] != results[0]["digest"]


def test_names_tell_how_an_encoder_was_used(tmp_path):
    for name in ("a/adapter.safetensors", "b/target.json", "c/jitter.safetensors"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    ways = [
        Way("colour"), Way("colour", stain_norm="macenko"), Way("colour", stain_norm="macenko", stain_target="s1"),
        Way("colour", stain_norm="macenko", stain_target=str(tmp_path / "b/target.json")),
        Way("pathotune", adapter="built-in"), Way("pathotune", adapter=str(tmp_path / "a/adapter.safetensors")),
        Way("pathotune", adapter=str(tmp_path / "c/jitter.safetensors"), stain_norm="vahadane"),
        Way("vit", weights=str(tmp_path / "c/jitter.safetensors"), precision="bf16"),
    ]  # fmt: skip
    assert [way.name for way in ways] == [
        "colour", "colour, macenko", "colour, macenko to s1", "colour, macenko to b/target.json", "pathotune, built-in",
        "pathotune, a/adapter", "pathotune, jitter, vahadane", "vit, jitter, bf16",
    ]  # fmt: skip
    assert ways[0].file_name == "colour"
    assert len({way.file_name for way in ways}) == len(ways)


def test_a_result_from_before_there_were_names_keeps_its_row(run):
    assert measure(run, "--quiet") == 0
    file = run / "robustness/colour.json"
    old = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in old.items() if key != "name"}))
    assert [result["row"] for result in read_results(RunDir(run))] == ["colour"]


def test_figure_of_many_rows_tells_them_apart(run):
    assert measure(run, "--quiet") == 0
    result = json.loads((run / "robustness/colour.json").read_text())
    for number in range(5):
        for key in (None, "one", "two"):
            encoder = {**result["encoder"], "name": f"encoder-of-a-long-name-{number}", "fingerprint": str(number)}
            stain = {"method": "macenko", "target": f"slide {key}", "key": key, "own_stain": {}} if key else None
            name = encoder["name"] + (f", macenko to {key}" if key else "")
            text = json.dumps({**result, "encoder": encoder, "name": name, "stain": stain})
            (run / f"robustness/{number}{key}.json").write_text(text)
    figure = robustness_figure(read_results(RunDir(run)))
    legend = re.findall(r'class="(curve c\d[^"]*)" style="[^"]*"/><text[^>]*><title>', str(figure))
    shapes = re.findall(r"(<circle|<path)[^>]*/><text[^>]*><title>", str(figure))
    assert len(legend) == len(shapes) == 16
    assert len(set(legend)) == 11  # six encoders as they are, five with a thin line; marks tell the targets
    names = re.findall(r"<text[^>]*><title>([^<]*)</title>", str(figure))
    assert len(set(names)) == 16


def test_a_long_name_in_the_legend_keeps_the_stain_at_its_end():
    move = {"kind": "blur", "strength": 1.0, "unit": "um", "relative": 0.5}
    name = "deit_tiny_patch16_224, deit_tiny_patch16_224.fp16"
    rows = [{"row": row, "movements": [move], "stain": None, "encoder": {"fingerprint": "f"}}
            for row in (name, f"{name}, macenko")]  # fmt: skip
    shown = re.findall(r"<text[^>]*><title>[^<]*</title>([^<]*)</text>", str(robustness_figure(rows)))
    assert len(set(shown)) == 2
    assert shown[1].endswith(", macenko")
    assert all(len(text) <= 50 for text in shown)
