"""The twin of each GPU type of a fleet, asked about the same adapters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem
from solvers.limits import Deadline
from solvers.mending.checked import QuickTwin
from solvers.mending.exchanges import Loaded
from solvers.oracles.twin import TwinOracle
from twin import Fleet, GpuPlan, Placement, Workload

#: Up to so many adapters every `max_loras` is asked about: with more, a refusal of one of several types would cost too many simulations.
FEW = 24


class TypeTwins:
    """An oracle for each type, and how much each type has been seen to take.

    Parameters
    ----------
    problem : Problem
        With a fleet of several types.
    workload : Workload
        Of the problem, or the one that it was divided into.
    deadline : Deadline

    Attributes
    ----------
    oracles : tuple of TwinOracle
        Of many adapters asked about a few `max_loras` only.
    weights : array of shape (n_adapters,)
        What an adapter takes, in shares of all: half of it by its load, half by how long it is active.
    capacity : array of shape (n_types,)
        Most weight of a content that the twin of a type has accepted.
    """

    def __init__(self, problem: Problem, workload: Workload, deadline: Deadline) -> None:
        fleet = problem.mixed_fleet
        assert fleet is not None  # noqa: S101  # whoever asks has looked
        self.fleet: Fleet = fleet
        self.workload = workload
        self.max_gpus = problem.max_gpus
        twin = TwinOracle if workload.n_adapters <= FEW else QuickTwin
        self.oracles = tuple(twin(workload, kind.profile, service=problem.service) for kind in fleet.types)
        for oracle in self.oracles:
            oracle.deadline = deadline
        asks = self.oracles[0].asks
        shares = asks[:, [0, asks.shape[1] // 2]]
        self.weights: NDArray[np.float64] = (shares / np.maximum(shares.sum(axis=0), 1e-300)).mean(axis=1)
        self.capacity = np.zeros(len(fleet.types))

    @property
    def calls(self) -> int:
        """Contents asked about so far."""
        return sum(oracle.calls for oracle in self.oracles)

    def asked(self, kind: int, content: Sequence[int], hint: int | None = None) -> Loaded | None:
        """The content on a GPU of a type, or None where its twin refuses it."""
        content = tuple(sorted(content))
        slots = self.oracles[kind].find_max_loras(content, hint)
        return None if slots is None else self.taken(kind, content, slots)

    def taken(self, kind: int, content: Sequence[int], slots: int) -> Loaded:
        """A content that the twin of a type accepts; that it does is remembered."""
        self.capacity[kind] = max(self.capacity[kind], float(self.weights[list(content)].sum()))
        return Loaded(tuple(sorted(content)), slots, 0.0, kind)

    def left(self, gpus: Sequence[Loaded]) -> list[int]:
        """GPUs of each type that are not used yet; no more than there may be in all."""
        used = self.mix(gpus)
        most = np.inf if self.max_gpus is None else self.max_gpus - len(gpus)
        counts = [np.inf if kind.count is None else kind.count for kind in self.fleet.types]
        return [int(min(count - now, most, self.workload.n_adapters)) for count, now in zip(counts, used, strict=True)]

    def mix(self, gpus: Sequence[Loaded]) -> tuple[int, ...]:
        """GPUs of each type."""
        return tuple(np.bincount([gpu.kind for gpu in gpus], minlength=len(self.oracles)).tolist())

    def cost(self, gpus: Sequence[Loaded]) -> float:
        """Sum of the prices."""
        return self.fleet.cost(self.placement(gpus))

    def placement(self, gpus: Sequence[Loaded]) -> Placement:
        """The GPUs as a placement that names their types."""
        names = [kind.name for kind in self.fleet.types]
        return Placement(
            tuple(GpuPlan(gpu.content, gpu.slots, gpu_type=names[gpu.kind]) for gpu in gpus if gpu.content)
        )
