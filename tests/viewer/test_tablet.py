"""The viewer on a tablet: fingers, small windows, both themes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser import CHROMIUM, Browser
from tests.viewer.pages import Own, add_class, features, open_slide_page, place, wait_for
from wsi_pipeline.cohort.run_dir import RunDir

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

LEAST_PX, LEAST_CONTRAST = 24, 4.5
"""WCAG 2.2: size of targets (2.5.8), contrast of text (1.4.3)."""

SMALL = f"""[...document.querySelectorAll('button, input, a, select, summary')].flatMap(e => {{
  if (!e.offsetParent) return [];
  const box = (e.matches('[type=checkbox], [type=radio]') && e.closest('label') || e).getBoundingClientRect();
  return Math.min(box.width, box.height) < {LEAST_PX} ? [[e.outerHTML.slice(0, 80), box.width, box.height]] : [];
}})"""

PALE = f"""(() => {{
  const parts = text => (v => v.length < 4 ? [...v, 1] : v)(text.match(/[\\d.]+/g).map(Number));
  const channel = v => v / 255 < 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = rgb => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
  const ground = e => {{
    const over = parts(getComputedStyle(e).backgroundColor);
    if (over[3] === 1 || !e.parentElement) return over;
    const under = ground(e.parentElement);
    return [0, 1, 2].map(k => over[k] * over[3] + under[k] * (1 - over[3]));
  }};
  const texts = [...document.querySelectorAll('body *')].filter(e => e.offsetParent && !e.matches(':disabled') &&
    [...e.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()));
  const contrast = e => (two => (two[0] + 0.05) / (two[1] + 0.05))(
    [light(parts(getComputedStyle(e).color)), light(ground(e))].sort((one, other) => other - one));
  globalThis.textsSeen = texts.length;
  return texts.filter(e => contrast(e) < {LEAST_CONTRAST}).map(e => [e.innerText.slice(0, 40), contrast(e)]);
}})()"""


@pytest.fixture
def tablet(browser: Browser) -> Iterator[Browser]:
    """The browser with a touch screen."""
    browser.send("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=5)
    yield browser
    browser.send("Emulation.setTouchEmulationEnabled", enabled=False)


def touch(browser: Browser, *points: tuple[float, float]) -> None:
    """Put a finger on the first point, move it over the others, and lift it at the last."""
    for kind, point in zip(("touchStart", *["touchMove"] * (len(points) - 1)), points, strict=True):
        browser.send("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": point[0], "y": point[1]}])
    browser.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])


def tap(browser: Browser, point: tuple[float, float], times: int = 1) -> None:
    """Put a finger on a point and lift it. All at once: a finger that lies there for 0.3 s does not tap."""
    down = {"type": "touchStart", "touchPoints": [{"x": point[0], "y": point[1]}]}
    browser.send_together("Input.dispatchTouchEvent", *[down, {"type": "touchEnd", "touchPoints": []}] * times)


def check_page(browser: Browser, width: int, where: str) -> None:
    """Nothing is too small, too pale or too wide."""
    assert browser.run("matchMedia('(pointer: coarse)').matches")
    assert browser.run("document.documentElement.scrollWidth") <= width, where
    assert browser.run(SMALL) == [], where
    assert browser.run(PALE) == [], where
    assert browser.run("textsSeen") > 5, where


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), [(1024, 768), (768, 1024)])
def test_nothing_is_too_small_too_pale_or_too_wide(
    tablet: Browser, server: Own, dark: bool, width: int, height: int
) -> None:
    window: dict[str, Any] = {"width": width, "height": height, "dark": dark}
    tablet.open("about:blank")
    tablet.open(server.url, **window)
    tablet.wait("document.querySelectorAll('.card').length === 6")
    check_page(tablet, width, "cohort")
    open_slide_page(tablet, server, "s0", **window)
    tablet.run("document.querySelector('[data-layer^=attention] input').click()")
    tablet.wait("document.querySelectorAll('[data-layer^=attention] .sheet button').length === 12")
    tablet.run("[...document.querySelectorAll('header button')].find(b => b.innerText.includes('Side')).click()")
    tablet.wait("document.querySelectorAll('.pane').length === 2")
    add_class(tablet, "gland")
    for tab in ("layers", "teach", "like", "about"):
        tablet.run(f"document.querySelector('#tab-{tab}').click()")
        tablet.wait(f"document.querySelector('#panel-{tab}').innerText.trim().length > 10")
        check_page(tablet, width, tab)
    boxes = """['.pane:last-child .tag button', '.pane:last-child .navigator'].map(name => (r => [r.left, r.right])(
      document.querySelector(name).getBoundingClientRect()))"""
    (_, right), (left, _) = tablet.run(boxes)
    assert right <= left, "the button is beside the overview, not on it"


def test_a_finger_pans_and_marks(tablet: Browser, server: Own, run: RunDir) -> None:
    open_slide_page(tablet, server, "s0", width=1024, height=768)
    before = tablet.run(CENTRE)
    touch(tablet, *[place(tablet, 0.5 + k / 50, 0.5) for k in range(10)])
    tablet.wait(f"{CENTRE}[0] < {before[0]} - 50")
    open_slide_page(tablet, server, "s0", width=1024, height=768)  # a flick glides on: marks are made on a still view
    add_class(tablet, "gland")
    tablet.run("document.querySelector('[data-tool=point]').click()")
    tap(tablet, place(tablet, 0.5, 0.5))
    (mark,) = wait_for(lambda: features(run, "s0"))
    assert mark["geometry"]["type"] == "Point"
    tablet.run("document.querySelector('[data-tool=brush]').click()")
    touch(tablet, *[place(tablet, 0.3 + k / 50, 0.6) for k in range(6)])
    kinds = wait_for(lambda: len(found := features(run, "s0")) == 2 and [one["geometry"]["type"] for one in found])
    assert kinds == ["Point", "Polygon"]


CENTRE = "(p => [p.x, p.y])(document.querySelector('.pane').pane.centre())"
SCALE = "document.querySelector('.pane').pane.scale()"
STILL = """(p => Math.abs(p.scale(true) - p.scale(false)) < 1e-9 && p.viewer.viewport.getCenter(true).distanceTo(
  p.viewer.viewport.getCenter(false)) < 1e-9)(document.querySelector('.pane').pane)"""


def pinch(browser: Browser, x: float, y: float, *apart: float) -> None:
    """Two fingers about a point, moved to each of these distances from each other, then lifted one after the other."""
    first, second = [{"x": x - apart[0] / 2, "y": y, "id": 0}], [{"x": x + apart[0] / 2, "y": y, "id": 1}]
    browser.send("Input.dispatchTouchEvent", type="touchStart", touchPoints=first)
    browser.send("Input.dispatchTouchEvent", type="touchStart", touchPoints=first + second)
    for distance in apart[1:]:
        first, second = [{**first[0], "x": x - distance / 2}], [{**second[0], "x": x + distance / 2}]
        browser.send("Input.dispatchTouchEvent", type="touchMove", touchPoints=first + second)
    browser.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=first)
    browser.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])


def test_two_fingers_zoom_about_the_place_between_them(tablet: Browser, server: Own) -> None:
    open_slide_page(tablet, server, "s0", width=1024, height=768)
    box = tablet.run("(r => [r.left, r.top])(document.querySelector('.stage').getBoundingClientRect())")
    x, y = place(tablet, 0.4, 0.5)
    at = f"""(p => [p.x, p.y])(document.querySelector('.pane').pane.imagePoint(
      new OpenSeadragon.Point({x - box[0]}, {y - box[1]})))"""
    tablet.wait(STILL)
    held, before = tablet.run(at), tablet.run(SCALE)
    pinch(tablet, x, y, *range(100, 320, 20))
    tablet.wait(STILL)
    after = tablet.run(SCALE)
    assert after / before == pytest.approx(3.0, rel=0.1)
    assert tablet.run(at) == pytest.approx(held, abs=8 / after)
    pinch(tablet, x, y, *range(300, 80, -20))
    tablet.wait(STILL)
    assert tablet.run(SCALE) / after == pytest.approx(1 / 3, rel=0.1)


def test_a_double_tap_zooms_in_and_a_tap_picks(tablet: Browser, server: Own) -> None:
    open_slide_page(tablet, server, "s0", width=1024, height=768)
    tablet.wait("document.querySelector('.pane').pane.grid")
    tablet.wait(STILL)
    before = tablet.run(SCALE)
    tap(tablet, place(tablet, 0.5, 0.5))
    tablet.wait("document.querySelector('.pane').pane.picked")
    time.sleep(0.5)  # two slow taps are not a double tap
    assert tablet.run(SCALE) == pytest.approx(before)
    tap(tablet, place(tablet, 0.5, 0.5), times=2)
    tablet.wait(f"{SCALE} > {1.5 * before}")


@pytest.mark.parametrize("tool", ["point", "rect", "polygon", "brush", "erase"])
def test_two_fingers_zoom_and_mark_nothing_whatever_the_tool(
    tablet: Browser, server: Own, run: RunDir, tool: str
) -> None:
    open_slide_page(tablet, server, "s0", width=1024, height=768)
    add_class(tablet, "gland")
    tablet.run("document.querySelector('[data-tool=point]').click()")
    tap(tablet, place(tablet, 0.5, 0.5))
    (kept,) = wait_for(lambda: features(run, "s0"))
    tablet.run(f"document.querySelector('[data-tool={tool}]').click()")
    tablet.wait(STILL)
    before = tablet.run(SCALE)
    x, y = place(tablet, 0.5, 0.5)
    pinch(tablet, x, y, *range(100, 320, 20))  # both fingers start beside the mark and end far from it
    tablet.wait(STILL)
    assert tablet.run(SCALE) / before == pytest.approx(3.0, rel=0.1)
    pinch(tablet, x + 50, y, 100)  # laid down and lifted; the first finger lies on the mark
    pinch(tablet, x + 50, y, 100, 90)
    touch(tablet, *[place(tablet, 0.2 + k / 50, 0.8 - k / 50) for k in range(4)])  # the next stroke is whole
    time.sleep(0.5)
    found = [one for one in features(run, "s0") if one["id"] != kept["id"]]
    assert len(features(run, "s0")) - len(found) == 1, "the mark under a finger stays"
    kinds = [one["geometry"]["type"] for one in found]
    assert kinds == (["Polygon"] if tool in ("rect", "brush") else [])
    assert tablet.run("document.querySelector('.tools [aria-pressed=true]').dataset.tool") == tool


def test_a_polygon_in_progress_survives_two_fingers(tablet: Browser, server: Own, run: RunDir) -> None:
    open_slide_page(tablet, server, "s0", width=1024, height=768)
    add_class(tablet, "gland")
    tablet.run("document.querySelector('[data-tool=polygon]').click()")
    corners = [(0.4, 0.4), (0.6, 0.4), (0.6, 0.6)]
    for corner in corners:
        tap(tablet, place(tablet, *corner))
        time.sleep(0.4)
    x, y = place(tablet, 0.5, 0.5)
    pinch(tablet, x, y, *range(300, 280, -2))
    tablet.wait(STILL)
    tablet.run("document.querySelector('.stage').focus()")
    tablet.key("Enter", "Enter", 13)
    (mark,) = wait_for(lambda: features(run, "s0"))
    assert len(mark["geometry"]["coordinates"][0]) == 4


def test_a_double_tap_with_the_point_tool_is_one_mark(tablet: Browser, server: Own, run: RunDir) -> None:
    open_slide_page(tablet, server, "s0", width=1024, height=768)
    add_class(tablet, "gland")
    tablet.run("document.querySelector('[data-tool=point]').click()")
    tap(tablet, place(tablet, 0.5, 0.5), times=2)
    time.sleep(0.6)
    tap(tablet, place(tablet, 0.3, 0.5))
    wait_for(lambda: len(features(run, "s0")) >= 2)
    time.sleep(0.5)
    assert len(features(run, "s0")) == 2
