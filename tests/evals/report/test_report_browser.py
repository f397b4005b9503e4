"""The report in a real browser: colour schemes, widths, filters, sorting, keyboard, no complaints."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from evals.protocol import Sample
from evals.report.stage import Recipe, run
from tests.evals.report.browser import Browser, find_chromium
from tests.evals.report.report_data import THREE, write_scores

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the path (Debian: apt-get install chromium)"
)

# Pixels of text must differ from what lies behind them: WCAG 2.2 asks for 4.5 to 1.
CONTRAST = """
(() => {
  const linear = (x) => (x /= 255) <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(Number).map(linear);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if (!/rgba\\(.*, 0\\)|transparent/.test(color)) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const poor = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
    if (!text || !element.checkVisibility() || element.closest('script, style')) continue;
    const style = getComputedStyle(element), ink = element.closest('svg') ? style.fill : style.color;
    const [a, b] = [light(ink), light(ground(element))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) poor.add(text.slice(0, 40) + ' ' + ink + ' on ' + ground(element));
  }
  return [...poor];
})()
"""
COLLISIONS = """
[...document.querySelectorAll('svg.chart')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  const meet = (p, q) =>
    p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 3 && q.top < p.bottom - 3;
  return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([b, q]) => meet(p, q))
    .map(([b]) => svg.getAttribute('aria-label') + ': ' + a + ' / ' + b));
})
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    hostile = {
        3: "<script>window.owned = 1</script><img src=x onerror='window.owned=1'> a dog",
        4: "word" * 3000,
    }

    def change(name: str, sample: Sample, text: str) -> str:
        return hostile.get(int(sample.id) % 1000, text) if "official" in sample.reference else text

    scores = write_scores(root, THREE, num_images=40, change=change)
    return run(Recipe(run_dir=root, scores=scores, num_examples=24)).final / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None
    with Browser(CHROMIUM) as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_looks_right_in_both_schemes(browser: Browser, page: Path, tmp_path: Path, scheme: str) -> None:
    browser.open(page, scheme=scheme)
    shot = Path(os.environ.get("REPORT_SHOTS", tmp_path)) / f"report_{scheme}.png"
    browser.screenshot(shot)
    corner = Image.open(io.BytesIO(shot.read_bytes())).convert("L").getpixel((5, 300))
    assert isinstance(corner, int | float) and (corner > 200 if scheme == "light" else corner < 60)
    assert browser.run(CONTRAST) == []
    assert browser.faults() == []
    assert browser.requests() == [page.resolve().as_uri()]
    assert browser.run("window.owned === undefined")
    assert browser.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


@pytest.mark.parametrize("width", [400, 768, 1600])
def test_nothing_sticks_out(browser: Browser, page: Path, tmp_path: Path, width: int) -> None:
    browser.open(page, width=width)
    browser.screenshot(Path(os.environ.get("REPORT_SHOTS", tmp_path)) / f"report_{width}.png")
    assert browser.run("document.documentElement.scrollWidth") <= width


def test_text_in_charts_does_not_collide(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run(COLLISIONS) == []


def test_examples_are_filtered_by_group_and_word(browser: Browser, page: Path) -> None:
    browser.open(page)
    total = browser.run("document.querySelectorAll('.example').length")
    visible = "[...document.querySelectorAll('.example')].filter(card => !card.hidden)"
    assert browser.run(f"{visible}.length") == total == 24
    browser.run("document.querySelector('input[name=stratum][value=improved]').click()")
    assert browser.run(f"[...new Set({visible}.map(card => card.dataset.stratum))]") == ["improved"]
    some = browser.run(f"{visible}.length")
    assert 0 < some < total
    assert browser.run("document.getElementById('shown').textContent") == f"{some} of {total} shown"
    browser.run(
        "document.getElementById('find').value = 'zzz';"
        "document.getElementById('find').dispatchEvent(new Event('input', {bubbles: true}))"
    )
    assert browser.run(f"{visible}.length") == 0


def test_results_sort_and_unfold(browser: Browser, page: Path) -> None:
    browser.open(page)
    rows = "[...document.querySelectorAll('#main-table tbody tr')].filter(row => row.checkVisibility())"
    primary = browser.run(f"{rows}.length")
    browser.run("document.getElementById('secondary').click()")
    assert browser.run(f"{rows}.length") > primary
    browser.run("document.querySelectorAll('#main-table .sort')[5].click()")
    deltas = browser.run(f"{rows}.map(row => Number(row.cells[5].dataset.sort))")
    assert deltas == sorted(deltas)
    assert (
        browser.run("document.querySelectorAll('#main-table th')[5].getAttribute('aria-sort')") == "ascending"
    )


def test_another_comparison_and_a_task_are_chosen(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run("[...document.getElementById('step').options].map(item => item.text)") == [
        "DPO − SFT",
        "SFT − base",
        "DPO − base",
    ]
    cells = (
        "[...document.querySelectorAll('#main-table td[data-step]')].filter(cell => cell.checkVisibility())"
    )
    assert browser.run(f"[...new Set({cells}.map(cell => cell.dataset.step))]") == ["0"]
    browser.run(
        "document.getElementById('step').value = '2';"
        "document.getElementById('step').dispatchEvent(new Event('change'))"
    )
    assert browser.run(f"[...new Set({cells}.map(cell => cell.dataset.step))]") == ["2"]
    assert browser.run("document.getElementById('step-name').textContent") == "DPO − base"
    browser.run(
        "document.getElementById('find-metric').value = 'vqa';"
        "document.getElementById('find-metric').dispatchEvent(new Event('input'))"
    )
    rows = "[...document.querySelectorAll('#main-table tbody tr')].filter(row => row.checkVisibility())"
    found = browser.run(f"[...new Set({rows}.map(row => row.cells[0].textContent.split(' ')[0]))]")
    assert found == ["VQA"] and browser.run(f"{rows}.length") > 1
    browser.run(
        "document.getElementById('task').value = 'POPE';"
        "document.getElementById('task').dispatchEvent(new Event('input', {bubbles: true}))"
    )
    cards = "[...document.querySelectorAll('.example')].filter(card => !card.hidden)"
    assert browser.run(f"[...new Set({cards}.map(card => card.dataset.task))]") == ["POPE"]
    assert browser.faults() == []


def test_keyboard_reaches_everything(browser: Browser, page: Path) -> None:
    browser.open(page)
    focus = "(e => e.id || e.className || e.textContent)(document.activeElement)"
    seen = []
    for _ in range(14):
        browser.press("Tab")
        seen.append(browser.run(focus))
    assert seen[0] == "skip" and "theme" in seen and "secondary" in seen and "sort" in seen
    browser.run("document.querySelector('input[name=stratum]').focus()")
    browser.press("ArrowRight")
    assert browser.run("document.querySelector('input[name=stratum]:checked').value") != "all"


def test_theme_button_overrides_the_system(browser: Browser, page: Path) -> None:
    browser.open(page, scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = browser.run(ground)
    browser.run("document.getElementById('theme').click()")
    assert browser.run("document.documentElement.dataset.theme") == "light"
    assert browser.run(ground) != dark
    browser.run("document.getElementById('theme').click()")
    assert browser.run(ground) == dark
    browser.run("localStorage.clear()")


def test_paper_is_white_complete_and_wide_enough(browser: Browser, page: Path, tmp_path: Path) -> None:
    browser.open(page, width=760, scheme="dark", media="print")
    browser.screenshot(Path(os.environ.get("REPORT_SHOTS", tmp_path)) / "report_print.png")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run(
        "[...document.querySelectorAll('#main-table tbody tr')].every(row => row.checkVisibility())"
    )
    assert browser.run("document.getElementById('filters').checkVisibility()") is False
    assert browser.run("document.documentElement.scrollWidth") <= 760
    assert browser.run(CONTRAST) == []
