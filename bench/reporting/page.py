"""The page: parts put into the HTML template, with style sheet and script inside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bench.reporting.content import Chart, Code, Drawing, Facts, Part, Table
from bench.reporting.drawing import to_svg
from bench.reporting.lines import lines_html
from bench.reporting.study import Study

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).resolve().parent / "templates"


def render(study: Study, title: str, parts: Sequence[Part], pages: Sequence[Part]) -> str:
    """The whole page as text.

    Parameters
    ----------
    study : Study
        For the colours of the solvers.
    title : str
    parts : sequence of Part
        Of the first page, in their order.
    pages : sequence of Part
        Of the workloads.
    """
    template = _environment().get_template("report.html.j2")
    return template.render(
        title=title,
        parts=parts,
        pages=pages,
        series=study.series,
        style=_read("style.css"),
        script=_read("script.js"),
    )


_KINDS = {Table: "table", Chart: "chart", Drawing: "drawing", Code: "code", Facts: "facts"}


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda block: _KINDS[type(block)]
    environment.filters["svg"] = to_svg
    environment.filters["lines"] = lines_html
    return environment


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
