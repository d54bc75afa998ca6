"""`python -m bench.solvers`: the solvers there are, and the contract checks of one of them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields

from hydra.utils import get_class
from rich.table import Table
from rich.text import Text

from bench.shared.command import command
from bench.shared.terminal import console
from solvers.base import Solver, Tags
from solvers.checks import ContractError, check_solver
from solvers.registry import SolverEntry, list_solvers
from twin import UserError


@dataclass
class SolversConfig:
    """Options of the command.

    Attributes
    ----------
    check : str, optional
        Solver by name, or by its class, whose contract checks are to be run.
    """

    check: str | None = None


@command("solvers", SolversConfig)
def main(config: SolversConfig) -> None:
    """List the solvers, or check one."""
    if config.check is None:
        console().print(listing(list_solvers()))
        return
    _check(config.check, _named(config.check))


def listing(entries: list[SolverEntry]) -> Table:
    """A line for each solver: name, class with the options that make it a variant, tags; for one that cannot be imported the reason."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("solver", "class", "tags"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        if entry.solver is None:
            table.add_row(entry.name, entry.target, Text(f"cannot be imported: {entry.reason}", style="red"))
        else:
            table.add_row(entry.name, _class(entry), Text(", ".join(_tags(entry)), style="dim"))
    return table


def _class(entry: SolverEntry) -> str:
    """The class, and those of its options that differ from its defaults."""
    assert entry.solver is not None  # noqa: S101  # the one that calls has looked
    defaults = {name: known.default for name, known in inspect.signature(entry.solver).parameters.items()}
    changed = [f"{name}={value}" for name, value in entry.options.items() if value != defaults.get(name)]
    return f"{entry.target}({', '.join(changed)})" if changed else entry.target


def _tags(entry: SolverEntry) -> list[str]:
    try:
        tags = entry.make().tags
    except TypeError:  # an option has no default; the class says what it can
        tags = entry.solver.tags if entry.solver else Tags()
    return [field.name.replace("_", " ") for field in fields(tags) if getattr(tags, field.name)]


def _named(name: str) -> Solver:
    """A solver with its default options, by the name of an entry or as `package.module.Class`."""
    for entry in list_solvers():
        if entry.name == name and entry.solver is None:
            raise UserError(f"check={name}: {entry.target} cannot be imported: {entry.reason}")
        if entry.name == name and entry.solver is not None:
            return entry.make()
    try:
        solver = get_class(name)()
    except Exception as error:  # noqa: BLE001  # whatever a module or a class raises
        raise UserError(f"check={name}: no solver of this name, and no class that can be made of it: {error}") from None
    if not isinstance(solver, Solver):
        raise UserError(f"check={name} is no solvers.base.Solver")
    return solver


def _check(name: str, solver: Solver) -> None:
    terminal = console()
    broken = 0
    for check in check_solver(solver):
        try:
            check()
        except ContractError as error:
            broken += 1
            terminal.print(Text.assemble(("broken  ", "red"), check.name, f"\n        {error}"))
        else:
            terminal.print(Text.assemble(("ok      ", "green"), check.name))
    if broken:
        raise UserError(f"{name} breaks the contract in {broken} checks")


if __name__ == "__main__":
    main()
