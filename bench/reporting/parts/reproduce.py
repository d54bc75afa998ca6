"""The commands that give these rows and this page, and the versions."""

from __future__ import annotations

import json
import platform
import shlex
from importlib import metadata

from bench.comparison.rows import Row
from bench.reporting.content import Code, Column, Part, Table, words
from bench.reporting.study import Study
from bench.statistics.instances import Case
from bench.suites.library import read_benchmark

#: Packages whose version can change a figure.
_PACKAGES = ("lora-placement-bench", "hydra-core", "numba", "numpy", "ortools", "scikit-learn", "scipy")


def reproduce(study: Study, command: str) -> Part:
    """Commands and versions.

    Parameters
    ----------
    study : Study
    command : str
        What made this page.
    """
    return Part(
        "reproduce",
        "Reproduce",
        text=(
            "The same command gives the same rows, but for the times and for solvers that stop at their time limit.",
        ),
        blocks=(
            Code("The candidates", tuple(commands(study))),
            Code("This page", (command,)),
            _versions(study),
        ),
    )


def commands(study: Study) -> list[str]:
    """One command for all seeds of each workload with the same solvers."""
    groups: dict[tuple[str, ...], set[int]] = {}
    found = _suite_commands(study)
    for case in study.cases:
        rows = case.rows
        if rows[0].instance:
            continue
        solvers = sorted({row.solver for row in rows})
        options = sorted({option for row in rows for option in _solver_options(row)})
        parts = [_workload(rows[0]), f"profile={rows[0].profile}", f"objective={rows[0].objective}"]
        if rows[0].time_limit_s is not None:
            parts.append(f"time_limit_s={rows[0].time_limit_s:g}")
        limit = case.key[4]
        if limit is not None:
            parts.append(f"gpus={limit}")
        parts += _reserves(case)
        groups.setdefault((*parts, f"solver=[{','.join(solvers)}]", *options), set()).add(rows[0].seed)
    return [*found, *(_command(parts, seeds) for parts, seeds in groups.items())]


def _suite_commands(study: Study) -> list[str]:
    """One command for all instances of the suite that have the same solvers and time limit."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for case in study.cases:
        row = case.rows[0]
        if row.instance:
            limit = () if row.time_limit_s is None else (f"time_limit_s={row.time_limit_s:g}",)
            for reserve in sorted({candidate.reserve for candidate in case.rows}):
                solvers = ",".join(sorted({each.solver for each in case.rows if each.reserve == reserve}))
                kept = (f"reserve={reserve:g}",) if reserve else ()
                groups.setdefault((f"solver=[{solvers}]", *limit, *kept), []).append(row.instance)
    return [_suite_command(options, ids) for options, ids in groups.items()]


def _suite_command(options: tuple[str, ...], ids: list[str]) -> str:
    if set(ids) == set(read_benchmark()):
        words_ = ["suite=benchmark", *options]
    else:
        words_ = ["suite=collection", f"suite.ids=[{','.join(sorted(ids))}]", *options]
    return "python -m bench " + " ".join(shlex.quote(word) for word in words_)


def _command(parts: tuple[str, ...], seeds: set[int]) -> str:
    several = ["-m"] if len(seeds) > 1 or any(part.startswith("reserve=") and "," in part for part in parts) else []
    words_ = [
        *several,
        *(word for part in parts for word in part.split("\x00")),
        "seed=" + ",".join(map(str, sorted(seeds))),
    ]
    return "python -m bench " + " ".join(shlex.quote(word) for word in words_)


def _workload(row: Row) -> str:
    """The workload and its options, apart by zero bytes."""
    groups = ("lengths=", "arrivals=")
    options = [
        f"workload{'/' if option.startswith(groups) else '.'}{option}"
        for option in row.workload_options.split(" ")
        if option
    ]
    return "\x00".join([f"workload={row.workload}", *options])


def _solver_options(row: Row) -> list[str]:
    return [f"solver.{row.solver}.{option}" for option in row.solver_options.split(" ") if option]


def _reserves(case: Case) -> tuple[str, ...]:
    """The option `reserve`, where any candidate has one."""
    reserves = sorted({row.reserve for row in case.rows})
    return (f"reserve={','.join(f'{reserve:g}' for reserve in reserves)}",) if any(reserves) else ()


def _versions(study: Study) -> Table:
    lines = [
        ("rows made by lora-placement-bench", ", ".join(dict.fromkeys(row.version or "unknown" for row in study.rows)))
    ]
    made_with: dict[str, dict[str, None]] = {}
    for text in dict.fromkeys(row.versions for row in study.rows):
        for name, version in json.loads(text or "{}").items():
            made_with.setdefault(name, {})[str(version)] = None
    lines += [(f"rows made with {name}", ", ".join(versions)) for name, versions in made_with.items()]
    processors = dict.fromkeys(row.processor for row in study.rows if row.processor)
    lines += [("times measured on", processor) for processor in processors]
    lines.append(("page made with Python", platform.python_version()))
    for name in _PACKAGES:
        try:
            lines.append((f"page made with {name}", metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return Table(
        "versions",
        "Versions",
        (Column("What", numeric=False), Column("Version", numeric=False)),
        tuple((words(what), words(version)) for what, version in lines),
    )
