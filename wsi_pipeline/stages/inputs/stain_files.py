"""Files of stain/<method>/: the profile of each slide, and the target all slides are given the stain of.

<slide_id>.json   the slide's profile, and the digest of the patches it is from
<slide_id>.png    a few of its patches side by side, as they are
target.json       the target, and how it was chosen; `--stain-target` takes it in another run
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_pipeline.cohort.records import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.cohort.slide_status import read_status
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.errors import StoreError
from wsi_pipeline.stains.stain_profile import VERSION, StainProfile
from wsi_pipeline.system.atomic import write_text

TARGET = "target.json"


@dataclass(frozen=True)
class StainTarget:
    """Whose stain slides are given.

    asked    --stain-target as it was given
    source   where the profile is from, in words
    patches  size and resolution of the patches that a profile of a slide is from; empty for a picture
    """

    profile: StainProfile
    asked: str
    source: str
    patches: Mapping[str, Any]

    @property
    def method(self) -> str:
        """macenko, vahadane or reinhard."""
        return self.profile.method

    @property
    def key(self) -> str:
        """Short name of the target's values, for settings and digests."""
        return self.profile.fingerprint[:16]

    def to_json(self) -> dict[str, Any]:
        """The content of target.json."""
        return {
            "format": "wsi-pipeline stain target", "version": VERSION, "key": self.key, "asked": self.asked,
            "source": self.source, "patches": dict(self.patches), "profile": self.profile.to_json(),
        }  # fmt: skip


def profile_path(run: RunDir, method: str, slide_id: str) -> Path:
    """File of a slide's profile."""
    return run.stain(method) / f"{slide_id}.json"


def sample_path(run: RunDir, method: str, slide_id: str) -> Path:
    """Picture of a few of a slide's patches."""
    return run.stain(method) / f"{slide_id}.png"


def profile_digest(method: str, patches: str) -> str:
    """Digest of a profile: method, version and the digest of the patches."""
    return digest_of(stage="stain", version=VERSION, method=method, parent=patches)


def write_profile(path: Path, digest: str, profile: StainProfile) -> None:
    """Write a slide's profile."""
    write_text(path, json.dumps({"digest": digest, "profile": profile.to_json()}, indent=1) + "\n")


def read_profile(path: Path) -> tuple[str, StainProfile] | None:
    """Digest and profile of a slide; None if the file is missing or cannot be read, so that it is written again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return str(found["digest"]), StainProfile.from_json(found["profile"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def require_profile(run: RunDir, method: str, slide_id: str, patches: str) -> StainProfile:
    """The profile of a slide whose patches have the digest `patches`. Raises StoreError with the reason if none."""
    found = read_profile(profile_path(run, method, slide_id))
    if found is not None and found[0] == profile_digest(method, patches):
        return found[1]
    status = read_status(run.status(slide_id), slide_id).stages.get(stage_name(method))
    if status is not None and status.state == "failed":
        raise StoreError(f"its stain cannot be measured: {status.reason}", todo=status.todo or None)
    raise StoreError("its stain has not been measured", todo="Run again: wsi-pipeline embed, with the same options")


def known_profiles(run: RunDir, method: str, records: Sequence[SlideRecord]) -> dict[str, StainProfile]:
    """Profiles by slide id, of the slides that have one."""
    found = {record.slide_id: read_profile(profile_path(run, method, record.slide_id)) for record in records}
    return {name: one[1] for name, one in found.items() if one is not None}


def read_target(path: Path) -> StainTarget:
    """A recorded target. Raises StoreError if the file is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        profile = StainProfile.from_json(found["profile"])
        target = StainTarget(profile, str(found["asked"]), str(found["source"]), dict(found["patches"]))
        known = found["key"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} cannot be read as a stain target ({type(error).__name__}: {error})") from None
    if known != target.key:
        raise StoreError(
            f"{path} was recorded by another version, or changed by hand: its values do not match its key",
            todo="Name the slide or the picture it was made from",
        )
    return target


def with_recorded_target(run: RunDir, specs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of embed that a model was trained with, with the stain target from its record as a file of the run.

    Raises StoreError if the features were normalised and the target's values are not recorded with them.
    """
    embed = dict(specs["embed"])
    method = str(embed.get("stain_norm", "none"))
    if method == "none":
        return embed
    try:
        profile = StainProfile.from_json(specs["stain"]["target"])
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"the model was trained on features normalised by {method}, but their target is not recorded with it "
            f"({type(error).__name__})",
            todo="Train it again",
        ) from None
    target = StainTarget(profile, str(embed["stain_target"]), "of the trained model", {})
    path = run.stain(method) / f"trained-{target.key}.json"
    write_text(path, json.dumps(target.to_json(), indent=1) + "\n")
    return {**embed, "stain_target": str(path)}


def stage_name(method: str) -> str:
    """Name in status files and locks."""
    return f"stain/{method}"
