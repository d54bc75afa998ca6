"""What the parts of an exact search share: the problem, what is known of it so far, and the time that is left."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem
from solvers.contents.adapter_types import AdapterTypes, adapter_types
from solvers.contents.demands import Demands
from solvers.exact_search.progress import Progress
from solvers.limits import Deadline
from solvers.oracles.base import Oracle
from solvers.oracles.twin import TwinOracle

#: Up to so many types the frontier's cover is solved for the types, and contents are counted by type. By hand:
#: the cover's programme and CP-SAT's models grow with the types; more would take the time of other steps.
MOST_TYPES = 150


class SearchState:
    """State of one solve.

    Parameters
    ----------
    problem : Problem
    oracle : Oracle
    deadline : Deadline
    workers : int
        Search threads of CP-SAT.
    replicas : bool
        Adapters may be divided among GPUs, where the oracle is the twin: a predictor knows none that are.
    without : collection of str
        Steps to leave out.
    """

    def __init__(  # noqa: PLR0913  # a problem, what answers it, its limits and its options
        self,
        problem: Problem,
        oracle: Oracle,
        deadline: Deadline,
        workers: int,
        *,
        replicas: bool = False,
        without: Collection[str] = (),
    ) -> None:
        self.problem = problem
        self.oracle = oracle
        self.deadline = deadline
        self.workers = workers
        self.without = without
        self.replicas = replicas and isinstance(oracle, TwinOracle)
        self.progress = Progress(problem.max_gpus, oracle.name, replicas=self.replicas)
        #: Parts that each adapter must be divided into for a GPU to hold one of them, once that is known.
        self.hot_parts: NDArray[np.int64] | None = None
        #: Price of each adapter by the best bound so far.
        self.weights: NDArray[np.float64] | None = None
        #: The `max_loras` of one GPU for all, if that is accepted.
        self.hint: int | None = None
        #: Contents that other solvers asked about.
        self.other_calls = 0

    @cached_property
    def types(self) -> AdapterTypes:
        """Adapters of one rank and rate."""
        return adapter_types(self.problem.workload, by_requests=not self.oracle.interchangeable)

    @cached_property
    def demands(self) -> Demands:
        """What adapters of each type ask for.

        Raises
        ------
        OutOfTimeError
        """
        return self.oracle.demands(self.types)

    @property
    def replays(self) -> bool:
        """Whether the oracle simulates: a question takes milliseconds, and adapters of one type are only alike."""
        return isinstance(self.oracle, TwinOracle)

    @property
    def has_hot(self) -> bool:
        """Whether some adapter is known to be too much for a GPU."""
        return self.hot_parts is not None and bool((self.hot_parts > 1).any())

    @property
    def many_types(self) -> bool:
        """Whether there are too many types to count contents by type."""
        return len(self.types) > MOST_TYPES
