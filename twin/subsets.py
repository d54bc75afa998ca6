"""Workloads of some of the adapters of another one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from twin.workload import Workload


def subset(workload: Workload, adapters: NDArray[np.int64], **changes: Any) -> Workload:  # noqa: ANN401  # fields of any type
    """A workload of some adapters, each with all that is its own, and with other changes.

    Parameters
    ----------
    workload : Workload
    adapters : array of shape (n,)
        One listed twice needs other `ids`.
    **changes
        Fields of the new workload, which come before what the adapters have.

    Raises
    ------
    UserError
        As of `Workload`.
    """
    shared = workload.shared_prompt_tokens
    mine: dict[str, Any] = {
        "ranks": workload.ranks[adapters],
        "rates": workload.rates[adapters],
        "ids": np.asarray(workload.ids)[adapters],
        "trace": None if workload.trace is None else workload.requests_of(adapters),
        "shared_prompt_tokens": None if shared is None else shared[adapters],
    }
    return replace(workload, **(mine | changes))
