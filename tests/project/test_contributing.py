"""The recipes of CONTRIBUTING.md, followed word by word in a copy of the code: each passes the contract it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

SLIDE_TEST = """
from pathlib import Path

import numpy as np
import pytest

from tests.slide_files import tissue_like
from tests.suites.slide_contract import SlideCase, SlideContract
from wsi_pipeline.slides.open import open_slide


class TestNpy(SlideContract):
    @pytest.fixture(scope="class")
    def case(self, tmp_path_factory: pytest.TempPathFactory) -> SlideCase:
        path = tmp_path_factory.mktemp("npy") / "a.npy"
        np.save(path, tissue_like(500, 400))
        return SlideCase(lambda: open_slide(path), tissue_like(500, 400))
"""
STORE = '''
from wsi_pipeline.store.backends.hdf5 import Hdf5File


class OtherFile(Hdf5File):
    """A backend that differs by its name alone: shows that what is written under 1 to 3 is all it takes."""
'''


def _recipe(title: str) -> list[str]:
    """The Python of one section, block by block."""
    section = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    (found,) = (part for part in section if part.startswith(title))
    return re.findall(r"^```python\n(.*?)^```$", found, flags=re.MULTILINE | re.DOTALL)


class Checkout:
    """A copy of the code that may be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("wsi_pipeline", "pathotune", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)

    def add(self, block: str) -> None:
        """A new file, named in its first line."""
        path = self.folder / block.partition("\n")[0].removeprefix("# ")
        assert not path.exists()
        path.write_text(block, encoding="utf-8")

    def append(self, name: str, block: str) -> None:
        """Text at the end of a file."""
        path = self.folder / name
        path.write_text(f"{path.read_text(encoding='utf-8')}\n\n{block}", encoding="utf-8")

    def change(self, name: str, old: str, new: str) -> None:
        """Text in place of other text, which must be there once."""
        path = self.folder / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name}: {old}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def passes(self, *arguments: str, tests: int) -> None:
        """pytest on the copy; at least so many tests have to pass."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        result = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-1000:]
        passed = re.search(r"(\d+) passed", result.stdout)
        dots = sum(line.count(".") for line in result.stdout.splitlines() if re.fullmatch(r"[.s]+ *\[ *\d+%\]", line))
        assert (int(passed[1]) if passed else dots) >= tests, result.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.slow
def test_an_encoder(checkout: Checkout) -> None:
    plan, name, test = _recipe("Add an encoder")
    checkout.add(plan)
    checkout.append("wsi_pipeline/encoders/names.py", name)
    checkout.append("tests/encoders/test_encoder_contract.py", test)
    checkout.passes("tests/encoders/test_encoder_contract.py", "-k", "TestEdges", tests=20)


@pytest.mark.slow
def test_a_mil_model(checkout: Checkout) -> None:
    (model,) = _recipe("Add a MIL model")
    checkout.add(model)
    module = model.partition("\n")[0].removeprefix("# ").removesuffix(".py").replace("/", ".")
    checkout.append("wsi_pipeline/mil/models/zoo.py", f"import {module}  # noqa: E402\n")
    checkout.passes("tests/mil/test_models.py", "-k", "norm and TestEveryModel", tests=15)


@pytest.mark.slow
def test_a_slide_format(checkout: Checkout) -> None:
    slide, sniffed, opened = _recipe("Add a slide format")
    checkout.add(slide)
    module = slide.partition("\n")[0].removeprefix("# ").removesuffix(".py").replace("/", ".")
    here = '        if path.suffix.lower() == ".mrxs":\n'
    checkout.change("wsi_pipeline/slides/inspect/sniff.py", here, sniffed + here)
    here = '    if found.kind == "picture":\n'
    checkout.change("wsi_pipeline/slides/open.py", here, f"    from {module} import NpySlide\n\n{opened}{here}")
    (checkout.folder / "tests/slides/test_npy.py").write_text(SLIDE_TEST, encoding="utf-8")
    checkout.passes("tests/slides/test_npy.py", tests=15)


@pytest.mark.slow
def test_a_store_format(checkout: Checkout) -> None:
    (checkout.folder / "wsi_pipeline/store/other.py").write_text(STORE, encoding="utf-8")
    checkout.change("wsi_pipeline/cohort/run_dir.py", '"zarr": ".zarr"}', '"zarr": ".zarr", "other": ".other"}')
    here = "    from wsi_pipeline.store.backends.hdf5 import Hdf5File\n"
    other = "from wsi_pipeline.store.other import OtherFile"
    case = f'    if (suffix or path.suffix) == ".other":\n        {other}\n\n        return OtherFile(path, mode)\n'
    checkout.change("wsi_pipeline/store/files.py", here, case + here)
    checkout.change("tests/store/test_stores.py", '(".h5", ".zarr")', '(".h5", ".zarr", ".other")')
    checkout.change("wsi_pipeline/config/shared.py", '("hdf5", "zarr")', '("hdf5", "zarr", "other")')
    checkout.change("tests/store/test_stores.py", 'if suffix == ".h5":', 'if suffix != ".zarr":')
    checkout.passes("tests/store/test_stores.py", "-k", "other", tests=5)


@pytest.mark.slow
def test_a_tissue_detector(checkout: Checkout) -> None:
    (detector,) = _recipe("Add a tissue detector")
    checkout.append("wsi_pipeline/tissue/detectors/methods.py", detector)
    checkout.passes("tests/tissue/test_segment.py", "-k", "dark and (tiny or bright)", tests=15)
