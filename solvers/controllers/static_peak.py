"""Every adapter is placed once, for the highest rate that it ever has: what a fleet costs that never changes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from solvers.controllers.base import Controller, Fleet, Knowledge, Seen, Task
from solvers.controllers.capacity import Capacity, planned


class StaticPeak(Controller):
    """One placement for the whole day, made by the filling of `ffd_plus` at every adapter's own highest rate."""

    name: ClassVar[str] = "static_peak"
    knows: ClassVar[Knowledge] = "peaks"

    def begin(self, task: Task) -> Fleet:
        """Plan for the peaks."""
        assert task.truth is not None  # noqa: S101  # it knows the peaks
        return planned(task, Capacity(task), np.asarray(task.truth[:, 0]))

    def tick(self, seen: Seen) -> Fleet | None:  # noqa: ARG002  # nothing that is seen changes it
        """Nothing changes."""
        return None
