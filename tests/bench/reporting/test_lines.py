"""Lines of tables on the page: what a cell says, and what is left of very many."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.comparison.compare import Comparison
from bench.reporting.content import Column, Entry, Table, number, share, words
from bench.reporting.drawing import series
from bench.reporting.lines import lines_html
from bench.reporting.page import render
from bench.reporting.paper import as_csv
from bench.reporting.parts import anytime, candidates, workloads
from bench.reporting.study import Study
from solvers.base import Solver
from tests.bench.reporting.reported import NASTY, rows_of_every_kind


def html_of(*line: Entry, numeric: bool = True) -> str:
    columns = (
        Column("Solver", numeric=False),
        *(Column(str(place), numeric=numeric) for place in range(len(line) - 1)),
    )
    return lines_html(Table("t", "caption", columns, (line,)), series(["ffd", "exact"]))


def test_figures_are_bare() -> None:
    assert html_of(words("x"), number(1234.56, 1)) == '<tr><th scope="row">x</th><td>1,234.6</td></tr>'


@pytest.mark.parametrize(
    ("entry", "cell"),
    [
        (number(None), "<td>–</td>"),  # noqa: RUF001  # a dash, as printed tables have it
        (share(38, 40), '<td class="bad" data-v="0.95">38/40</td>'),
        (Entry("4-2-0", 3.0), '<td data-v="3">4-2-0</td>'),
        (words("exact", solver="exact"), '<td><i class="dot k0 s1"></i>exact</td>'),
        (words("page", link="#a&b"), '<td><a href="#a&amp;b">page</a></td>'),
        (Entry("fast", None), '<td data-v="">fast</td>'),
    ],
)
def test_what_the_text_does_not_say_is_sorted_by_its_value(entry: Entry, cell: str) -> None:
    assert cell in html_of(words("x"), entry)


def test_text_stands_to_the_left_and_is_no_markup() -> None:
    cell = html_of(words("x"), words(NASTY), numeric=False)
    assert '<td class="w">' in cell
    assert NASTY not in cell


def test_of_very_many_candidates_the_page_has_every_workload_and_the_files_have_all(
    comparison: Comparison, makers: dict[str, Callable[[], Solver]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of_every_kind(comparison, makers)
    rows += [replace(row, seed=row.seed + 100 * turn) for turn in range(1, 4) for row in rows]
    study = Study(rows, samples=20, seed=0)
    first_seeds = sum(len(workload.cases[0].rows) for workload in study.workloads)
    for module in (candidates, workloads):
        monkeypatch.setattr(module, "MOST_LINES", first_seeds)
    part = candidates.candidates(study)
    table = part.tables[0]
    assert len(table.lines) == len(rows) > len(table.shown) == first_seeds
    assert {(line[0].text, line[1].text) for line in table.shown} == {
        (line[0].text, line[1].text) for line in table.lines
    }
    assert f"{first_seeds:,} of {len(rows):,} candidates" in part.text[0]
    assert as_csv(table).count("\n") == len(rows) + 1
    pages = workloads.pages(study, workloads.Options(placements=0))
    assert sum(len(page.tables[0].shown) for page in pages) == first_seeds
    chart = next(chart for page in pages for chart in page.charts if "Bounds" in chart.title)
    assert chart.title == "Bounds over time, the first 5 of 8 seeds"
    assert chart.text.count("seed ") == anytime.SEEDS * len(chart.legend or [None])
    html = render(study, "t", [part], pages)
    assert html.count("<tr>") - len(pages) - 1 == 2 * first_seeds
