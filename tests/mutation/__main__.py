"""`make mutants`: small mistakes made in the code one at a time, by Cosmic Ray's operators, to see whether the tests notice.

A sample of each group, because each costs a run of the tests beside it (`mutants.toml`). Cosmic Ray makes the mutants, since it
changes source files, which compiled kernels survive: they are kept on disk by all that they are made of. Tools that switch mutants
inside a running process see the kernels' Python only. What changes nothing but annotations is no mutant.
"""

from __future__ import annotations

import argparse
import ast
import csv
import importlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from itertools import zip_longest
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


@dataclass(frozen=True)
class Outcome(Mutant):
    """What came of it.

    Attributes
    ----------
    line : int
    before, after : str
        What the line was and what it became.
    killed : bool
        Whether a test failed.
    """

    line: int
    before: str
    after: str
    killed: bool


def main() -> None:
    """Draw a sample, run it, and print the share killed and what survived."""
    parser = argparse.ArgumentParser(prog="make mutants")
    parser.add_argument("--sample", type=int, default=10, help="mutants of each group to try")
    parser.add_argument("--minutes", type=float, default=30.0, help="stop after so long, with what was tried")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--group", help="groups of mutants.toml, joined by commas")
    parser.add_argument("--out", type=Path, help="a CSV of outcomes; what stands there is not tried again")
    parser.add_argument("--survivors", action="store_true", help="try those again that survived in the file of --out")
    options = parser.parse_args()
    listed = tomllib.loads((Path(__file__).parent / "mutants.toml").read_text(encoding="utf-8"))["group"]
    groups = {group["name"]: group for group in listed}
    if options.group:
        unknown = set(options.group.split(",")) - set(groups)
        if unknown:
            sys.exit(f"--group {options.group}: mutants.toml has no {', '.join(sorted(unknown))}")
        groups = {name: groups[name] for name in options.group.split(",")}
    known = _read(options.out)
    if options.survivors:
        mutants = [_mutant(outcome) for outcome in known.values() if not outcome.killed and outcome.group in groups]
    else:
        mutants = [mutant for mutant in _sample(groups, options.sample, options.seed) if mutant not in known]
    print(f"{len(mutants)} mutants in {len(groups)} groups", flush=True)  # noqa: T201  # for whoever runs it
    # A copy for each run, so that several may run at a time.
    tree = ROOT / "build" / "mutants" / f"tree-{os.getpid()}"
    _copy(tree)
    try:
        tried = _run(mutants, groups, tree, time.monotonic() + 60 * options.minutes)
        for outcome in tried:
            word = "killed  " if outcome.killed else "SURVIVED"
            print(f"{word}  {outcome.path}:{outcome.line}: {outcome.before}  ->  {outcome.after}", flush=True)  # noqa: T201  # for whoever runs it
            known[_mutant(outcome)] = outcome
            _write(known, options.out)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    _report(outcome for outcome in known.values() if outcome.group in groups)


def _mutant(outcome: Outcome) -> Mutant:
    return Mutant(*(getattr(outcome, field.name) for field in fields(Mutant)))


def _read(path: Path | None) -> dict[Mutant, Outcome]:
    if path is None or not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        outcomes = [
            Outcome(
                row["group"], row["path"], row["operator"], int(row["occurrence"]),
                int(row["line"]), row["before"], row["after"], row["killed"] == "True",
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip
    return {_mutant(outcome): outcome for outcome in outcomes}


def _write(outcomes: dict[Mutant, Outcome], path: Path | None) -> None:
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Outcome)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            asdict(outcome)
            for outcome in sorted(outcomes.values(), key=lambda each: (each.group, each.path, each.line, each.after))
        )


def _sample(groups: dict[str, Any], size: int, seed: int) -> list[Mutant]:
    """Some mutants of each group, whatever other groups there are; turn by turn, so that a run cut short has some of each."""
    drawn = []
    for name, group in groups.items():
        mutants = list(_mutants(name, group))
        random.Random(seed).shuffle(mutants)
        drawn.append(_first_that_run(mutants, size))
    return [each for turn in zip_longest(*drawn) for each in turn if each is not None]


def _first_that_run(mutants: list[Mutant], size: int) -> list[Mutant]:
    found: list[Mutant] = []
    for mutant in mutants:
        if len(found) == size:
            break
        if _mutated(mutant, (ROOT / mutant.path).read_text(encoding="utf-8")) is not None:
            found.append(mutant)
    return found


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
    """The file with the mistake; None where it changes nothing that runs, or is no Python."""
    mutating = importlib.import_module("cosmic_ray.mutating")
    changed: str | None = mutating.mutate_code(source, _operators()[mutant.operator], mutant.occurrence)
    if changed is None or _what_runs(changed) in ("", _what_runs(source)):
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
    # Machine code that is there need not be made again: its files are named by what it is made of.
    for kernel in (
        kernel for package in ("twin", "predictors", "solvers") for kernel in (ROOT / package).rglob("*.nbc")
    ):
        (to / kernel.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy2(kernel, to / kernel.relative_to(ROOT))


def _run(mutants: list[Mutant], groups: dict[str, Any], tree: Path, deadline: float) -> Iterator[Outcome]:
    """Yield what comes of each mutant."""
    usual_s: dict[str, float] = {}
    # What Cosmic Ray brings along is not for the tests.
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    with subprocess.Popen(
        [sys.executable, "tests/mutation/forked.py"], cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tests:  # fmt: skip
        for mutant in mutants:
            if time.monotonic() > deadline:
                break
            path = tree / mutant.path
            source = path.read_text(encoding="utf-8")
            changed = _mutated(mutant, source)
            if changed is None:
                continue
            group = groups[mutant.group]
            if mutant.group not in usual_s:
                started = time.monotonic()
                if not _passes(tests, group, None):
                    sys.exit(f"the tests of the group {mutant.group} fail without a mutant")
                usual_s[mutant.group] = time.monotonic() - started
            try:
                _put(changed, path)
                killed = not _passes(tests, group, PATIENCE * usual_s[mutant.group] + GRACE_S)
            finally:
                _put(source, path)
            yield Outcome(**asdict(mutant), **_line(source, changed), killed=killed)
        tests.stdin.close()  # type: ignore[union-attr]  # it is a pipe


def _put(source: str, path: Path) -> None:
    """A module's text, without byte code of an earlier one of the same length that was written in the same second."""
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()
    path.write_text(source, encoding="utf-8")


def _passes(tests: subprocess.Popen[str], group: dict[str, Any], timeout_s: float | None) -> bool:
    command: list[Any] = [timeout_s, "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *group["tests"]]
    for names in group.get("deselect", []):
        command += ["-k", f"not ({names})"]
    assert tests.stdin is not None
    assert tests.stdout is not None
    tests.stdin.write(json.dumps(command) + "\n")
    tests.stdin.flush()
    return bool(json.loads(tests.stdout.readline()) == 0)


def _line(source: str, changed: str) -> dict[str, Any]:
    pairs = zip(source.splitlines(), changed.splitlines(), strict=False)
    return next(
        {"line": number, "before": before.strip(), "after": after.strip()}
        for number, (before, after) in enumerate(pairs, 1)
        if before != after
    )


def _report(outcomes: Iterator[Outcome]) -> None:
    tally: dict[str, list[bool]] = {}
    for outcome in outcomes:
        tally.setdefault(outcome.group, []).append(outcome.killed)
    everything = [killed for group in tally.values() for killed in group]
    for name, killed in [*sorted(tally.items()), ("all", everything)]:
        if killed:
            print(f"{name:12} {sum(killed)} of {len(killed)} killed, {100 * sum(killed) / len(killed):.0f} %")  # noqa: T201  # for whoever runs it


if __name__ == "__main__":
    main()
