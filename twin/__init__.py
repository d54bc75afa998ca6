"""Workloads, serving profiles and the digital twin of one vLLM GPU.

A name is imported when it is asked for: Numba and the compiled kernels take longer to import than all else, and what only reads
a configuration (`--help`) asks for neither.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twin.arrivals import GammaArrivals, PoissonArrivals, UnpredictableArrivals
    from twin.curves import DailyArrivals, rates_over_time
    from twin.errors import UserError
    from twin.fleet import Fleet, GpuType, fleet_of, read_fleet
    from twin.lengths import Lengths, LogNormalTokens, fixed_lengths
    from twin.placement import GpuPlan, Placement
    from twin.profile import ServingProfile
    from twin.profile_files import load_profile, shipped_profiles
    from twin.requests import Requests
    from twin.results import GpuResult
    from twin.score import Score, score_placement, score_results
    from twin.service import BATCH, INTERACTIVE, PUBLISHED, Judgement, ServiceLevel
    from twin.simulate import simulate_gpu, simulate_placement, simulate_requests
    from twin.workload import Workload, workload_from_groups

__all__ = [
    "BATCH",
    "INTERACTIVE",
    "PUBLISHED",
    "DailyArrivals",
    "Fleet",
    "GammaArrivals",
    "GpuPlan",
    "GpuResult",
    "GpuType",
    "Judgement",
    "Lengths",
    "LogNormalTokens",
    "Placement",
    "PoissonArrivals",
    "Requests",
    "Score",
    "ServiceLevel",
    "ServingProfile",
    "UnpredictableArrivals",
    "UserError",
    "Workload",
    "fixed_lengths",
    "fleet_of",
    "load_profile",
    "rates_over_time",
    "read_fleet",
    "score_placement",
    "score_results",
    "shipped_profiles",
    "simulate_gpu",
    "simulate_placement",
    "simulate_requests",
    "workload_from_groups",
]

_HOMES = {
    "arrivals": ("GammaArrivals", "PoissonArrivals", "UnpredictableArrivals"),
    "curves": ("DailyArrivals", "rates_over_time"),
    "errors": ("UserError",),
    "fleet": ("Fleet", "GpuType", "fleet_of", "read_fleet"),
    "lengths": ("Lengths", "LogNormalTokens", "fixed_lengths"),
    "placement": ("GpuPlan", "Placement"),
    "profile": ("ServingProfile",),
    "profile_files": ("load_profile", "shipped_profiles"),
    "results": ("GpuResult",),
    "score": ("Score", "score_placement", "score_results"),
    "service": ("BATCH", "INTERACTIVE", "PUBLISHED", "Judgement", "ServiceLevel"),
    "simulate": ("simulate_gpu", "simulate_placement", "simulate_requests"),
    "requests": ("Requests",),
    "workload": ("Workload", "workload_from_groups"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            found: object = getattr(import_module(f"twin.{home}"), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
