"""`robustness`: how far features move when patches are changed a little, beside the distances between patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wsi_pipeline.commands.shell.request import EXIT_DONE, EXIT_SOME_FAILED, Request, shown
from wsi_pipeline.commands.shell.sections import refuse_twice
from wsi_pipeline.config.robustness_options import RobustnessOptions
from wsi_pipeline.stages.inputs.find_adapter import plan_in_run
from wsi_pipeline.stages.measure_robustness import (
    SampledSlide,
    choose_sample,
    measure,
    read_result,
    result_digest,
    sample_digest,
)
from wsi_pipeline.stages.results.robustness_files import FIGURE, MOVEMENTS, read_results, write_tables
from wsi_pipeline.wording import counted, listed

_NEAR = ("nearest_own_slide", "nearest_other_slide", "nearest_same_site", "nearest_other_site")
_FEW = 0.9


def robustness(request: Request) -> int:
    """Measure each encoder on the same patches; encoders measured before are not measured again."""
    each = request.each()
    refuse_twice(part.get(RobustnessOptions).model for part in each)
    options, console = each[0].get(RobustnessOptions), request.console
    sample = choose_sample(request.run_dir, request.known_cohort().records, options.n_patches, options.seed)
    patches = sum(len(slide.coords) for slide in sample)
    console.fact("sample", f"{counted(patches, 'patch')} of {counted(len(sample), 'slide')}, seed {options.seed}")
    digest = sample_digest(sample, options.seed)
    done = [_measured(part, sample, patches, digest) for part in each]
    results = read_results(request.run_dir)
    write_tables(request.run_dir, results)
    _print_moved(request, results)
    _print_near(request, results)
    for slide, reason in {name: why for result in done for name, why in result["failed"].items()}.items():
        console.note(f"{slide} left out: {reason}")
    folder = shown(request.run_dir.robustness)
    console.say(f"every strength: {folder}/{MOVEMENTS} · figure: {folder}/{FIGURE} · {request.next('report')}")
    return EXIT_SOME_FAILED if any(result["failed"] for result in done) else EXIT_DONE


def _measured(request: Request, sample: Sequence[SampledSlide], patches: int, digest: str) -> dict[str, Any]:
    """The result of one encoder, measured unless it is there already."""
    options, console = request.get(RobustnessOptions), request.console
    side = sample[0].geometry.patch_px
    plan, remark = plan_in_run(
        request.run_dir, options.model, adapter=options.adapter, weights=options.weights, patch_px=side
    )
    own = result_digest(digest, plan, options.precision)
    file = request.run_dir.robustness_file(plan.info.name)
    known = read_result(file, own)
    if known is not None:
        console.say(f"{plan.info.name}: up to date")
        return known
    console.fact("encoder", f"{plan.info.name}: {plan.about()[0]}" + (f" ({remark})" if remark else ""))
    batch = options.batch or plan.suggest_batch(options.device)
    encoder = plan.open(options.device, options.precision)
    settings = {"digest": own, "sample": digest, "seed": options.seed, "batch": batch}
    with console.progress(f"robustness {plan.info.name}", patches, "patches") as step:
        return measure(request.run_dir, sample, plan, encoder, settings, step)


def _print_moved(request: Request, results: Sequence[dict[str, Any]]) -> None:
    """One row per kind of change: how far its strongest form moves the features of each encoder."""
    kinds = list(dict.fromkeys(move["kind"] for result in results for move in result["movements"]))
    rows = [[kind, *(_worst(result, kind) for result in results)] for kind in kinds]
    names = [str(result["encoder"]["name"]) for result in results]
    request.console.table(("moved (lost)", *names), rows)
    request.console.say(
        "moved: median distance of the worst strength, in distances to the nearest patch of another slide; lost: "
        "changed patches that are nearer to another patch than to themselves"
    )


def _worst(result: dict[str, Any], kind: str) -> str:
    moves = [move for move in result["movements"] if move["kind"] == kind]
    worst = max(moves, key=lambda move: (move["median"] or 0, move["lost"] or 0))
    relative = "-" if worst["relative"] is None else f"{worst['relative']:.2f}"
    return f"{relative} ({100 * (worst['lost'] or 0):.0f} %)"


def _print_near(request: Request, results: Sequence[dict[str, Any]]) -> None:
    """Distances between unchanged patches, and the indices, each with the number of patches it rests on."""
    rows = []
    for measure_name in _NEAR:
        facts = [result["neighbours"][measure_name] for result in results]
        if any(each["value"] is not None for each in facts):
            rows.append([measure_name.replace("_", " "), *(_valued(each["value"], each["patches"]) for each in facts)])
    for name, title in (("ri", "RI"), ("mari", "MaRI"), ("croma", "CRoMa")):
        scored = [(result["confounding"] or {}).get(name) for result in results]
        if any(scored):
            rows.append([title, *(_valued(each["value"], each["scored"]) if each else "-" for each in scored)])
    names = [str(result["encoder"]["name"]) for result in results]
    request.console.table(("distance (patches)", *names), rows)
    why = {str(result["not_scored"]) for result in results if result["not_scored"]}
    if why:
        request.console.note(f"RI, MaRI and CRoMa are not scored: {listed(sorted(why))}")
    for result in results:
        scored = result["confounding"]
        if scored and scored["croma"]["support"] < _FEW:
            part = f"{scored['croma']['scored']} of {scored['croma']['patches']}"
            request.console.note(f"{result['encoder']['name']}: CRoMa rests on {part} patches")


def _valued(value: float | None, patches: int) -> str:
    return "-" if value is None else f"{value:.3f} ({patches})"
