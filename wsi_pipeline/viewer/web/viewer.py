"""One viewer: a library with its rows, layers, neighbours, marks and jobs."""

from __future__ import annotations

import shlex
from functools import cached_property
from typing import Any

from wsi_pipeline.cohort.run_dir import slug
from wsi_pipeline.errors import LabelError, WsiPipelineError
from wsi_pipeline.stages.results.fractions import classified
from wsi_pipeline.stages.results.tuning_files import tunings
from wsi_pipeline.version import __version__
from wsi_pipeline.viewer.cohort_rows import SORTS, CohortRows
from wsi_pipeline.viewer.jobs import Jobs
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.marked_patches import NAME, Teaching, teaching, told, write_patches_csv
from wsi_pipeline.viewer.marks import Marks, class_list
from wsi_pipeline.viewer.nearest.similar_patches import SimilarPatches
from wsi_pipeline.viewer.patch_layers import PatchLayers
from wsi_pipeline.wording import counted


class Viewer:
    """The state behind the endpoints. `teach` False: nothing can be marked (slides without a run)."""

    tuned = slug(f"pathotune:{NAME}")
    """Folder name of the classification by the model that is tuned on the marks."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.rows = CohortRows(library, self._count_marks)
        self.layers = PatchLayers(library)
        self.similar = SimilarPatches(library)

    @cached_property
    def marks(self) -> Marks:
        """The marks of the run. Raises UsageError without a run."""
        return Marks(self.library.needed_run)

    @cached_property
    def jobs(self) -> Jobs:
        """The jobs of the run. Raises UsageError without a run."""
        return Jobs(self.library.needed_run)

    def trainings(self) -> list[str]:
        """Names of the finished trainings: encoder/name."""
        return ["/".join(folder.parts[-2:]) for folder in self.library.trainings()]

    def about(self) -> dict[str, Any]:
        """What the page needs to know about the run."""
        run = self.library.run
        return {
            "name": self.library.name, "run": str(run.root) if run else None, "version": __version__,
            "slides": len(self.library.records), "sorts": list(SORTS), "trainings": self.trainings(),
            "encoders": list(self.similar.encoders()), "classified": list(classified(run)) if run else [],
            "adapters": [tuning.name for tuning in tunings(run)] if run else [], "tuned": self.tuned,
            "exported": False, "commands": {"view": self.command("view")}, **self.rows.choices(),
        }  # fmt: skip

    def similar_patches(
        self, slide_id: str, row: int, encoder: str, count: int, *, others: bool = False
    ) -> dict[str, Any]:
        """The `patches` most similar to one, `how` they were found, and the `command` that lists them."""
        found = self.similar.patches(slide_id, row, encoder, count, others=others)
        place = ",".join(str(value) for value in self.similar.place(slide_id, row, encoder))
        words = [slide_id, "--patch", place, "--features", encoder, "--neighbours", str(count)]
        words += ["--other-slides"] if others else []
        return {"patches": found, "how": self.similar.how(encoder), "command": self.command("similar", *words)}

    def similar_slides(self, slide_id: str, encoder: str, count: int) -> dict[str, Any]:
        """The `slides` most similar to one, and the `commands` that list them."""
        found = self.similar.slides(slide_id, encoder, count)
        pooled = self.similar.pooled(encoder)
        first = [] if pooled else [self.command("embed-slides", "--features", encoder)]
        words = [slide_id, "--features", pooled or f"{encoder}+mean", "--neighbours", str(count)]
        return {"slides": found, "commands": [*first, self.command("similar", *words)]}

    def export_command(self, slide_id: str) -> str | None:
        """The command that exports one slide; None without a run."""
        return self.command("view", "--only", slide_id, "--export", f"{slide_id}-view")

    def command(self, *words: str) -> str | None:
        """A command of wsi-pipeline on this run, ready to paste; None without a run."""
        if self.library.run is None:
            return None
        return self._shown([*words, "--run", str(self.library.run.root)])

    def teaching(self) -> dict[str, Any]:
        """The labelled patches from the marks, and the commands that `tune` would run."""
        plan = teaching(self.library, self.marks)
        return {
            **told(plan),
            "colours": self._colours(),
            "commands": [self._shown(words) for words in self._commands(plan, None)],
        }

    def tune(self, slide_id: str | None) -> dict[str, Any]:
        """Start tuning on the marks, then classifying. Raises UsageError if that is not possible."""
        if slide_id is not None:
            self.library.record(slide_id)
        plan = teaching(self.library, self.marks)
        write_patches_csv(self.library, self.marks, plan)
        return self.jobs.start(
            "tune", f"tuning on {counted(len(plan.patches), 'patch')}", self._commands(plan, slide_id)
        )

    def _commands(self, plan: Teaching, slide_id: str | None) -> list[list[str]]:
        run = str(self.library.needed_run.root)
        source = str(self.library.needed_run.annotations / "patches.csv")
        spacing = f"{plan.mpp:g}" if plan.mpp is not None else "MPP"
        model = f"pathotune:{NAME}"
        commands = [["tune", source, "--name", NAME, "--image-mpp", spacing, *plan.options, "--run", run]]
        if slide_id is not None:
            commands.append(["classify", "--model", model, "--only", slide_id, "--run", run])
        return [*commands, ["classify", "--model", model, "--run", run]]

    def _shown(self, words: list[str]) -> str:
        return shlex.join(["wsi-pipeline", *words])

    def _colours(self) -> dict[str, str]:
        """Class -> colour of all marked classes, in order of appearance."""
        found: dict[str, str] = {}
        for slide_id in self.library.records:
            if self.marks.run.annotation(slide_id).is_file():
                try:
                    found = class_list(self.marks.read(slide_id)["features"], found)
                except LabelError:
                    continue
        return found

    def _count_marks(self, slide_id: str) -> int:
        if self.library.run is None:
            return 0
        try:
            return self.marks.count(slide_id)
        except WsiPipelineError:
            return 0
