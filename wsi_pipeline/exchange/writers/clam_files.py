"""What CLAM trains on: features as .h5 and .pt, dataset.csv, and splits by patient.

features/h5_files/<slide_id>.h5     features, coords
features/pt_files/<slide_id>.pt     the features as a torch tensor; CLAM's main.py reads these
dataset.csv                         case_id, slide_id, label
splits/splits_<k>.csv               train, val, test
task.py                             the lines of the task, for CLAM's main.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from wsi_pipeline.errors import MilError, SplitError
from wsi_pipeline.exchange.writers.cohort_tables import labelled, split_parts
from wsi_pipeline.exchange.writers.export_files import write_csv, write_h5
from wsi_pipeline.exchange.writers.slide_content import EXPORT_FORMATS, CohortContent, ExportFormat, SlideContent
from wsi_pipeline.system.atomic import atomic_path, remove, write_text_if_changed

_TASK = """# Into CLAM's main.py, before `else: raise NotImplementedError`; add 'wsi_pipeline' to the choices of --task.
elif args.task == 'wsi_pipeline':
    args.n_classes = {n}
    dataset = Generic_MIL_Dataset(csv_path={table!r},
                                  data_dir={features!r},
                                  shuffle=False, seed=args.seed, print_info=True,
                                  label_dict={labels!r}, patient_strat=True, ignore=[])
"""


def write_clam(slide: SlideContent, folder: Path) -> Sequence[Path]:
    """Write one slide; returns the files."""
    import torch

    features, side = slide.matrix, slide.geometry.patch_level0
    # Patches in pixels of level 0, so that CLAM and TRIDENT's legacy reader cut out exactly the same squares.
    attrs = {"patch_size": side, "patch_level": 0, "downsample": 1.0, "name": slide.slide_id}
    h5 = folder / "features" / "h5_files" / f"{slide.slide_id}.h5"
    pt = folder / "features" / "pt_files" / f"{slide.slide_id}.pt"
    write_h5(h5, {"features": features, "coords": slide.coords}, {"coords": attrs})
    with atomic_path(pt) as temporary, temporary.open("wb") as file:
        torch.save(torch.from_numpy(features), file)
    return [h5, pt]


def finish_clam(cohort: CohortContent, folder: Path) -> str:
    """Write dataset.csv, splits and task.py; returns what to do next."""
    table = labelled(cohort)
    write_csv(
        folder / "dataset.csv",
        pd.DataFrame({"case_id": table["patient_id"], "slide_id": table["slide_id"], "label": table["label"]}),
    )
    try:
        folds = split_parts(table)
    except (SplitError, MilError) as error:
        folds = []
        cohort.notes.append(f"no splits written: {error.what}; make them with CLAM's create_splits_seq.py")
    for path in (folder / "splits").glob("splits_*.csv"):
        if path.name not in {f"splits_{number}.csv" for number in range(len(folds))}:
            remove(path)
    for number, parts in enumerate(folds):
        columns = {name: pd.Series(list(ids), dtype=object) for name, ids in parts.items()}
        write_csv(folder / "splits" / f"splits_{number}.csv", pd.DataFrame(columns))
    labels = {name: code for code, name in enumerate(cohort.classes)}
    place = folder.absolute()
    write_text_if_changed(
        folder / "task.py",
        _TASK.format(n=len(labels), table=str(place / "dataset.csv"), features=str(place / "features"), labels=labels),
    )
    return (
        f"add {folder / 'task.py'} to CLAM's main.py, copy {folder / 'splits'} to its splits/wsi, then: python main.py "
        f"--task wsi_pipeline --split_dir wsi --k {max(1, len(folds))} --embed_dim {cohort.dim} --exp_code wsi"
    )


EXPORT_FORMATS.register("clam")(ExportFormat("clam", "features", "CLAM 53e2409 (2025-04)", write_clam, finish_clam))
