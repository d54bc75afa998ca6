"""Ctrl-C before a command has begun: one line and exit code 130, whatever was being imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.shared.overrides import CONF


@pytest.mark.parametrize("command", ["bench", "bench.plan", "bench.regress"])
@pytest.mark.parametrize("imported", ["hydra", "omegaconf", "numpy"])
def test_an_interrupt_during_imports_is_one_line(command: str, imported: str, tmp_path: Path) -> None:
    (tmp_path / f"{imported}.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n", encoding="utf-8"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{CONF.parent}"}
    done = subprocess.run(
        [sys.executable, "-c", START, command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


# What is started in the background of a script ignores SIGINT, and so do its children, unless somebody listens.
START = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, '-m', sys.argv[1]])"
)


def test_once_it_has_begun_an_interrupt_is_raised(tmp_path: Path) -> None:
    """And ends it just so, after what it does then: `bench` writes the rows that it has."""
    code = (
        "import sys; sys.argv = ['-m']; import bench, signal; sys.argv = ['bench']\n"
        "from dataclasses import dataclass\n"
        "from bench.shared.command import command\n"
        "@dataclass\n"
        "class Options:\n    pass\n"
        "@command('rules', Options)\n"
        "def main(config): pass\n"
        "before = signal.getsignal(signal.SIGINT)\n"
        "try:\n    main(['--version'])\nexcept SystemExit:\n    pass\n"
        "sys.exit(0 if before is not signal.default_int_handler\n"
        "         and signal.getsignal(signal.SIGINT) is signal.default_int_handler else 1)\n"
    )
    start = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.executable, sys.argv[1:])"
    )
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent)}
    done = subprocess.run(
        [sys.executable, "-c", start, sys.executable, "-c", code],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
