"""The page in a real browser: no complaint on the console, every picture there, every control works."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fixture import make_predictions, make_regression, make_report, make_survival, make_validated

from tests.browser import CHROMIUM, Browser
from wsi_pipeline.report.page.html import render_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

NAMES = "[...document.querySelectorAll('#cohort-table tbody tr')].filter(r => !r.hidden).map(r => r.cells[0].innerText)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(make_report(14)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(running: Browser) -> Browser:
    """One browser for all; what the page of another test said or asked for is forgotten."""
    running.problems.clear()
    running.requests.clear()
    return running


def enter(browser: Browser, selector: str, value: str, event: str) -> None:
    """Give a control a value the way a hand does: set it, then say so."""
    control = f"document.querySelector('{selector}')"
    browser.run(f"{control}.value = '{value}'; {control}.dispatchEvent(new Event('{event}'))")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (800, True)])
def test_loads_whole_and_quiet(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    sizes = browser.run(
        "Promise.all([...document.images].map(i => i.decode()))"
        ".then(() => [...document.images].map(i => i.naturalWidth))"
    )
    assert len(sizes) > 50
    assert min(sizes) > 0
    assert browser.run("document.documentElement.scrollWidth") <= width
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) == dark
    assert [url for url in browser.requests if not url.startswith(("data:", page.resolve().as_uri()))] == []
    assert browser.problems == []


def test_cohort_sorts_by_number_and_by_name(browser: Browser, page: Path) -> None:
    browser.open(page)
    heads = browser.run(
        "[...document.querySelectorAll('#cohort-table thead th')].map(h => h.innerText.trim().split(' ')[0])"
    )
    click = "document.querySelectorAll('#cohort-table thead button')[{}].click()"
    browser.run(click.format(heads.index("patches")))
    values = (
        "[...document.querySelectorAll('#cohort-table tbody td[data-sort]:nth-child({})')].map(c => +c.dataset.sort)"
    )
    rising = browser.run(values.format(heads.index("patches") + 1))
    assert rising == sorted(rising)
    assert len(set(rising)) > 5
    browser.run(click.format(heads.index("patches")))
    assert browser.run(values.format(heads.index("patches") + 1)) == sorted(rising, reverse=True)
    browser.run(click.format(0))
    assert browser.run(NAMES) == [f"S{i:03d}" for i in range(14)]
    assert browser.problems == []


def test_filters_by_words_and_by_state(browser: Browser, page: Path) -> None:
    browser.open(page)
    enter(browser, "#cohort input", "MIRAX", "input")
    assert browser.run(NAMES) == ["S007"]
    assert browser.run("document.querySelector('#cohort-shown').textContent") == "1 of 14"
    enter(browser, "#cohort input", "", "input")
    browser.run("document.querySelector('#cohort button[data-state=empty]').click()")
    assert browser.run(NAMES) == ["S005"]
    browser.run("location.hash = '#row-3'")
    browser.run("new Promise(r => setTimeout(r, 100))")
    assert len(browser.run(NAMES)) == 14, "a link to a hidden row shows all rows again"
    assert browser.problems == []


def test_one_model_at_a_time_and_pictures_enlarge(browser: Browser, page: Path) -> None:
    browser.open(page)
    shown = "[...new Set([...document.querySelectorAll('.card [data-model]:not([hidden])')].map(f => f.dataset.model))]"
    assert browser.run(shown) == ["0"]
    enter(browser, "#model-choice", "2", "change")
    assert browser.run(shown) == ["2"]
    viewer = "[document.querySelector('#viewer').open, document.querySelector('#viewer-caption').textContent]"
    browser.run("document.querySelector('.zoom').click()")
    assert browser.run(viewer) == [True, "S000"]
    browser.run("document.querySelector('#viewer-on').click()")
    assert browser.run(viewer)[1].startswith("S000 · attention of")
    browser.run("document.querySelector('#viewer-close').click()")
    assert browser.run(viewer)[0] is False
    assert browser.problems == []


def test_the_slider_lays_attention_over_the_slide_by_mouse_and_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page)
    cut = "getComputedStyle(document.querySelector('.frame')).getPropertyValue('--cut').trim()"
    assert browser.run(cut) == "50%"
    enter(browser, "input.slider", "80", "input")
    assert browser.run(cut) == "80%"
    browser.run("document.querySelector('input.slider').focus()")
    for kind in ("rawKeyDown", "keyUp"):
        browser.send("Input.dispatchKeyEvent", type=kind, key="ArrowLeft", code="ArrowLeft", windowsVirtualKeyCode=37)
    assert browser.run(cut) == "79%"
    assert browser.run("document.activeElement.getAttribute('aria-valuetext')") == "79 percent covered by the heatmap"
    boxes = browser.run(
        "[...document.querySelector('.frame').querySelectorAll('img:not([hidden])')]"
        ".map(i => i.getBoundingClientRect()).map(b => [b.left, b.top, b.width, b.height])"
    )
    assert len(boxes) == 2
    assert boxes[0] == pytest.approx(boxes[1], abs=1.0), "attention lies on the slide"
    assert browser.problems == []


def test_every_control_has_a_name_and_every_picture_words(browser: Browser, page: Path) -> None:
    browser.open(page)
    nameless = """[...document.querySelectorAll('input, select, button')].filter(e =>
      !(e.labels?.length || e.getAttribute('aria-label') || e.innerText.trim() || e.querySelector('img[alt]'))
      ).length"""
    assert browser.run(nameless) == 0
    bare = "[...document.images].filter(i => i.id !== 'viewer-image' && !i.alt.trim()).length"
    assert browser.run(bare) == 0
    assert browser.run("[...document.querySelectorAll('svg[role=img]')].filter(s => !s.ariaLabel).length") == 0


@pytest.mark.parametrize("dark", [False, True])
def test_every_task_fits_a_phone_and_prints(browser: Browser, tmp_path: Path, dark: bool) -> None:
    whole = make_report(6)
    models = (make_validated(), make_survival(), make_regression())
    path = tmp_path / "tasks.html"
    data = replace(whole, models=models, predictions=(make_predictions(),))
    path.write_text(render_report(data), encoding="utf-8")
    browser.open(path, width=400, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= 400
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("[...document.querySelectorAll('details')].every(d => d.open)") is True
    pdf = base64.b64decode(browser.send("Page.printToPDF", printBackground=True)["data"])
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 50_000
    assert browser.problems == []


def test_a_link_to_a_model_opens_it(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run("document.querySelector('#model-1').open") is False
    browser.run("document.querySelector('a[href=\"#model-1\"]').click()")
    browser.run("new Promise(r => setTimeout(r, 100))")
    assert browser.run("document.querySelector('#model-1').open") is True


def test_text_stands_out_from_its_ground_in_both_themes(browser: Browser, page: Path) -> None:
    """WCAG 2.2 AA: a contrast of 4.5 for text."""
    measure = """(() => {
      const css = getComputedStyle(document.documentElement);
      const canvas = document.createElement('canvas').getContext('2d');
      const light = (name) => {
        canvas.fillStyle = css.getPropertyValue(name); canvas.fillRect(0, 0, 1, 1);
        const c = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255)
          .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
      };
      const paper = light('--paper');
      return Object.fromEntries(['--ink', '--muted', '--accent', '--good', '--warn'].map(name => {
        const word = light(name);
        return [name, (Math.max(word, paper) + 0.05) / (Math.min(word, paper) + 0.05)];
      }));
    })()"""
    for dark in (False, True):
        browser.open(page, dark=dark)
        contrasts = browser.run(measure)
        assert min(contrasts.values()) >= 4.5, contrasts
