"""The viewer in a real browser: look, mark, lose the server, tune, see the class map, export and open from the disk."""

from __future__ import annotations

import base64
import io
import json
import time
import urllib.request
from pathlib import Path

import numpy as np
import openslide
import pytest
from numpy.typing import NDArray
from PIL import Image

import wsi_pipeline as wp
from tests.browser import CHROMIUM, Browser
from tests.viewer.pages import CARDS, READY, Own, Server, add_class, features, open_slide_page, place, wait_for
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.errors import UsageError
from wsi_pipeline.geometry import Box
from wsi_pipeline.quality.patch_quality import PatchQuality
from wsi_pipeline.store.files import amend_store
from wsi_pipeline.store.tables.patch_table import read_patch_table
from wsi_pipeline.store.tables.quality_columns import write_quality
from wsi_pipeline.viewer.folder_export import export_folder
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.web.serve import serve_in_thread
from wsi_pipeline.viewer.web.viewer import Viewer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (820, True)])
def test_the_cohort_opens_sorts_and_leads_to_a_slide(
    browser: Browser, server: Own | Server, width: int, dark: bool
) -> None:
    browser.open("about:blank")
    del browser.problems[:], browser.requests[:]
    browser.open(server.url, width=width, dark=dark)
    browser.wait(f"{CARDS}.length === 6")
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.querySelectorAll('.card .chip.bad').length") >= 1
    sort = "[...document.querySelectorAll('select')].find(s => [...s.options].some(o => o.value === 'error'))"
    for key, word in (("error", "error"), ("doubt", "uncertainty")):
        browser.run(f"(s => {{ s.value = '{key}'; s.dispatchEvent(new Event('change')); }})({sort})")
        browser.wait(f"document.querySelector('.card .line.num')?.innerText.includes('{word} 0.')")
        said = browser.run("[...document.querySelectorAll('.card .line.num')].map(e => e.innerText)")
        values = [float(text.split(" ")[1]) for text in said if text.startswith(word)]
        assert len(values) == 4
        assert values == sorted(values, reverse=True), "the greatest first, and each card says how great"
    browser.run(f"(s => {{ s.value = 'id'; s.dispatchEvent(new Event('change')); }})({sort})")
    browser.wait(f"{CARDS}[0] === 'blank'")
    browser.run("document.querySelector('.card[href*=\"s1\"]').click()")
    browser.wait(READY)
    assert browser.run("document.title").startswith("s1")
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert [url for url in browser.requests if not url.startswith((server.url, "data:", "blob:", "about:"))] == []
    assert browser.problems == []
    assert not [url for url in browser.requests if "associated" in url], "label images are read only when asked for"


def test_names_are_text_and_never_html(browser: Browser, run: RunDir) -> None:
    table = run.cohort_csv.read_text().replace(",p0,", ",<img src=x onerror=alert(1)>,")
    run.cohort_csv.write_text(table)
    server = Own(run)
    try:
        browser.open("about:blank")
        browser.open(server.url)
        browser.wait(f"{CARDS}.length === 6")
        assert "<img src=x" in browser.run("document.querySelector('.cards').innerText")
        assert browser.run("document.querySelectorAll('img[src=x]').length") == 0
    finally:
        server.kill()


def test_native_pixels_are_openslides(browser: Browser, server: Own | Server, run: RunDir, made_run: Path) -> None:
    open_slide_page(browser, server, "s0", "?x=512&y=512&s=1&layers=")
    browser.run("new Promise(r => setTimeout(r, 1500))")
    script = """(() => {
      const canvas = document.querySelector('.openseadragon-canvas canvas');
      const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      let text = ''; for (let k = 0; k < data.length; k += 1) text += String.fromCharCode(data[k]);
      return [canvas.width, canvas.height, btoa(text)];
    })()"""
    width, height, text = browser.run(script)
    shown = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)[..., :3].astype(int)
    with openslide.OpenSlide(str(next(made_run.parent.rglob("s0.svs")))) as slide:
        x, y = 512 - width // 2 + 100, 512 - height // 2 + 100
        truth = np.asarray(slide.read_region((x, y), 0, (width - 200, height - 200)).convert("RGB")).astype(int)
    # Where the window begins is rounded to whole pixels; the browser's decoder may round colours differently.
    away = {
        (dx, dy): np.abs(truth - shown[100 + dy : height - 100 + dy, 100 + dx : width - 100 + dx]).mean()
        for dx in (-1, 0, 1)
        for dy in (-1, 0, 1)
    }
    assert min(away.values()) < 0.5, away
    assert sorted(away.values())[1] > 5, "one pixel beside it looks different"


def test_artefacts_are_a_layer_with_a_legend(browser: Browser, server: Own | Server, run: RunDir) -> None:
    table = read_patch_table(run.patch_store("s0"))
    values = np.zeros_like(table.quality.values)
    values[:, table.quality.names.index("pen")] = 0.5
    with amend_store(run.patch_store("s0")) as writer:
        write_quality(writer, PatchQuality(table.quality.names, table.quality.units, values))
    open_slide_page(browser, server, "s0", "?layers=")
    titles = browser.run("[...document.querySelectorAll('#panel-layers h3')].map(e => e.innerText.toLowerCase())")
    assert "quality" in titles
    assert not {"model focus", "model pen"} & set(titles)
    row = "document.querySelector('[data-layer=quality]')"
    browser.run(f"{row}.querySelector('input').click()")
    browser.wait(f"{row}.querySelectorAll('.legend > div').length === 4")
    legend = browser.run(f"[...{row}.querySelectorAll('.legend > div')].map(e => e.innerText)")
    found = {"".join(c for c in text if not c.isdigit()).strip(): text for text in legend}
    assert found["pen"].replace("pen", "").strip() == str(len(table.grid))
    assert found["fold"].replace("fold", "").strip() == "0"
    point = place(browser, 0.5, 0.5)
    browser.mouse("Moved", *point)
    browser.wait("document.body.innerText.includes('pen, 0.50 of the patch')")


def test_marks_are_drawn_saved_and_there_after_a_reload(browser: Browser, server: Own | Server, run: RunDir) -> None:
    open_slide_page(browser, server, "s0")
    add_class(browser, "tumour")
    browser.run("document.querySelector('[data-tool=rect]').click()")
    browser.drag([place(browser, 0.45, 0.45), place(browser, 0.5, 0.5), place(browser, 0.55, 0.55)])
    wait_for(lambda: len(features(run, "s0")) == 1)
    browser.run("document.querySelector('[data-tool=brush]').click()")
    browser.drag([place(browser, 0.4, 0.6), place(browser, 0.45, 0.6), place(browser, 0.5, 0.62)])
    browser.run("document.querySelector('[data-tool=point]').click()")
    browser.click(*place(browser, 0.5, 0.4))
    wait_for(lambda: len(features(run, "s0")) == 3)
    browser.run("document.querySelector('[data-tool=polygon]').click()")
    for corner in ((0.3, 0.4), (0.4, 0.4), (0.35, 0.5)):
        browser.click(*place(browser, *corner))
        time.sleep(0.4)  # two quick clicks close the outline
    browser.run("document.querySelector('.stage').focus()")
    browser.key("Enter", "Enter", 13)
    kinds = wait_for(lambda: len(found := features(run, "s0")) == 4 and [item["geometry"]["type"] for item in found])
    assert kinds == ["Polygon", "Polygon", "Point", "Polygon"]
    browser.wait("document.querySelector('.classes').innerText.includes('4 marks')")
    open_slide_page(browser, server, "s0", "?tab=teach")
    browser.wait("document.querySelector('.classes')?.innerText.includes('4 marks')")
    browser.run("document.querySelector('[data-tool=erase]').click()")
    browser.wait(READY)
    browser.click(*place(browser, 0.5, 0.5))
    wait_for(lambda: len(features(run, "s0")) == 3)


def test_a_stroke_survives_the_end_of_the_server(browser: Browser, run: RunDir) -> None:
    server = Server(run)
    open_slide_page(browser, server, "s1")
    add_class(browser, "stroma")
    browser.run("document.querySelector('[data-tool=rect]').click()")
    a, b = place(browser, 0.4, 0.4), place(browser, 0.5, 0.5)
    browser.mouse("Moved", *a)
    browser.mouse("Pressed", *a, held=True, clicks=1)
    browser.mouse("Moved", *b, held=True)
    server.kill()  # in the middle of the stroke
    browser.mouse("Released", *b, clicks=1)
    browser.wait("document.querySelector('.saving').innerText.includes('Not saved yet')")
    assert features(run, "s1") == []
    server.start()  # at the same address: the run keeps its token
    wait_for(lambda: len(features(run, "s1")) == 1)
    browser.wait("document.querySelector('.saving').innerText === 'saved'")
    del browser.problems[:]  # the failed requests
    server.kill()


def test_another_window_sees_the_marks_and_loses_none(
    browser: Browser, server: Own | Server, run: RunDir, tmp_path: Path
) -> None:
    open_slide_page(browser, server, "s2", "?tab=teach")
    with Browser(tmp_path / "second") as other:
        open_slide_page(other, server, "s2", "?tab=teach")
        for window, name, at in ((browser, "a", 0.4), (other, "b", 0.6)):
            add_class(window, name)
            window.run("document.querySelector('[data-tool=point]').click()")
            window.click(*place(window, at, at))
        wait_for(lambda: len(features(run, "s2")) == 2)
        for window in (browser, other):
            window.wait("['a', 'b'].every(n => document.querySelector('.classes').innerText.includes(n))")


def test_layers_show_the_value_under_the_pointer_and_lead_to_patches(browser: Browser, server: Own | Server) -> None:
    open_slide_page(browser, server, "s0")
    check = "document.querySelector('[data-layer=\"attention:colour/abmil\"] input[type=checkbox]')"
    browser.run(f"{check}.click()")
    browser.wait("document.querySelectorAll('[data-layer^=attention] .sheet button').length === 12")
    browser.mouse("Moved", *place(browser, 0.5, 0.5))
    said = browser.wait(
        "[...document.querySelectorAll('.readout span')].map(e => e.innerText).find(t => t.includes('attention'))"
    )
    assert "× mean" in said
    before = browser.run("location.hash")
    browser.run("document.querySelector('[data-layer^=attention] .sheet button').click()")
    browser.wait(f"location.hash !== {json.dumps(before)}")
    browser.run("document.querySelector('#tab-like').click()")
    browser.click(*place(browser, 0.5, 0.5))
    browser.wait("document.querySelectorAll('#panel-like .sheet button').length > 10")
    browser.run("[...document.querySelectorAll('header button')].find(b => b.innerText.includes('Side')).click()")
    browser.wait("document.querySelectorAll('.pane').length === 2")
    assert browser.problems == []


def test_every_control_has_a_name(browser: Browser, server: Own | Server) -> None:
    open_slide_page(browser, server, "s0", "?tab=teach")
    nameless = """[...document.querySelectorAll('input, select, button')].filter(e => !(e.getAttribute('aria-label') ||
      e.innerText.trim() || e.labels?.length && e.labels[0].innerText.trim())).map(e => e.outerHTML)"""
    assert browser.run(nameless) == []


@pytest.mark.slow
def test_from_marks_to_the_class_map(browser: Browser, server: Own | Server, run: RunDir) -> None:
    open_slide_page(browser, server, "s0", "?x=512&y=512&s=0.7")
    for name, rows in (("a", (0.3, 0.4)), ("b", (0.6, 0.7))):
        add_class(browser, name)
        browser.run("document.querySelector('[data-tool=rect]').click()")
        for row in rows:
            browser.drag([place(browser, 0.45, row), place(browser, 0.5, row + 0.02), place(browser, 0.6, row + 0.07)])
    wait_for(lambda: len(features(run, "s0")) == 4)
    tune = "[...document.querySelectorAll('button.main')].find(b => b.innerText.startsWith('Tune'))"
    browser.wait(f"{tune} && !{tune}.disabled")
    assert "one patient" in browser.run("document.querySelector('#panel-teach').innerText")
    browser.run(f"{tune}.click()")
    browser.wait("document.querySelector('#panel-teach .progress') !== null")
    browser.open("about:blank")  # the job goes on without the page
    wait_for(lambda: (run.tune("marks") / "metrics.json").is_file(), 600)
    wait_for(lambda: run.fractions("pathotune:marks").is_file(), 600)
    open_slide_page(browser, server, "s0")
    browser.run("document.querySelector('[data-layer=\"classes:pathotune-marks\"] input').click()")
    browser.wait("document.querySelectorAll('[data-layer^=classes] .legend div').length === 2")
    browser.run("document.querySelector('#tab-teach').click()")
    browser.wait("document.querySelector('#panel-teach').innerText.includes('Next to mark')")


def check_patch_pictures(browser: Browser, viewer: Viewer) -> None:
    """Pictures of the strongest patches: each is less than half as far from its patch as from any other of two slides.

    Measured with the mean difference of 8 x 8 values: 1.9 to 3.2 from the patch itself, 9 or more from any other.
    """
    layer = "document.querySelector('.pane').pane.layers.get('attention:colour/abmil').layer"
    patches = browser.wait(f"{layer}.extremes({layer}.n).map(k => {layer}.patch(k))")
    pictures = "[...document.querySelectorAll('[data-layer^=attention] .sheet canvas')].slice(0, 6)"
    boxes = browser.run(f"{pictures}.map(e => e.getBoundingClientRect()).map(r => [r.left, r.top, r.width])")
    assert len(boxes) == 6
    time.sleep(1)  # pages on disk do not tell whether a picture is drawn
    window = Image.open(io.BytesIO(browser.picture())).convert("RGB")
    truths = {
        (name, patch["row"]): small(Image.open(io.BytesIO(viewer.library.region(name, box_of(patch), 96).data)))
        for name in ("s0", "s1")
        for patch in patches
    }
    for patch, (x, y, side) in zip(patches, boxes, strict=False):
        shown = small(window.crop((round(x) + 1, round(y) + 1, round(x + side) - 1, round(y + side) - 1)))
        away = {of: np.abs(shown - truth).mean() for of, truth in truths.items()}
        own = away.pop(("s0", patch["row"]))
        assert own < min(away.values()) / 2, (patch, own, min(away, key=away.__getitem__))


def box_of(patch: dict[str, int]) -> Box:
    return Box(patch["x"], patch["y"], patch["side"], patch["side"])


def small(picture: Image.Image) -> NDArray[np.float64]:
    """A picture as (8, 8, 3)."""
    return np.asarray(picture.convert("RGB").resize((8, 8)), float)


def test_an_exported_folder_opens_from_the_disk(browser: Browser, viewer: Viewer, tmp_path: Path) -> None:
    made = export_folder(viewer, tmp_path / "folder", ["s0", "s1", "torn"], 0.5)
    assert made.slides == 2
    assert list(made.failed) == ["torn"]
    browser.open("about:blank")
    del browser.problems[:], browser.requests[:]
    browser.open(made.page)
    browser.wait(f"{CARDS}.length === 2")
    browser.run("document.querySelector('.card').click()")
    browser.wait(READY)
    browser.run("document.querySelector('[data-layer=\"attention:colour/abmil\"] input[type=checkbox]').click()")
    browser.wait("document.querySelectorAll('[data-layer^=attention] .ramp').length === 1")
    check_patch_pictures(browser, viewer)
    assert browser.run("document.querySelector('#tab-teach')") is None
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "about", "data", "blob"}
    assert browser.problems == []
    tile = next((tmp_path / "folder").glob("s0001/tiles/*/0_0.jpg"))
    assert max(Image.open(tile).size) <= 512


def test_ten_thousand_slides_scroll_with_a_screenful_of_cards(browser: Browser, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "wsi-run")
    run.root.mkdir()
    rows = [f"slide-{k:05},/nowhere/{k}.svs,p{k},{'ab'[k % 2]}" for k in range(10_000)]
    run.cohort_csv.write_text("slide_id,path,patient_id,label\n" + "\n".join(rows) + "\n")
    server, address = serve_in_thread(Viewer(Library.of_run(run)))
    try:
        browser.open("about:blank")
        browser.open(address.url, width=1280, dark=False)
        browser.wait(f"{CARDS}.length > 10")
        assert "10 000 slides" in browser.run("document.querySelector('.count').innerText")
        browser.run("document.querySelector('.scroll').scrollTop = 1e9")
        browser.wait(f"{CARDS}.includes('slide-09999')")
        for part in (0.2, 0.7, 0.5):
            browser.run(f"(s => {{ s.scrollTop = {part} * s.scrollHeight }})(document.querySelector('.scroll'))")
            browser.wait(f"{CARDS}.some(n => Math.abs(Number(n.slice(6)) - {part * 10_000}) < 60)")
            assert browser.run("document.querySelectorAll('.card').length") < 60
        del browser.problems[:]  # no slide is there, so no thumbnail is
    finally:
        server.should_exit = True


def test_a_notebook_gets_a_frame_that_may_show_the_page(made_run: Path) -> None:
    shown = wp.view(next(made_run.parent.rglob("s0.svs")))
    try:
        assert repr(shown).startswith("<InlineViewer slides: http://127.0.0.1:")
        assert shown._repr_html_().startswith('<iframe src="http://127.0.0.1:')
        with urllib.request.urlopen(shown.url.partition("#")[0]) as answer:
            assert "http://localhost:*" in answer.headers["content-security-policy"]
        facts = json.loads(urllib.request.urlopen(shown.url.partition("#")[0] + "slides/s0").read())
        assert (facts["width"], facts["layers"]) == (1024, [])
    finally:
        shown.close()
    with pytest.raises(UsageError, match="no slide"):
        wp.view(made_run, "x")
