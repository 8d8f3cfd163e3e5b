"""Slide embeddings of TRIDENT: the name of their folder says which patch features they pool, and how."""

from __future__ import annotations

from wsi_pipeline.cohort.run_dir import pooled_name

_FOLDER, _MEAN = "slide_features_", "mean-"
POOLS = {
    "threads": "conch_v15",
    "titan": "conch_v15",
    "tcga": "conch_v15",
    "prism": "virchow",
    "chief": "ctranspath",
    "gigapath": "gigapath",
    "gigapath-flash": "gigapath-flash",
    "madeleine": "conch_v1",
    "feather": "conch_v15",
    "feather_uni_v2": "uni_v2",
    "care": "conch_v15",
}
"""Slide encoder -> the patch encoder that TRIDENT runs it on (slide_to_patch_encoder_name in
trident/slide_encoder_models/load.py, 04e4c2b)."""


def embedding_in(folder: str) -> str:
    """The name of the slide embeddings in a folder of TRIDENT: `slide_features_titan` -> `conch_v15+titan`,
    `slide_features_mean-uni_v1` -> `uni_v1+mean`; "" if its name does not say which patch features they pool.
    """
    name = folder.removeprefix(_FOLDER)
    if name == folder:
        return ""
    if name.startswith(_MEAN) and len(name) > len(_MEAN):
        return pooled_name(name.removeprefix(_MEAN), "mean")
    return pooled_name(POOLS[name], name) if name in POOLS else ""
