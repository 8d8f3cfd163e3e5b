"""Which adapter file `--model pathotune` refers to: decided here for embed, classify and predict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.encoders.encoder import BUILT_IN, EncoderPlan
from wsi_pipeline.encoders.names import HUB_PREFIX, TUNED, family_of, is_tuned, plan_encoder
from wsi_pipeline.errors import EncoderError, MilError, UsageError

_TUNE = "tune one with: wsi-pipeline tune ..."


@dataclass(frozen=True)
class AdapterChoice:
    """An adapter file (None: the built-in one), and a remark on why it was chosen ("" if that is obvious)."""

    path: Path | None
    remark: str = ""


def find_adapter(run: RunDir, model: str, given: str | None = None) -> AdapterChoice | None:
    """The adapter that `--model` and `--adapter` refer to in a run; None for an encoder without one.

    A given file takes precedence; `built-in` is the package's. `pathotune:NAME` is tune/NAME of the run; `pathotune` is
    tune/pathotune if it exists, else the built-in one. Raises EncoderError for a NAME that was not tuned,
    UsageError for an adapter given to another encoder.
    """
    if not is_tuned(model):
        if given:
            raise UsageError(f"--adapter is for --model {TUNED}, got --model {model}", todo="Leave --adapter out.")
        return None
    if given:
        return AdapterChoice(None if given == BUILT_IN else Path(given))
    name = model.partition(":")[2] or TUNED
    path = run.adapter(name)
    if path.is_file():
        return AdapterChoice(path)
    tuned = tuned_names(run)
    if model == TUNED:
        others = f"this run has {', '.join(tuned)}: choose with --model {TUNED}:NAME"
        return AdapterChoice(None, others if tuned else f"no adapter tuned in this run; {_TUNE}")
    raise EncoderError(
        f"no adapter {name} in this run: {path} is missing",
        todo=f"There are: {', '.join(tuned)}" if tuned else _TUNE.capitalize(),
    )


def tuned_names(run: RunDir) -> tuple[str, ...]:
    """Names of the adapters tuned in a run, sorted."""
    return tuple(sorted(path.parent.name for path in run.adapter("x").parent.parent.glob("*/adapter.safetensors")))


def plan_in_run(
    run: RunDir,
    model: str,
    *,
    adapter: str | None = None,
    weights: str | None = None,
    patch_px: int | None = None,
    input_px: int | None = None,
    whole_patch: bool = False,
) -> tuple[EncoderPlan, str]:
    """The plan of an encoder for a name used in a run, and the remark on its adapter. Raises as its parts do."""
    choice = find_adapter(run, model, adapter)
    plan = plan_encoder(
        model,
        weights=Path(weights) if weights else None,
        patch_px=patch_px,
        adapter=choice.path if choice else None,
        input_px=input_px,
        whole_patch=whole_patch,
    )
    return plan, choice.remark if choice else ""


def check_encoder(
    run: RunDir, model: str, adapter: str | None = None, weights: str | None = None, *, input_px: int = 0,
    whole_patch: bool = False,
) -> None:  # fmt: skip
    """Look up an encoder, its adapter and its weights file before there are patches; no hub is contacted.

    Raises EncoderError or UsageError as `plan_in_run` does.
    """
    on_a_hub = family_of(model) == "huggingface" and not Path(model).is_dir()
    if on_a_hub or model.startswith(HUB_PREFIX):
        find_adapter(run, model, adapter)
        return
    plan_in_run(run, model, adapter=adapter, weights=weights, input_px=input_px or None, whole_patch=whole_patch)


def remembered(run: RunDir, adapter: str) -> str:
    """How a store records an adapter file: its path within the run if it lies there, else the absolute path."""
    if adapter in ("", BUILT_IN):
        return adapter
    path, root = Path(adapter).resolve(), run.root.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def adapter_of_model(
    encoder: Mapping[str, Any], recorded: str, trained: Path, run: RunDir, given: str | None = None
) -> str | None:
    """The adapter that a slide-level model was trained on, for `--adapter`; None for an encoder without one.

    encoder    identity of the encoder in the trained model: name and fingerprint
    recorded   the adapter as recorded by its training (see `remembered`)
    trained    folder of the trained model, train-mil/<encoder>/<mil model> of its run
    run        the run that the model is applied to

    The recorded file is looked for in the run of the training, then in this one, and used only if its fingerprint
    is the one the model was trained on. Raises MilError if no such file is found.
    """
    name, wanted = str(encoder["name"]), str(encoder["fingerprint"])
    if not is_tuned(name):
        if given:
            raise UsageError(f"--adapter is for models of {TUNED} features, got a model of {name} features")
        return None
    tried = []
    for candidate in [given] if given else _candidates(recorded, trained, run):
        found = _fingerprint(name, candidate)
        if found == wanted:
            return candidate
        tried.append(f"{candidate} {'is missing or unreadable' if found is None else f'has {found[:12]}'}")
    raise MilError(
        f"the model was trained on {name} features of an adapter with the fingerprint {wanted[:12]}: "
        f"{'; '.join(tried) or 'no file is recorded'}",
        todo="Name the adapter file it was trained on with --adapter FILE, or retrain the model with this adapter's "
        "features.",
    )


def _candidates(recorded: str, trained: Path, run: RunDir) -> Iterator[str]:
    if recorded == BUILT_IN or Path(recorded).is_absolute():
        yield recorded
    elif recorded:
        folder = trained.resolve()
        yield from dict.fromkeys(str(root / recorded) for root in (*folder.parents[2:3], run.root.resolve()))


def _fingerprint(name: str, adapter: str) -> str | None:
    """Fingerprint of the encoder with this adapter; None if the file is missing or not an adapter."""
    try:
        path = None if adapter == BUILT_IN else Path(adapter)
        # The built-in adapter has only the plain name.
        return plan_encoder(TUNED if path is None else name, adapter=path).fingerprint
    except EncoderError:
        return None
