"""`robustness`: how far features move when patches are changed a little, beside the distances between patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wsi_pipeline.commands.shell.console import MOST_ROWS
from wsi_pipeline.commands.shell.request import EXIT_DONE, EXIT_SOME_FAILED, Request, shown
from wsi_pipeline.commands.shell.sections import refuse_twice
from wsi_pipeline.config.robustness_options import RobustnessOptions
from wsi_pipeline.stages.inputs.find_adapter import check_encoder, plan_in_run
from wsi_pipeline.stages.inputs.stain_target import check_target
from wsi_pipeline.stages.measure_robustness import (
    Normalisation,
    SampledSlide,
    choose_sample,
    measure,
    read_result,
    result_digest,
    sample_digest,
)
from wsi_pipeline.stages.results.robustness_files import FIGURE, MOVEMENTS, Way, read_results, write_tables
from wsi_pipeline.wording import counted, listed

_NEAR = ("nearest_own_slide", "nearest_other_slide", "nearest_same_site", "nearest_other_site")
_FEW = 0.9
_WIDE = 118
"""Characters of a table's line, if more than one encoder fits on it."""


def robustness(request: Request) -> int:
    """Measure each encoder on the same patches; encoders measured before are not measured again."""
    each = request.each()
    refuse_twice(part.get(RobustnessOptions).model for part in each)
    options, console = each[0].get(RobustnessOptions), request.console
    for part in each:  # all, before the first is measured
        asked = part.get(RobustnessOptions)
        check_encoder(request.run_dir, asked.model, asked.adapter, asked.weights)
    if options.stain_norm != "none":
        cohort = request.known_cohort().records
        check_target(options.stain_norm, options.stain_target, [record.slide_id for record in cohort])
    sample = choose_sample(request.run_dir, request.known_cohort().records, options.n_patches, options.seed)
    patches = sum(len(slide.coords) for slide in sample)
    console.fact("sample", f"{counted(patches, 'patch')} of {counted(len(sample), 'slide')}, seed {options.seed}")
    digest, stain = sample_digest(sample, options.seed), _normalisation(request, options)
    done = [_measured(part, sample, digest, stain) for part in each]
    results = read_results(request.run_dir)
    write_tables(request.run_dir, results)
    _print_moved(request, results)
    _print_near(request, results)
    _print_own_stain(request, done[0])
    for slide, reason in {name: why for result in done for name, why in result["failed"].items()}.items():
        console.note(f"{slide} left out: {reason}")
    folder = shown(request.run_dir.robustness)
    console.say(f"every strength: {folder}/{MOVEMENTS} · figure: {folder}/{FIGURE} · {request.next('report')}")
    return EXIT_SOME_FAILED if any(result["failed"] for result in done) else EXIT_DONE


def _normalisation(request: Request, options: RobustnessOptions) -> Normalisation | None:
    if options.stain_norm == "none":
        return None
    from wsi_pipeline.commands.shell.stain_step import target_only  # only this option needs it

    return Normalisation(request.run_dir, target_only(request, options.stain_norm, options.stain_target))


def _measured(
    request: Request, sample: Sequence[SampledSlide], digest: str, stain: Normalisation | None
) -> dict[str, Any]:
    """The result of one encoder, measured unless it is there already."""
    options, console = request.get(RobustnessOptions), request.console
    side = sample[0].geometry.patch_px
    plan, remark = plan_in_run(
        request.run_dir, options.model, adapter=options.adapter, weights=options.weights, patch_px=side
    )
    own = result_digest(digest, plan, options.precision, stain.target if stain else None)
    way = Way(plan.info.name, options.adapter, options.weights, options.precision, options.stain_norm,
              options.stain_target)  # fmt: skip
    file = request.run_dir.robustness_file(way.file_name)
    known = read_result(file, own)
    if known is not None:
        console.say(f"{way.name}: up to date")
        return known
    console.fact("encoder", f"{way.name}: {plan.about()[0]}" + (f" ({remark})" if remark else ""))
    batch = options.batch or plan.suggest_batch(options.device)
    encoder = plan.open(options.device, options.precision)
    settings = {"name": way.name, "digest": own, "sample": digest, "seed": options.seed, "batch": batch}
    patches = sum(len(slide.coords) for slide in sample)
    with console.progress(f"robustness {way.name}", patches, "patches") as step:
        return measure(file, sample, plan, encoder, settings, stain, step)


def _print_moved(request: Request, results: Sequence[dict[str, Any]]) -> None:
    """One row per kind of change: how far its strongest form moves the features of each encoder."""
    kinds = list(dict.fromkeys(move["kind"] for result in results for move in result["movements"]))
    columns = [(str(result["row"]), [_worst(result, kind) for kind in kinds]) for result in results]
    _print_columns(request, "moved (lost)", kinds, columns)
    request.console.say(
        "moved: median distance of the worst strength, in distances to the nearest patch of another slide; lost: "
        "changed patches that are nearer to another patch than to themselves"
    )


def _print_columns(
    request: Request, title: str, rows: Sequence[str], columns: Sequence[tuple[str, Sequence[str]]]
) -> None:
    """Print a table with a column per encoder, in as many parts as fit side by side."""
    left = list(columns)
    while left:
        width, count = max(len(title), *map(len, rows)), 0
        for name, cells in left:
            width += 2 + max(len(name), *map(len, cells))
            if count and width > _WIDE:
                break
            count += 1
        part, left = left[:count], left[count:]
        lines = [[row, *(cells[at] for _, cells in part)] for at, row in enumerate(rows)]
        request.console.table((title, *(name for name, _ in part)), lines)


def _worst(result: dict[str, Any], kind: str) -> str:
    moves = [move for move in result["movements"] if move["kind"] == kind]
    worst = max(moves, key=lambda move: (move["median"] or 0, move["lost"] or 0))
    relative = "-" if worst["relative"] is None else f"{worst['relative']:.2f}"
    return f"{relative} ({100 * (worst['lost'] or 0):.0f} %)"


def _print_near(request: Request, results: Sequence[dict[str, Any]]) -> None:
    """Distances between unchanged patches, and the indices, each with the number of patches it rests on."""
    rows: dict[str, list[str]] = {}
    for measure_name in _NEAR:
        facts = [result["neighbours"][measure_name] for result in results]
        if any(each["value"] is not None for each in facts):
            rows[measure_name.replace("_", " ")] = [_valued(each["value"], each["patches"]) for each in facts]
    for name, title in (("ri", "RI"), ("mari", "MaRI"), ("croma", "CRoMa")):
        scored = [(result["confounding"] or {}).get(name) for result in results]
        if any(scored):
            rows[title] = [_valued(each["value"], each["scored"]) if each else "-" for each in scored]
    columns = [(str(result["row"]), [cells[at] for cells in rows.values()]) for at, result in enumerate(results)]
    _print_columns(request, "distance (patches)", list(rows), columns)
    why = {str(result["not_scored"]) for result in results if result["not_scored"]}
    if why:
        request.console.note(f"RI, MaRI and CRoMa are not scored: {listed(sorted(why))}")
    for result in results:
        scored = result["confounding"]
        if scored and scored["croma"]["support"] < _FEW:
            part = f"{scored['croma']['scored']} of {scored['croma']['patches']}"
            request.console.note(f"{result['row']}: CRoMa rests on {part} patches")


def _print_own_stain(request: Request, result: dict[str, Any]) -> None:
    """Name the slides that keep their own stain, and the changes under which further ones do."""
    if not result.get("stain"):
        return
    own = result["stain"]["own_stain"]
    for slide, why in list(own.items())[:MOST_ROWS]:
        request.console.note(f"{slide} keeps its own stain: {why}")
    if len(own) > MOST_ROWS:
        request.console.note(f"and {counted(len(own) - MOST_ROWS, 'more slide')}")
    more = [
        f"{move['kind']} {move['strength']:g} ({move['own_stain'] - len(own):+d})"
        for move in result["movements"]
        if move["own_stain"] != len(own)
    ]
    if more:
        request.console.note(f"under a change, more or fewer slides keep their own stain: {', '.join(more)}")


def _valued(value: float | None, patches: int) -> str:
    return "-" if value is None else f"{value:.3f} ({patches})"
