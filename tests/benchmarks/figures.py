"""Figures of pytest-benchmark's JSON files, in terms of the calibration loop that ran beside them."""

from __future__ import annotations

from typing import Any

#: The benchmark whose time stands for the speed of the machine (`bench.comparison.machine`).
CALIBRATION = "test_the_calibration_loop"


def in_calibrations(measured: dict[str, Any]) -> dict[str, float]:
    """Least time of each benchmark over that of the calibration loop; empty where that did not run.

    Parameters
    ----------
    measured : dict
        As `--benchmark-json` writes it. The least time, because whatever else a machine does only adds to it.
    """
    least = {entry["name"]: float(entry["stats"]["min"]) for entry in measured["benchmarks"]}
    loop = least.pop(CALIBRATION, None)
    return {} if loop is None else {name: seconds / loop for name, seconds in least.items()}
