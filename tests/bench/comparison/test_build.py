"""What a cell names is made or refused in one line, whoever wrote the cell."""

import json
from typing import Any

import pytest

from bench.comparison.build import build_workload, maker_of, objective_of
from bench.comparison.cell import Cell
from solvers.objectives.min_latency import MinLatency
from twin import UserError, load_profile

GOOD: dict[str, Any] = {
    "solver": "max_pack",
    "solver_options": {"_target_": "solvers.max_pack.MaxPack"},
    "objective": {"_target_": "solvers.objectives.min_latency.MinLatency", "metric": "itl_ms"},
    "workload": {
        "_target_": "twin.builders.zipf",
        "name": "w",
        "n_adapters": 4,
        "total_rate": 1.0,
        "exponent": 1.0,
        "ranks": [8],
        "duration_s": 60.0,
        "seed": 0,
    },
}
DEEP: dict[str, Any] = {}
inner = DEEP
for _ in range(200):
    inner["a"] = {}
    inner = inner["a"]
ODD = ["???", ["???"], {"a": "???"}, DEEP, {}, 10**400, {"_target_": "solvers.objectives.min_gpus.MinGpus"}]


def make(cell: dict[str, Any]) -> None:
    known = Cell.from_json(json.dumps(cell), "rows.parquet")
    objective_of(known.objective)
    maker_of(known.solver, known.solver_options)()
    build_workload(known.workload, load_profile("llama-3.1-8b"))


def test_a_good_cell_is_made() -> None:
    make(GOOD)
    made = objective_of(GOOD["objective"])
    assert isinstance(made, MinLatency)
    assert made.metric == "itl_ms"


@pytest.mark.parametrize("part", ["objective", "solver_options", "workload"])
@pytest.mark.parametrize("key", ["metric", "nosuch", "", "self", "a.b", "order", "ranks"])
@pytest.mark.parametrize("value", ODD, ids=lambda value: str(value)[:20])
def test_odd_options_of_a_file_are_refused_in_one_line(part: str, key: str, value: object) -> None:
    """Hydra's own exceptions would leave with a traceback."""
    with pytest.raises(UserError) as caught:
        make({**GOOD, part: {**GOOD[part], key: value}})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["solvers.max_pack.MaxPack", "twin.builders.zipf", "builtins.dict"])
def test_what_is_no_objective_is_refused(target: str) -> None:
    with pytest.raises(UserError, match="objective"):
        objective_of({"_target_": target})
