"""Plans for profiles that no predictor was trained for."""

import pytest

from bench.planning.without_predictor import asking_the_twin
from twin import UserError

FFD_PLUS = {"_target_": "solvers.ffd_plus.FfdPlus"}
LATENCY = {"_target_": "solvers.latency.Latency"}
EXACT = {"_target_": "solvers.exact.Exact"}


def test_with_a_predictor_nothing_changes() -> None:
    asked = {"latency": LATENCY, "ffd_plus": FFD_PLUS}
    assert asking_the_twin(asked, "llama-3.1-8b/h100-64gb") == (asked, [])


def test_the_twin_is_asked_where_there_is_the_choice() -> None:
    kept, lines = asking_the_twin(
        {"exact": EXACT, "latency": LATENCY, "ffd": {"_target_": "solvers.ffd.GuidedFfd"}}, "mine/gpu"
    )
    assert kept == {"exact": EXACT, "latency": {**LATENCY, "oracle": "twin"}}
    assert lines == [
        "latency: asked the twin, as no predictor was trained for profile mine/gpu",
        "ffd: left out, as no predictor was trained for profile mine/gpu",
    ]


def test_a_plan_needs_at_least_one() -> None:
    with pytest.raises(
        UserError, match=r"no predictor was trained for it, which solver ffd cannot do without; exact and max_pack"
    ):
        asking_the_twin({"ffd": {"_target_": "solvers.ffd.GuidedFfd"}}, "mine/gpu")
