"""Predictors beside published vLLM runs: the part of `python -m bench.fidelity` that `predictor=` asks for.

A predictor is told what a run was asked to serve, nothing that was measured in it. Its errors against the runs are the
twin's errors and its own; its own alone are those on left-out twin data, which its card has.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from rich.table import Table

from bench.measured.published import PROFILE_OF_MODEL, run_of_row
from predictors import Predictor, content_features, load_predictor
from predictors.features import MAX_LORAS, PROMPT, RATE, REQUESTED
from twin import UserError

MODELS = ("full", "distilled")

#: Figures of arXiv 2602.24044 on real runs: SMAPE of throughput in %, macro-F1 of starvation.
PUBLISHED = {
    ("llama-3.1-8b-instruct", "full"): (4.39, 0.977),
    ("qwen-2.5-7b-instruct", "full"): (5.28, 0.994),
    ("llama-3.1-8b-instruct", "distilled"): (10.25, 0.925),
    ("qwen-2.5-7b-instruct", "distilled"): (12.89, 0.969),
}


def predictors_of(runs: pd.DataFrame, wanted: str) -> dict[str, Predictor]:
    """The predictor of each model in the runs.

    Parameters
    ----------
    runs : DataFrame
    wanted : str
        `shipped` for each model's shipped one; else the name or the file of one, for the runs of its model.

    Raises
    ------
    UserError
        If it is for none of the models in the runs.
    """
    models = sorted(runs.model.unique())
    if wanted == "shipped":
        return {model: load_predictor(PROFILE_OF_MODEL[model]) for model in models}
    predictor = load_predictor(wanted)
    for model in models:
        if predictor.profile_name.startswith(PROFILE_OF_MODEL[model]):
            return {model: predictor}
    raise UserError(f"predictor={wanted}: is of profile {predictor.profile_name}, the runs are of {models}")


def predict_runs(runs: pd.DataFrame, predictors: dict[str, Predictor]) -> pd.DataFrame:
    """One row per run and model (full, distilled), with the columns that `bench.fidelity` has for the twin."""
    tables = []
    for model, predictor in predictors.items():
        mine = runs[runs.model == model].reset_index(drop=True)
        contents = np.stack([_content(row, predictor) for _, row in mine.iterrows()])
        starts = contents[:, MAX_LORAS] <= [
            predictor.profile.largest_max_loras(int(rank)) for rank in mine.max_lora_rank
        ]
        failed = mine.memory_error.to_numpy()
        for name in MODELS:
            distilled = name == "distilled"
            throughput = (predictor.distilled_throughput if distilled else predictor.predict_throughput)(contents)
            chance = (predictor.distilled_starvation if distilled else predictor.predict_starvation)(contents)
            tables.append(
                pd.DataFrame(
                    {
                        "predictor": name,
                        "run_id": mine.run_id,
                        "model": model,
                        "scenario": mine.scenario,
                        "max_loras": mine.max_loras.astype(int),
                        "n_adapters": mine.n_adapters.astype(int),
                        "offered_throughput": contents[:, RATE] * (contents[:, PROMPT] + contents[:, REQUESTED]),
                        "measured_throughput": np.where(failed, np.nan, mine.total_throughput),
                        "simulated_throughput": np.where(starts, throughput, np.nan),
                        "measured_itl_ms": np.where(failed, np.nan, mine.mean_itl_ms),
                        "simulated_itl_ms": predictor.predict_itl_ms(contents, distilled=distilled),
                        "measured_ttft_ms": np.where(failed, np.nan, mine.mean_ttft_ms),
                        "simulated_ttft_ms": predictor.predict_ttft_ms(contents, distilled=distilled),
                        "measured_starved": failed | (mine.starved_est.astype(str).str.lower() == "true"),
                        "simulated_starved": (chance >= 0.5) | ~starts,
                        "measured_memory_error": failed,
                        "simulated_memory_error": ~starts,
                        "port_exhaustion": mine.port_exhaustion,
                        "in_range": predictor.in_range(contents),
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def _content(row: pd.Series, predictor: Predictor) -> np.ndarray:
    run = run_of_row(row, predictor.profile)
    workload = run.workload
    return content_features(workload.ranks, workload.rates, run.max_loras, workload.lengths, workload.duration_s)


def left_out_twin_data(predictors: dict[str, Predictor]) -> pd.DataFrame:
    """The errors that the cards state for twin data kept out of the training."""
    records = []
    for model, predictor in predictors.items():
        for part, figures in predictor.card["test_errors"].items():
            records += [
                {
                    "model": model, "predictor": name, "runs of": f"twin, {part} sample, left out",
                    "throughput_smape": figures[name]["throughput_smape"],
                    "itl_smape": figures[name].get("itl_smape", np.nan), "ttft_smape": figures[name].get("ttft_smape", np.nan),
                    "starvation_macro_f1": figures[name]["starvation_macro_f1"],
                }
                for name in MODELS
            ]  # fmt: skip
    return pd.DataFrame(records)


def predictor_tables(summary: pd.DataFrame) -> list[Table]:
    """The summary for the terminal, a table per model, with the published figures below."""
    tables = []
    for model, mine in summary.groupby("model"):
        table = Table(
            title=f"{model}: predictors, SMAPE without the factor 2 in % (bias in %); * left out of the fit of the profile"
        )
        for heading in ("predictor", "runs of", "runs", "throughput", "ITL", "TTFT", "starvation", "F1"):
            table.add_column(heading, justify="left" if heading in ("predictor", "runs of") else "right", no_wrap=True)
        for name in MODELS:
            for _, row in mine[mine.predictor == name].iterrows():
                table.add_row(
                    name, str(row["runs of"]), "" if pd.isna(row.runs) else f"{row.runs:.0f}",
                    *(_with_bias(row, metric) for metric in ("throughput", "itl", "ttft")),
                    "" if pd.isna(row.starvation_agreement) else f"{row.starvation_agreement:.1f} %",
                    f"{row.starvation_macro_f1:.3f}",
                )  # fmt: skip
            error, f1 = PUBLISHED[str(model), name]
            table.add_row(name, "published, real runs", "", f"{error:.2f}", "", "", "", f"{f1:.3f}", end_section=True)
        tables.append(table)
    return tables


def _with_bias(row: pd.Series, metric: str) -> str:
    known = row.get(f"{metric}_bias", np.nan)
    return f"{row[f'{metric}_smape']:.2f}" + ("" if pd.isna(known) else f" ({known:+.1f})")
