"""Parts of the page: marks that cannot be sent yet, the keyboard alone, undo."""

from __future__ import annotations

import json
import re
from subprocess import DEVNULL, STDOUT
from types import SimpleNamespace
from typing import Any

import pytest

from tests.browser import CHROMIUM, Browser
from tests.viewer.pages import CARDS, READY, Own, Server, add_class, features, open_slide_page, place, wait_for
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.viewer.web.app import page_files

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

AWAY = "globalThis.realFetch ||= fetch, globalThis.fetch = () => Promise.reject(new TypeError('away')), 0"
BACK = "globalThis.fetch = realFetch, 0"


def press(
    browser: Browser, key: str, code: str = "", number: int = 0, *, control: bool = False, shift: bool = False
) -> None:
    text = {"text": "\r" if key == "Enter" else key} if (len(key) == 1 or key == "Enter") and not control else {}
    known = {"code": code or key, "windowsVirtualKeyCode": number, "modifiers": 2 * control + 8 * shift}
    browser.send("Input.dispatchKeyEvent", type="keyDown", key=key, **known, **text)
    browser.send("Input.dispatchKeyEvent", type="keyUp", key=key, **known)


def tab_to(browser: Browser, script: str, most: int = 60) -> None:
    """Press Tab until the element in focus fulfils `script`, an expression on `e`."""
    for _ in range(most):
        press(browser, "Tab", number=9)
        if browser.run(f"(e => Boolean({script}))(document.activeElement)"):
            return
    raise AssertionError(f"Tab does not lead to {script}")


def point(name: str, x: float, y: float) -> dict[str, Any]:
    properties = {"objectType": "annotation", "classification": {"name": "a", "color": [1, 2, 3]}}
    geometry = {"type": "Point", "coordinates": [x, y]}
    return {"type": "Feature", "id": name, "geometry": geometry, "properties": properties}


def area(name: str, kind: str, x: float, y: float) -> dict[str, Any]:
    """A rectangular mark with its upper left corner at (x, y)."""
    ring = [[x, y], [x + 256, y], [x + 256, y + 200], [x, y + 200], [x, y]]
    properties = {"objectType": "annotation", "classification": {"name": kind, "color": [1, 2, 3]}}
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "id": name, "geometry": geometry, "properties": properties}


def make_store(browser: Browser, name: str, slide: str) -> None:
    script = f"import('./page/markstore.js').then(m => {{ globalThis.{name} = new m.MarkStore('{slide}', () => 0); }})"
    browser.run(script)


def test_everything_can_be_done_with_the_keyboard_alone(browser: Browser, server: Own, run: RunDir) -> None:
    browser.open("about:blank")
    browser.open(server.url)
    browser.wait(f"{CARDS}.length === 6")
    tab_to(browser, "e.matches('.card[href*=s1]')")
    press(browser, "Enter", number=13)
    browser.wait(READY)
    tab_to(browser, "e.getAttribute('role') === 'application'")
    scale, centre = (f"document.querySelector('.pane').pane.{name}()" for name in ("scale", "centre"))
    before = browser.run(f"[{scale}, {centre}.x]")
    for _ in range(3):
        press(browser, "+", "NumpadAdd", 107)
    browser.wait(f"{scale} > 2 * {before[0]}")
    press(browser, "ArrowRight", number=39)
    browser.wait(f"{centre}.x > {before[1]} + 5")
    tab_to(browser, "e.getAttribute('role') === 'tab'")
    press(browser, "ArrowRight", number=39)
    browser.wait("document.activeElement.id === 'tab-teach'")
    tab_to(browser, "e.matches('form.inline input')")
    for letter in "gland":
        press(browser, letter)
    press(browser, "Enter", number=13)
    browser.wait("document.querySelector('.classes').innerText.includes('gland')")
    back_to_slide(browser)
    press(browser, "p", "KeyP", 80)
    press(browser, "Enter", number=13)
    wait_for(lambda: len(features(run, "s1")) == 1)
    press(browser, "r", "KeyR", 82)
    press(browser, " ", "Space", 32)
    for key, number in (("ArrowRight", 39), ("ArrowDown", 40)):
        press(browser, key, number=number)
    browser.run("new Promise(r => setTimeout(r, 800))")
    press(browser, "Enter", number=13)
    kinds = wait_for(lambda: len(found := features(run, "s1")) == 2 and [one["geometry"]["type"] for one in found])
    assert kinds == ["Point", "Polygon"]
    press(browser, "z", "KeyZ", 90, control=True)
    wait_for(lambda: [one["geometry"]["type"] for one in features(run, "s1")] == ["Point"])


def back_to_slide(browser: Browser) -> None:
    """Press Shift and Tab until a slide has the focus."""
    for _ in range(90):
        press(browser, "Tab", number=9, shift=True)
        if browser.run("document.activeElement.getAttribute('role') === 'application'"):
            return
    raise AssertionError("Shift and Tab do not lead back to the slide")


PANE = "document.querySelectorAll('.pane')[%d].pane"
FIRST, SECOND = PANE % 0, PANE % 1


def test_layers_and_similar_patches_by_keyboard(browser: Browser, server: Own) -> None:
    open_slide_page(browser, server, "s1", "?layers=")
    tab_to(browser, "e.matches('[data-layer=coverage] input')")
    press(browser, " ", "Space", 32)
    browser.wait(f"{FIRST}.layers.has('coverage')")
    browser.wait("document.querySelector('[data-layer=coverage] input').ariaBusy === 'false'")
    assert browser.run("document.activeElement.closest('[data-layer]').dataset.layer") == "coverage", "focus is kept"
    tab_to(browser, "e.getAttribute('aria-label') === 'Opacity of tissue fraction'")
    before = browser.run(f"{FIRST}.layers.get('coverage').opacity")
    press(browser, "ArrowLeft", number=37)
    assert browser.run(f"{FIRST}.layers.get('coverage').opacity") == pytest.approx(before - 0.05)
    tab_to(browser, "e.matches('[data-layer^=attention] input[type=checkbox]')")
    press(browser, " ", "Space", 32)
    browser.wait("document.querySelectorAll('[data-layer^=attention] .sheet button').length === 12")
    tab_to(browser, "e.matches('[data-layer^=attention] .sheet button')")
    press(browser, "Enter", number=13)
    browser.wait(f"{FIRST}.picked")
    back_to_slide(browser)
    press(browser, "l", "KeyL", 76)
    assert browser.run(f"{FIRST}.layers.size") == 0
    press(browser, "l", "KeyL", 76)
    assert browser.run(f"{FIRST}.layers.size") == 2
    press(browser, "0", "Digit0", 48)
    browser.wait(f"Math.abs({FIRST}.scale() - 1) < 1e-6")
    press(browser, "Home", number=36)
    browser.wait(f"Math.abs({FIRST}.viewer.viewport.getZoom(true) - {FIRST}.viewer.viewport.getHomeZoom()) < 1e-6")
    picked = browser.run(f"{FIRST}.picked.row")
    press(browser, "Enter", number=13)  # the patch at the centre
    browser.wait(f"{FIRST}.picked.row !== {picked}")
    press(browser, "m", "KeyM", 77)
    browser.wait("document.querySelectorAll('#panel-like .sheet button').length > 10")
    tab_to(browser, "e.matches('#panel-like .sheet button:nth-child(2)')")
    press(browser, "Enter", number=13)
    browser.wait(f"{FIRST}?.picked?.row !== undefined || !location.hash.includes('/s1')")
    assert browser.problems == []


def test_marks_and_tuning_by_keyboard(
    browser: Browser, server: Own, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    starter = SimpleNamespace(Popen=lambda words, **_: started.append(words), DEVNULL=DEVNULL, STDOUT=STDOUT)
    monkeypatch.setattr("wsi_pipeline.viewer.jobs.subprocess", starter)
    open_slide_page(browser, server, "s1", "?x=512&y=512&s=1.2&tab=teach")
    for name in ("gland", "stroma"):
        tab_to(browser, "e.matches('form.inline input')")
        for letter in name:
            press(browser, letter)
        press(browser, "Enter", number=13)
    back_to_slide(browser)
    press(browser, "g", "KeyG", 71)
    for key, number in (("ArrowRight", 39), ("ArrowDown", 40), ("ArrowLeft", 37)):
        press(browser, " ", "Space", 32)
        press(browser, key, number=number)
        browser.run("new Promise(r => setTimeout(r, 600))")
    press(browser, "Enter", number=13)
    wait_for(lambda: len(features(run, "s1")) == 1)
    press(browser, "1", "Digit1", 49)
    press(browser, "b", "KeyB", 66)
    press(browser, "Enter", number=13)
    found = wait_for(lambda: len(marks := features(run, "s1")) == 2 and marks)
    names = [one["properties"]["classification"]["name"] for one in found]
    assert names == ["stroma", "gland"], "the class added last, then the first"
    press(browser, "e", "KeyE", 69)
    press(browser, "Enter", number=13)
    wait_for(lambda: len(features(run, "s1")) == 1)
    press(browser, "z", "KeyZ", 90, control=True)
    wait_for(lambda: len(features(run, "s1")) == 2)
    more = [area(f"{name}{k}", name, x, 200 + 250 * k) for name, x in (("gland", 260), ("stroma", 560)) for k in (0, 1)]
    body = json.dumps({"changes": [{"op": "put", "feature": one} for one in more]})
    sent = f"{{method: 'POST', headers: {{'Content-Type': 'application/json'}}, body: {json.dumps(body)}}}"
    assert browser.run(f"fetch('slides/s1/marks', {sent}).then(answer => answer.ok)"), "enough for tuning"
    browser.wait("document.querySelector('button.main:not(:disabled)')")
    tab_to(browser, "e.matches('button.main')", most=90)
    press(browser, "Enter", number=13)
    browser.wait("document.querySelector('#panel-teach .progress') !== null")
    assert len(started) == 1
    tab_to(browser, "e.innerText === 'Stop'", most=90)


def test_two_slides_and_help_by_keyboard(browser: Browser, server: Own) -> None:
    open_slide_page(browser, server, "s0")
    press(browser, "?", "Slash", 191)
    browser.wait("document.querySelector('dialog[open]')")
    press(browser, "Escape", number=27)
    browser.wait("!document.querySelector('dialog')")
    tab_to(browser, "e.innerText.includes('Side by side')")
    press(browser, "Enter", number=13)
    browser.wait(f"document.querySelectorAll('.pane').length === 2 && {SECOND}.viewer.world.getItemCount()")
    tab_to(browser, "e.getAttribute('aria-label') === 'Slide on the right'")
    for letter in "s1":  # the field's text is selected
        press(browser, letter)
    press(browser, "Enter", number=13)
    browser.wait(
        f"document.querySelectorAll('.pane')[1]?.pane.facts.id === 's1' && {SECOND}.viewer.world.getItemCount()"
    )
    tab_to(browser, "e.innerText === 'Linked'")
    press(browser, "Enter", number=13)
    assert browser.run("document.activeElement.getAttribute('aria-pressed')") == "false"
    back_to_slide(browser)
    assert browser.run(f"document.activeElement === {SECOND}.stage")
    assert browser.run("document.querySelector('.which [aria-pressed=true]').innerText") == "Right: s1"
    scales = browser.run(f"[{FIRST}.scale(), {SECOND}.scale()]")
    press(browser, "+", "NumpadAdd", 107)
    browser.wait(f"{SECOND}.scale() > 1.3 * {scales[1]}")
    assert browser.run(f"{FIRST}.scale()") == pytest.approx(scales[0])
    tab_to(browser, "e.innerText === 'Left: s0'")
    press(browser, "Enter", number=13)
    assert browser.run("document.activeElement.innerText + document.activeElement.ariaPressed") == "Left: s0true"


def test_slides_in_turn_by_keyboard(browser: Browser, server: Own) -> None:
    """Also from a slide that cannot be shown."""
    open_slide_page(browser, server, "s0")
    lost = "document.querySelector('.slide.lost')?.innerText.includes('torn cannot be shown')"
    for key, code, number, slides in ((".", "Period", 190, ("s1", "s2")), (",", "Comma", 188, ("s1", "s0"))):
        for name in slides:
            press(browser, key, code, number)
            browser.wait(f"document.querySelector('.pane')?.pane.facts.id === '{name}'")
    press(browser, ",", "Comma", 188)
    browser.wait("document.querySelector('#notice').innerText.includes('first slide')")
    browser.run("location.hash = '#/slides/torn'")
    browser.wait(lost)
    press(browser, "?", "Slash", 191)
    browser.wait("document.querySelector('dialog[open]')")
    press(browser, "Escape", number=27)
    browser.wait("!document.querySelector('dialog')")
    press(browser, ",", "Comma", 188)
    browser.wait("document.querySelector('.pane')?.pane.facts.id === 'blank'")
    press(browser, ".", "Period", 190)
    browser.wait(lost)
    del browser.problems[:]  # a browser logs the answer that a slide cannot be read


def test_undo_brings_back_a_deleted_mark(browser: Browser, server: Own, run: RunDir) -> None:
    open_slide_page(browser, server, "s2")
    add_class(browser, "gland")
    browser.run("document.querySelector('[data-tool=point]').click()")
    browser.click(*place(browser, 0.5, 0.5))
    (mark,) = wait_for(lambda: features(run, "s2"))
    browser.run("document.querySelector('[data-tool=erase]').click()")
    browser.click(*place(browser, 0.5, 0.5))
    wait_for(lambda: features(run, "s2") == [])
    browser.run("document.querySelector('[aria-label=Undo]').click()")
    assert wait_for(lambda: features(run, "s2")) == [mark]


def test_windows_without_a_server_keep_each_others_marks(browser: Browser, server: Own, run: RunDir) -> None:
    browser.open("about:blank")
    browser.open(server.url)
    browser.wait(f"{CARDS}.length === 6")
    browser.run(AWAY)
    for name, x in (("one", 100), ("other", 200)):
        make_store(browser, name, "s3")
        browser.run(f"{name}.put({json.dumps(point(name, x, 100))})")
    browser.run("one.close(), other.close()")  # both windows are closed before the server is back
    browser.run(BACK)
    assert features(run, "s3") == []
    make_store(browser, "later", "s3")
    wait_for(lambda: sorted(one["id"] for one in features(run, "s3")) == ["one", "other"])
    browser.wait("later.state === 'saved'")
    assert browser.run("Object.keys(localStorage).filter(key => key.includes(location.pathname))") == []
    del browser.problems[:]


def test_one_invalid_change_takes_no_other_with_it(browser: Browser, server: Own, run: RunDir) -> None:
    browser.open("about:blank")
    browser.open(server.url)
    browser.wait(f"{CARDS}.length === 6")
    browser.run(AWAY)
    make_store(browser, "store", "s0")
    for name, x in (("a", 100), ("b", -100), ("c", 300)):
        browser.run(f"store.put({json.dumps(point(name, x, 100))})")
    browser.run(BACK)
    wait_for(lambda: [one["id"] for one in features(run, "s0")] == ["a", "c"])
    browser.wait("store.state === 'saved' && store.waiting.length === 0")
    assert "not on the slide" in browser.run("document.querySelector('#notice').innerText")
    run.annotation("s0").write_text("half a fi")
    browser.run(f"store.put({json.dumps(point('d', 400, 100))})")
    browser.wait("store.state === 'failing' && store.waiting.length === 1")
    assert "s0.geojson" in browser.run("store.why")
    run.annotation("s0").unlink()
    wait_for(lambda: [one["id"] for one in features(run, "s0")] == ["d"])
    browser.run("store.close()")
    del browser.problems[:]


def test_what_was_not_sent_is_sent_by_the_next_page(browser: Browser, run: RunDir) -> None:
    server = Server(run)
    try:
        open_slide_page(browser, server, "s1")
        add_class(browser, "stroma")
        browser.run("document.querySelector('[data-tool=point]').click()")
        server.kill()
        browser.click(*place(browser, 0.5, 0.5))
        browser.wait("document.querySelector('.saving').innerText.includes('Not saved yet')")
        browser.open("about:blank")  # the page is closed, too
        server.start()
        assert features(run, "s1") == []
        open_slide_page(browser, server, "s1")
        wait_for(lambda: len(features(run, "s1")) == 1)
    finally:
        server.kill()
        del browser.problems[:]


def test_a_slide_opens_with_few_requests(browser: Browser, server: Own) -> None:
    """Every module is requested by the page itself, facts once and without waiting for other answers."""
    preloaded = set(re.findall(r'modulepreload" href="page/([^"]+)', page_files()["index.html"].decode()))
    modules = {name for name in page_files() if name.endswith(".js")} - {"openseadragon.min.js", "main.js"}
    assert preloaded == modules
    browser.open("about:blank")
    del browser.requests[:]
    open_slide_page(browser, server, "s0")
    asked = [url.removeprefix(server.url).partition("?")[0] for url in browser.requests]
    assert sorted(name for name in asked if name.startswith("page/") and name.endswith(".js")) == sorted(
        f"page/{name}" for name in page_files() if name.endswith(".js")
    )
    assert asked.count("slides/s0") == 1
    times = "performance.getEntriesByType('resource').find(e => new URL(e.name).pathname.endsWith('/%s'))"
    assert browser.run(f"{times % 'slides/s0'}.startTime < {times % 'about'}.responseEnd")
