"""What a simulated GPU kept of what it was asked for, as bounds and their certificates compare it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.requests import Requests
from twin.results import GpuResult
from twin.service import ServiceLevel
from twin.workload import Workload


def asked_tokens(requests: Requests) -> NDArray[np.int64]:
    """Prompt and output tokens that each request asks for."""
    return requests.prompt_tokens + requests.requested_tokens


def others_make_up(workload: Workload, service: ServiceLevel) -> bool:
    """Whether a GPU may serve as it should what a part of its adapters alone does not get.

    Under limits for each request a GPU is judged by the share that keeps them. Requests that are long on their own miss them however
    little the GPU has to do, and many short ones beside them raise the share: what asks for more may then be served as it should. So
    where lengths are adapters' own, what is missed must be too much among all requests that there are. Where all are drawn alike,
    nobody makes up for anybody.
    """
    return service.judges_requests and (workload.trace is not None or workload.shared_prompt_tokens is not None)


def missed(result: GpuResult) -> int:
    """Requests that were not served as they should."""
    if result.judgement is None:
        return result.arrived - result.finished
    return int((result.judgement.judged - result.judgement.met).sum())


def whole_share(result: GpuResult, beside: int = 0) -> float:
    """What is compared with the service level's share, of the whole GPU; below 0 for a memory error.

    Parameters
    ----------
    result : GpuResult
    beside : int
        The most requests, those missed included, that the missed ones may be among when others are served beside them: where
        adapters' requests are of different lengths, many that keep their limits make up for few that cannot.
    """
    if result.memory_error:
        return -1.0
    if beside and result.judgement is not None:
        return 1.0 - missed(result) / beside
    return served_share(result) if result.judgement is None else result.judgement.goodput


def served_share(result: GpuResult) -> float:
    """Throughput over offered throughput; 1 where nothing is offered."""
    return result.throughput / result.offered_throughput if result.offered_throughput else 1.0
