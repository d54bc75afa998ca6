"""The report in a real browser: it sorts, filters and turns pages, by keyboard too, asks the network for nothing, and fits a phone.

Needs the `playwright` package and a Chromium of the system (`apt-get install chromium`); skipped without them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest

from bench.comparison.compare import Comparison
from bench.report import ReportConfig, make_parts
from bench.reporting.page import render
from bench.reporting.study import Study
from solvers.base import Solver
from tests.bench.reporting.reported import rows_of_every_kind

# The package is optional, so that its types cannot be asked for.
Browser: TypeAlias = Any
Page: TypeAlias = Any

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

LAPTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture
def address(comparison: Comparison, makers: dict[str, Callable[[], Solver]], tmp_path: Path) -> str:
    study = Study(rows_of_every_kind(comparison, makers), samples=20, seed=0)
    path = tmp_path / "report.html"
    path.write_text(render(study, "A report", *make_parts(study, ReportConfig(rows="rows.parquet"))), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The report on a laptop; whatever the page asks for or complains of fails the test."""
    opened = browser.new_page(viewport=LAPTOP)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "request", lambda request: None if request.url.split("#")[0] == address else complaints.append(request.url)
    )
    opened.goto(address)
    yield opened
    opened.close()
    assert [line for line in complaints if not line.startswith("data:")] == []


def column(page: Page, table: str, place: int) -> list[str]:
    """Texts of a column, in the lines that are shown."""
    return [
        text.strip()
        for text in page.locator(f"#table-{table} tbody tr:visible > :nth-child({place})").all_inner_texts()
    ]


def test_a_heading_sorts_both_ways(page: Page) -> None:
    heading = page.locator("#table-summary thead th").nth(1)
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    up = [float(text) for text in column(page, "summary", 2)]
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in column(page, "summary", 2)] == sorted(up, reverse=True)
    assert up == sorted(up)


def test_what_is_unknown_is_sorted_last_either_way(page: Page) -> None:
    heading = page.locator("#table-summary thead th").nth(3)
    for _ in range(2):
        heading.get_by_role("button").click()
        texts = column(page, "summary", 4)
        assert texts[-1] == "–"  # noqa: RUF001  # the dash of the table
        assert texts[0] != texts[-1]


def test_words_and_choices_filter(page: Page) -> None:
    form = page.locator("form[data-for=table-candidates]")
    assert form.locator("output").inner_text() == "18 lines"
    form.get_by_label("Verdict").select_option("feasible")
    assert set(column(page, "candidates", 4)) == {"feasible"}
    form.get_by_role("searchbox").fill("dealt 6")
    assert set(column(page, "candidates", 2)) == {"dealt"}
    assert form.locator("output").inner_text().endswith("of 18 lines")
    form.get_by_role("searchbox").fill("nobody is called so")
    assert column(page, "candidates", 1) == []


def test_a_workload_has_a_page_of_its_own(page: Page) -> None:
    page.locator("#table-workloads a").first.click()
    assert page.locator("#overview").is_hidden()
    assert page.locator("section.page:visible").count() == 1
    assert page.locator("section.page:visible svg.placement").first.is_visible()
    page.get_by_role("link", name="Next:").first.click()
    assert page.locator("section.page:visible h2").inner_text().startswith("other")
    page.go_back()
    page.go_back()
    page.locator("#overview").wait_for(state="visible")
    assert page.locator("section.page:visible").count() == 0


def test_a_link_to_a_page_opens_it(browser: Browser, address: str) -> None:
    opened = browser.new_page(viewport=LAPTOP)
    opened.goto(f"{address}#workload-tiny")
    assert opened.locator("section.page:visible h2").inner_text() == "tiny"
    opened.close()


def test_everything_can_be_done_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#table-summary thead') !== null"):
            break
    page.keyboard.press("Enter")
    assert page.locator("#table-summary thead th").first.get_attribute("aria-sort") == "ascending"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


def test_a_legend_entry_singles_out_its_solver(page: Page) -> None:
    figure = page.locator("#chart-performance-profile")
    button = figure.get_by_role("button", name="alone")
    button.focus()
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "true"
    page.wait_for_timeout(300)
    opacity = figure.evaluate(
        "figure => Object.fromEntries([...figure.querySelectorAll('.series')].map(g => [g.dataset.series, getComputedStyle(g).opacity]))"
    )
    assert opacity["alone"] == "1"
    assert float(opacity["dealt"]) < 0.5


def test_every_control_has_a_name(page: Page) -> None:
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, a, input, select, [role=img], [role=region]')].filter(element => "
        "!(element.textContent.trim() || element.getAttribute('aria-label') || element.getAttribute('aria-labelledby') "
        "|| element.labels?.length)).length"
    )
    assert nameless == 0


@pytest.mark.parametrize("fragment", ["", "#workload-tiny"])
@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_the_page_is_no_wider_than_the_screen(
    browser: Browser, address: str, size: dict[str, int], fragment: str
) -> None:
    opened = browser.new_page(viewport=size)
    opened.goto(address + fragment)
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_colour_schemes(
    browser: Browser, address: str, scheme: Literal["light", "dark"]
) -> None:
    """Contrast of 4.5 or more (WCAG AA) between text, also that of charts, and the page."""
    opened = browser.new_page(viewport=LAPTOP, color_scheme=scheme)
    opened.goto(address)
    colours = opened.evaluate(
        """() => {
            const style = getComputedStyle(document.documentElement);
            const seen = name => style.getPropertyValue(name).trim();
            const chart = getComputedStyle(document.querySelector('svg.chart text')).fill;
            return {page: getComputedStyle(document.body).backgroundColor, chart,
                    texts: ['--ink', '--muted', '--link', '--good', '--bad', '--warn'].map(seen)};
        }"""
    )
    opened.close()
    assert min(contrast(text, colours["page"]) for text in [colours["chart"], *colours["texts"]]) >= 4.5
    assert (luminance(colours["page"]) < 0.1) == (scheme == "dark")


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours as WCAG 2 defines it."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` or `rgb(r, g, b)`."""
    if colour.startswith("#"):
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    else:
        channels = [float(text) / 255 for text in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    red, green, blue = (value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
