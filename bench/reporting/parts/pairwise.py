"""Wins, ties and losses of each pair of solvers."""

from __future__ import annotations

from bench.reporting.content import Column, Entry, Part, Table, Tone, number, words
from bench.reporting.parts.overview import interval
from bench.reporting.study import Study
from bench.statistics.pairwise import SIGNIFICANCE, Pair
from bench.statistics.summary import Statistics


def pairwise(study: Study) -> Part | None:
    """A matrix and a table for each objective and service level; None with a single solver."""
    if len(study.solvers) < 2:
        return None
    blocks: list[Table] = []
    for suffix, title, statistics in study.tracks:
        if len(statistics.paired.solvers) > 1:
            blocks += [_matrix(statistics, suffix, title), _table(statistics, suffix, title)]
    return Part(
        "pairs",
        "Pairs",
        text=(
            (
                "On the same instance a feasible placement beats none, then the smaller figure wins. The test is Wilcoxon's signed-rank "
                "test on the logarithms of the ratios, where an infeasible placement loses by more than any two feasible ones differ; "
                f"p-values are corrected for the number of pairs (Holm), and a difference is significant below {SIGNIFICANCE:g}."
            ),
        ),
        blocks=tuple(blocks),
    )


def _matrix(statistics: Statistics, suffix: str, title: str) -> Table:
    solvers = statistics.paired.solvers
    met = {(pair.first, pair.second): pair for pair in statistics.pairs}
    lines = []
    for first in solvers:
        cells = [words(first, solver=first)]
        for second in solvers:
            if (first, second) in met:
                cells.append(_against(met[first, second], turned=False))
            elif (second, first) in met:
                cells.append(_against(met[second, first], turned=True))
            else:
                cells.append(Entry("·", None, "muted"))
        lines.append(tuple(cells))
    return Table(
        f"pairs-matrix{suffix}",
        f"Wins-ties-losses of the solver of the line against that of the column{title}; * is significant",
        (Column("Solver", numeric=False), *(Column(solver) for solver in solvers)),
        tuple(lines),
    )


def _against(pair: Pair, *, turned: bool) -> Entry:
    wins, losses = (pair.losses, pair.wins) if turned else (pair.wins, pair.losses)
    tone: Tone = "muted"
    if pair.significant:
        tone = "good" if wins > losses else "bad"
    star = "*" if pair.significant else ""
    return Entry(f"{wins}-{pair.ties}-{losses}{star}", wins - losses, tone)


def _table(statistics: Statistics, suffix: str, title: str) -> Table:
    return Table(
        f"pairs{suffix}",
        f"Each pair with its test{title}",
        (
            Column("First", numeric=False, facet=True),
            Column("Second", numeric=False, facet=True),
            Column("Wins"),
            Column("Ties"),
            Column("Losses"),
            Column(
                f"{statistics.measure.label}, first / second",
                "geometric mean with 95 % interval, where both are feasible",
            ),
            Column("p", "Wilcoxon signed-rank, two-sided"),
            Column("p (Holm)", "corrected for the number of pairs"),
            Column("Differ", "significantly", numeric=False, facet=True),
        ),
        tuple(
            (
                words(pair.first, solver=pair.first),
                words(pair.second, solver=pair.second),
                number(pair.wins, 0),
                number(pair.ties, 0),
                number(pair.losses, 0),
                interval(pair.ratio, 3),
                _p(pair.p_value),
                _p(pair.p_holm),
                words("yes" if pair.significant else "no", tone="" if pair.significant else "muted"),
            )
            for pair in statistics.pairs
        ),
        filterable=True,
    )


def _p(value: float) -> Entry:
    return Entry("<0.0001" if value < 0.0001 else f"{value:.4f}", value)
