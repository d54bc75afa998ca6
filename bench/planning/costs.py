"""What a plan says of the cost of its GPUs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bench.planning.answer import Answer


def costs(found: Answer) -> dict[str, Any]:
    """With a fleet, what the GPUs cost, what is proven of that, and how many of each type there are and are used."""
    if found.fleet is None:
        return {}
    used = Counter(gpu.gpu_type for gpu in found.gpus)
    return {
        "cost": found.score.cost,
        "cost_bound": None if found.cost_claim is None else found.cost_claim.cost,
        "fleet": [
            {
                "name": kind.name,
                "profile": kind.profile.name,
                "price": kind.price,
                "count": kind.count,
                "used": used[kind.name],
            }
            for kind in found.fleet.types
        ],
    }


def proven_cost(found: Answer) -> str:
    """What is proven about the cost."""
    claim, cost = found.cost_claim, found.score.cost
    if claim is None:
        return f"no bound on the cost was proven{'; what was claimed is refuted by a placement' * bool(found.contradictions)}"
    if found.proved:
        return f"no mix of this fleet costs less: {claim.by} proved it (any max_loras, any replicas)"
    return (
        f"nothing costs less than {claim.cost:g}, as {claim.by} proved (any max_loras, any replicas): this is "
        f"{cost / claim.cost - 1:.0%} above; more time may close the gap: time_limit_s=N"
    )
