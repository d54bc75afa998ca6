"""`make mutants`: small mistakes made in the code one at a time, by Cosmic Ray's operators, to see whether the tests notice.

A sample of them, because each costs a run of the tests beside it (`mutants.toml`). Cosmic Ray makes the mutants, since it changes source
files, which compiled kernels survive: they are kept on disk by all that they are made of. Tools that switch mutants inside a
running process see the kernels' Python only. What changes nothing but annotations is no mutant.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import random
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: Operators that need arguments, or that take off what is no decision of this code.
LEFT_OUT = {"VariableReplacer", "VariableInserter", "RemoveDecorator", "ExceptionReplacer"}
#: What nobody writes by mistake for a comparison or for arithmetic: killed too easily, or the same thing.
FAR_FETCHED = ("_Is", "_IsNot", "_RShift", "_LShift", "_BitOr", "_BitXor", "_BitAnd", "_Pow", "_Mod")
#: A run of the tests that takes so many times as long as without a mutant, and so many seconds more, does not end.
PATIENCE, GRACE_S = 4.0, 60.0


@dataclass(frozen=True)
class Mutant:
    """One small mistake.

    Attributes
    ----------
    group, path, operator : str
    occurrence : int
        Which of the places in the file that the operator can change.
    """

    group: str
    path: str
    operator: str
    occurrence: int


def main() -> None:
    """Draw a sample, run it, and print the share killed and what survived."""
    parser = argparse.ArgumentParser(prog="make mutants")
    parser.add_argument("--sample", type=int, default=60, help="mutants to try")
    parser.add_argument("--minutes", type=float, default=30.0, help="stop after so long, with what was tried")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--group", help="one group of mutants.toml alone")
    options = parser.parse_args()
    groups = {
        group["name"]: group
        for group in tomllib.loads((Path(__file__).parent / "mutants.toml").read_text(encoding="utf-8"))["group"]
        if options.group in (None, group["name"])
    }
    if not groups:
        sys.exit(f"--group {options.group}: mutants.toml has none of this name")
    mutants = [mutant for name, group in groups.items() for mutant in _mutants(name, group)]
    random.Random(options.seed).shuffle(mutants)
    print(  # noqa: T201  # for whoever runs it
        f"{len(mutants)} mutants in {len(groups)} groups; a sample of {min(options.sample, len(mutants))}", flush=True
    )
    with_copy = ROOT / "build" / "mutants" / "tree"
    _copy(with_copy)
    deadline = time.monotonic() + 60 * options.minutes
    _report(_run(mutants[: options.sample], groups, with_copy, deadline))


def _operators() -> dict[str, Any]:
    provider = importlib.import_module("cosmic_ray.operators.provider").OperatorProvider()
    return {name: provider[name]() for name in provider if name not in LEFT_OUT and not name.endswith(FAR_FETCHED)}


def _mutants(name: str, group: dict[str, Any]) -> Iterator[Mutant]:
    """Yield every place that an operator can change in the files of a group."""
    nodes = importlib.import_module("cosmic_ray.ast")
    for path in sorted({path for pattern in group["code"] for path in ROOT.glob(pattern)}):
        tree = list(nodes.ast_nodes(nodes.get_ast(path.read_text(encoding="utf-8"))))
        for operator, changes in _operators().items():
            places = sum(1 for node in tree for _ in changes.mutation_positions(node))
            for occurrence in range(places):
                yield Mutant(name, str(path.relative_to(ROOT)), operator, occurrence)


def _mutated(mutant: Mutant, source: str) -> str | None:
    """The file with the mistake; None where it changes nothing that runs."""
    mutating = importlib.import_module("cosmic_ray.mutating")
    changed: str | None = mutating.mutate_code(source, _operators()[mutant.operator], mutant.occurrence)
    if changed is None or _what_runs(changed) == _what_runs(source):
        return None
    return changed


def _what_runs(source: str) -> str:
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            for argument in [*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs]:
                argument.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(value=None)
    return ast.dump(tree)


def _copy(to: Path) -> None:
    """The files under version control, as they are now."""
    shutil.rmtree(to, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S607  # git of the path
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def _run(
    mutants: list[Mutant], groups: dict[str, Any], tree: Path, deadline: float
) -> Iterator[tuple[Mutant, str, bool]]:
    """Yield each mutant with the line that it changes and whether the tests failed."""
    usual_s: dict[str, float] = {}
    for mutant in mutants:
        if time.monotonic() > deadline:
            return
        path = tree / mutant.path
        source = path.read_text(encoding="utf-8")
        changed = _mutated(mutant, source)
        if changed is None:
            continue
        group = groups[mutant.group]
        if mutant.group not in usual_s:
            started = time.monotonic()
            if not _passes(group, tree, None):
                sys.exit(f"the tests of the group {mutant.group} fail without a mutant")
            usual_s[mutant.group] = time.monotonic() - started
        try:
            path.write_text(changed, encoding="utf-8")
            killed = not _passes(group, tree, PATIENCE * usual_s[mutant.group] + GRACE_S)
        finally:
            path.write_text(source, encoding="utf-8")
        yield mutant, _line(source, changed), killed


def _passes(group: dict[str, Any], tree: Path, timeout_s: float | None) -> bool:
    # What Cosmic Ray brings along is not for the tests.
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *group["tests"]]
    for names in group.get("deselect", []):
        command += ["-k", f"not ({names})"]
    try:
        done = subprocess.run(command, cwd=tree, env=environment, check=False, capture_output=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _line(source: str, changed: str) -> str:
    pairs = zip(source.splitlines(), changed.splitlines(), strict=False)
    number, before, after = next(
        (number, before.strip(), after.strip()) for number, (before, after) in enumerate(pairs, 1) if before != after
    )
    return f"{number}: {before}  ->  {after}"


def _report(tried: Iterator[tuple[Mutant, str, bool]]) -> None:
    tally: dict[str, list[bool]] = {}
    for mutant, line, killed in tried:
        tally.setdefault(mutant.group, []).append(killed)
        print(f"{'killed  ' if killed else 'SURVIVED'}  {mutant.path}:{line}", flush=True)  # noqa: T201  # for whoever runs it
    for name, outcomes in sorted(tally.items()):
        print(f"{name:12} {sum(outcomes)} of {len(outcomes)} killed")  # noqa: T201  # for whoever runs it
    outcomes = [killed for group in tally.values() for killed in group]
    if outcomes:
        print(f"{'all':12} {sum(outcomes)} of {len(outcomes)} killed, {100 * sum(outcomes) / len(outcomes):.0f} %")  # noqa: T201  # for whoever runs it


if __name__ == "__main__":
    main()
