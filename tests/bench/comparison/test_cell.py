"""A row says from what it can be made again, also when classes have moved since."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hydra.utils import get_object

from bench.comparison.build import service_of
from bench.comparison.cell import MOVED, Cell
from solvers.registry import list_solvers
from twin.errors import UserError

RESULTS = Path(__file__).parents[3] / "results"
ROWS = ("reference/published/rows.parquet", "reference/ci.parquet", "predictors/placements/rows.parquet")
#: What a row of before may have under a name that is another solver's since.
CALLED_NOW = {"ffd": "ffd_checked", "min_cost_flow": "balanced_flow"}


def options(value: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401  # whatever JSON holds
    """Everything that has a `_target_`, at whatever depth."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from options(item)


def cell(**changes: Any) -> str:  # noqa: ANN401  # fields of many types
    """A cell as a row stores it."""
    workload = {"_target_": "twin.builders.groups", "groups": []}
    values = {
        "solver": "mine",
        "solver_options": {"_target_": "solvers.ffd.GuidedFfd"},
        "workload": workload,
        "overrides": [],
        **changes,
    }
    return json.dumps(values)


@pytest.mark.parametrize("name", ROWS)
def test_every_target_in_a_committed_row_is_there(name: str) -> None:
    texts = set(pq.read_table(RESULTS / name, columns=["cell"])["cell"].to_pylist())
    assert texts
    cells = [json.loads(Cell.from_json(text).to_json()) for text in texts]
    for target in {found["_target_"] for found in options(cells)}:
        assert callable(get_object(target))


@pytest.mark.parametrize("name", ROWS)
def test_a_committed_row_runs_the_solver_that_it_names(name: str) -> None:
    """The variant, not only its class: the options that tell it apart are there."""
    known = {entry.name: entry for entry in list_solvers()}
    seen: set[str] = set()
    for text in set(pq.read_table(RESULTS / name, columns=["cell"])["cell"].to_pylist()):
        stored = Cell.from_json(text)
        given = dict(stored.solver_options)
        target = given.pop("_target_")
        entries = [known[name] for name in (stored.solver, CALLED_NOW.get(stored.solver)) if name in known]
        same = [entry for entry in entries if entry.target == target]
        for entry in same:
            assert entry.solver is not None
        assert not entries or any(vars(entry.solver(**given)) == vars(entry.make()) for entry in same)  # type: ignore[misc]
        seen.update(entry.name for entry in same)
    assert seen


def test_what_has_moved_is_there() -> None:
    for target, _ in MOVED.values():
        assert callable(get_object(target))
        assert target not in MOVED


def test_targets_inside_options_are_moved_too() -> None:
    inside = {"_target_": "bench.suite_popularity.dirichlet", "seed": 1}
    read = Cell.from_json(cell(workload={"_target_": "twin.builders.mixed", "parts": [{"of": inside}]}))
    assert read.workload["parts"] == [{"of": {"_target_": "twin.builders.dirichlet", "seed": 1}}]


def test_options_that_a_row_gives_go_first() -> None:
    told = cell(solver_options={"_target_": "solvers.ffd_fast.FfdFast", "twin": "never"})
    untold = cell(solver_options={"_target_": "solvers.ffd_fast.FfdFast"})
    assert Cell.from_json(told).solver_options == {
        "_target_": "solvers.ffd.GuidedFfd",
        "distilled": True,
        "twin": "never",
        "as_published": False,
    }
    assert Cell.from_json(untold).solver_options["twin"] == "outside"


def test_what_was_written_is_read_back() -> None:
    known = Cell.from_json(cell(overrides=["workload.seed=1"]))
    assert Cell.from_json(known.to_json()) == known


@pytest.mark.parametrize(
    "values",
    [{"name": 5}, {"share": True}, {"share": "0.9"}, {"least_judged": math.nan}, {"tail_s": 10**400}, {"ttft_ms": [1]}, {"x": 1}],
    ids=str,
)  # fmt: skip
def test_a_service_level_of_a_file_is_numbers_and_a_name_or_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="service"):
        service_of(Cell(solver="a", solver_options={}, workload={}, service=values))
