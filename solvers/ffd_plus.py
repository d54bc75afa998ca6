"""Our greedy: a test at every adapter, topping up, local search, and the twin's word on every GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from solvers.base import Problem, Solution, Solver, Status, Tags
from solvers.filling.model import Filling, FillModel
from solvers.limits import Deadline, NoPlacementError, check_gpu_limit
from solvers.mending.best_service import TIME_SHARE, best_service
from solvers.mending.checked import LARGE_FLEET, CheckedPlacement, checked
from solvers.oracles.choice import check_oracle_option
from twin import Placement


class FfdPlus(Solver):
    """First-fit decreasing without the weaknesses of the published one.

    1. GPUs are filled one after the other, with a question to the starvation predictor at every adapter and at any
       `max_loras`; when an adapter does not fit, smaller ones top the GPU up. Once by rank first, once by rate first.
    2. Local search, with incremental features: moves and swaps that empty the lightest GPU, or anneal all adapters onto
       one GPU less. (Not in a fleet of 64 GPUs or more, where one GPU less is little and step 4 says how full GPUs may be.)
    3. The twin checks every GPU; adapters leave those that starve, for others or for one more GPU.
    4. With time left, spreads over fewer GPUs are tried on the twin: the predictor errs on the safe side. Many adapters are
       first looked at with a few values of `max_loras`, then filled once more with all of them. In a large fleet a sample of
       GPUs shows instead how much fuller than predicted they may be.
    5. With time left still, adapters are exchanged between the GPUs of a fleet of one less, every exchange simulated.
    6. In the end, `max_loras` are chosen and adapters exchanged between the GPUs for the service of the worst one.

    Parameters
    ----------
    oracle : {"predictor", "distilled"}
        Starvation model of steps 1 and 2.
    twin_check : bool
        Steps 3 to 5. Without them the answer is as good as the predictor.
    local_search : bool
        Step 2.
    twin_search : bool
        Step 5.
    best_service : bool
        Step 6; not without the twin's check.
    """

    name: ClassVar[str] = "ffd_plus"
    tags = Tags(needs_predictor=True)

    def __init__(
        self,
        oracle: str = "predictor",
        *,
        twin_check: bool = True,
        local_search: bool = True,
        twin_search: bool = True,
        best_service: bool = True,
    ) -> None:
        check_oracle_option(oracle, self.name, ("predictor", "distilled"))
        self.oracle = oracle
        self.twin_check = twin_check
        self.local_search = local_search
        self.twin_search = twin_search
        self.best_service = best_service

    def warm_up(self, problem: Problem) -> None:
        """The kernels of the local search, which two adapters do not need."""
        FillModel(problem, distilled=self.oracle == "distilled").compile_all()

    def solve(self, problem: Problem) -> Solution:
        """Fill, search, check."""
        if not problem.workload.n_adapters:
            return Solution("feasible", Placement(()))
        deadline = Deadline.after(problem.time_limit_s)
        finishing = self.best_service and self.twin_check
        searching = Deadline.after(problem.time_limit_s * (1 - TIME_SHARE if finishing else 1))
        model = FillModel(problem, distilled=self.oracle == "distilled")
        fillings: list[Filling] = []
        for order in model.orders():
            # Of a hundred thousand adapters each takes a second or more.
            if not fillings or searching.left_s:
                fillings.append(model.filled(order))
        filling = min(fillings, key=lambda filled: filled.n_gpus)
        searched = filling
        if self.local_search and not (self.twin_check and filling.n_gpus >= LARGE_FLEET):
            searched = model.drained(filling, Deadline.after(problem.time_limit_s / 8))
            if filling.n_gpus < LARGE_FLEET:
                searched = model.refilled(searched, Deadline.after(problem.time_limit_s / 8))
        details: dict[str, Any] = {"predicted_gpus": searched.n_gpus}
        try:
            answer = self._checked(problem, model, filling, searched, searching)
            check_gpu_limit(answer.placement.n_gpus, problem)
            if finishing and not answer.unchecked_gpus:
                placement, calls = best_service(problem, answer.placement, deadline)
                answer = replace(answer, placement=placement, twin_calls=answer.twin_calls + calls)
        except NoPlacementError as why:
            return Solution("infeasible", oracle_calls=model.calls, message=str(why), details=details)
        details |= {
            "predictor_calls": model.calls,
            "twin_calls": answer.twin_calls,
            "unchecked_gpus": answer.unchecked_gpus,
        }
        status: Status = "unchecked" if answer.unchecked_gpus else "feasible"
        message = (
            f"the twin had no time to check {answer.unchecked_gpus} of {answer.placement.n_gpus} GPUs"
            if answer.unchecked_gpus
            else ""
        )
        calls = model.calls + answer.twin_calls
        return Solution(status, answer.placement, oracle_calls=calls, message=message, details=details)

    def _checked(
        self, problem: Problem, model: FillModel, filling: Filling, searched: Filling, deadline: Deadline
    ) -> CheckedPlacement:
        if self.twin_check:
            return checked(problem, model, filling, deadline, searched, twin_search=self.twin_search)
        return CheckedPlacement(searched.placement(problem.workload), 0)
