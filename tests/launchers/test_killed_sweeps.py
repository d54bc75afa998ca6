"""A sweep that is killed at any moment goes on where it stopped, to the rows that it would have had, and leaves no process behind.

What is killed, and when, is drawn with a seed of its own for each kill: the command, a process of the launcher or one that runs
cells, or the process of a solver.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.comparison.rows import Row
from bench.shared.processes import below
from tests.launchers.test_launchers import LAUNCHERS, ROOT, TINY, figures, sweep, working_in

pytestmark = pytest.mark.launchers

SOLVERS = ["solver=[ffd,max_pack,random]", "seed=0,1,2,3", "time_limit_s=600"]
#: Processes of a sweep by what they do.
VICTIMS = ("command", "worker", "solver")


def victim(command: int, kind: str) -> int | None:
    """A process of a sweep, of the kind wanted, if there is one by now."""
    if kind == "command":
        return command
    processes = [process for process in below(command) if "resource_tracker" not in command_line(process)]
    apart = [process for process in processes if "bench.comparison.worker" in command_line(process)]
    solvers = {child for worker in apart for child in below(worker)}
    found = [process for process in processes if (process in solvers) == (kind == "solver")]
    return found[-1] if found else None


def command_line(process: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def killed(folder: Path, launcher: list[str], kind: str, after_s: float) -> str:
    """Start a sweep, kill one of its processes some seconds after there is one of its kind, and wait until nothing is left of all."""
    what = _killed(folder, launcher, kind, after_s)
    deadline = time.monotonic() + 60
    while working_in(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    return what


def _killed(folder: Path, launcher: list[str], kind: str, after_s: float) -> str:
    command = [sys.executable, "-m", "bench", *TINY, *SOLVERS, *launcher]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        try:
            while running.poll() is None and victim(running.pid, kind) is None:
                time.sleep(0.05)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(after_s)
            if running.poll() is not None:
                return "nothing, it was over"
            # Between two cells there is no solver.
            chosen = victim(running.pid, kind) or running.pid
            with contextlib.suppress(ProcessLookupError):
                os.kill(chosen, signal.SIGKILL)
            # Where it was not the command itself, that goes on.
            running.wait(300)
            return "command" if chosen == running.pid else kind
        finally:
            running.kill()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], float]:
    """Rows of the sweep, and how long it took."""
    start = time.monotonic()
    rows, _ = sweep(tmp_path_factory.mktemp("uninterrupted"), *SOLVERS)
    return rows, time.monotonic() - start


@pytest.mark.parametrize("launcher", [LAUNCHERS["basic"], LAUNCHERS["joblib"]], ids=["basic", "joblib"])
def test_killed_at_any_moment_it_goes_on_to_the_same_rows(
    launcher: list[str],
    tmp_path: Path,
    uninterrupted: tuple[list[Row], float],
    request: pytest.FixtureRequest,
) -> None:
    expected, took_s = uninterrupted
    for kill in range(request.config.getoption("--kills", default=3)):
        draw = random.Random(kill)
        folder = tmp_path / str(kill)
        folder.mkdir()
        kind, after_s = (
            VICTIMS[kill % len(VICTIMS)],
            draw.uniform(0.0, took_s * (1.0 if kill % len(VICTIMS) == 0 else 0.3)),
        )
        what = killed(folder, launcher, kind, after_s)
        assert working_in(folder) == [], f"left behind after kill {kill} of {what}, {after_s:.1f} s after the start"
        # A solver whose process was killed has a row that says so; it is asked again on request.
        rows, said = sweep(folder, *SOLVERS, "retry_failed=true", *launcher)
        sys.stdout.write(f"kill {kill}: {what} after {after_s:.1f} s; {said.splitlines()[0]}\n")
        assert figures(rows) == figures(expected), f"kill {kill} of {what}, {after_s:.1f} s after the start"
