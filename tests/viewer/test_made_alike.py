"""Features of different weights or stain, and classes of different tunings, are not compared with each other."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from tests.viewer.pages import write_class_map
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.config.registries import EVEN_MODELS, MIL_MODELS
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.store.tables.class_table import read_class_table, write_classes
from wsi_pipeline.store.tables.patch_table import read_patch_table

TRAINING = {"training": "colour/abmil", "sort": "distance"}


@pytest.fixture(autouse=True)
def asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at for each request, not every two seconds."""
    monkeypatch.setattr("wsi_pipeline.viewer.nearest.slide_distances.FRESH_SECONDS", 0.0)


def distances(client: TestClient) -> tuple[dict[str, float], str]:
    """Distances of the slides that have one, and what the page says of them."""
    answer = client.get("cohort", params=TRAINING).json()
    return {row["id"]: row["distance"] for row in answer["rows"] if row.get("distance") is not None}, answer["note"]


def layers(client: TestClient, slide: str, training: str) -> list[str]:
    """What the page offers of a model."""
    keys = [layer["key"] for layer in client.get(f"slides/{slide}").json()["layers"]]
    return [key.partition(":")[0] for key in keys if key.endswith(f":{training}")]


@pytest.mark.parametrize("model", sorted(MIL_MODELS.names()))
def test_even_models_are_those_whose_attention_never_differs(model: str) -> None:
    torch.manual_seed(0)
    network = MIL_MODELS.get(model)(8, 2, MilSpec(model=model)).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # attention begins even in some models
            parameter += torch.randn_like(parameter)
        attention = network(3 * torch.randn(40, 8), torch.tensor([0, 40]), None).attention
    assert (model in EVEN_MODELS) == bool((attention - 1 / 40).abs().max() < 1e-6)


@pytest.mark.parametrize("model", EVEN_MODELS)
def test_a_model_without_attention_offers_contributions_alone(client: TestClient, run: RunDir, model: str) -> None:
    assert layers(client, "s0", "colour/abmil") == ["attention", "contribution"]
    path = run.mil("colour", "abmil") / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "spec": {**config["spec"], "model": model}}))
    assert layers(client, "s0", "colour/abmil") == ["contribution"]
    answer = client.get("slides/s0/layer", params={"key": "attention:colour/abmil"})
    assert "has no layer" in answer.json()["error"]


def test_models_of_prompts_tuned_in_each_fold_have_no_layers(client: TestClient, run: RunDir) -> None:
    path = run.mil("colour", "abmil") / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prompts": {}}))
    assert layers(client, "s0", "colour/abmil") == []
    values, note = distances(client)
    assert values == {}
    assert "prompts tuned in each fold" in note


def test_a_slide_embedded_otherwise_has_no_distance_and_no_attention(client: TestClient, run: RunDir) -> None:
    before, note = distances(client)
    assert (sorted(before), note) == (["s0", "s1", "s2", "s3"], "")
    similar = {"params": {"encoder": "colour"}}
    assert client.get("slides/s0/similar", **similar).status_code == 200
    words = ["embed", "--model", "colour", "--stain-norm", "reinhard", "--only", "s1", "--run", str(run.root)]
    assert main([*words, "--quiet"]) == 0
    after, note = distances(client)
    assert after == {name: value for name, value in before.items() if name != "s1"}
    assert note.startswith("No distance of 1 slide (s1): the features differ from those the model was trained on")
    assert "stain_norm reinhard, not none" in note
    refused = client.get("slides/s0/similar", **similar)
    assert refused.status_code == 400
    assert "stain_norm" in refused.json()["error"]
    for name, status in (("s0", 200), ("s1", 400)):
        layer = client.get(f"slides/{name}/layer", params={"key": "attention:colour/abmil"})
        assert layer.status_code == status, name
    assert "stain_norm reinhard, not none" in layer.json()["error"]
    every = [word for word in words if word not in ("--only", "s1")]
    assert main([*every, "--quiet"]) == 3, "one slide is broken"
    values, note = distances(client)
    assert values == {}
    assert note.startswith("No distances: the features differ"), "the training is the one that is old"
    assert client.get("slides/s0/similar", **similar).status_code == 200, "all alike again"


def tuned_again(run: RunDir, name: str, gland: float, fingerprint: str) -> None:
    """A class map of `name` by weights with this fingerprint; all patches have the same probability."""
    count = len(read_patch_table(run.patch_store(name)).grid)
    write_class_map(run, name, np.tile(np.array([[gland, 1 - gland]], np.float32), (count, 1)))
    path = run.class_store("pathotune:marks", name)
    table = read_class_table(path)
    extra: dict[str, Any] = {**table.header.extra, "encoder": {"fingerprint": fingerprint}}
    header = replace(table.header, extra=extra)
    write_classes(path, header, table.geometry, table.coords, table.probabilities)


def test_next_to_mark_leaves_out_what_an_earlier_tuning_classified(
    client: TestClient, run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned_again(run, "s0", 0.5, "old")
    tuned_again(run, "s1", 0.6, "new")
    for age, name in enumerate(("s1", "s0")):
        made = time.time() - 100 * age
        os.utime(run.class_store("pathotune:marks", name), (made, made))
    answer = client.get("next-to-mark", params={"count": 4}).json()
    assert {one["id"] for one in answer["patches"]} == {"s1"}
    assert answer["note"].startswith("Without 1 slide (s0)")
    notes = [
        client.get(f"slides/{name}/layer", params={"key": "classes:pathotune-marks"}).json()["note"]
        for name in ("s0", "s1")
    ]
    assert [bool(note) for note in notes] == [True, False]
    assert main(["view", "--next-to-mark", "4", "--run", str(run.root)]) == 0
    assert "Without 1 slide (s0)" in "".join(capsys.readouterr())
    tuned_again(run, "s0", 0.5, "new")
    answer = client.get("next-to-mark", params={"count": 4}).json()
    assert ({one["id"] for one in answer["patches"]}, answer["note"]) == ({"s0", "s1"}, "")
