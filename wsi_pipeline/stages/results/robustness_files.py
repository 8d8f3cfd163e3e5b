"""What `robustness` measured in a run: read, and written as tables and a figure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.report.figures.robustness_figure import robustness_figure, standalone
from wsi_pipeline.system.atomic import remove, write_text_if_changed

MOVEMENTS, NEIGHBOURS, FIGURE = "robustness.csv", "neighbours.csv", "robustness.svg"
_COMMON = ("adapter", "model", "pytorch_model", "target")
"""Names that files have whatever is in them: their folder tells them apart."""
_CHANGE = ("kind", "strength", "unit")
_MOVED = ("median", "low", "high", "relative", "lost", "patches", "slides")
_INDICES = ("ri", "mari", "croma")


@dataclass(frozen=True)
class Way:
    """What one row of the tables is about: an encoder, and how it was used; as the options of `robustness` have it."""

    encoder: str
    adapter: str | None = None
    weights: str | None = None
    precision: str = "auto"
    stain_norm: str = "none"
    stain_target: str = "auto"

    @property
    def name(self) -> str:
        """The row's name: the encoder, and what was given beside it: `pathotune, jitter/adapter, macenko to s1`."""
        parts = [self.encoder, *(_file_words(file) for file in (self.adapter, self.weights) if file)]
        parts += [self.precision] * (self.precision != "auto")
        to = "" if self.stain_target == "auto" else f" to {_file_words(self.stain_target)}"
        return ", ".join(parts + [f"{self.stain_norm}{to}"] * (self.stain_norm != "none"))

    @property
    def file_name(self) -> str:
        """Name of its file, without ending: files of one name in two folders have two."""
        given = [_place(file) for file in (self.adapter, self.weights)]
        if not any(given) and self.precision == "auto" and self.stain_norm == "none":
            return self.encoder
        own = digest_of(files=given, precision=self.precision, stain=self.stain_norm, target=_place(self.stain_target))
        return f"{self.name[:120]}-{own[:8]}"


def read_results(run: RunDir) -> list[dict[str, Any]]:
    """The results measured on the newest sample; damaged files are left out.

    `row` is the name of each in tables and figures, with a digest of the weights and the stain target where two have
    one name. What an encoder gave as it is comes before what it gave with normalised stain.
    """
    found = []
    for path in sorted(run.robustness.glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            named = {"name": result["encoder"]["name"], "stain": None, **result}
            found.append((path.stat().st_mtime_ns, str(result["sample"]), named))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    newest = max(found, key=lambda each: each[0], default=(0, "", {}))[1]
    results = [result for _, sample, result in found if sample == newest]
    results.sort(key=lambda each: (each["encoder"]["name"], each["stain"] is not None, each["name"]))
    results = list({(result["name"], _digest(result)): result for result in results}.values())
    names = [result["name"] for result in results]
    return [
        {**result, "row": f"{name} {_digest(result)}" if names.count(name) > 1 else name}
        for name, result in zip(names, results, strict=True)
    ]


def write_tables(run: RunDir, results: Sequence[dict[str, Any]]) -> None:
    """Write robustness.csv, neighbours.csv and robustness.svg of these encoders, each atomically, if they changed."""
    rows = [
        [result["row"], *(move[key] for key in _CHANGE), *(move[key] for key in _MOVED), move.get("own_stain")]
        for result in results
        for move in result["movements"]
    ]
    write_text_if_changed(run.robustness / MOVEMENTS, _csv(("encoder", *_CHANGE, *_MOVED, "own_stain"), rows))
    near = [
        [result["row"], measure, facts["value"], facts["patches"]]
        for result in results
        for measure, facts in [*result["neighbours"].items(), *_indices(result)]
    ]
    write_text_if_changed(run.robustness / NEIGHBOURS, _csv(("encoder", "measure", "value", "patches"), near))
    drawing = robustness_figure(results)
    if drawing is None:
        remove(run.robustness / FIGURE)
    else:
        write_text_if_changed(run.robustness / FIGURE, standalone(drawing))


def _digest(result: dict[str, Any]) -> str:
    """Eight characters that tell weights and stain target."""
    return digest_of(encoder=result["encoder"]["fingerprint"], stain=(result["stain"] or {}).get("key"))[:8]


def _file_words(given: str) -> str:
    """A file by its name, with its folder if that says more; anything else, as a slide's id, as it is."""
    path = Path(given)
    if not path.exists():
        return given
    name = path.stem if path.suffix == ".safetensors" else path.name
    return f"{path.resolve().parent.name}/{name}" if path.stem in _COMMON else name


def _place(given: str | None) -> str | None:
    return str(Path(given).resolve()) if given and Path(given).exists() else given


def _indices(result: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    scored = result["confounding"]
    for name in _INDICES:
        facts = scored[name] if scored else {"value": None, "scored": 0}
        yield name, {"value": facts["value"], "patches": facts["scored"]}


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([["" if value is None else _short(value) for value in row] for row in rows])
    return out.getvalue()


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
