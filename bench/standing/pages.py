"""The pages of the leaderboard: one for all, one for each track, one for each instance of a track."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bench.comparison.rows import Row, failing_adapters
from bench.shared.files import write_text
from bench.standing.submission import TIME_LIMIT_S, About
from bench.statistics.bootstrap import Estimate
from bench.statistics.instances import cases
from bench.statistics.summary import share_of_failing, statistics_of, ttft_p95_ms
from bench.suites.instance import Instance
from twin.service import NAMED

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).resolve().parent / "templates"


@dataclass(frozen=True)
class Track:
    """Rows of one service level that the twin says the same of as they do.

    Attributes
    ----------
    name : str
    rows : tuple of Row
        `best_bound` and `gap` set.
    instances : tuple of Instance
    refused : tuple of str
        A line for each row that was left out, and why.
    """

    name: str
    rows: tuple[Row, ...]
    instances: tuple[Instance, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True)
class _Line:
    """A method on a track."""

    place: int
    solver: str
    about: About | None
    cells: tuple[str, ...]


#: What stands where there is no figure.
NOTHING = "\N{EN DASH}"
#: Headings of a track's table, and what each says.
_COLUMNS = (
    ("feasible", "instances with a placement that keeps the service level on every GPU, by the twin"),
    ("GPUs over fewest", "geometric mean of GPUs over the fewest of any method, where feasible; 95 % bootstrap interval over instances"),
    ("gap to bound", "mean of GPUs over the best proven lower bound less 1, where feasible; 95 % bootstrap interval"),
    ("closed", "instances on which its GPUs equal the best proven lower bound"),
    ("wins, ties, losses", "against every other method on every instance, feasible before infeasible, then fewer GPUs"),
    ("TTFT p95, ms", "time to first token that one request in twenty exceeds on the worst GPU: median, where feasible"),
    ("adapters that fail", "share of all adapters for which the service level is not kept, where feasible"),
    ("time, s", "shifted geometric mean of the time to solve, on the machine of whoever handed it in: not compared"),
)  # fmt: skip


def write_site(
    out: Path, tracks: Sequence[Track], abouts: Mapping[str, About], versions: Mapping[str, str]
) -> list[Path]:
    """Write the pages.

    Parameters
    ----------
    out : Path
        Folder.
    tracks : sequence of Track
        Those with rows.
    abouts : mapping of str to About
        Of submissions, by name; what has none is from this project.
    versions : mapping of str to str
        What the site was made with, for the foot of each page.

    Returns
    -------
    list of Path
        Files, the first page first.
    """
    every = {"style": (_TEMPLATES / "style.css").read_text(encoding="utf-8"), "versions": dict(versions)}
    lines = {track.name: _lines(track, abouts) for track in tracks}
    pages: dict[str, tuple[str, dict[str, object]]] = {
        "index.html": (
            "index.html.j2",
            {"tracks": [_summary(track, lines[track.name]) for track in tracks], "abouts": abouts, "root": ""},
        )
    }
    for track in tracks:
        level = NAMED[track.name]
        pages[f"{track.name}.html"] = (
            "track.html.j2",
            {
                "track": track, "level": level.in_words(), "columns": _COLUMNS, "lines": lines[track.name], "limit": TIME_LIMIT_S,
                "instances": [_instance_line(track, one) for one in track.instances], "root": "",
            },
        )  # fmt: skip
        for one in track.instances:
            rows = _ranked(track, one)
            pages[f"{track.name}/{one.id}.html"] = (
                "instance.html.j2",
                {
                    "track": track,
                    "instance": one,
                    "rows": [_answer(row) for row in rows],
                    "file": one.to_yaml(),
                    "root": "../",
                },
            )
    written = []
    for name, (template, content) in pages.items():
        write_text(out / name, _environment().get_template(template).render(**every, **content))
        written.append(out / name)
    return written


def _summary(track: Track, lines: Sequence[_Line]) -> dict[str, object]:
    level = NAMED[track.name]
    return {
        "name": track.name,
        "level": level.in_words(),
        "best": [line.solver for line in lines[:3]],
        "methods": len(lines),
    }


def _lines(track: Track, abouts: Mapping[str, About]) -> list[_Line]:
    statistics = statistics_of(cases(track.rows))
    order = sorted(statistics.summaries, key=lambda one: (-one.feasible, one.ratio.value or float("inf"), one.solver))
    found = []
    for place, one in enumerate(order, 1):
        good = [row for row in track.rows if row.solver_label == one.solver and row.feasible]
        closed = sum(row.gpus is not None and row.gpus == row.best_bound for row in good)
        cells = (
            f"{one.feasible} of {len(track.instances)}",
            _over(one.ratio, less=1.0),
            _over(one.gap),
            str(closed),
            f"{one.wins}, {one.ties}, {one.losses}",
            _number(ttft_p95_ms(good), 0),
            _percent(share_of_failing(good)),
            _number(one.time_s, 1),
        )
        found.append(_Line(place, one.solver, abouts.get(one.solver), cells))
    return found


def _instance_line(track: Track, instance: Instance) -> dict[str, object]:
    rows = _ranked(track, instance)
    good = [row for row in rows if row.feasible and row.gpus is not None]
    fewest = min((row.gpus or 0 for row in good), default=None)
    bound = next((row.best_bound for row in rows), None)
    who = [row.solver_label for row in good if row.gpus == fewest]
    one = rows[0] if rows else None
    return {
        "id": instance.id, "profile": instance.profile, "adapters": one.n_adapters if one else None,
        "rate": _number(one.total_rate if one else None, 1), "bound": bound, "fewest": fewest, "feasible": len(good), "rows": len(rows),
        "who": who,
    }  # fmt: skip


def _ranked(track: Track, instance: Instance) -> list[Row]:
    return sorted(
        (row for row in track.rows if row.instance == instance.id), key=lambda row: (row.rank_key, row.solver_label)
    )


def _answer(row: Row) -> dict[str, object]:
    failing = failing_adapters(row)
    return {
        "solver": row.solver_label,
        "feasible": "yes" if row.feasible else ("no" if row.placement else row.status.replace("_", " ")),
        "gpus": NOTHING if row.gpus is None else row.gpus,
        "failing": NOTHING if failing is None or row.placement is None else failing,
        "goodput": _percent(row.goodput),
        "ttft": _number(row.ttft_p95_ms, 0),
        "itl": _number(row.itl_ms, 1),
        "time": _number(row.solve_time_s, 1),
    }


def _over(estimate: Estimate, less: float = 0.0) -> str:
    if estimate.value is None:
        return NOTHING
    text = f"{100 * (estimate.value - less):.1f} %"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} ({100 * (estimate.low - less):.1f} to {100 * (estimate.high - less):.1f})"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f} %"


def _number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:,.{digits}f}"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
