"""What files may name: what is shipped, declared or trusted, and nothing else at whatever depth."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.comparison.cell import Cell
from bench.comparison.known import is_shipped, refuse_unknown
from twin import UserError

GROUPS = {"_target_": "twin.builders.groups", "groups": [{"count": 2, "rank": 8, "rate": 0.5}], "seed": 0, "name": "w"}
BAD = [
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "pathlib.Path",
    "hydra.utils.get_method",
    "hydra.utils.instantiate",
    "twin.builders.np.load",
    "twin.builders.__builtins__",
    "twin.workload.np",
    "twin.files.write_text",
    "twin.builders.math.floor",
    "twin.builders",
    "twin.load_profile",
    "bench.shared.files.write_text",
    "bench.planning.adapters.read_adapters",
    "solvers.max_pack.MaxPack",
    "",
    "..",
    "twin.builders.groups ",
    5,
    None,
    ["os.system"],
]


@pytest.mark.parametrize(
    "options",
    [
        GROUPS,
        {**GROUPS, "lengths": {"_target_": "twin.fixed_lengths", "prompt_tokens": 9, "output_tokens": 9}},
        {**GROUPS, "arrivals": {"_target_": "twin.arrivals.GammaArrivals", "cv": 2.0}},
        {"_target_": "bench.planning.adapters.planned", "lengths": {"_target_": "twin.lengths.Lengths"}},
    ],
)
def test_what_is_shipped_may_be_named(options: dict[str, Any]) -> None:
    refuse_unknown(options, "workload", "file")
    assert is_shipped(options, "workload")


def test_shipped_solvers_and_objectives_may_be_named() -> None:
    refuse_unknown({"_target_": "solvers.max_pack.MaxPack"}, "solver", "file")
    refuse_unknown({"_target_": "solvers.objectives.min_gpus.MinGpus"}, "objective", "file")


@pytest.mark.parametrize("target", [*BAD[:15], "solvers.base.Solver.run", "solvers.checks.check_solver"])
def test_what_is_no_solver_may_not_be_named_as_one(target: str) -> None:
    with pytest.raises(UserError, match="file: solver names"):
        refuse_unknown({"_target_": target}, "solver", "file")


@pytest.mark.parametrize("target", BAD)
@given(path=st.lists(st.sampled_from(["lengths", "prompt", 0, "deep"]), min_size=0, max_size=4))
def test_nothing_else_is_made_however_deep(target: object, path: list[str | int]) -> None:
    nested: Any = {"_target_": target}
    for step in path:
        nested = [nested] if step == 0 else {step: nested}
    options = {**GROUPS, "x": nested} if path else nested
    with pytest.raises(UserError, match=r"\Afile: workload"):
        refuse_unknown(options, "workload", "file")
    assert not is_shipped(options, "workload")


@pytest.mark.parametrize("key", ["_partial_", "_args_", "_convert_", "_recursive_"])
def test_options_of_hydra_alone_are_refused(key: str) -> None:
    with pytest.raises(UserError, match=f'file: workload: "{key}" is an option that no data file may give'):
        refuse_unknown({**GROUPS, "lengths": {key: True}}, "workload", "file")


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "a ${seed}"])
def test_interpolations_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="interpolation"):
        refuse_unknown({**GROUPS, "name": text}, "workload", "file")


def test_what_is_trusted_may_be_named_and_the_message_says_how() -> None:
    options = {"_target_": "mine.Solver"}
    with pytest.raises(UserError, match=r"solver names \"mine.Solver\".*trust=\[mine.Solver\] allows it"):
        refuse_unknown(options, "solver", "file")
    refuse_unknown(options, "solver", "file", trust=["mine.Solver"])


def test_a_cell_from_a_file_is_looked_through_before_anything_is_made_of_it() -> None:
    good = Cell(solver="s", solver_options={"_target_": "solvers.max_pack.MaxPack"}, workload=GROUPS)
    assert Cell.from_json(good.to_json()) == good
    for name, kind in (("workload", "workload"), ("solver_options", "solver"), ("objective", "objective")):
        bad = json.dumps({**asdict(good), name: {"_target_": "os.system", "command": "touch x"}})
        with pytest.raises(UserError, match=f'r.parquet: {kind} names "os.system"'):
            Cell.from_json(bad, "r.parquet")
        makes = [other for other in ("workload", "solver", "objective") if other != kind]
        assert Cell.from_json(bad, makes=makes).solver == "s"  # type: ignore[arg-type]  # a list of str


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[]", "must be a JSON object"),
        ("[" * 100_000, "no JSON"),
        ("{}", "needs solver"),
        (json.dumps({"solver": "s", "solver_options": {}, "workload": {}, "more": 1}), "has no more"),
        (json.dumps({"solver": 5, "solver_options": {}, "workload": {}}), "solver=5 of a cell must be str"),
        (json.dumps({"solver": "s", "solver_options": [], "workload": {}}), "must be Mapping"),
        (json.dumps({"solver": "s", "solver_options": {}, "workload": {}, "seed": 1.5}), "seed=1.5"),
        (json.dumps({"solver": "s", "solver_options": {}, "workload": {}, "overrides": [1]}), "overrides"),
        ('{"solver": "s", "solver_options": {}, "workload": {}, "time_limit_s": NaN}', "time_limit_s=nan"),
    ],
)
def test_what_is_no_cell_is_told_with_its_file(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"r.parquet: .*{message}"):
        Cell.from_json(text, "r.parquet")
