"""One cell of a comparison as plain data: sent to other processes, stored in rows, and run again from there."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any

from bench.comparison.known import Kind, refuse_unknown
from bench.comparison.rows import Row, gap_to
from twin.errors import UserError

#: What rows written earlier name by `_target_`: where it is now, and the options with which it is the same.
MOVED: dict[str, tuple[str, dict[str, Any]]] = {
    "bench.suite_popularity.dirichlet": ("twin.builders.dirichlet", {}),
    "solvers.best_fit_decreasing.BestFitDecreasing": ("solvers.vector_packing.VectorPacking", {"rule": "best_fit"}),
    "solvers.ffd.Ffd": ("solvers.ffd.GuidedFfd", {"twin": "unsure", "as_published": False}),
    "solvers.ffd_fast.FfdFast": (
        "solvers.ffd.GuidedFfd",
        {"distilled": True, "twin": "outside", "as_published": False},
    ),
    "solvers.first_fit_decreasing.FirstFitDecreasing": ("solvers.vector_packing.VectorPacking", {"rule": "first_fit"}),
    "solvers.lora_serve_third.LoraServeThird": ("solvers.lora_serve.LoraServe", {"adapters_per_slot": 3}),
    "solvers.max_backbone_half.MaxBackboneHalf": ("solvers.max_backbone.MaxBackbone", {"adapters_per_slot": 2}),
    "solvers.min_cost_flow.MinCostFlow": ("solvers.balanced_flow.BalancedFlow", {}),
    "solvers.worst_fit_decreasing.WorstFitDecreasing": ("solvers.vector_packing.VectorPacking", {"rule": "worst_fit"}),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One solver on one workload: everything that its row depends on, JSON-serialisable.

    Attributes
    ----------
    solver : str
        Name in tables and rows.
    solver_options, workload, objective : mapping
        `_target_` (what makes it) and its options, as in `conf/solver`, `conf/workload` and `conf/objective` with every
        interpolation resolved. The workload's seed is one of its options. A value that is the path of a file stands
        for the content of the file.
    service : mapping
        Fields of the `twin.ServiceLevel`; the published rule, if there are none.
    profile : str
        Name of a shipped serving profile, or a JSON file; with a fleet that of its first type.
    fleet : tuple of mapping
        The types of a fleet (`twin.fleet.fleet_of`); empty without one.
    seed : int
        For solvers that draw.
    gpus : int, optional
        GPU limit; without it, solvers that spread over a fleet get the smallest feasible one.
    time_limit_s : float
        For each call of the solver.
    threads : int
        GPUs that are simulated at the same time.
    repeats : int
        How often the solver runs; the least of its times counts.
    reserve : float
        The solver places for so much more load, as a share (`bench.comparison.reserve`); the score is that of the workload itself.
    draws : int
        The placement is scored with the requests of so many other seeds as well.
    instance : str
        Id in a suite.
    best_bound : int, optional
        Best lower bound known for the instance.
    overrides : tuple of str
        Options of the command line, which tell variants of a workload or a solver apart in tables.
    """

    solver: str
    solver_options: Mapping[str, Any]
    workload: Mapping[str, Any]
    objective: Mapping[str, Any] = field(default_factory=lambda: {"_target_": "solvers.objectives.min_gpus.MinGpus"})
    service: Mapping[str, Any] = field(default_factory=dict)
    profile: str = "llama-3.1-8b"
    seed: int = 0
    gpus: int | None = None
    time_limit_s: float = 60.0
    threads: int = 2
    repeats: int = 1
    reserve: float = 0.0
    draws: int = 0
    instance: str = ""
    best_bound: int | None = None
    overrides: tuple[str, ...] = ()
    fleet: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> str:
        """The cell as one line of JSON; one without a fleet as it was before there were any."""
        values = asdict(self)
        if not self.fleet:
            del values["fleet"]
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(
        cls,
        text: str,
        origin: str = "cell",
        *,
        trust: Sequence[str] = (),
        makes: Sequence[Kind] = ("workload", "solver", "objective"),
    ) -> Cell:
        """The cell that `to_json` wrote, now or when some classes had other names (`MOVED`).

        Parameters
        ----------
        text : str
            From a file, which may be anybody's.
        origin : str
            The file, for messages.
        trust : sequence of str
            What it may name besides what `bench.comparison.known` lists.
        makes : sequence of str
            Which of its parts the caller is going to make; only they are looked at.

        Raises
        ------
        UserError
            If the text is no cell, or names something that is not known.
        """
        try:
            values = as_named_now(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{origin}: a cell is no JSON ({str(error)[:100]})") from None
        cell = _cell(values, origin)
        options = {"workload": cell.workload, "solver": cell.solver_options, "objective": cell.objective}
        for kind in makes:
            refuse_unknown(options[kind], kind, origin, trust)
        return cell


def _cell(values: object, origin: str) -> Cell:
    """A cell of these values, once each is of the kind that it must be."""
    if not isinstance(values, dict):
        raise UserError(f"{origin}: a cell must be a JSON object, not {type(values).__name__}")
    known = {each.name: each for each in fields(Cell)}
    if strange := sorted(set(values) - set(known)):
        raise UserError(f"{origin}: a cell has no {strange[0][:40]}; it was written by another version or by hand")
    for name, each in known.items():
        if name not in values:
            if each.default is MISSING and each.default_factory is MISSING:
                raise UserError(f"{origin}: a cell needs {name}")
        elif not _FITS[str(each.type)](values[name]):
            raise UserError(f"{origin}: {name}={str(values[name])[:40]} of a cell must be {each.type}")
    lists = {name: tuple(values.get(name, ())) for name in ("overrides", "fleet")}
    return Cell(**{**values, **lists})


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


# What JSON may hold for each type of a field.
_FITS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": _is_whole,
    "float": _is_number,
    "int | None": lambda value: value is None or _is_whole(value),
    "Mapping[str, Any]": lambda value: isinstance(value, dict),
    "tuple[Mapping[str, Any], ...]": lambda value: (
        isinstance(value, list) and all(isinstance(item, dict) for item in value)
    ),
    "tuple[str, ...]": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
}


def as_named_now(value: Any) -> Any:  # noqa: ANN401  # whatever JSON holds
    """Plain data with each `_target_` that has moved under its name of today, at whatever depth."""
    if isinstance(value, list):
        return [as_named_now(item) for item in value]
    if not isinstance(value, dict):
        return value
    named = {key: as_named_now(item) for key, item in value.items()}
    name = named.get("_target_")
    target, options = MOVED.get(name, (None, {})) if isinstance(name, str) else (None, {})
    # Options that the row gives itself go first.
    return {**options, **named, "_target_": target} if target else named


def described(row: Row, cell: Cell) -> Row:
    """The row with what its cell says of it: names, labels, the bound known for its instance, and the cell itself."""
    workload, solver = _labels(cell)
    bound = cell.best_bound
    return replace(
        row,
        solver=cell.solver,
        workload_options=workload,
        solver_options=solver,
        instance=cell.instance,
        best_bound=bound,
        gap=gap_to(bound, row),
        cell=cell.to_json(),
    )


def _labels(cell: Cell) -> tuple[str, str]:
    """What the command line changed in the workload and in the solver."""
    workload, solver = [], []
    for override in cell.overrides:
        text = override.lstrip("+~")
        if text.startswith(("workload.", "workload/")):
            workload.append(text[len("workload.") :])
        elif text.startswith(f"solver.{cell.solver}.") and not text.startswith(f"solver.{cell.solver}._target_="):
            solver.append(text.removeprefix(f"solver.{cell.solver}."))
    return " ".join(workload), " ".join(solver)
