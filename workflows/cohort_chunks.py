"""A cohort in chunks: the slides of one job, under a name that stays the same while the cohort grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_pipeline.cohort.manifest import Cohort, SlideRecord, to_csv
from wsi_pipeline.cohort.run_dir import slug
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.errors import UsageError


@dataclass(frozen=True)
class Chunk:
    """The slides of one job.

    only      the slides as `--only` takes them
    files     those of their files that are there: a missing one is for the command to report
    watched   digest of what the manifest says of these slides' pixels; the job runs again when it changes. That of
              the first chunk covers the whole manifest: one job has to hand a changed label on to the run folder
    """

    only: str
    files: tuple[str, ...]
    watched: str


def make_chunks(cohort: Cohort, size: int) -> dict[str, Chunk]:
    """Blocks of `size` slides in the order of the manifest, by name; see `chunk_name`.

    Raises UsageError for a size below 1 and for a slide_id that `--only` cannot name.
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise UsageError(f"chunk must be a whole number of slides >= 1, got {size!r}")
    commas = [record.slide_id for record in cohort.records if "," in record.slide_id]
    if commas:
        raise UsageError(f"slide_id {commas[0]!r} holds a comma, so --only cannot name it", todo="Rename the slide")
    blocks = [cohort.records[first : first + size] for first in range(0, len(cohort), size)]
    manifests = {0: {"manifest": to_csv(cohort)}}
    return {chunk_name(block): _chunk(block, manifests.get(i, {})) for i, block in enumerate(blocks)}


def chunk_name(block: Sequence[SlideRecord]) -> str:
    """A file name: `s01`, or `s01+3` for it and the three after it.

    An id that cannot be shown as it is gets a digest after it, so that no two chunks share a name. No name begins
    like an option.
    """
    first = block[0].slide_id
    shown = slug(first).replace("+", "_").lstrip("-") or "slide"
    name = shown if shown == first else f"{shown}-{digest_of(slide=first)[:8]}"
    return name if len(block) == 1 else f"{name}+{len(block) - 1}"


def present(paths: Sequence[str | Path | None]) -> tuple[str, ...]:
    """Those of `paths` that are there."""
    return tuple(str(path) for path in paths if path and Path(path).exists())


def _chunk(block: Sequence[SlideRecord], also: dict[str, str]) -> Chunk:
    return Chunk(
        only=",".join(record.slide_id for record in block),
        files=present([record.path for record in block]),
        watched=digest_of(slides=[(record.slide_id, str(record.path), record.mpp) for record in block], **also),
    )
