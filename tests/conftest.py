"""Settings that all tests share."""

import os

from hypothesis import HealthCheck, settings

# Figures are drawn to files; a test machine has no screen.
os.environ.setdefault("MPLBACKEND", "Agg")

# The first example of a law compiles the kernels it calls, which says nothing about the law: no deadline, no "too slow".
_COMPILES = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Derandomized, so that a change that has nothing to do with a law cannot fail it; `explore` looks for new examples.
settings.register_profile("ci", _COMPILES, derandomize=True, print_blob=True)
settings.register_profile("explore", _COMPILES, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
