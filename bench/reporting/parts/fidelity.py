"""How far the twin in use can be trusted: errors against real runs, and where its coefficients come from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.measured.published import PROFILE_OF_MODEL
from bench.measured.tables import read_written
from bench.reporting.content import Code, Column, Entry, Part, Table, number, words
from bench.reporting.study import Study
from twin import ServingProfile, UserError, load_profile

#: What `python -m bench.fidelity` wrote for the shipped profiles; there in a checkout of the repository.
SUMMARY = Path(__file__).resolve().parents[3] / "results" / "fidelity" / "summary.csv"
_NEEDED = ("model", "runs of", "runs", "throughput_smape", "itl_smape", "ttft_smape")


def fidelity(study: Study, summary: Path | None) -> Part:
    """Errors of the profiles in use.

    Parameters
    ----------
    study : Study
    summary : Path, optional
        CSV of `python -m bench.fidelity`; without it only what the profiles say of their fit.

    Raises
    ------
    UserError
        If the CSV is not one of that command.
    """
    names = list(dict.fromkeys(row.profile for row in study.rows))
    profiles = {name: _loaded(name) for name in names}
    blocks: list[Table | Code] = [_fit(profiles)]
    errors = read_written(summary, "fidelity", _NEEDED, key="fidelity") if summary is not None else None
    chosen = _of_profiles(errors, names) if errors is not None else pd.DataFrame()
    if len(chosen):
        blocks.append(_errors(chosen))
        blocks.append(Code("These errors come from", ("python -m bench.fidelity runs=DIR",)))
    text = [
        "The placements are scored by a simulation. These are its errors against real vLLM servers: SMAPE without the factor 2, "
        "in percent, over whole runs; runs left out were never seen by the fit."
        if len(chosen)
        else "The placements are scored by a simulation. No file with its errors against real servers goes with these profiles.",
    ]
    return Part("fidelity", "Fidelity of the twin", tuple(text), tuple(blocks))


def _loaded(name: str) -> ServingProfile | None:
    """The shipped profile of a name; None for one from a file, which the rows only name."""
    try:
        return load_profile(name)
    except UserError:
        return None


def _fit(profiles: dict[str, ServingProfile | None]) -> Table:
    columns = (
        Column("Profile", numeric=False),
        Column("Engine", numeric=False),
        Column("Runs fitted"),
        Column("Runs left out"),
        Column("Step-time error, fitted, %", "mean absolute error of the step time"),
        Column("Left out, %", "the same on runs left out of the fit"),
        Column("Source", numeric=False),
    )
    lines = []
    for name, profile in profiles.items():
        known = profile.provenance if profile else {}
        lines.append(
            (
                words(name),
                words(f"{profile.engine} {profile.engine_version}" if profile else "not a shipped profile"),
                number(known.get("fitted_runs"), 0),
                number(known.get("left_out_runs"), 0),
                number(known.get("step_time_error_pct_fitted"), 2),
                number(known.get("step_time_error_pct_left_out"), 2),
                words(str(known.get("source", "not said"))),
            )
        )
    return Table("profiles", "Serving profiles in use", columns, tuple(lines))


def _of_profiles(errors: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Lines over all runs, of the models whose profile is in use."""
    used = [
        model for model, profile in PROFILE_OF_MODEL.items() if any(name.split("/")[0] == profile for name in names)
    ]
    return errors[errors.model.isin(used) & errors["runs of"].str.startswith("all")]


def _errors(errors: pd.DataFrame) -> Table:
    columns = (
        Column("Model", numeric=False),
        Column("Runs", numeric=False, help="left out: never seen by the fit"),
        Column("Number"),
        Column("Throughput, %"),
        Column("published", "the published twin on the same runs"),
        Column("ITL, %"),
        Column("published", "the same"),
        Column("TTFT, %"),
        Column("published", "the same"),
        Column("Starvation verdicts equal, %"),
        Column("Macro-F1"),
    )

    def line(record: dict[str, object]) -> tuple[Entry, ...]:
        cells = [
            words(str(record["model"])),
            words(str(record["runs of"]).removesuffix(" *")),
            _figure(record, "runs", 0),
        ]
        for metric in ("throughput", "itl", "ttft"):
            cells += [_figure(record, f"{metric}_smape", 2), _figure(record, f"{metric}_published_smape", 2)]
        return (*cells, _figure(record, "starvation_agreement", 1), _figure(record, "starvation_macro_f1", 3))

    lines = tuple(line({str(key): value for key, value in record.items()}) for record in errors.to_dict("records"))
    return Table("fidelity", "Errors of the twin against real servers", columns, lines)


def _figure(record: dict[str, object], key: str, digits: int) -> Entry:
    value = record.get(key)
    return number(float(value) if isinstance(value, int | float) else None, digits)
