"""Rows: what the comparison stores of one candidate (a solver on a workload), in Parquet."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from bench.comparison.row_values import check_columns, check_values, whole_again
from bench.shared.files import write_table
from twin.errors import UserError
from twin.inputs import filled_size

#: Status of a candidate whose solver raised an exception, whose process died, and whose process was killed because it went
#: on long after its time limit; the others are `solvers.base.Status`.
ERROR, CRASH, TIMEOUT = "error", "crash", "timeout"

#: How the message of a crash ends whose process was told to stop, as a cluster does when a job is cancelled.
TERMINATED = "(SIGTERM)"

#: Columns with the worst GPU's percentile of a latency, and what it is of.
PERCENTILES = {
    f"{latency}_p{percentile}_ms": (latency, percentile)
    for latency in ("ttft", "tpot", "itl", "e2e")
    for percentile in (50, 90, 95, 99)
}

#: What a run calls its file of rows; `gather` looks for it.
FILE_NAME = "rows.parquet"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One candidate: what was asked, what the solver answered, what the twin says of it.

    Figures are None where there is no placement (or, for latencies, no finished request).

    Attributes
    ----------
    workload, seed, solver, objective, profile : str or int
        What was asked.
    workload_options, solver_options : str
        What the command line changed in the workload and in the solver, such as "n_adapters=200".
    status : str
        What the solver says ("optimal", "feasible", "infeasible", "time_limit"), or how it failed: "error" (it raised an
        exception), "crash" (its process died), "timeout" (it was killed long after its time limit).
    message : str
        One line for people: why there is no placement, or what went wrong.
    feasible : bool
        What the twin says: there is a placement, every GPU keeps the service level and none has a memory error.
    gpus, lower_bound : int
        GPUs used; the fewest that any placement needs by the solver's oracle, if proven.
    fleet : str
        JSON list of {name, profile, price, count}, the types that the solver chose from; empty where GPUs were not said to have types.
    cost, cost_bound : float
        With a fleet: the sum of the prices of the GPUs used; the least that any placement costs by the solver's oracle, if proven.
    bound_slack : float
        By how much the proof's bound in fractions of GPUs is above `lower_bound` - 1: what it can lose before the bound falls.
        Absent where no fraction proves the bound.
    certificate : str
        JSON: what the bound rests on, for `python -m bench.verify`.
    draws, holds_on : int
        The placement was scored with the requests of so many other seeds as well, and is feasible on so many of these draws.
    solver_draws, solver_draws_bound : int
        The solver looked for a placement that holds on so many draws of its own, that of the workload among them, and proved that those
        which do use so many GPUs at least. Absent where it looked at the workload's draw alone.
    service : str
        Name of the service level, with the numbers that are not those of the shipped one of this name.
    failed_gpus, failing_adapters : int
        GPUs that fail the service level (memory errors included), and adapters that it is not kept for.
    goodput, worst_gpu_goodput, worst_adapter_goodput : float
        As in `twin.Score`; under the published rule by the limits of `interactive`. Absent in rows of releases without.
    starved_gpus, memory_errors, starved_adapters : int
        GPUs that starve by the published rule (memory errors included) or do not start; adapters that starve.
    throughput, offered_throughput : float
        Tokens per second.
    itl_ms, ttft_ms, e2e_ms, headroom : float
        As in `twin.Score`.
    ttft_p50_ms, ..., e2e_p99_ms : float
        The worst GPU's percentiles (`PERCENTILES`).
    objective_key : list of float
        What the candidates are ranked by, smaller is better.
    missed : str
        Limits of the objective's own that the placement misses, in words.
    solve_time_s, score_time_s : float
        The solver's time, and that of scoring on the twin; of all attempts, where the fleet was searched.
    oracle_calls, simulated_steps, preemptions, adapter_loads : int
        Deterministic work figures of the solver and of the scoring simulations.
    time_limit_s : float
        That the solver had.
    gpu_limit : int
        GPU limit that the solver had, or the fleet that it spread over.
    reserve : float
        The solver placed for so much more load, as a share; all figures are those of the workload itself.
    fleet_searched : bool
        The fleet was not given but is the smallest found that the twin calls feasible.
    placement : str
        JSON list of {max_loras, adapters} (and shares, where there are replicas; gpu_type, where the fleet has several types).
    gpu_results : str
        JSON list, one object for each GPU of the placement: the twin's figures, and as `real_gpu` whether a real GPU has served
        as much in a published run (`bench.evidence`: served, near or none).
    details : str
        JSON object: whatever the solver adds.
    n_adapters, total_rate, duration_s, mean_request_tokens
        The workload's size: adapters, requests per second, seconds, mean prompt + output tokens of a request.
    adapter_ranks, adapter_rates : list
        The adapters that `placement` counts, from 0.
    version : str
        Of this package.
    instance : str
        Id of the instance, where the workload is one of a suite.
    best_bound : int
        The best lower bound known for the instance, whoever proved it.
    gap : float
        (GPUs - best bound) / best bound, of a feasible placement.
    calibration_s : float
        Time of a fixed loop of arithmetic (`bench.comparison.machine`), measured beside the solver: the ratio of two times compares
        machines of one kind.
    processor : str
        What the times were measured on.
    versions : str
        JSON object: versions of Python and of the libraries that the figures rest on.
    cell : str
        JSON object from which the row can be made again: `bench.comparison.cell.Cell`.
    """

    workload: str
    seed: int
    solver: str
    objective: str
    profile: str
    status: str
    workload_options: str = ""
    solver_options: str = ""
    message: str = ""
    feasible: bool = False
    gpus: int | None = None
    lower_bound: int | None = None
    fleet: str = ""
    cost: float | None = None
    cost_bound: float | None = None
    bound_slack: float | None = None
    certificate: str | None = None
    draws: int | None = None
    holds_on: int | None = None
    solver_draws: int | None = None
    solver_draws_bound: int | None = None
    service: str = "published"
    failed_gpus: int | None = None
    failing_adapters: int | None = None
    goodput: float | None = None
    worst_gpu_goodput: float | None = None
    worst_adapter_goodput: float | None = None
    starved_gpus: int | None = None
    memory_errors: int | None = None
    starved_adapters: int | None = None
    throughput: float | None = None
    offered_throughput: float | None = None
    itl_ms: float | None = None
    ttft_ms: float | None = None
    ttft_p50_ms: float | None = None
    ttft_p90_ms: float | None = None
    ttft_p95_ms: float | None = None
    ttft_p99_ms: float | None = None
    tpot_p50_ms: float | None = None
    tpot_p90_ms: float | None = None
    tpot_p95_ms: float | None = None
    tpot_p99_ms: float | None = None
    itl_p50_ms: float | None = None
    itl_p90_ms: float | None = None
    itl_p95_ms: float | None = None
    itl_p99_ms: float | None = None
    e2e_p50_ms: float | None = None
    e2e_p90_ms: float | None = None
    e2e_p95_ms: float | None = None
    e2e_p99_ms: float | None = None
    e2e_ms: float | None = None
    headroom: float | None = None
    objective_key: list[float] | None = None
    missed: str = ""
    solve_time_s: float | None = None
    score_time_s: float | None = None
    oracle_calls: int | None = None
    simulated_steps: int | None = None
    preemptions: int | None = None
    adapter_loads: int | None = None
    time_limit_s: float | None = None
    gpu_limit: int | None = None
    reserve: float = 0.0
    fleet_searched: bool = False
    placement: str | None = None
    gpu_results: str | None = None
    details: str = "{}"
    n_adapters: int | None = None
    total_rate: float | None = None
    duration_s: float | None = None
    mean_request_tokens: float | None = None
    adapter_ranks: list[int] | None = None
    adapter_rates: list[float] | None = None
    version: str = ""
    instance: str = ""
    best_bound: int | None = None
    gap: float | None = None
    calibration_s: float | None = None
    processor: str = ""
    versions: str = "{}"
    cell: str = ""

    @property
    def failed(self) -> bool:
        """The solver gave no answer at all."""
        return self.status in (ERROR, CRASH, TIMEOUT)

    @property
    def workload_label(self) -> str:
        """The workload, what was changed in it, the service level where it is not the published rule, and the fleet if it has types."""
        service = "" if self.service == "published" else f" service={self.service}"
        fleet = f" fleet={self.fleet_in_words}" if self.fleet else ""
        return f"{self.workload} {self.workload_options}".strip() + service + fleet

    @property
    def types(self) -> list[dict[str, Any]]:
        """The types of the fleet: name, profile, price and count of each."""
        return list(json.loads(self.fleet)) if self.fleet else []

    @property
    def fleet_in_words(self) -> str:
        """How many there are of each type, and its price: 4 h100-80gb at 2 + a100-80gb at 1."""
        return " + ".join(
            f"{'' if kind['count'] is None else str(kind['count']) + ' '}{kind['name']} at {kind['price']:g}"
            for kind in self.types
        )

    @property
    def solver_label(self) -> str:
        """The solver, what was changed in it, and the reserve that it placed for."""
        reserve = f" reserve={self.reserve:g}" if self.reserve else ""
        return f"{self.solver} {self.solver_options}".strip() + reserve

    @property
    def rank_key(self) -> tuple[float, ...]:
        """Sort key of the candidates for one workload and seed: feasible ones first, those without a placement last."""
        if self.objective_key is None:
            return (2.0,)
        return (0.0 if self.feasible else 1.0, *self.objective_key)

    @property
    def gpu_figures(self) -> list[dict[str, Any]]:
        """`gpu_results` and `placement` put together: one dict for each GPU."""
        plans = json.loads(self.placement or "[]")
        figures = json.loads(self.gpu_results or "[]")
        return [{**plan, **figure} for plan, figure in zip(plans, figures, strict=True)]


def failing_adapters(row: Row) -> int | None:
    """Adapters that the service level is not kept for; rows of old releases know of starved ones only."""
    return row.starved_adapters if row.failing_adapters is None else row.failing_adapters


def gap_to(bound: int | None, row: Row) -> float | None:
    """The gap of a candidate; None where it is not feasible."""
    return gap_of(row.gpus, bound) if row.feasible else None


def gap_of(gpus: int | None, bound: int | None) -> float | None:
    """GPUs above a lower bound over the bound; None without one of the two, or where the bound is 0.

    Parameters
    ----------
    gpus : int, optional
        Of a feasible placement.
    bound : int, optional
    """
    return (gpus - bound) / bound if bound and gpus is not None else None


@cache
def _schema() -> Any:  # noqa: ANN401  # a pyarrow.Schema: pyarrow has no types
    import pyarrow as pa

    types = {
        "str": pa.string(),
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "list[int]": pa.list_(pa.int64()),
        "list[float]": pa.list_(pa.float64()),
    }
    return pa.schema([(field.name, types[str(field.type).removesuffix(" | None")]) for field in fields(Row)])


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows to a Parquet file, atomically.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    import pyarrow as pa

    names = [field.name for field in fields(Row)]
    table = pa.Table.from_pylist([{name: getattr(row, name) for name in names} for row in rows], schema=_schema())
    write_table(table, path)


def read_rows(path: Path) -> list[Row]:
    """Rows of a Parquet file; columns that it lacks get their default, unknown ones are left out.

    Raises
    ------
    UserError
        If there is no such file, or it does not hold rows of this kind.
    """
    import pyarrow as pa
    from pyarrow import parquet

    known = {field.name for field in fields(Row)}
    filled_size(path, str(path), "a Parquet file of rows")
    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
    columns = [name for name in table.column_names if name in known]
    if len(set(columns)) < len(columns):
        raise UserError(f"{path}: a column is there twice")
    optional = {field.name for field in fields(Row) if str(field.type).endswith("| None")}
    needed = [field.name for field in fields(Row) if field.default is MISSING and field.default_factory is MISSING]
    if missing := [name for name in needed if name not in columns]:
        raise UserError(f"{path}: does not hold rows of `python -m bench`: columns {', '.join(missing)} are missing")
    table = whole_again(table.select(columns), _schema())
    check_columns(table, _schema(), optional, str(path))
    data = table.to_pylist()
    for number, row in enumerate(data, 1):
        check_values(row, f"{path}: row {number}")
    return [Row(**row) for row in data]


def gather(folder: Path) -> list[Row]:
    """Rows of all the runs in a folder, whatever launched them, in the order of the runs' names (numbers by value)."""
    return [row for path in sorted(folder.rglob(FILE_NAME), key=_by_number) for row in read_rows(path)]


def _by_number(path: Path) -> list[tuple[int, str]]:
    # One folder holds the rows of several jobs that follow each other: 12-34.
    return [(int(found[0]) if (found := re.match(r"\d+", part)) else -1, part) for part in path.parts]


def read_any(path: Path) -> list[Row]:
    """Rows of a Parquet file, or of every run in a folder.

    Raises
    ------
    UserError
        If there are none.
    """
    if not path.exists():
        raise UserError(f"rows={path}: no such file or folder")
    rows = gather(path) if path.is_dir() else read_rows(path)
    if not rows:
        raise UserError(f"rows={path}: holds no rows (files called {FILE_NAME}) of `python -m bench`")
    return rows
