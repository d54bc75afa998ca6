"""Memory between two questions."""

import subprocess
import sys

import pytest

MEASURE = """
import resource
import numpy as np
import twin.simulate
for turn in range(12):
    if turn == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(100_000) for _ in range(30)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own way to keep memory")
def test_what_a_question_has_freed_is_taken_again_without_the_kernel() -> None:
    """Eight turns of 24 MB, 4 kB a page: given back and fetched again they would be 46,875 page faults."""
    run = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=120)
    assert int(run.stdout) < 5000
