"""A predictor's card as Markdown: what it was trained on, how far it is off and where, and what it does not know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.shared.files import write_text
from bench.training.level_errors import level_sections
from predictors import Predictor
from predictors.meanfield import LEVEL_INPUTS, STARVATION_INPUTS

#: Keys of `predictors.errors.evaluate`, and their headings.
_ERRORS = (
    ("throughput_smape", "throughput"), ("itl_smape", "ITL"), ("ttft_smape", "TTFT"), ("feasible_load_smape", "feasible load"),
    ("starvation_macro_f1", "F1"), ("missed_starvation", "missed"), ("needless_refusals", "refused"),
)  # fmt: skip

_MADE = "Made by `python -m bench.train profile={profile}`; training seed {seed}, data seed {data_seed}."
_DATA = (
    "{points} GPU contents that the twin labelled with this profile, {starved:.1f} % of them starved; {test} were left out "
    "for the figures below. A part (*boundary*) was drawn about the limit of starvation on purpose, the rest (*designed*) "
    "covers the whole range. The feasible load is known of {known_feasible_loads} contents of the training."
)
_FAMILIES = (
    "Cross-validated errors of the scikit-learn families on the same {comparison_rows} contents (svm learns from {svm_rows}): "
    "share of wrong verdicts for starvation, mean absolute error of the logarithm for the others. Compiled code walks trees: "
    "*taught* is boosting that learned from the family before."
)
_UNITS = (
    "SMAPE (without the factor 2) in %; macro-F1 of starvation at probability 1/2; *missed*: starved contents that are "
    "accepted at the safe threshold, *refused*: served ones that are refused there, in %."
)
_RISK = (
    "Thresholds on the probability by the share of starved contents that is missed (designed sample, out of fold); "
    "{risk:g} is the default."
)
_SEEN = (
    "Inputs, from sums over the adapters (`predictors/meanfield.py`): {}; those of service levels and percentiles also {}, the limits or "
    "the percentile, and these times over the limits (`predictors/levels.py`)."
)


def write_card(predictor: Predictor, folder: Path) -> Path:
    """Write the card of a predictor to PROFILE.md.

    Parameters
    ----------
    predictor : Predictor
    folder : Path
        Made if it is not there.

    Returns
    -------
    Path
        The file.
    """
    path = folder / f"{predictor.profile_name.replace('/', '__')}.md"
    write_text(path, card_text(predictor))
    return path


def card_text(predictor: Predictor) -> str:
    """The card as Markdown."""
    card = predictor.card
    data = card["data"]
    ranges = ((name, f"{low:g}", f"{high:g}") for name, (low, high) in card["range"].items())
    size = ", ".join(f"{name} {trees} / {leaves}" for name, (trees, leaves) in card["size"].items())
    reliability = (
        (f"{row['from']:g}", f"{row['to']:g}", row["points"], f"{row['predicted']:.3f}", f"{row['starved']:.3f}")
        for row in card["reliability"]["full"]
    )
    full, distilled = card["thresholds"], card["distilled_thresholds"]
    thresholds = ((risk, f"{full[risk]:.3f}", f"{distilled[risk]:.3f}") for risk in full)
    parts = [
        f"# Predictor of {predictor.profile_name}",
        _MADE.format(profile=predictor.profile_name.split("/")[0], seed=card["seed"], data_seed=data["seed"]),
        "## Data",
        _DATA.format(starved=100 * card["starved_share"], **card),
        "## Range",
        _table(("quantity", "from", "to"), ranges),
        card["extrapolation"],
        "## Models",
        _FAMILIES.format(**card),
        _families(card),
        f"Size in trees / leaves: {size}.",
        "## Errors on twin data left out",
        _UNITS,
        _errors(("sample", "model"), _samples(card)),
        "By region of the designed sample:",
        _errors(("input", "above", "up to", "contents", "model"), _regions(card)),
        "## Calibration",
        "Predicted probability of starvation against the share that starved, both samples together, full model.",
        _table(("from", "to", "contents", "predicted", "starved"), reliability),
        "## Risk",
        _RISK.format(**card),
        _table(("risk", "full", "distilled"), thresholds),
        *(level_sections(predictor.levels) if predictor.levels else ()),
        "## What the models see",
        _SEEN.format(_names(STARVATION_INPUTS), _names(LEVEL_INPUTS)),
    ]
    return "\n\n".join(parts) + "\n"


def _names(inputs: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"`{name}`" for name, _ in inputs)


def _families(card: dict[str, Any]) -> str:
    names = list(dict.fromkeys(name for errors in card["cross_validation"].values() for name in errors))
    rows = []
    for target, errors in card["cross_validation"].items():
        chosen = card["families"][target] + (", taught" if target in card["taught"] else "")
        shown = (f"{errors[name]:.4f}" if name in errors else "" for name in names)
        rows.append(
            (target, *(f"**{text}**" if name == chosen else text for name, text in zip(names, shown, strict=True)))
        )
    return _table(("target", *names), rows)


def _samples(card: dict[str, Any]) -> Iterable[tuple[tuple[str, ...], dict[str, float]]]:
    for sample, models in card["test_errors"].items():
        for model, errors in models.items():
            yield (sample, model), errors


def _regions(card: dict[str, Any]) -> Iterable[tuple[tuple[str, ...], dict[str, float]]]:
    for region in card["regions"]:
        up_to = "" if region["up_to"] is None else f"{region['up_to']:g}"
        where = (f"`{region['input']}`", f"{region['above']:g}", up_to, str(region["points"]))
        for model in ("full", "distilled"):
            yield (*where, model), region[model]


def _errors(headings: Sequence[str], rows: Iterable[tuple[tuple[str, ...], dict[str, float]]]) -> str:
    body = []
    for names, errors in rows:
        shown = (f"{errors[key]:.{3 if 'f1' in key else 2}f}" if key in errors else "" for key, _ in _ERRORS)
        body.append((*names, *shown))
    return _table((*headings, *(title for _, title in _ERRORS)), body)


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
