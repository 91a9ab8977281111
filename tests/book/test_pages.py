"""The built pages, opened from disk in a browser: nothing fetched, nothing broken, nothing unreadable."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sources import BUILT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BUILT_PAGES = sorted(
    str(p.relative_to(BUILT).with_suffix("")) for p in BUILT.rglob("*.html") if "_static" not in p.parts
)

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.skipif(not BUILT_PAGES, reason="the book has not been built: run `make book`"),
]
on_every_page = pytest.mark.parametrize("name", BUILT_PAGES)

WIDE, PHONE = {"width": 1300, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield launched
        launched.close()


class Visit:
    """One browser window that writes down what it should never see."""

    def __init__(self, browser: Any, mode: str = "light") -> None:
        self.context = browser.new_context(viewport=WIDE)
        self.context.add_init_script(f"localStorage.setItem('mode', '{mode}'); localStorage.setItem('theme', '{mode}')")
        self.page = self.context.new_page()
        self.trouble: list[str] = []
        self.context.route(re.compile(r"^(?!file:|data:|blob:)"), self._refuse)
        self.page.on("console", lambda m: self.trouble.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("requestfailed", lambda request: self.trouble.append(f"not loaded: {request.url}"))

    def _refuse(self, route: Any) -> None:
        self.trouble.append(f"asked another host: {route.request.url}")
        route.abort()

    def open(self, name: str, query: str = "") -> Any:
        self.page.goto(f"{(BUILT / name).with_suffix('.html').as_uri()}{query}")
        self.page.evaluate("() => window.MathJax && MathJax.startup && MathJax.startup.promise")
        self.page.evaluate("() => document.fonts.ready.then(() => true)")
        return self.page


@pytest.fixture(scope="module", params=["light", "dark"])
def visit(browser: Any, request: pytest.FixtureRequest) -> Iterator[Visit]:
    made = Visit(browser, request.param)
    yield made
    made.context.close()


@pytest.fixture
def light(browser: Any) -> Iterator[Visit]:
    made = Visit(browser)
    yield made
    made.context.close()


# Contrast of an element's ink with what is really behind it.
CONTRAST = """element => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map(v => v / 255)
    .map(v => v > .04045 ? ((v + .055) / 1.055) ** 2.4 : v / 12.92); return .2126 * x + .7152 * y + .0722 * z; };
  let behind = [255, 255, 255];
  for (let e = element; e; e = e.parentElement) {
    const colour = parts(getComputedStyle(e).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) { behind = colour; break; }
  }
  const pair = [light(parts(getComputedStyle(element).color)), light(behind)].sort((a, b) => b - a);
  return (pair[0] + .05) / (pair[1] + .05);
}"""

# An icon needs no name where the button around it has one.
UNNAMED = """() => [...document.querySelectorAll('img, svg')]
  .filter(e => { const control = e.closest('button, summary');
    return !control || !(control.innerText.trim() || control.getAttribute('aria-label')); })
  .filter(e => e.tagName === 'IMG' ? !e.alt : !e.getAttribute('aria-label')
    && !document.getElementById(e.getAttribute('aria-labelledby')) && e.getAttribute('aria-hidden') !== 'true')
  .map(e => e.outerHTML.slice(0, 200))"""

UNRENDERED = """() => { const copy = document.querySelector('main, body').cloneNode(true);
  copy.querySelectorAll('pre, code, script, style, mjx-container, mjx-assistive-mml').forEach(e => e.remove());
  return copy.textContent.match(/\\$\\$|\\\\\\(|\\\\\\[|\\\\[a-zA-Z]{2,}/g) || []; }"""

SCROLLED_IN_A_LINE = """() => [...document.querySelectorAll('main span.math')]
  .filter(e => getComputedStyle(e).overflowX !== 'visible').map(e => e.textContent.slice(0, 60))"""

# A flat line has no height, and is seen all the same.
DRAWN = """e => [...e.querySelectorAll('svg [data-frame]')].filter(f => f.checkVisibility()).map(f => f.innerHTML).join('')"""

OUT_OF_REACH = """() => [...document.querySelectorAll('main :is(mjx-container, svg, table, pre, p, h1, h2, h3)')]
  .filter(e => e.checkVisibility() && e.getBoundingClientRect().left < 0)
  .map(e => e.outerHTML.slice(0, 100))"""


@on_every_page
def test_no_page_shows_what_went_to_stderr(name: str) -> None:
    assert "output stderr" not in (BUILT / f"{name}.html").read_text("utf-8")


@on_every_page
def test_page(visit: Visit, name: str) -> None:
    """Wide and on a phone, light and dark: quiet, complete, readable."""
    visit.trouble.clear()
    visit.page.set_viewport_size(WIDE)
    page = visit.open(name)

    rendered, wanted = page.locator("mjx-container").count(), page.locator(".math").count()
    assert rendered >= wanted, f"{wanted - rendered} formulas without MathJax"
    assert page.locator("mjx-merror, [data-mjx-error], mjx-container [style*='color: red']").count() == 0
    assert page.evaluate(UNRENDERED) == []
    assert page.evaluate(SCROLLED_IN_A_LINE) == [], "the Tab key stops at a formula within a line"

    assert page.evaluate(UNNAMED) == []
    for picture in page.locator(".pt-panels").all():
        assert picture.get_attribute("role") == "img" and picture.get_attribute("aria-label").strip()
        assert picture.evaluate(CONTRAST) >= 4.5, "the ink of a picture must be readable on what is behind it"
    for ink in page.locator(".pt-facts td, .pt-knob output").all():
        assert ink.evaluate(CONTRAST) >= 4.5

    page.set_viewport_size(PHONE)
    overhang = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overhang <= 0, f"scrolls sideways by {overhang} px on a phone"
    assert page.evaluate(OUT_OF_REACH) == [], "runs out to the left, where no scrolling reaches"
    assert visit.trouble == []


@pytest.mark.parametrize("name", [n for n in BUILT_PAGES if 'type="range"' in (BUILT / f"{n}.html").read_text("utf-8")])
def test_sliders_move_by_keyboard(light: Visit, name: str) -> None:
    page = light.open(name)
    for picture in page.locator(".pt-figure:has(input[type=range])").all():
        knob = picture.locator("input[type=range]")

        def seen(picture: Any = picture, knob: Any = knob) -> tuple[str, str, str]:
            drawn = picture.evaluate(DRAWN)
            return drawn, knob.get_attribute("aria-valuetext"), picture.locator("output").inner_text()

        assert knob.evaluate("e => e.labels[0].textContent.trim()")
        knob.focus()
        page.keyboard.press("Home")
        first = seen()
        page.keyboard.press("ArrowRight")
        second = seen()
        page.keyboard.press("End")
        last = seen()
        for before, after in ((first, second), (second, last)):
            assert before[0] and before[0] != after[0], "the picture stays the same"
            assert before[1] != after[1], "a screen reader would say the same value"
        assert last[1] == last[2]
    assert light.trouble == []


def test_search_finds_a_page_from_the_keyboard(light: Visit) -> None:
    page = light.open("index")
    page.keyboard.press("Control+k")
    page.keyboard.type("softplus")
    page.keyboard.press("Enter")
    page.locator("#search-results li a[href*='reference/notation.html']").first.wait_for()
    assert light.trouble == []


def test_menu_and_mode_work_on_a_phone(light: Visit) -> None:
    light.page.set_viewport_size(PHONE)
    page = light.open("index")
    modes = set()
    for _ in range(3):
        modes.add(page.evaluate("document.documentElement.dataset.mode"))
        page.locator("button.theme-switch-button:visible").first.click()
    assert modes == {"light", "dark", "auto"}
    page.locator("button.primary-toggle:visible").first.click()
    menu = page.locator(".bd-sidebar-primary a:visible", has_text="Notation")
    menu.first.wait_for()
    menu.first.click()
    page.wait_for_url("**/reference/notation.html")
    assert light.trouble == []


def test_no_file_names_another_host_to_load_from() -> None:
    """What a browser would fetch by itself: scripts, styles, pictures, fonts. Links to click are free."""
    tags = re.compile(r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^>]*>", re.I)
    sheets = re.compile(
        r"<link\b(?=[^>]*rel=[\"']?(?:stylesheet|preload|preconnect|icon|prefetch))[^>]*href=[\"']?(?:https?:)?//[^>]*>",
        re.I,
    )
    imports = re.compile(r"(?:@import\s+|url\(\s*)[\"']?(?:https?:)?//[^)\s]*", re.I)
    for path in BUILT.rglob("*"):
        if path.suffix == ".html":
            text = path.read_text("utf-8")
            assert not tags.findall(text) + sheets.findall(text) + imports.findall(text), path
        elif path.suffix == ".css":
            assert not imports.findall(path.read_text("utf-8")), path


def test_pages_are_light() -> None:
    for name in BUILT_PAGES:
        assert Path(BUILT / f"{name}.html").stat().st_size < 3_000_000, f"{name} is heavy for a phone"
