"""What a GPU is asked for, in figures that can be compared with those of a run on a real GPU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from predictors.features import length_stats
from twin import GpuPlan, Workload
from twin.arrivals import PoissonArrivals

Floats = NDArray[np.float64]

#: Times in service at which adapters that are active are counted, in seconds: from a request alone to one of a long queue. By hand.
SERVICE_TIMES_S = (1.0, 4.0, 16.0, 64.0)
#: What is compared, in this order: adapters, their summed rate, largest and mean rank, and of the adapters how many have a request in
#: service if each takes so long (`predictors.features`); rates that are alike keep more of them active than one that is high.
DEMANDS = (
    "n_adapters",
    "sum_rate",
    "max_rank",
    "mean_rank",
    *(f"active_in_{seconds:g}_s" for seconds in SERVICE_TIMES_S),
)
#: Request lengths, with which the runs were made: means of a request, and of what a running one holds.
LENGTHS = ("mean_prompt_tokens", "mean_output_tokens", "mean_held_tokens")


def demand_of(ranks: NDArray[np.int64], rates: Floats) -> Floats:
    """The figures of `DEMANDS` for adapters on one GPU.

    Parameters
    ----------
    ranks, rates : arrays of shape (n_adapters,)
        Rates in requests per second, of replicas the part that comes to this GPU.

    Returns
    -------
    array of shape (len(DEMANDS),)
    """
    active = [float((1 - np.exp(-rates * seconds)).sum()) for seconds in SERVICE_TIMES_S]
    return np.array([len(ranks), rates.sum(), ranks.max(), ranks.mean(), *active])


def demand_of_gpu(plan: GpuPlan, workload: Workload) -> Floats:
    """The figures of `DEMANDS` for a GPU of a placement."""
    adapters = list(plan.adapters)
    rates = workload.rates[adapters]
    if plan.shares is not None:
        rates = rates * np.array(plan.shares)
    return demand_of(workload.ranks[adapters], rates)


def lengths_of(workload: Workload) -> Floats | None:
    """The figures of `LENGTHS`; None for requests unlike those of the runs: in bursts, from a trace, or with shared prompts."""
    if (
        workload.shared_prompt_tokens is not None
        or workload.trace is not None
        or type(workload.arrivals) is not PoissonArrivals
    ):
        return None
    stats = length_stats(workload.lengths)
    return np.array([stats.prompt_tokens, stats.output_tokens, stats.held_tokens])
