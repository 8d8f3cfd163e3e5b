"""Speed of slide-level training: gated ABMIL in five folds, ours beside a plain float32 loop of one bag a step.

    python benchmarks/mil_speed.py                  a tenth of both sets, a few minutes
    python benchmarks/mil_speed.py --full           500 bags of about 2,000 x 384 and 2,000 of about 100 x 384
    python benchmarks/mil_speed.py --threads 2 --rounds 3
    python benchmarks/mil_speed.py --beside FOLDER  folds together only, with the wsi_pipeline of FOLDER (a checkout of
                                                    another commit) in turns; and a third set, of bags of 8,000 x 1,536

Features are random: they do not change the time. Every way trains and validates the same folds for the same epochs,
three of them: what ours does once, standardisation above all, would be a good part of a single one and is next to
nothing of the 20 to 60 of a real training. The ways take turns, and the fastest round of each is told. torchmil's
ABMIL (padded batches) takes part where it is installed; it has one output, which makes no difference. A bag counts
each time it is trained on.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from wsi_pipeline.system.machine import prepare_process

prepare_process()  # before torch is imported, as the command line does; for all ways

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.training.fit import fit, fit_folds
from wsi_pipeline.mil.training.objectives import Classification
from wsi_pipeline.mil.training.training_run import FoldRows

try:
    from torchmil.models import ABMIL
except ImportError:
    ABMIL = None

DIM, HIDDEN, GATES, FOLDS = 384, 256, 128, 5
SETS = ((500, 2000, 384), (2000, 100, 384))
LARGE = (200, 8000, 1536)
"""Bags, instances, values."""


@dataclass(frozen=True)
class Work:
    """What every way has to do."""

    bags: Bags
    labels: Tensor
    folds: list[FoldRows]
    epochs: int
    batch: int

    @property
    def trained(self) -> int:
        """Bags trained on, over all folds and epochs."""
        return self.epochs * sum(len(fold.train) for fold in self.folds)


class Plain(nn.Module):
    """Gated ABMIL as it is usually written, for one bag (N, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Sequential(nn.Linear(DIM, HIDDEN), nn.ReLU())
        self.v, self.u, self.w = nn.Linear(HIDDEN, GATES), nn.Linear(HIDDEN, GATES), nn.Linear(GATES, 1)
        self.head = nn.Sequential(nn.Dropout(0.25), nn.Linear(HIDDEN, 2))

    def forward(self, bag: Tensor) -> Tensor:
        """Logits (1, 2)."""
        h = self.projection(bag)
        attention = self.w(torch.tanh(self.v(h)) * torch.sigmoid(self.u(h))).softmax(0)
        return self.head(attention.t() @ h)


def make_work(n_bags: int, instances: int, epochs: int, batch: int, dim: int = DIM) -> Work:
    """Bags of about `instances` rows, float16, in five folds of which a fifth of the rest validates."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(instances * 3 // 4, instances * 5 // 4, n_bags)
    offsets = np.concatenate([[0], lengths.cumsum()]).astype(np.int64)
    generator = torch.Generator().manual_seed(0)
    features = torch.empty(int(offsets[-1]), dim, dtype=torch.float16)
    for part in features.split(10_000):
        part.copy_(torch.randn(part.shape, generator=generator))
    bags = Bags(features, offsets, tuple(f"s{i}" for i in range(n_bags)))
    order, folds = rng.permutation(n_bags), []
    for k in range(FOLDS):
        rest = np.concatenate([part for j, part in enumerate(np.array_split(order, FOLDS)) if j != k])
        folds.append(FoldRows(rest[len(rest) // 5 :], rest[: len(rest) // 5], k))
    return Work(bags, torch.from_numpy(rng.integers(0, 2, n_bags)), folds, epochs, batch)


def plain_loop(work: Work, exact: list[Tensor]) -> None:
    """One bag a step in float32, from bags that are float32 already."""
    for fold in work.folds:
        model = Plain()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        for _ in range(work.epochs):
            model.train()
            for index in np.random.default_rng(0).permutation(fold.train):
                optimizer.zero_grad()
                F.cross_entropy(model(exact[index]), work.labels[index : index + 1]).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                for index in fold.val:
                    F.cross_entropy(model(exact[index]), work.labels[index : index + 1])


def torchmil_loop(work: Work, exact: list[Tensor]) -> None:
    """torchmil's gated ABMIL on padded batches with a mask, float32."""
    for fold in work.folds:
        network = nn.Sequential(nn.Linear(DIM, HIDDEN), nn.ReLU())
        model = ABMIL(in_shape=(DIM,), att_dim=GATES, gated=True, feat_ext=network)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        for _ in range(work.epochs):
            for part, training in ((np.random.default_rng(0).permutation(fold.train), True), (fold.val, False)):
                model.train(training)
                with torch.set_grad_enabled(training):
                    _padded_epoch(work, exact, part, model, optimizer if training else None)


def _padded_epoch(
    work: Work, exact: list[Tensor], order: np.ndarray, model: nn.Module, optimizer: torch.optim.Optimizer | None
) -> None:
    for start in range(0, len(order), work.batch):
        step = order[start : start + work.batch]
        padded = nn.utils.rnn.pad_sequence([exact[index] for index in step], batch_first=True)
        lengths = torch.tensor([len(exact[index]) for index in step])
        mask = torch.arange(padded.shape[1]) < lengths[:, None]
        loss = F.binary_cross_entropy_with_logits(model(padded, mask.float()), work.labels[step].float())
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def ours(work: Work, precision: str, together: bool) -> None:
    """`fit_folds`, or `fit` fold by fold."""
    spec = replace(MilSpec(), hidden_dim=HIDDEN, attention_dim=GATES, epochs=work.epochs, patience=work.epochs)
    spec = replace(spec, batch_bags=work.batch, precision=precision)
    objective = Classification(work.labels, 2, balanced=False)
    if together:
        fit_folds(work.bags, objective, work.folds, spec)
        return
    for fold in work.folds:
        fit(work.bags, objective, fold.train, fold.val, spec, seed=fold.seed)


@dataclass(frozen=True)
class Seconds:
    """Time on the clock and of all cores; on a machine with other work the second says more."""

    clock: float
    cores: float


def measure(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, Seconds]:
    """Fewest seconds of each way; the ways take turns."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter(), time.process_time()
            way()
            found[name].append((time.perf_counter() - started[0], time.process_time() - started[1]))
    return {name: Seconds(*map(min, zip(*times, strict=True))) for name, times in found.items()}


def compare(work: Work, rounds: int) -> None:
    """Print the table of one set."""
    exact = [work.bags.bag(index).float() for index in range(len(work.bags))]
    ways: dict[str, Callable[[], None]] = {"plain loop, float32": lambda: plain_loop(work, exact)}
    if ABMIL is not None:
        ways["torchmil, padded, float32"] = lambda: torchmil_loop(work, exact)
    ways["ours, fold by fold, fp32"] = lambda: ours(work, "fp32", together=False)
    ways["ours, fold by fold, auto"] = lambda: ours(work, "auto", together=False)
    ways["ours, folds together, auto"] = lambda: ours(work, "auto", together=True)
    found = measure(ways, rounds)
    size = f"{len(work.bags)} bags of {len(work.bags.features) / len(work.bags):.0f} x {DIM}"
    print(f"\n{size}, {FOLDS} folds, {work.epochs} epochs, {work.batch} bags a step")
    print(f"{'':<28}{'s':>8}{'bags/s':>9}{'ratio':>8}{'core s':>9}{'ratio':>8}")
    plain = found["plain loop, float32"]
    for name, seconds in found.items():
        speed = f"{seconds.clock:8.1f}{work.trained / seconds.clock:9.0f}{plain.clock / seconds.clock:8.2f}"
        print(f"{name:<28}{speed}{seconds.cores:9.1f}{plain.cores / seconds.cores:8.2f}")


@dataclass(frozen=True)
class Job:
    """One training of five folds in a process of its own."""

    n_bags: int
    instances: int
    dim: int
    epochs: int
    batch: int
    threads: int

    def run(self) -> None:
        """Train, and print processor seconds and the growth of memory relative to the features as JSON."""
        torch.set_num_threads(self.threads)
        work = make_work(self.n_bags, self.instances, self.epochs, self.batch, self.dim)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter(), time.process_time()
        ours(work, "auto", together=True)
        clock, cores = time.perf_counter() - started[0], time.process_time() - started[1]
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        size = work.bags.features.numel() * work.bags.features.element_size()
        print(json.dumps({"clock": clock, "cores": cores, "memory": 1 + grown / size}))

    def measured(self, folder: Path) -> dict[str, float]:
        """What `run` prints with the wsi_pipeline of `folder`."""
        words = [sys.executable, __file__, "--job", json.dumps(asdict(self))]
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


def beside(job: Job, other: Path, rounds: int) -> None:
    """Print one row of each build; they take turns, and the least of each number is told."""
    builds = {f"of {other.name}": other, "this one": Path(__file__).resolve().parents[1]}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in builds}
    for _ in range(rounds):
        for name, folder in builds.items():
            found[name].append(job.measured(folder))
    print(f"\n{job.n_bags} bags of about {job.instances} x {job.dim}, {FOLDS} folds together, {job.epochs} epochs")
    print(f"{'build':<28}{'core s':>9}{'ratio':>8}{'s':>9}{'memory / features':>20}")
    least = {name: {key: min(one[key] for one in each) for key in each[0]} for name, each in found.items()}
    first = next(iter(least.values()))["cores"]
    for name, one in least.items():
        print(f"{name:<28}{one['cores']:9.1f}{first / one['cores']:8.2f}{one['clock']:9.1f}{one['memory']:20.2f}")


def main() -> None:
    """Measure both sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all bags")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8, help="bags in one step of ours")
    parser.add_argument("--beside", type=Path, metavar="FOLDER", help="another checkout to compare with")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        Job(**json.loads(args.job)).run()
        return
    torch.set_num_threads(args.threads)
    print(f"{args.threads} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, best of {args.rounds}")
    tenth = 1 if args.full else 10
    for n_bags, instances, dim in (*SETS, *((LARGE,) if args.beside else ())):
        if args.beside:
            job = Job(n_bags // tenth, instances, dim, args.epochs, args.batch, args.threads)
            beside(job, args.beside.resolve(), args.rounds)
        else:
            compare(make_work(n_bags // tenth, instances, args.epochs, args.batch), args.rounds)


if __name__ == "__main__":
    main()
