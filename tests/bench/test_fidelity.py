"""The error measures, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bench.measured.twin_beside_runs import bias, summarise
from predictors.errors import macro_f1, smape


def test_smape_is_without_the_factor_2() -> None:
    assert smape(pd.Series([110.0, 90.0]), pd.Series([90.0, 110.0])) == pytest.approx(10.0)


def test_smape_leaves_out_what_was_not_measured() -> None:
    assert smape(pd.Series([110.0, 1.0]), pd.Series([90.0, np.nan])) == pytest.approx(10.0)


def test_bias_has_a_sign() -> None:
    assert bias(pd.Series([90.0, 100.0]), pd.Series([100.0, 100.0])) == pytest.approx(-5.0)


def test_macro_f1_by_hand() -> None:
    predicted = pd.Series([True, True, False, False])
    actual = pd.Series([True, False, False, False])
    # F1 of True: 2 / (2 + 1), of False: 4 / (2 + 3).
    assert macro_f1(predicted, actual) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_macro_f1_of_one_class_is_that_class() -> None:
    assert macro_f1(pd.Series([False]), pd.Series([False])) == 1.0


def test_a_class_that_is_only_predicted_counts_as_asked() -> None:
    predicted, actual = pd.Series([True, False]), pd.Series([False, False])
    assert macro_f1(predicted, actual, of_true=True) == pytest.approx(2 / 3)
    assert macro_f1(predicted, actual) == pytest.approx(1 / 3)
    assert np.isnan(macro_f1([], []))


def test_smape_of_two_zeros_is_none_and_of_nothing_unknown() -> None:
    assert smape([0.0, 1.0], [0.0, 3.0]) == pytest.approx(25.0)
    assert np.isnan(smape([1.0], [np.nan]))


def test_the_summary_tells_left_out_scenarios_apart() -> None:
    rows = pd.DataFrame(
        {
            "run_id": ["a", "b"], "model": "m", "scenario": ["seen", "unseen"], "measured_throughput": 100.0,
            "simulated_throughput": [100.0, 50.0], "measured_itl_ms": 10.0, "simulated_itl_ms": 10.0,
            "measured_ttft_ms": 1.0, "simulated_ttft_ms": 1.0, "measured_starved": False,
            "simulated_starved": [False, True], "measured_memory_error": False, "port_exhaustion": False,
        }
    )  # fmt: skip
    summary = summarise(rows, {"m": ["unseen"]}, None).set_index("runs of")
    assert summary.loc["all, fitted", "throughput_smape"] == 0
    assert summary.loc["all, left out *", "throughput_smape"] == pytest.approx(100 / 3)
    assert summary.loc["all", "starvation_agreement"] == 50
