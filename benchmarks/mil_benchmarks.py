"""Slide-level models beside published numbers: python benchmarks/mil_benchmarks.py [--write docs/results.md].

Five classical sets and two of histology (see benchmarks/mil/sets.py), repeated 10-fold cross-validation. Resumable:
results are lines of benchmarks/mil/results.jsonl, and what is there is not run again. About an hour on two free cores.
Speed is in benchmarks/mil_speed.py.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.mil.run import NUMBERS, Json, Results, Trial, run
from benchmarks.mil.sets import CLASSICAL, SETS
from benchmarks.tuning.__main__ import put
from benchmarks.tuning.plans import grid
from wsi_pipeline.system.machine import prepare_process

MODELS = ("abmil", "gated-abmil", "mean", "max", "clam-sb", "dsmil", "transmil")
PUBLISHED = {
    ("musk1", "abmil"): ".892", ("musk1", "gated-abmil"): ".900",
    ("musk2", "abmil"): ".858", ("musk2", "gated-abmil"): ".863",
    ("fox", "abmil"): ".615", ("fox", "gated-abmil"): ".603",
    ("tiger", "abmil"): ".839", ("tiger", "gated-abmil"): ".845",
    ("elephant", "abmil"): ".868", ("elephant", "gated-abmil"): ".857",
    ("ucsb", "abmil"): ".745 / .775", ("ucsb", "gated-abmil"): ".755 / .799",
    ("crc", "abmil"): ".904 / .968", ("crc", "gated-abmil"): ".898 / .968",
}  # fmt: skip
"""Accuracy, or accuracy / AUC, of Ilse, Tomczak and Welling 2018 (arXiv 1802.04712), 10 folds, 5 runs."""


NO_VALIDATION = {"val_fraction": 0, "epochs": 15}
"""As in the published protocol all training bags train, for a number of epochs that is the same for all sets."""
PROTOCOLS = {"published protocol": NO_VALIDATION, "committee of 5": {**NO_VALIDATION, "committee": 5}, "defaults": {}}
"""How ABMIL is trained, by the name of the column. `defaults`: a tenth of the training bags stops the training."""


def trials() -> list[Trial]:
    """Every validation of the tables, those with published numbers first."""
    beside = [_trial(name, model, settings) for settings in PROTOCOLS.values() for model in MODELS[:2] for name in SETS]
    found = [_trial(name, model) for model in MODELS[2:] for name in SETS]
    groups = [_groups(model, settings) for model in MODELS[:2] for settings in PROTOCOLS.values()]
    return beside + groups + found + [_groups(model) for model in MODELS[2:]]


def _trial(name: str, model: str, settings: Json | None = None) -> Trial:
    """Five times over for the models with published numbers and for mean pooling, twice for the others."""
    return Trial(name, model, repeats=5 if model in MODELS[:3] else 2, settings=settings or {})


def _groups(model: str, settings: Json | None = None) -> Trial:
    """The breast images with whole tissue arrays held out."""
    return replace(_trial("ucsb", model, settings), protocol="groups", folds=5)


def main() -> None:
    """Run what is missing, then show the tables or write them into a document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("mil-benchmark"), help="where features of images are kept")
    parser.add_argument("--only", nargs="*", help="sets to run (default: all)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="validations at a time")
    parser.add_argument("--show", action="store_true", help="run nothing")
    parser.add_argument("--write", type=Path, help="document whose MIL tables are replaced")
    asked = parser.parse_args()
    results = Results()
    if not asked.show:
        wanted = [trial for trial in trials() if not asked.only or trial.name in asked.only]
        _work_off([trial for trial in wanted if results.get(trial) is None], results, asked.work, asked.workers)
    tables = {"mil-published": published_table(results), "mil-models": models_table(results)}
    text = "\n\n".join(tables.values())
    if asked.write:
        document = asked.write.read_text()
        for name, table in tables.items():
            document = put(document, name, table)
        asked.write.write_text(document)
    print(text)


def published_table(results: Results) -> str:
    """ABMIL and gated ABMIL beside what was published for them."""
    rows = []
    for name, model in itertools.product(SETS, MODELS[:2]):
        told = [_cell(results, _trial(name, model, settings)) for settings in PROTOCOLS.values()]
        rows.append([name, model, PUBLISHED[name, model], *told])
    for model in MODELS[:2]:
        told = [_cell(results, _groups(model, settings)) for settings in PROTOCOLS.values()]
        rows.append(["ucsb, whole arrays held out", model, "-", *told])
    return grid(("set", "model", "published", *PROTOCOLS), rows)


def _cell(results: Results, trial: Trial) -> str:
    """`accuracy ± error / AUC (mean of the folds' AUC)`."""
    accuracy, auc, folds = _told(results, trial, NUMBERS)
    return f"{accuracy} / {auc.split(' ±')[0]} ({folds.split(' ±')[0]})" if accuracy != "not run" else accuracy


def models_table(results: Results) -> str:
    """Every model on every set: accuracy, and accuracy / AUC for histology."""
    rows = []
    for model in MODELS:
        cells = [_told(results, _trial(name, model), ("accuracy",))[0] for name in CLASSICAL]
        for trial in (_trial("ucsb", model), _groups(model), _trial("crc", model)):
            cells.append(" / ".join(cell.split(" ±")[0] for cell in _told(results, trial, ("accuracy", "auc"))))
        rows.append([model, *cells])
    return grid(("model", *CLASSICAL, "ucsb", "ucsb, whole arrays held out", "crc"), rows)


def _told(results: Results, trial: Trial, names: Sequence[str]) -> list[str]:
    """`mean ± standard error over repeats` of each number."""
    found = results.get(trial)
    if found is None:
        return ["not run"] * len(names)
    return [_mean([repeat[name] for repeat in found["repeats"]]) for name in names]


def _mean(values: Sequence[float]) -> str:
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.3f}" + ("" if np.isnan(error) else f" ± {error:.3f}")


def _work_off(waiting: Sequence[Trial], results: Results, work: Path, workers: int) -> None:
    print(f"{len(waiting)} validations to do, {workers} at a time", flush=True)
    _prepare({trial.name for trial in waiting}, work)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        for trial, (result, seconds) in zip(waiting, pool.map(_timed, waiting, [work] * len(waiting)), strict=True):
            results.put(trial, result)
            told = " ".join(
                f"{name} {text}" for name, text in zip(NUMBERS, _told(results, trial, NUMBERS), strict=True)
            )
            print(f"{trial.name} {trial.model} {trial.protocol}: {told} ({seconds:.0f} s)", flush=True)


def _prepare(names: Iterable[str], work: Path) -> None:
    from benchmarks.mil.sets import load_set

    for name in sorted(names):
        load_set(name, work)


def _one_thread() -> None:
    import torch

    prepare_process()
    torch.set_num_threads(1)


def _timed(trial: Trial, work: Path) -> tuple[dict[str, object], float]:
    started = time.perf_counter()
    return run(trial, work), time.perf_counter() - started


if __name__ == "__main__":
    main()
