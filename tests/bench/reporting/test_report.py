"""The report: one file that needs nothing else, with the figures of the rows in it."""

import csv
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image as mpimg
import numpy as np
import pytest
from matplotlib.figure import Figure

from bench.comparison.compare import Comparison
from bench.comparison.rows import Row, write_rows
from bench.report import ReportConfig, main, make_parts
from bench.reporting.content import Chart, Column, Drawing, Entry, LegendEntry, Part, Table, slug, unique_slugs
from bench.reporting.drawing import GREY, HIGHLIGHTED, MOST_COLOURED, legend_handles, name_dots, series, to_svg
from bench.reporting.page import render
from bench.reporting.paper import as_csv, markdown
from bench.reporting.parts.anytime import curve_of
from bench.reporting.parts.latency import front
from bench.reporting.parts.placement import drawn_placement
from bench.reporting.parts.reproduce import commands
from bench.reporting.study import Study
from solvers.base import Solver
from tests.bench.reporting.reported import NASTY, rows_of_every_kind


@pytest.fixture
def rows(comparison: Comparison, makers: dict[str, Callable[[], Solver]]) -> list[Row]:
    return rows_of_every_kind(comparison, makers)


@pytest.fixture
def study(rows: list[Row]) -> Study:
    return Study(rows, samples=50, seed=0)


def parts_of(study: Study) -> tuple[list[Part], list[Part]]:
    return make_parts(study, ReportConfig(rows="rows.parquet"))


class Outline(HTMLParser):
    """Identifiers, links, addresses and the nesting of a page."""

    VOID = frozenset({"meta", "link", "input", "br", "path", "rect", "use", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note identifiers and where it points."""
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "src", "xlink:href", "action") and value is not None:
                (self.links if value.startswith("#") else self.addresses).append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """The same, and closed at once."""
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        """Check that it closes the last one opened."""
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note the text."""
        self.text.append(data)


def outline_of(page: str) -> Outline:
    outline = Outline()
    outline.feed(page)
    return outline


def table_of(parts: list[Part], name: str) -> Table:
    return next(table for part in parts for table in part.tables if table.name == name)


# --- the page


def test_the_page_is_well_formed_and_points_to_itself_only(study: Study) -> None:
    page = render(study, "title", *parts_of(study))
    outline = outline_of(page)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert {link.removeprefix("#") for link in outline.links} <= set(outline.ids)
    assert outline.addresses == ["data:,"]
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|https?://(?!www\.w3\.org)", page)


def test_names_from_the_rows_cannot_become_markup(study: Study) -> None:
    page = render(study, NASTY, *parts_of(study))
    outline = outline_of(page)
    assert page.count("<script>") == 1
    assert any(NASTY in text for text in outline.text)


def test_the_page_is_the_same_for_the_same_rows(rows: list[Row]) -> None:
    once, again = (Study(rows[:6], samples=50, seed=0) for _ in range(2))
    assert render(once, "t", *parts_of(once)) == render(again, "t", *parts_of(again))


def test_every_part_is_there(study: Study) -> None:
    parts, pages = parts_of(study)
    names = [part.name for part in parts]
    assert names == [
        "summary", "quality", "pairs", "anytime", "latency", "workloads", "candidates", "fidelity", "reproduce",
    ]  # fmt: skip
    assert len(pages) == 2


def test_one_solver_on_one_workload_is_a_report_too(rows: list[Row]) -> None:
    study = Study([row for row in rows if row.solver == "crowded"][:1], samples=5, seed=0)
    parts, pages = parts_of(study)
    assert outline_of(render(study, "t", parts, pages)).open == []
    assert "pairs" not in [part.name for part in parts]


def test_rows_without_any_placement_are_a_report_too(rows: list[Row]) -> None:
    study = Study([row for row in rows if row.placement is None], samples=5, seed=0)
    assert outline_of(render(study, "t", *parts_of(study))).open == []


# --- tables


def test_the_summary_holds_the_figures_of_the_rows(study: Study) -> None:
    table = table_of(parts_of(study)[0], "summary")
    lines = {str(line[0].value): line for line in table.lines}
    assert lines["crowded"][2].text == "0/3"
    assert lines["dealt"][2].text == "3/3"
    assert float(lines["dealt"][3].value or 0) == pytest.approx(1.0)
    # Six adapters on a GPU each, against the fewest of the fleet search.
    fewest = next(row.gpus for row in study.rows if row.solver == "dealt")
    assert fewest is not None
    assert float(lines["alone"][3].value or 0) == pytest.approx(6 / fewest)


def test_markdown_and_csv_have_the_lines_of_the_table() -> None:
    columns = (Column("Solver", numeric=False), Column("Ratio"), Column("Feasible"))
    lines = (
        (Entry("a|b", "a|b"), Entry("1.23 [1.00, 2.00]", 1.2345, interval=(1.0, 2.0)), Entry("3/4", 0.75)),
        (Entry("c", "c"), Entry("–"), Entry("4/4", 1.0)),  # noqa: RUF001  # the dash of the table
    )
    table = Table("t", "Caption", columns, lines)
    assert "| a\\|b | 1.23 [1.00, 2.00] | 3/4 |" in markdown(table)
    assert list(csv.reader(io.StringIO(as_csv(table)))) == [
        ["Solver", "Ratio", "Ratio, low", "Ratio, high", "Feasible"],
        ["a|b", "1.2345", "1", "2", "3/4"],
        ["c", "", "", "", "4/4"],
    ]


def test_slugs_are_different_for_different_texts() -> None:
    assert slug("Ünit 1: a/b") == "ünit-1-a-b"
    assert unique_slugs(["a b", "a-b", "?"]) == ["a-b", "a-b-2", "x"]


# --- charts


def test_charts_are_xml_in_the_colours_of_the_page(study: Study) -> None:
    parts, pages = parts_of(study)
    charts = [chart for part in [*parts, *pages] for chart in part.charts]
    assert len(charts) >= 8
    for chart in charts:
        svg = to_svg(chart)
        ET.fromstring(svg.replace("xlink:href", "href"))  # noqa: S314  # made here
        assert "var(--ink)" in svg
        for stand_in in ("#010203", "#040506", "#070809"):
            assert stand_in not in svg


def test_what_belongs_to_a_solver_can_be_singled_out(study: Study) -> None:
    chart = next(chart for part in parts_of(study)[0] for chart in part.charts if chart.name == "performance-profile")
    marked = set(re.findall(r'data-series="([^"]+)"', to_svg(chart)))
    assert marked == {entry.label for entry in chart.legend} == set(study.solvers)


def test_few_solvers_look_different_and_of_many_the_best_stand_out() -> None:
    few = series([f"s{n}" for n in range(MOST_COLOURED)]).values()
    assert len({(entry.colour, entry.dash, entry.marker) for entry in few}) == MOST_COLOURED
    assert not any(entry.muted for entry in few)
    many = list(series([f"s{n}" for n in range(40)]).values())
    assert [entry.muted for entry in many] == [False] * HIGHLIGHTED + [True] * (40 - HIGHLIGHTED)
    assert len({entry.colour for entry in many}) == HIGHLIGHTED + 1
    chart = Chart("all", "All", "", lambda *_: None, legend=tuple(many))
    assert [handle.get_label() for handle in legend_handles(chart)] == ["s0", "s1", "s2", "37 others"]


def test_names_beside_dots_do_not_cover_each_other() -> None:
    """Where dots are crowded the names of those that stand back are left out, those that stand out never."""
    axes = Figure(figsize=(4.6, 3.0)).subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    entries = series([f"solver-{n}" for n in range(30)])
    dots = [(0.5, 0.5 + 0.001 * n, entry) for n, entry in enumerate(entries.values())]
    name_dots(axes, [*dots, (0.1, 0.1, LegendEntry("apart", GREY, muted=True))])
    named = [text.get_text() for text in axes.texts]
    assert {"solver-0", "solver-1", "solver-2", "apart"} <= set(named)
    assert len(named) < 12


def test_bounds_over_time_are_read_as_steps(rows: list[Row]) -> None:
    curve = curve_of(next(row for row in rows if row.solver == "dealt"))
    assert curve is not None
    assert curve.gap(np.array([0.001, 0.015, 0.1, 0.45, 9.0])).tolist() == [np.inf, np.inf, 3.0, 1.0, 0.0]
    assert curve_of(next(row for row in rows if row.solver == "alone")) is None


def test_the_front_holds_feasible_candidates_that_nobody_beats(rows: list[Row]) -> None:
    base = next(row for row in rows if row.solver == "alone")

    def at(solver: str, gpus: int, e2e_ms: float, *, feasible: bool = True) -> Row:
        return replace(base, solver=solver, gpus=gpus, e2e_ms=e2e_ms, feasible=feasible)

    drawn = [at("slow", 2, 900.0), at("beaten", 3, 950.0), at("fast", 4, 100.0), at("starved", 1, 50.0, feasible=False)]
    assert [row.solver for row in front(drawn)] == ["slow", "fast"]


# --- placements


def test_a_drawn_placement_shows_every_gpu_and_what_starves(rows: list[Row]) -> None:
    alone = drawn_placement(next(row for row in rows if row.solver == "alone"), [8, 16])
    crowded = drawn_placement(next(row for row in rows if row.solver == "crowded"), [8, 16])
    for svg in (alone, crowded):
        ET.fromstring(svg)  # noqa: S314  # made here
    assert alone.count("<g>") == 6
    assert crowded.count("<g>") == 1
    assert 'class="starved"' in crowded
    assert 'class="starved"' not in alone
    assert "starves" in crowded


def test_the_bar_of_a_gpu_is_as_high_as_its_offered_load(rows: list[Row]) -> None:
    row = next(row for row in rows if row.solver == "crowded")
    bars = re.findall(
        r'<rect class="r\d" x="\d+" y="([\d.]+)" width="\d+" height="([\d.]+)"', drawn_placement(row, [8, 16])
    )
    heights = [float(height) for _, height in bars]
    load = np.bincount([0 if rank == 8 else 1 for rank in row.adapter_ranks or []], row.adapter_rates)
    assert np.array(heights) / sum(heights) == pytest.approx(load / load.sum(), abs=0.01)


def test_equal_placements_are_drawn_once(rows: list[Row]) -> None:
    twice = [*rows, *(replace(row, solver="again") for row in rows if row.solver == "alone")]
    _, pages = parts_of(Study(twice, samples=5, seed=0))
    titles = [block.title for block in pages[0].blocks if isinstance(block, Drawing)]
    assert sum("alone" in title for title in titles) == 1
    assert any("again = alone" in title or "alone = again" in title for title in titles)


# --- commands


def test_the_commands_name_workload_seeds_and_solvers(rows: list[Row]) -> None:
    plain = [row for row in rows if row.workload == "tiny"]
    (command,) = commands(Study(plain, samples=5, seed=0))
    assert command.startswith(
        "python -m bench -m workload=tiny profile=llama-3.1-8b/h100-64gb objective=min_gpus time_limit_s=60"
    )
    assert command.endswith("seed=5,6")
    assert "solver=[alone,broken,crowded,dealt,forgetful,resigned]" in command


def test_the_commands_name_the_reserves(rows: list[Row]) -> None:
    plain = [row for row in rows if row.workload == "tiny" and row.seed == 5]
    both = [*plain, *(replace(row, reserve=0.1) for row in plain)]
    (command,) = commands(Study(both, samples=5, seed=0))
    assert command.startswith("python -m bench -m ")
    assert "reserve=0,0.1" in command
    of_a_suite = [replace(row, instance="zipf-llama-0008") for row in both]
    without, kept = commands(Study(of_a_suite, samples=5, seed=0))
    assert "reserve" not in without
    assert kept.endswith("reserve=0.1")


@pytest.mark.usefixtures("_in_tmp_path")
def test_the_command_writes_the_page_and_the_files_for_a_paper(
    rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows([row for row in rows if row.workload == "tiny"], Path("some.parquet"))
    main(["some.parquet", "paper=figures", "samples=20", "title=A title"])
    assert "report   some.html" in capsys.readouterr().out
    page = Path("some.html").read_text()
    assert "<title>A title</title>" in page
    assert "python -m bench.report some.parquet paper=figures" in page
    assert Path("some.html").stat().st_size < 1_000_000
    suffixes = {path.suffix for path in Path("figures").iterdir()}
    assert suffixes == {".png", ".md", ".csv"}
    for picture in Path("figures").glob("*.png"):
        assert mpimg.imread(picture).std() > 0.01
    # The workload's page, as one picture of its placements.
    assert list(Path("figures").glob("workload-*-placements.png"))
    assert Path("figures/summary.csv").read_text().count("\n") == 1 + 6


@pytest.mark.usefixtures("_in_tmp_path")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "rows must be given"),
        (["nothing.parquet"], "rows=nothing.parquet: no such file or folder"),
        (["."], "rows=.: holds no rows"),
        (["rows.parquet", "out=page.pdf"], "out=page.pdf must be the name of a .html file"),
        (["rows.parquet", "samples=0"], "samples=0 must be 1 or more"),
        (["rows.parquet", "fidelity=rows.parquet"], "not written by `python -m bench.fidelity`"),
        (["rows.parquet", "robustness=rows.parquet"], "not written by `python -m bench.robustness`"),
    ],
)
def test_a_mistake_is_one_line(
    rows: list[Row], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments and arguments[0] == "rows.parquet":
        write_rows(rows[:2], Path("rows.parquet"))
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
