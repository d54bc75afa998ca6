"""The cells of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench.comparison.cell import Cell
from twin.errors import UserError
from twin.fleet import fleet_of, read_fleet
from twin.numbers import shown
from twin.service import PUBLISHED

if TYPE_CHECKING:
    from bench.comparison.config import BenchConfig


def cells_of(config: BenchConfig, overrides: Sequence[str] = ()) -> list[Cell]:
    """One cell for each solver of a configuration, in its order.

    Raises
    ------
    UserError
        If a YAML puts its options in the wrong place, or there is no solver.
    """
    level = config.service.level()
    # Rows of the published rule are as they were before there were others.
    service = {} if level == PUBLISHED else asdict(level)
    fleet = fleet_options(config.fleet)
    return [
        Cell(
            solver=name,
            solver_options=options,
            workload=config.workload,
            objective=config.objective,
            service=service,
            profile=str(fleet[0]["profile"]) if fleet else config.profile,
            fleet=fleet,
            seed=config.seed,
            gpus=config.gpus,
            time_limit_s=config.time_limit_s,
            threads=config.threads,
            repeats=config.repeats,
            reserve=config.reserve,
            draws=config.draws,
            overrides=tuple(overrides),
        )
        for name, options in solver_options(config).items()
    ]


def fleet_options(given: Any) -> tuple[dict[str, Any], ...]:  # noqa: ANN401  # whatever a user has typed
    """The types of a fleet, each with all its keys; none without a fleet.

    Parameters
    ----------
    given : list of dict or str, optional
        As on the command line: types, or the file that lists them.

    Raises
    ------
    UserError
        For what is no fleet.
    """
    if given is None:
        return ()
    origin = f"fleet={given}" if isinstance(given, str) else "fleet"
    rows = read_fleet(given) if isinstance(given, str) else given
    types = fleet_of(rows, origin).types
    for place, kind in enumerate(types, 1):
        # Names stand in scripts, where a hyphen begins an option, and in tables that spreadsheets compute.
        if kind.name.lstrip()[0] in "-=+@":
            raise UserError(f"{origin}: entry {place}: name={shown(kind.name)} must not begin with -, =, + or @")
    return tuple(
        {"name": kind.name, "profile": str(row["profile"]), "price": kind.price, "count": kind.count}
        for kind, row in zip(types, rows, strict=True)
    )


def solver_options(config: BenchConfig) -> dict[str, dict[str, Any]]:
    """Options of each solver by its name.

    Raises
    ------
    UserError
        If a YAML puts its options in the wrong place, or there is no solver.
    """
    if not config.solver:
        raise UserError("solver: name at least one, for instance solver=ffd")
    for name, options in config.solver.items():
        if not isinstance(options, dict) or "_target_" not in options:
            raise UserError(
                f"solver.{name} must be the options of one solver with its _target_; "
                "a YAML in conf/solver starts with the line `# @package solver.NAME`"
            )
    return config.solver
