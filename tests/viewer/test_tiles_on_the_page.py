"""Tiles on the page: what it keeps of them, and what it says and does when one does not come."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import CHROMIUM, Browser
from tests.slide_files import damage_tile, tissue_like, write_pyramid_tiff
from tests.viewer.pages import READY, Own, open_slide_page
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.web.serve import serve_in_thread
from wsi_pipeline.viewer.web.viewer import Viewer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

PANE = "document.querySelector('.pane').pane"
LOADED = f"{PANE}.viewer.world.getItemAt(0).getFullyLoaded()"
AWAY = "globalThis.realFetch ||= fetch, globalThis.fetch = () => Promise.reject(new TypeError('away')), 0"
BACK = "globalThis.fetch = realFetch, 0"


def test_decoded_tiles_are_kept_within_bounds_and_only_by_the_page(browser: Browser, server: Own) -> None:
    open_slide_page(browser, server, "s0")
    browser.run(f"{PANE}.go({{x: 500, y: 500, scale: 1}}, true)")
    browser.wait(LOADED)
    tiles = "performance.getEntriesByType('resource').filter(e => e.name.includes('/tile/'))"
    assert browser.run(f"{tiles}.length") > 4
    assert browser.run(f"[...new Set({tiles}.map(e => e.initiatorType))]") == ["fetch"], "no <img>, kept elsewhere"
    side = browser.run(f"{PANE}.facts.levels.at(-1).tile_width")
    held = browser.run(f"{PANE}.viewer.tileCache._maxCacheItemCount")
    assert held * 4 * side**2 <= 110e6
    assert browser.problems == []


def test_tiles_come_once_the_server_is_back(browser: Browser, server: Own) -> None:
    open_slide_page(browser, server, "s0")
    browser.wait(LOADED)
    browser.run(AWAY)
    browser.run(f"{PANE}.viewer.world.getItemAt(0).reset(), {PANE}.viewer.forceRedraw(), 0")
    browser.wait(f"{PANE}.viewer.imageLoader.jobsInProgress > 0")
    assert not browser.run(LOADED)
    browser.run(BACK)
    browser.wait(LOADED)
    assert browser.run("document.querySelector('.missing').innerText") == ""


def test_a_damaged_tile_is_named(browser: Browser, tmp_path: Path) -> None:
    path = write_pyramid_tiff(
        tmp_path / "torn.svs", tissue_like(1100, 700), mpp=0.25, compression="jpeg2000", levels=(1,)
    )
    damage_tile(path, 6)
    library = Library.of_files([path])
    served, address = serve_in_thread(Viewer(library), in_frames=False)
    try:
        browser.open(f"{address.url}#/slides/torn")
        browser.wait(READY)
        browser.run(f"{PANE}.go({{x: 500, y: 400, scale: 1}}, true)")
        said = browser.wait("document.querySelector('.missing').innerText")
        assert "cannot be shown: " in said
        assert "does not decode" in said
    finally:
        served.should_exit = True
        library.close()
        del browser.problems[:]
