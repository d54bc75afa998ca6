"""A placement: for each GPU used, its adapters and its `max_loras`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from twin.errors import UserError
from twin.inputs import plain_text

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    gpu_type : str, optional
        Name of its type in a fleet (`twin.fleet`); None where there is one type only.
    """

    adapters: tuple[int, ...]
    max_loras: int
    shares: tuple[float, ...] | None = None
    max_cpu_loras: int | None = None
    gpu_type: str | None = None


# Shares are sums of rounded parts.
_SHARES = 1e-6
# What a flag of a server can hold.
_LARGEST = 2**53


def _check_plan(plan: GpuPlan, n_adapters: int) -> None:
    """Raise `ValueError`, which goes on after "GPU N", for a plan that no server could have."""
    if not plan.adapters:
        msg = "has no adapters"
        raise ValueError(msg)
    for name, value in (("max_loras", plan.max_loras), ("max_cpu_loras", plan.max_cpu_loras)):
        if value is not None and not 1 <= value < _LARGEST:
            msg = f"has {name}={value}: must be 1 or more, and below {_LARGEST}"
            raise ValueError(msg)
    if plan.max_cpu_loras is not None and plan.max_cpu_loras < plan.max_loras:
        msg = f"max_cpu_loras={plan.max_cpu_loras} must be max_loras={plan.max_loras} or more"
        raise ValueError(msg)
    if len(set(plan.adapters)) != len(plan.adapters):
        msg = "lists an adapter twice"
        raise ValueError(msg)
    if min(plan.adapters) < 0 or max(plan.adapters) >= n_adapters:
        msg = "has an adapter that is not in the workload"
        raise ValueError(msg)
    if plan.shares is None:
        return
    if len(plan.shares) != len(plan.adapters):
        msg = f"has {len(plan.shares)} shares of {len(plan.adapters)} adapters"
        raise ValueError(msg)
    if wrong := [share for share in plan.shares if not 0 < share <= 1 + _SHARES]:
        msg = f"has share={wrong[0]}: must be above 0 and at most 1"
        raise ValueError(msg)


def _plain_plan(plan: GpuPlan) -> GpuPlan:
    adapters, shares = plan.adapters, plan.shares
    # Files have millions of them, which are plain already.
    if not set(map(type, adapters)) <= {int}:
        adapters = tuple(_whole("adapters", adapter) for adapter in adapters)
    if shares is not None and not set(map(type, shares)) <= {float}:
        shares = tuple(_number("shares", share) for share in shares)
    return GpuPlan(
        tuple(adapters),
        _whole("max_loras", plan.max_loras),
        None if shares is None else tuple(shares),
        None if plan.max_cpu_loras is None else _whole("max_cpu_loras", plan.max_cpu_loras),
        None if plan.gpu_type is None else plain_text("gpu_type", plan.gpu_type),
    )


def _tuple(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


def _whole(name: str, value: object) -> int:
    if type(value) is int:
        return value
    if isinstance(value, bool) or not isinstance(value, Integral):
        msg = f"{name}: {str(value)[:40]} is no whole number"
        raise ValueError(msg)  # noqa: TRY004  # one kind of error for all that is wrong with a placement
    return int(value)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        msg = f"{name}: {str(value)[:40]} is no number"
        raise ValueError(msg)  # noqa: TRY004  # as above
    return float(value)


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
        """Raise `ValueError` unless every adapter is placed once (or its shares sum to 1), with numbers that mean something."""
        share = np.zeros(workload.n_adapters)
        for number, plan in enumerate(self.gpus):
            try:
                _check_plan(plan, workload.n_adapters)
            except ValueError as error:
                msg = f"GPU {number} {error}"
                raise ValueError(msg) from None
            share[list(plan.adapters)] += 1.0 if plan.shares is None else plan.shares
        wrong = np.flatnonzero(~(np.abs(share - 1) <= _SHARES))
        if len(wrong):
            msg = f"adapter {wrong[0]} is placed {share[wrong[0]]:.9g} times"
            raise ValueError(msg)

    def plain(self) -> Placement:
        """The same placement in Python's own numbers, whatever whole numbers and sequences it was made of.

        Raises
        ------
        ValueError
            For what is no whole number where there must be one, and no number at all.
        """
        try:
            return Placement(tuple(_plain_plan(plan) for plan in self.gpus))
        except (TypeError, AttributeError, OverflowError) as error:
            msg = f"the placement is no tuple of GpuPlan ({error})"
            raise ValueError(msg) from None

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
        """A list of {max_loras, adapters} (and shares, max_cpu_loras or gpu_type, where they are given)."""
        rows: list[dict[str, Any]] = []
        for plan in self.gpus:
            row: dict[str, Any] = {"max_loras": plan.max_loras, "adapters": list(plan.adapters)}
            if plan.shares is not None:
                row["shares"] = list(plan.shares)
            if plan.max_cpu_loras is not None:
                row["max_cpu_loras"] = plan.max_cpu_loras
            if plan.gpu_type is not None:
                row["gpu_type"] = plan.gpu_type
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
                        tuple(row["adapters"]),
                        row["max_loras"],
                        _tuple(row.get("shares")),
                        row.get("max_cpu_loras"),
                        row.get("gpu_type"),
                    )
                    for row in rows
                )
            ).plain()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            msg = f"{origin}: a placement is a JSON list of {{max_loras, adapters}} ({error})"
            raise UserError(msg) from None
