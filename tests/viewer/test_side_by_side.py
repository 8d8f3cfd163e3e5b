"""Two panes that move together, and the value of the patch under the pointer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.browser import CHROMIUM, Browser
from tests.slide_files import tissue_like, write_pyramid_tiff
from tests.viewer.pages import Own, Server, open_slide_page, place, write_class_map
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.store.tables.patch_table import read_patch_table
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.web.serve import serve_in_thread
from wsi_pipeline.viewer.web.viewer import Viewer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

PANES = "[...document.querySelectorAll('.pane')].map(e => e.pane)"
BOTH_OPEN = f"{PANES}.filter(p => p.viewer?.world.getItemCount()).length === 2"
FINE, COARSE = 0.25, 0.5
"""Micrometres per pixel of the two slides."""


@pytest.fixture(scope="module")
def two_slides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a viewer of a fine and a coarse slide, of different sizes."""
    folder = tmp_path_factory.mktemp("pairs")
    paths = [folder / "fine.svs", folder / "coarse.svs"]
    write_pyramid_tiff(paths[0], tissue_like(3100, 2400), mpp=FINE)
    write_pyramid_tiff(paths[1], tissue_like(1700, 1300), mpp=COARSE)
    server, address = serve_in_thread(Viewer(Library.of_files(paths)))
    yield address.url
    server.should_exit = True


def places(browser: Browser) -> np.ndarray:
    """Of each pane: centre in micrometres and micrometres per pixel of the screen, once nothing moves any more."""
    script = f"{PANES}.map(p => [p.centre().x, p.centre().y, 1 / p.scale()].map(v => v * p.facts.mpp))"
    seen: list[Any] = [None]
    end = time.monotonic() + 30
    while len(seen) < 5 or any(seen[-1] != earlier for earlier in seen[-4:]):
        assert time.monotonic() < end
        seen.append(browser.run(script))
        time.sleep(0.1)
    return np.array(seen[-1])


def drag(browser: Browser, pane: int, dx: float, dy: float) -> None:
    """Drag from the centre of a pane, holding still at the end so that nothing glides on."""
    box = f"document.querySelectorAll('.stage')[{pane}].getBoundingClientRect()"
    x, y = browser.run(f"(r => [r.left + r.width / 2, r.top + r.height / 2])({box})")
    way = [min(1.0, k / 5) for k in range(12)]
    browser.drag([(x + part * dx, y + part * dy) for part in way])


@pytest.mark.parametrize("pane", [0, 1])
def test_two_slides_move_together_at_the_same_magnification(browser: Browser, two_slides: str, pane: int) -> None:
    browser.open("about:blank")
    browser.open(f"{two_slides}#/slides/fine?with=coarse")
    browser.wait(BOTH_OPEN)
    before = places(browser)
    assert before[0, 2] == pytest.approx(before[1, 2]), "micrometres per pixel"
    drag(browser, pane, 60, -30)
    after = places(browser)
    moved = after[:, :2] - before[:, :2]
    assert np.abs(moved[0]).min() > 5, "micrometres"
    np.testing.assert_allclose(moved[0], moved[1], rtol=1e-6)
    np.testing.assert_allclose(after[:, 2], before[:, 2])
    browser.run(f"document.querySelectorAll('.stage')[{pane}].focus()")
    browser.key("+", "NumpadAdd", 107)
    zoomed = places(browser)
    np.testing.assert_allclose(zoomed[:, 2], after[:, 2] / 1.4, err_msg="the whole step, in both")
    np.testing.assert_allclose(zoomed[:, :2] - after[:, :2], 0, atol=1e-6)


def test_panes_move_alone_where_they_are_not_linked(browser: Browser, two_slides: str) -> None:
    browser.open("about:blank")
    browser.open(f"{two_slides}#/slides/fine?with=coarse")
    browser.wait(BOTH_OPEN)
    before = places(browser)
    link = "[...document.querySelectorAll('.tag button')].find(b => b.innerText === 'Linked')"
    browser.run(f"{link}.click()")
    drag(browser, 1, 60, -30)
    apart = places(browser)
    np.testing.assert_array_equal(apart[0], before[0])
    assert np.abs(apart[1, :2] - before[1, :2]).min() > 5
    browser.run(f"{link}.click()")
    drag(browser, 0, -40, 20)
    moved = places(browser)[:, :2] - apart[:, :2]
    np.testing.assert_allclose(moved[0], moved[1], rtol=1e-6, err_msg="they keep the distance that they had then")
    assert browser.run(f"{link}.getAttribute('aria-pressed')") == "true"


def test_a_second_slide_can_be_changed_and_closed(browser: Browser, two_slides: str) -> None:
    browser.open("about:blank")
    del browser.problems[:]
    browser.open(f"{two_slides}#/slides/fine?with=coarse")
    browser.wait(BOTH_OPEN)
    loaded = f"{PANES}.every(p => p.viewer.world.getItemAt(0)?.getFullyLoaded())"
    browser.wait(loaded)  # OpenSeadragon warns of tiles that come too late
    field = "document.querySelector('[aria-label=\"Slide on the right\"]')"
    browser.run(f"(e => {{ e.value = 'fine'; e.dispatchEvent(new Event('change')); }})({field})")
    browser.wait(f"{PANES}[1].facts.id === 'fine' && {BOTH_OPEN}")
    drag(browser, 0, 30, 30)
    after = places(browser)
    np.testing.assert_allclose(after[0], after[1], rtol=1e-9)
    browser.wait(loaded)
    side = "[...document.querySelectorAll('header button')].find(b => b.innerText.includes('Side'))"
    browser.run(f"{side}.click()")
    browser.wait("document.querySelectorAll('.pane').length === 1")
    drag(browser, 0, 30, 30)
    assert len(places(browser)) == 1
    assert browser.problems == []


def test_two_models_on_one_slide_move_together(browser: Browser, run: RunDir) -> None:
    words = [
        "train-mil",
        "--folds",
        "2",
        "--epochs",
        "2",
        "--allow-few",
        "--bootstrap",
        "100",
        "--model",
        "gated-abmil",
    ]
    assert main([*words, "--model", "gated-abmil", "--run", str(run.root), "--quiet"]) == 0
    server = Own(run)
    try:
        open_slide_page(browser, server, "s0")
        browser.run("[...document.querySelectorAll('header button')].find(b => b.innerText.includes('Side')).click()")
        browser.wait(BOTH_OPEN)
        for pane, model in enumerate(("abmil", "gated-abmil")):
            row = f"document.querySelectorAll('[data-layer=\"attention:colour/{model}\"]')[{pane}]"
            browser.wait(f"Boolean({row})")
            browser.run(f"{row}.querySelector('input').click()")
            browser.wait(f"{PANES}[{pane}].layers.has('attention:colour/{model}')")
        drag(browser, 1, 80, 40)
        after = places(browser)
        np.testing.assert_allclose(after[0], after[1], rtol=1e-9)
        shown = browser.run(f"{PANES}.map(p => [...p.layers.keys()].filter(k => k.startsWith('attention')))")
        assert shown == [["attention:colour/abmil"], ["attention:colour/gated-abmil"]]
    finally:
        server.kill()


def said_at(browser: Browser, x: float, y: float, name: str) -> str:
    """What the page says of a layer at a point of the slide, after the pointer went there."""
    script = f"""(p => {{ const r = p.stage.getBoundingClientRect();
      const point = new OpenSeadragon.Point({x} / p.facts.width, {y} / p.facts.width);
      const at = p.viewer.viewport.pixelFromPoint(point, true);
      return [r.left + at.x, r.top + at.y]; }})({PANES}[0])"""
    browser.mouse("Moved", *place(browser, 0.02, 0.02))
    browser.mouse("Moved", *browser.run(script))
    said = browser.run("document.querySelector('.readout').innerText")
    return next((line for line in said.splitlines() if line.startswith(name)), "")


def test_the_value_under_the_pointer_is_the_stored_one(browser: Browser, server: Own | Server, run: RunDir) -> None:
    table = read_patch_table(run.patch_store("s0"))
    coords, side, coverage = table.grid.coords, table.geometry.patch_level0, table.grid.coverage
    gland = np.linspace(0.02, 0.98, len(coords), dtype=np.float32)
    write_class_map(run, "s0", np.stack([gland, 1 - gland], axis=1))
    heat = np.loadtxt(run.heatmap_file("colour", "abmil", "s0", ".csv"), delimiter=",", skiprows=1)
    np.testing.assert_array_equal(heat[:, :2], coords)
    layers = "coverage@0.5|attention:colour/abmil@0.5|classes:pathotune-marks@0.5"
    open_slide_page(browser, server, "s0", f"?layers={layers}")
    browser.wait(f"{PANES}[0].layers.size === 3")
    names = browser.run(f"[...{PANES}[0].layers.values()].map(item => item.layer.answer.name)")
    for row in (0, int(coverage.argmin()), len(coords) // 2, len(coords) - 1):
        x, y = (coords[row] + side * 0.4).tolist()
        covered, attention, classes = (said_at(browser, x, y, name).removeprefix(f"{name}: ") for name in names)
        assert covered.startswith(f"{100 * coverage[row]:.0f} %"), (row, covered)
        assert float(attention.split()[0]) == pytest.approx(heat[row, 2] * len(coords), rel=6e-3)
        best = ("gland", gland[row]) if gland[row] >= 0.5 else ("stroma", 1 - gland[row])
        assert classes == f"{best[0]} {best[1]:.2f}", (row, classes)
    outside = next(
        (x, y) for x in range(8, 1016, 16) for y in range(8, 1016, 16)
        if not ((coords <= (x, y)) & (coords + side > (x, y))).all(axis=1).any()
    )  # fmt: skip
    assert [said_at(browser, *outside, name) for name in names] == ["", "", ""], json.dumps(outside)
