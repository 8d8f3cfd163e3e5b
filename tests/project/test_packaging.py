"""What is shipped: the wheel holds all of both packages with their types, and there is one version."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
import yaml

import pathotune
import wsi_pipeline

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("wsi_pipeline", "pathotune")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this checkout, built as pip builds it but in the environment of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    code = f"from hatchling.build import build_wheel; build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_every_file_of_both_packages(wheel: zipfile.ZipFile) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    expected = {name for name in tracked if name and (ROOT / name).exists()}
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert expected == found
    assert {f"{package}/py.typed" for package in PACKAGES} <= found


def test_every_file_that_states_a_version_states_this_one(wheel: zipfile.ZipFile) -> None:
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    assert message_from_string(wheel.read(metadata).decode())["Version"] == wsi_pipeline.__version__
    assert pathotune.__version__ == wsi_pipeline.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == wsi_pipeline.__version__
    assert f"version is {wsi_pipeline.__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_no_other_file_states_a_version() -> None:
    """Or a release would have to find and change it: the site and the image do without."""
    for name in ("README.md", "Dockerfile", "docs/site/conf.py", "SECURITY.md", "CONTRIBUTING.md", "pyproject.toml"):
        assert wsi_pipeline.__version__ not in (ROOT / name).read_text(), name


TENSORS_OF_OTHERS = {"wsi_pipeline/exchange/readers/array_files.py", "wsi_pipeline/encoders/zoo/zoo_weights.py"}
"""They read tensors from files of other tools with torch's weights-only loading, and know its error by name."""


def test_no_python_objects_are_unpickled() -> None:
    """What SECURITY.md promises of both packages."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            of_others = path.relative_to(ROOT).as_posix() in TENSORS_OF_OTHERS
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = {alias.name.partition(".")[0] for alias in node.names}
                    names |= {(getattr(node, "module", None) or "").partition(".")[0]}
                    if ast.unparse(node) == "from pickle import UnpicklingError" and of_others:
                        continue
                    assert not names & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}, path
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    assert called not in {"pd.read_pickle", "pandas.read_pickle"}, path
                    asked = {word.arg: ast.unparse(word.value) for word in node.keywords}
                    assert called != "torch.load" or (of_others and asked.get("weights_only") == "True"), path
                    assert not any(
                        word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords
                    )
