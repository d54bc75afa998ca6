"""Learned predictors on the runs that the paper tested its own on (Tables 3 to 5)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.measured.predictors_beside_runs import MODELS, PUBLISHED
from bench.measured.twin_beside_runs import errors_of

#: The runs of the authors' folder `ml_modelling/test_dataset`.
TEST_FAMILY = "ml"


def predictors_table(runs: pd.DataFrame, rows: pd.DataFrame, rules: dict[str, int]) -> pd.DataFrame:
    """Errors in percent and macro-F1 of starvation by model and predictor, the paper's beside them.

    Parameters
    ----------
    runs : DataFrame
        As `bench.measured.published.read_runs` gives them.
    rows : DataFrame
        As `bench.measured.predictors_beside_runs.predict_runs` makes them.
    rules : dict
        Leaves of the distilled starvation tree, by model.
    """
    tests = set(runs.run_id[runs.family == TEST_FAMILY])
    mine = rows[rows.run_id.isin(tests)]
    records = []
    for name in MODELS:
        for model, group in mine[mine.predictor == name].groupby("model"):
            error, f1 = PUBLISHED[str(model), name]
            records.append(
                {
                    "predictor": name,
                    "model": model,
                    **errors_of(group, None),
                    "published_throughput_smape": error,
                    "published_starvation_macro_f1": f1,
                    "rules": rules[str(model)] if name == "distilled" else np.nan,
                }
            )
    return pd.DataFrame(records)
