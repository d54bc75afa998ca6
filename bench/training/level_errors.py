"""How far the models of service levels are off, for the screen, as CSV and in a model card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from rich.table import Table

from bench.shared.files import write_text
from predictors import Predictor
from predictors.levels import PERCENTILES, LevelModels

_FIGURES = (
    ("fails", "fail %"), ("macro_f1", "macro-F1"), ("safe_macro_f1", "F1 at safe threshold"), ("missed", "missed %"),
    ("refused", "refused %"),
)  # fmt: skip
_ABOUT = (
    "{contents} contents, each judged by the twin for many limits at once; {test} were left out for the figures below. *boundary* was "
    "drawn about an estimated load of three quarters, where service levels begin to fail; *designed* covers the whole range. *drawn "
    "limits*: TTFT from {ttft[0]:g} to {ttft[1]:g} ms, TPOT from {tpot[0]:g} to {tpot[1]:g} ms, each from its whole range; *missed*: "
    "failing contents that are accepted at the safe threshold (risk {risk:g} on contents of the designed sample that were not learned "
    "from), *refused*: kept ones that are refused there."
)


def level_table(predictor: Predictor) -> Table:
    """The errors on contents left out of the training, for people."""
    levels = _levels(predictor)
    table = Table(title=f"{predictor.profile_name}: service levels, {levels.card['test']} contents left out")
    for heading in ("contents", "model", "level"):
        table.add_column(heading)
    for _, title in _FIGURES:
        table.add_column(title, justify="right")
    for names, figures in _rows(levels):
        table.add_row(*names, *_shown(figures))
    return table


def write_levels(predictor: Predictor, folder: Path) -> Path:
    """Write the errors as CSV, those of the percentiles in rows of their own."""
    levels = _levels(predictor)
    rows = [
        {"profile": predictor.profile_name, "sample": sample, "model": model, "level": level, **_rounded(figures)}
        for (sample, model, level), figures in _rows(levels)
    ]
    for sample, models in levels.card["test_errors"].items():
        for model, errors in models.items():
            figures = {f"{name}_smape": value for name, value in errors["percentiles"].items()}
            rows.append(
                {"profile": predictor.profile_name, "sample": sample, "model": model, "level": "percentiles"}
                | _rounded(figures)
            )
    path = folder / f"{predictor.profile_name.replace('/', '__')}__levels.csv"
    write_text(path, pd.DataFrame(rows).to_csv(index=False))
    return path


def level_sections(levels: LevelModels) -> list[str]:
    """What a model card says of service levels, in Markdown."""
    card = levels.card
    about = _ABOUT.format(ttft=card["ttft_limits_ms"], tpot=card["tpot_limits_ms"], **card)
    size = ", ".join(f"{name} {trees} / {leaves}" for name, (trees, leaves) in card["size"].items())
    verdicts = [[*names, *_shown(figures)] for names, figures in _rows(levels)]
    percentiles = [
        [sample, model, what.upper(), *(f"{errors['percentiles'][f'{what}_p{each}']:.1f}" for each in PERCENTILES)]
        for sample, models in card["test_errors"].items()
        for model, errors in models.items()
        for what in ("ttft", "itl")
    ]
    return [
        "## Service levels",
        about,
        _markdown(["sample", "model", "level", *(title for _, title in _FIGURES)], verdicts),
        "Percentiles of latency, SMAPE (without the factor 2) in %:",
        _markdown(["sample", "model", "latency", *(f"p{each}" for each in PERCENTILES)], percentiles),
        f"Size in trees / leaves: {size}.",
    ]


def _levels(predictor: Predictor) -> LevelModels:
    assert predictor.levels is not None  # noqa: S101  # whoever asks has seen them
    return predictor.levels


def _rows(levels: LevelModels) -> Iterator[tuple[tuple[str, str, str], dict[str, float]]]:
    for sample, models in levels.card["test_errors"].items():
        for model, errors in models.items():
            for level, figures in errors.items():
                if level != "percentiles":
                    yield (sample, model, level), figures


def _shown(figures: dict[str, float]) -> list[str]:
    return [f"{figures[key]:.{3 if 'f1' in key else 2}f}" for key, _ in _FIGURES]


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 4) for key, value in figures.items()}


def _markdown(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
