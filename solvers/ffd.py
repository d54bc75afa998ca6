"""The published placement: first-fit decreasing guided by learned predictors, as it is."""

from __future__ import annotations

from typing import ClassVar

from solvers.base import Problem, Solution, Solver, Tags
from solvers.contents.orders import sorted_plan, zigzag_order
from solvers.filling.test_points import TEST_POINTS, PredictorTest, PublishedTest, TwinTest, fill_by_test_points
from solvers.limits import OutOfTimeError
from solvers.oracles.choice import say_not_learned, say_out_of_range
from twin import Placement, UserError

TWIN_ANSWERS = ("never", "outside", "unsure", "always")


class GuidedFfd(Solver):
    """Machine-learning-guided greedy of arXiv 2602.24044, with its weaknesses.

    Ranks descend, rates zigzag inside a rank. Adapters join a GPU as pending and are committed
    when the GPU's content passes at a test point: of the current `max_loras` and the next, the one with the higher
    predicted throughput must not starve by the starvation predictor. A failed test returns the pending adapters
    and closes the GPU. At the end the pending adapters of the last GPU are tested at the next test point, others filled
    in with the mean rate and the smallest rank on that GPU.

    Kept as published: no GPU with fewer than 8 adapters passes but the last, and that only with others filled in, as many as
    the test point has more than are pending, so that what is committed counts twice; the first test of a GPU offers 8
    slots only; the other `max_loras` is not tried when the one with the higher throughput starves; a GPU takes 576
    adapters at most; pending adapters of a rank that was used up come back in reverse.

    Parameters
    ----------
    twin : {"never", "unsure", "outside", "always"}
        When the twin is asked in place of the predictors: not at all, as published; where the probability of starvation lies
        between the threshold and 0.99; only for workloads outside the range that the predictors were trained on, and for service
        levels that they have not learned (included in the former); or at every test point, which is the greedy with perfect
        predictors.
    risk : float, optional
        Share of starved contents that the starvation predictor may miss; by default the predictor's own, 0.01.
    distilled : bool
        Ask the single trees that the forests were distilled to, as `ffd_fast` does: faster, less accurate.
    as_published : bool
        Otherwise nobody counts twice, the first test offers 16 slots too, and pending adapters keep their order, as in `ffd_checked`.
    """

    name: ClassVar[str] = "ffd"

    def __init__(
        self, twin: str = "never", risk: float | None = None, *, distilled: bool = False, as_published: bool = True
    ) -> None:
        if twin not in TWIN_ANSWERS:
            raise UserError(f"solver.twin={twin} of solver {self.name}: must be one of {list(TWIN_ANSWERS)}")
        self.twin = twin
        self.risk = risk
        self.distilled = distilled
        self.as_published = as_published
        self.tags = Tags(needs_predictor=True)

    def solve(self, problem: Problem) -> Solution:
        """Run the greedy once; it never reconsiders."""
        workload = problem.workload
        order = zigzag_order(workload)
        test = self.test(problem)
        late = False
        try:
            gpus = fill_by_test_points(workload, order, test, as_published=self.as_published)
        except OutOfTimeError:
            gpus, late = None, True
        asked = test.calls + (test.asked_twin if isinstance(test, PredictorTest) else 0)
        details = {"twin_calls": test.asked_twin if isinstance(test, PredictorTest) else test.calls}
        if late:
            message = "no placement within the time limit"
            return Solution("time_limit", oracle_calls=asked, message=message, details=details)
        if gpus is None:
            message = (
                f"a GPU fails its first test, at {TEST_POINTS[0]} adapters: the published greedy places nothing on it"
            )
            return Solution("none_found", oracle_calls=asked, message=message, details=details)
        plans = tuple(sorted_plan(adapters, max_loras) for adapters, max_loras in gpus)
        if problem.max_gpus is not None and len(plans) > problem.max_gpus:
            message = f"needs {len(plans)} GPUs, more than the limit of {problem.max_gpus}"
            return Solution("none_found", oracle_calls=asked, message=message, details=details)
        return Solution("feasible", Placement(plans), oracle_calls=asked, details=details)

    def test(self, problem: Problem) -> PublishedTest:
        """What is asked at a test point."""
        predictor = problem.predictor
        assert predictor is not None  # noqa: S101  # Solver.run has checked it
        twin = TwinTest(problem)
        if self.twin == "always":
            return twin
        if self.twin != "never" and (
            say_not_learned(predictor, problem.service) or say_out_of_range(predictor, problem.workload)
        ):
            return twin
        if self.risk is not None:
            predictor = predictor.at_risk(self.risk)
        unsure = twin if self.twin == "unsure" else None
        return PredictorTest(problem, predictor, distilled=self.distilled, unsure=unsure)
