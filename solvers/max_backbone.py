"""Baseline: as much load on a GPU as the backbone serves without LoRA."""

from __future__ import annotations

from typing import ClassVar

from solvers.base import Problem, Solution, Solver
from solvers.contents.orders import describe, sorted_plan
from solvers.contents.published_figures import backbone_tokens_per_s
from solvers.limits import NoPlacementError, check_gpu_limit
from twin import GpuPlan, Placement, UserError


class MaxBackbone(Solver):
    """Fills GPUs in the order given while the offered tokens stay within the backbone's best throughput.

    It knows nothing of what adapters cost; `max_loras` is the adapter count (baseline of arXiv 2602.24044).

    Parameters
    ----------
    adapters_per_slot : int
        With 1 a slot for each adapter; with 2, half as many slots, as in `max_backbone_half` (both of them published).
    """

    name: ClassVar[str] = "max_backbone"

    def __init__(self, adapters_per_slot: int = 1) -> None:
        if adapters_per_slot < 1:
            raise UserError(f"solver.adapters_per_slot={adapters_per_slot} of solver {self.name}: must be 1 or more")
        self.adapters_per_slot = adapters_per_slot

    def slots(self, n_adapters: int) -> int:
        """`max_loras` of a GPU with so many adapters."""
        return max(1, n_adapters // self.adapters_per_slot)

    def solve(self, problem: Problem) -> Solution:
        """Fill one GPU after the other."""
        workload = problem.workload
        capacity = backbone_tokens_per_s(problem.profile, workload.lengths)
        tokens_per_s = workload.rates * workload.mean_request_tokens
        plans: list[GpuPlan] = []
        content: list[int] = []
        load = 0.0
        for adapter, tokens in enumerate(tokens_per_s.tolist()):
            if tokens > capacity:
                return Solution(
                    "none_found",
                    message=f"{describe(workload, adapter)} asks for {tokens:.0f} tokens/s, the backbone serves {capacity:.0f}",
                )
            if load + tokens > capacity:
                plans.append(sorted_plan(content, self.slots(len(content))))
                content, load = [], 0.0
            content.append(adapter)
            load += tokens
        if content:
            plans.append(sorted_plan(content, self.slots(len(content))))
        try:
            check_gpu_limit(len(plans), problem)
        except NoPlacementError as why:
            return Solution("none_found", message=str(why))
        return Solution("unchecked", Placement(tuple(plans)))
