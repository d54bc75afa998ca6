"""What a command has started ends with it, detached or not, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from bench.shared.leftovers import MARK
from bench.shared.overrides import CONF

PROGRAM = """
import subprocess, sys, time
from bench.shared.leftovers import end_what_is_left
end_what_is_left()
end_what_is_left()
sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
started = [subprocess.Popen(sleeping, start_new_session=detached) for detached in (False, True)]
print(*(each.pid for each in started), flush=True)
if sys.argv[1] == "stays":
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", ["stays", "ends"])
def test_nothing_is_left(how: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent)}
    environment.pop(MARK, None)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how], env=environment, stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        started = [int(number) for number in command.stdout.readline().split()]
        assert len(started) == 2
        if how == "stays":
            command.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(is_there(process) for process in started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_there(process) for process in started)


def is_there(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as file:  # noqa: PTH123  # as short as it can be
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
