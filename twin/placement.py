"""A placement: for each GPU used, its adapters and its `max_loras`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from twin.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from twin.workload import Workload


@dataclass(frozen=True)
class GpuPlan:
    """What one GPU serves.

    Attributes
    ----------
    adapters : tuple of int
        Indices of the adapters in the workload.
    max_loras : int
        Adapter slots (`--max-loras`).
    shares : tuple of float, optional
        For each adapter, the probability that one of its requests comes to this GPU; all ones
        unless the adapter has replicas.
    max_cpu_loras : int, optional
        Adapters that host memory holds (`--max-cpu-loras`); one slot for each by default. With fewer
        than there are adapters, some are loaded from disk again and again.
    """

    adapters: tuple[int, ...]
    max_loras: int
    shares: tuple[float, ...] | None = None
    max_cpu_loras: int | None = None


@dataclass(frozen=True)
class Placement:
    """The plans of all GPUs used."""

    gpus: tuple[GpuPlan, ...]

    @property
    def n_gpus(self) -> int:
        """How many GPUs are used."""
        return len(self.gpus)

    @property
    def has_replicas(self) -> bool:
        """Whether some adapter sends only a share of its requests to a GPU."""
        return any(plan.shares is not None for plan in self.gpus)

    def check(self, workload: Workload) -> None:
        """Raise `ValueError` unless every adapter is placed once (or its shares sum to 1)."""
        share = np.zeros(workload.n_adapters)
        for number, plan in enumerate(self.gpus):
            if not plan.adapters:
                msg = f"GPU {number} has no adapters"
                raise ValueError(msg)
            if plan.max_loras < 1:
                msg = f"GPU {number}: max_loras={plan.max_loras} must be 1 or more"
                raise ValueError(msg)
            if plan.max_cpu_loras is not None and plan.max_cpu_loras < plan.max_loras:
                msg = f"GPU {number}: max_cpu_loras={plan.max_cpu_loras} must be max_loras={plan.max_loras} or more"
                raise ValueError(msg)
            if len(set(plan.adapters)) != len(plan.adapters):
                msg = f"GPU {number} lists an adapter twice"
                raise ValueError(msg)
            if min(plan.adapters) < 0 or max(plan.adapters) >= workload.n_adapters:
                msg = f"GPU {number} has an adapter that is not in the workload"
                raise ValueError(msg)
            share[list(plan.adapters)] += 1.0 if plan.shares is None else plan.shares
        wrong = np.flatnonzero(np.abs(share - 1) > 1e-6)
        if len(wrong):
            msg = f"adapter {wrong[0]} is placed {share[wrong[0]]:g} times"
            raise ValueError(msg)

    def routing_intervals(self, n_adapters: int) -> list[NDArray[np.float64] | None]:
        """For each GPU, the part of [0, 1) of each of its adapters' routing draws that it serves.

        Parameters
        ----------
        n_adapters : int
            Of the workload.

        Returns
        -------
        list of (array of shape (adapters of the GPU, 2)) or None
            None where no adapter has replicas.
        """
        if not self.has_replicas:
            return [None] * self.n_gpus
        used = np.zeros(n_adapters)
        intervals: list[NDArray[np.float64] | None] = []
        for plan in self.gpus:
            ids = list(plan.adapters)
            share = np.ones(len(ids)) if plan.shares is None else np.asarray(plan.shares)
            low, high = used[ids], used[ids] + share
            used[ids] = high
            # Shares that sum to 1 within rounding must not lose the last draws.
            intervals.append(np.column_stack([low, np.where(high > 1 - 1e-9, 1.0, high)]))
        return intervals

    def to_json(self) -> str:
        """A list of {max_loras, adapters} (and shares or max_cpu_loras, where they are given)."""
        rows: list[dict[str, Any]] = []
        for plan in self.gpus:
            row: dict[str, Any] = {"max_loras": plan.max_loras, "adapters": list(plan.adapters)}
            if plan.shares is not None:
                row["shares"] = list(plan.shares)
            if plan.max_cpu_loras is not None:
                row["max_cpu_loras"] = plan.max_cpu_loras
            rows.append(row)
        return json.dumps(rows, separators=(",", ":"))

    @staticmethod
    def from_json(text: str, origin: str = "placement") -> Placement:
        """Read what `to_json` wrote; `UserError` names what is wrong."""
        try:
            rows = json.loads(text)
            # An object would be read as the list of its keys.
            rows = rows if isinstance(rows, list) else [rows]
            return Placement(
                tuple(
                    GpuPlan(
                        tuple(int(a) for a in row["adapters"]),
                        int(row["max_loras"]),
                        tuple(float(s) for s in row["shares"]) if "shares" in row else None,
                        int(row["max_cpu_loras"]) if "max_cpu_loras" in row else None,
                    )
                    for row in rows
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            msg = f"{origin}: a placement is a JSON list of {{max_loras, adapters}} ({error})"
            raise UserError(msg) from None
