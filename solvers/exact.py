"""Fewest GPUs, with proof: contents of identical adapters counted, priced, cut and covered with CP-SAT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from solvers.base import VOUCHED, Problem, Solution, Solver, Tags
from solvers.exact_search.draw_bounds import OTHERS_SHARE, bound_of_draws
from solvers.exact_search.search import STEPS, ExactSearch
from solvers.exact_search.state import SearchState
from solvers.exact_search.warming_up import compile_all
from solvers.limits import Deadline, NoPlacementError, OutOfTimeError
from solvers.mending.best_service import TIME_SHARE, best_service
from solvers.mixes.answers import MixOptions, mixed_answer
from solvers.oracles.choice import check_oracle_option, make_oracle
from solvers.oracles.draws import check_draws, draws_of, with_draws
from solvers.oracles.twin import TwinOracle
from twin import Placement, UserError


class Exact(Solver):
    """Cuts and columns over GPU contents counted by adapter type (rank, rate, shared prompt).

    A linear programme covers all adapters with contents that the oracle accepted, and prices the types. CP-SAT
    looks for the content of the highest price that no cut rules out; the oracle accepts it (a column) or
    rejects it, and then so is everything that asks at least as much (a cut). At every moment the prices over
    the highest price left are a lower bound. A second CP-SAT model covers the adapters with whole contents.
    These are the logic-based Benders cuts and the pattern bound of the packing literature in one loop.

    Bounds in seconds come before that, for thousands of adapters too: contents of the workload's own adapters, in fractions,
    are cut off where they starve (`solvers.zones.bound`).

    The bound is proven for the oracle in use, for every `max_loras` (with a predictor, for those that it is asked about), if the oracle
    is monotone in what a content asks for (`solvers.contents.demands`). The predictors are where no adapters are loaded, and what they
    reject only for loads proves nothing (`solvers.oracles.predictor`); the twin is up to the chance of single requests. With
    the twin, adapters of one type are also taken for interchangeable, although each has requests of its own; the placement
    itself is always verified on its actual adapters. `details` says what the proof needed, and how often the oracle broke
    that order in a sample.

    Parameters
    ----------
    oracle : {"auto", "predictor", "distilled", "twin"}
        What decides whether a GPU content is feasible; "auto" is the predictor if there is one.
    workers : int
        Search threads of CP-SAT.
    replicas : bool
        Let GPUs share an adapter, where one cannot hold it or fewer GPUs do with it; with the twin as oracle. Bounds are then for
        any shares, otherwise for placements that give each adapter one GPU.
    draws : int
        Look for a placement that holds on so many draws of the requests, the workload's own and others; with the twin as oracle. The
        bound is for the workload's own draw; `details` have the best one for all of them (`lower_bound_of_draws`).
    best_service : bool
        In the end, choose `max_loras` and exchange adapters between the GPUs for the service of the worst one
        (`solvers.mending.best_service`); with the twin as oracle.
    without : sequence of str
        Steps of the search to leave out, to see what they add: those of `solvers.exact_search.search.STEPS`.
    """

    name: ClassVar[str] = "exact"

    def __init__(  # noqa: PLR0913  # one option for each choice
        self,
        oracle: str = "twin",
        workers: int = 2,
        *,
        replicas: bool = True,
        draws: int = 1,
        best_service: bool = True,
        without: Sequence[str] = (),
    ) -> None:
        check_draws(draws, self.name)
        if draws > 1 and oracle != "twin":
            raise UserError(
                f"solver.exact.draws={draws} with oracle={oracle}: only the twin tells draws apart; oracle=twin"
            )
        check_oracle_option(oracle, self.name)
        if workers < 1:
            raise UserError(f"solver.workers={workers} of solver exact: must be 1 or more")
        if unknown := set(without) - set(STEPS):
            raise UserError(f"solver.without={min(unknown)} of solver exact: must be among {', '.join(STEPS)}")
        self.without = tuple(without)
        self.oracle = oracle
        self.workers = workers
        self.replicas = replicas
        self.draws = draws
        self.best_service = best_service
        self.tags = Tags(
            exact=True,
            uses_replicas=replicas and oracle in ("auto", "twin"),
            needs_predictor=oracle in ("predictor", "distilled"),
            replays_requests=oracle in ("auto", "twin"),
            mixed_fleets=oracle in ("auto", "twin") and draws == 1,
        )

    def warm_up(self, problem: Problem) -> None:
        """The kernels of bounds and of the first answers, which two adapters do not need."""
        if problem.mixed_fleet is not None:
            return
        compile_all(problem, make_oracle(self.oracle, problem, self.name))

    def solve(self, problem: Problem) -> Solution:
        """Bound from below, cover from above, until both meet or the time is up."""
        if problem.mixed_fleet is not None:
            return mixed_answer(problem, MixOptions(proof=True, replicas=self.replicas, best_service=self.best_service))
        if not problem.workload.n_adapters:
            return Solution("optimal", Placement(()), lower_bound=0)
        problem = with_draws(problem, self.draws, self.name)
        oracle = make_oracle(self.oracle, problem, self.name)
        deadline = Deadline.after(problem.time_limit_s)
        finishing = self.best_service and isinstance(oracle, TwinOracle)
        left = (1 - TIME_SHARE if finishing else 1) * (1 - OTHERS_SHARE if problem.other_seeds else 1)
        searching = Deadline.after(problem.time_limit_s * left)
        oracle.deadline = searching
        state = SearchState(
            problem, oracle, searching, self.workers, replicas=self.replicas, without=self.without
        )  # fmt: skip
        search = ExactSearch(state)
        try:
            search.run()
        except NoPlacementError as why:
            return search.without_placement(why)
        except OutOfTimeError:
            search.stopped = "the time limit was reached"
        search.sample_monotonicity()
        solution = self._with_bound_of_draws(problem, search.solution(), search.state)
        if finishing and solution.status in VOUCHED and solution.placement is not None:
            placement, calls = best_service(problem, solution.placement, deadline)
            solution = replace(solution, placement=placement, oracle_calls=solution.oracle_calls + calls)
        return solution

    def _with_bound_of_draws(self, problem: Problem, solution: Solution, state: SearchState) -> Solution:
        """A solution with what is proven of placements that hold on all draws."""
        if not problem.other_seeds:
            return solution
        details: dict[str, Any] = {**solution.details, **draws_of(problem)}
        message = solution.message
        if solution.status in VOUCHED and solution.placement is not None:
            ours = Deadline.after(OTHERS_SHARE * problem.time_limit_s)
            bound = bound_of_draws(problem, solution.placement, state, ours)
            details["lower_bound_of_draws"] = bound
            if message and bound >= solution.placement.n_gpus:
                message = (
                    f"proven for what holds on all {self.draws} draws; of the workload's own draw alone: {message}"
                )
        return replace(solution, details=details, message=message)
