"""Run tests in forks of a process that has imported what every run needs: half the time of a run that tests one module.

Started in the folder of a copy of the code. Reads one JSON list of arguments for pytest a line, with the seconds that it may take
first, and answers each with the exit code, `null` where it did not end in time.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys

#: What is never mutated, or beside what is: imported once. Not pytest's plug-ins, whose assertions it rewrites when it imports them.
IMPORTED = (
    "numpy",
    "numba",
    "scipy.stats",
    "scipy.optimize",
    "pandas",
    "pyarrow.parquet",
    "ortools.sat.python.cp_model",
    "hydra",
)


#: No assertion of these is to be rewritten.
ALREADY_IMPORTED = ("-W", "ignore::pytest.PytestAssertRewriteWarning")


def main() -> None:
    """Answer until there are no more questions."""
    # Whoever asks reads the answers alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import pytest

    for line in sys.stdin:
        timeout_s, *arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            os.setsid()
            os._exit(int(pytest.main([*ALREADY_IMPORTED, *arguments])))
        answers.write(json.dumps(_exit_code(child, timeout_s)) + "\n")
        answers.flush()


def _exit_code(child: int, timeout_s: float | None) -> int | None:
    descriptor = os.pidfd_open(child)
    try:
        ended = bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        os.close(descriptor)
    # What the tests have started goes with them.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if ended else None


if __name__ == "__main__":
    main()
