"""Train one fold or several: seeded, stopped early by the validation bags alone, the best state kept.

Training reads the training bags and the validation bags, never the test fold. Folds are trained in groups: attention
models on small bags share every step (`stacked_folds`), other groups are single folds. Groups train in parallel on the
threads of a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from functools import partial
from itertools import zip_longest
from threading import Event, Lock

import numpy as np
import torch
from torch import Tensor

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.training import batching as pieces
from wsi_pipeline.mil.training.linear_path import fit_path, is_linear
from wsi_pipeline.mil.training.objectives import Objective
from wsi_pipeline.mil.training.standardise import Moments
from wsi_pipeline.mil.training.steps import sharing, take_step
from wsi_pipeline.mil.training.training_run import Epoch, Fitted, FoldRows, RowIndices, TrainingRun, sum_of

Report = Callable[[int, Epoch], None]


def fit(
    bags: Bags,
    objective: Objective,
    train: RowIndices,
    val: RowIndices,
    spec: MilSpec,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Fitted:
    """Train `spec.model` on the bags `train` with AdamW; keep the epoch with the lowest loss on the bags `val`.

    train, val   indices of bags; standardisation and class weights are learned from `train` only. With no
                 `val` bags all epochs are run and the last one is kept.
    seed         fixes initial weights, dropout, order and drawn instances; the caller's generators are left as they
                 were. On the CPU the same seed and number of threads give bit-identical results.

    Raises MilError if there is nothing to train on, or if the loss is no longer finite.
    """

    def report(_: int, epoch: Epoch) -> None:
        if on_epoch is not None:
            on_epoch(epoch)

    return fit_folds(bags, objective, [FoldRows(train, val, seed)], spec, device=device, on_epoch=report)[0]


def fit_folds(
    bags: Bags,
    objective: Objective | Sequence[Objective],
    folds: Sequence[FoldRows],
    spec: MilSpec,
    *,
    device: torch.device | str = "cpu",
    on_epoch: Report | None = None,
) -> list[Fitted]:
    """Train `spec.model` once per fold; up to rounding the same as calling `fit` for each.

    objective   one for all folds, or one for each
    on_epoch    called with the position of the fold and its epoch, by one fold at a time

    Features are read once for the standardisation of all folds. On a CPU with several threads groups of folds train in
    parallel, each on its share of the threads, unless a bag is so large that only one should be in memory. Raises
    MilError as `fit` does.
    """
    objectives = list(objective) if isinstance(objective, Sequence) else [objective] * len(folds)
    every = np.unique(np.concatenate([fold.train for fold in folds])) if folds else np.zeros(0, np.int64)
    moments, place = Moments.of(bags, every), torch.device(device)
    runs = [TrainingRun(bags, *pair, spec, place, moments) for pair in zip(objectives, folds, strict=True)]
    lock, stop = Lock(), Event()

    def report(number: int, epoch: Epoch) -> None:
        with lock:
            if on_epoch is not None:
                on_epoch(number, epoch)

    at_once, shared = _side_by_side(bags, len(folds), place), sharing(runs[0]) if runs else 0
    groups = _groups(len(folds), at_once, max(shared, 1))

    def train(group: list[int]) -> None:
        _train([(number, runs[number]) for number in group], shared > 0, report, stop)

    _each(train, groups, min(at_once, len(groups)), stop)
    return [run.fitted() for run in runs]


def _side_by_side(bags: Bags, n_folds: int, device: torch.device) -> int:
    """Number of groups to train in parallel."""
    if device.type != "cpu" or bags.lengths.max(initial=0) > pieces.MAX_INSTANCES:
        return 1
    return max(1, min(n_folds, torch.get_num_threads()))


def _groups(n_folds: int, at_once: int, largest: int) -> list[list[int]]:
    """Positions of the folds in each group: at most `largest` per group, and at least `at_once` groups."""
    n_groups = max(at_once, -(-n_folds // largest))
    return [part.tolist() for part in np.array_split(np.arange(n_folds), n_groups) if len(part)]


def _each(train: Callable[[list[int]], None], groups: list[list[int]], at_once: int, stop: Event) -> None:
    """Train all groups, on threads that share those of torch; if one fails, or on Ctrl-C, the others stop."""
    if at_once <= 1:
        for group in groups:
            train(group)
        return
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(at_once, "fold", torch.set_num_threads, (threads // at_once,)) as pool:
        try:
            futures = [pool.submit(train, group) for group in groups]
            done = wait(futures, return_when=FIRST_EXCEPTION).done
            failed = [future for future in futures if future in done and future.exception() is not None]
            for future in failed or futures:
                future.result()
        finally:
            stop.set()
            torch.set_num_threads(threads)


def _train(group: Sequence[tuple[int, TrainingRun]], together: bool, report: Report, stop: Event) -> None:
    """All epochs of a group of folds, each until its own early stopping."""
    for number, run in group:
        if is_linear(run):
            fit_path(run, partial(report, number), stop.is_set)
    going = [(number, run) for number, run in group if not is_linear(run)]
    while going:
        losses = _train_epoch([fold for _, fold in going], together, stop)
        for (number, fold), loss in zip(going, losses, strict=True):
            report(number, fold.note(loss, fold.val_loss()))
        going = [(number, fold) for number, fold in going if not fold.over]


def _train_epoch(folds: Sequence[TrainingRun], together: bool, stop: Event) -> list[float]:
    """One pass of each fold over its training bags; returns the weighted mean loss of each."""
    totals: list[list[Tensor]] = [[] for _ in folds]
    for fold in folds:
        fold.model.train()
    for steps in zip_longest(*(fold.steps() for fold in folds)):
        if stop.is_set():
            raise CancelledError("another fold failed")
        going = [k for k, step in enumerate(steps) if step is not None]
        losses = take_step([folds[k] for k in going], [steps[k] for k in going], together)
        for k, loss in zip(going, losses, strict=True):
            totals[k] += loss
    return [sum_of(total) / fold.weight(fold.rows.train) for fold, total in zip(folds, totals, strict=True)]
