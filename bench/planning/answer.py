"""The answer to an operator: the best placement that the twin calls feasible, GPU by GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.comparison.rows import Row
from bench.evidence.runs import NONE, Evidence, evidence_of
from bench.planning.adapters import Adapter, Traffic, workload_of
from bench.planning.chance import Chance
from bench.planning.fleets import CostBound, cost_bound
from bench.shared.terminal import in_threads
from bench.statistics.contradictions import LowerBound, contradictions, standing_bound
from bench.vllm.flags import ServerFlags
from twin import (
    INTERACTIVE,
    PUBLISHED,
    Fleet,
    GpuPlan,
    Placement,
    Score,
    ServiceLevel,
    ServingProfile,
    score_results,
    simulate_gpu,
)
from twin.results import GpuResult

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from bench.planning.published import PublishedNeed

#: Growth beyond this factor is not looked for: the lengths and the mix would be others by then.
MOST_GROWTH = 8.0
# By hand: head-room is told within so much.
_GROWTH_STEP = 0.02


@dataclass(frozen=True)
class GpuAnswer:
    """What one GPU serves and what to expect of it.

    Attributes
    ----------
    gpu : int
        Counted from 0.
    adapters : tuple of Adapter
    shares : tuple of float, optional
        Share of each adapter's requests that comes here, where adapters have replicas.
    max_loras, max_lora_rank, max_cpu_loras : int
        vLLM's flags.
    rate : float
        Requests per second.
    throughput, offered_throughput : float
        Tokens per second.
    ttft_ms, ttft_p99_ms, itl_ms, e2e_ms : float, optional
        Means, and the 99th percentile; None where no request finishes.
    kv_usage : float
        Mean share of the KV cache in use while the GPU works.
    growth : float
        By this factor could all rates on this GPU grow before it fails the service level, 1 or more; `MOST_GROWTH`
        stands for that and above.
    starved_adapters : tuple of str
        Adapters that get less than 90 % of what they ask for, though the GPU as a whole does not starve.
    failing_adapters : tuple of str
        Adapters that the service level is not kept for; under the published rule, those that starve.
    ttft_p95_ms : float, optional
    goodput : float, optional
        Share of the judged requests that keep the limits of the service level, or those of `interactive` where it has none.
    gpu_type, price : str, float, optional
        With a fleet, the name of its type and what it costs.
    evidence : Evidence
        What runs on real GPUs say of as much load.
    """

    gpu: int
    adapters: tuple[Adapter, ...]
    shares: tuple[float, ...] | None
    max_loras: int
    max_lora_rank: int
    max_cpu_loras: int
    rate: float
    throughput: float
    offered_throughput: float
    ttft_ms: float | None
    ttft_p99_ms: float | None
    itl_ms: float | None
    e2e_ms: float | None
    kv_usage: float
    growth: float
    starved_adapters: tuple[str, ...] = ()
    failing_adapters: tuple[str, ...] = ()
    ttft_p95_ms: float | None = None
    goodput: float | None = None
    evidence: Evidence = NONE
    gpu_type: str | None = None
    price: float | None = None

    def flags(self, profile: ServingProfile) -> ServerFlags:
        """What its server is started with."""
        ranks = [adapter.rank for adapter in self.adapters]
        return ServerFlags.of(profile, ranks, self.max_loras, self.max_cpu_loras)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable; absent shares are left out."""
        data = asdict(self)
        data["adapters"] = [
            {key: value for key, value in asdict(adapter).items() if value not in (None, "")}
            for adapter in self.adapters
        ]
        for name in ("starved_adapters", "failing_adapters"):
            data[name] = list(data[name])
        for name in ("shares", "gpu_type", "price"):
            if data[name] is None:
                del data[name]
        return data


@dataclass(frozen=True)
class Answer:
    """The placement chosen, and where it comes from.

    Attributes
    ----------
    gpus : tuple of GpuAnswer
    score : Score
        Figures over all GPUs at the load asked about, without the reserve.
    row : Row
        Of the candidate chosen.
    rows : tuple of Row
        Of all candidates.
    claim : LowerBound, optional
        The lower bound that a solver proved and no candidate refutes, and what it is about.
    reserve : float
        Share of the load that the placement can take on top of it; the bound is for both together.
    service : ServiceLevel
        What every GPU keeps.
    published : PublishedNeed, optional
        What the published rule alone would need.
    fleet : Fleet, optional
        GPU types that there were to choose from.
    chance : Chance, optional
        With what probability it holds; None where the profile does not say how far it may be off.
    slowdown : float
        Its placement was made for steps that take so many times as long.
    """

    gpus: tuple[GpuAnswer, ...]
    score: Score
    row: Row
    rows: tuple[Row, ...]
    claim: LowerBound | None
    reserve: float = 0.0
    service: ServiceLevel = PUBLISHED
    published: PublishedNeed | None = None
    fleet: Fleet | None = None
    chance: Chance | None = None
    slowdown: float = 1.0

    @property
    def cost_claim(self) -> CostBound | None:
        """What is proven of the cost."""
        return cost_bound(self.rows)

    @property
    def lower_bound(self) -> int | None:
        """The bound in GPUs, if one is proven."""
        return None if self.claim is None else self.claim.bound

    @property
    def contradictions(self) -> list[str]:
        """A line for each bound that a candidate refutes."""
        return contradictions(self.rows)

    @property
    def proved(self) -> bool:
        """Whether no placement that the bound is about is on fewer GPUs; of a mixed fleet, whether none costs less."""
        if self.fleet is not None and self.fleet.is_mixed:
            return self.cost_claim is not None and self.cost_claim.meets(self.score.cost)
        return self.lower_bound == len(self.gpus)


def feasible_rows(rows: Sequence[Row]) -> list[Row]:
    """The candidates that the twin calls feasible, as the objective ranks them."""
    return sorted((row for row in rows if row.feasible and row.placement is not None), key=lambda row: row.rank_key)


def answer(  # noqa: PLR0913  # what was asked, and what was found
    rows: Sequence[Row],
    adapters: Sequence[Adapter],
    traffic: Traffic,
    profile: ServingProfile,
    *,
    service: ServiceLevel = PUBLISHED,
    reserve: float = 0.0,
    threads: int = 2,
    runs: pd.DataFrame | None = None,
    fleet: Fleet | None = None,
) -> Answer | None:
    """The best candidate: figures and flags of each GPU, and how much its load could grow.

    Parameters
    ----------
    rows : sequence of Row
        All candidates. They were scored at a higher load, if there is a reserve; the figures here are at that of `adapters`.
    adapters : sequence of Adapter
        Those that the placements count.
    traffic, profile : Traffic, ServingProfile
    service : ServiceLevel
        What every GPU must keep.
    reserve : float
    threads : int
        GPUs that are simulated at the same time.
    runs : DataFrame, optional
        Of real GPUs, as evidence (`bench.evidence.runs.known_runs`); the published ones by default.
    fleet : Fleet, optional
        Whose types the placements name; `profile` is that of the first.

    Returns
    -------
    Answer or None
        None if no candidate is feasible.

    Raises
    ------
    UserError
        For a rank above all that vLLM knows.
    """
    asked = _Asked(adapters, traffic, profile, service, runs, fleet)
    for row in feasible_rows(rows):
        placement = Placement.from_json(row.placement or "[]")
        numbered = list(enumerate(zip(placement.gpus, placement.routing_intervals(len(adapters)), strict=True)))
        found = in_threads(lambda item: asked.answer(item[0], *item[1]), numbered, threads)
        score = score_results([result for _, result in found], None if fleet is None else fleet.cost(placement))
        # What takes a reserve takes the load itself, but for the chance of single requests near the window's end.
        if score.feasible:
            gpus, claim = tuple(gpu for gpu, _ in found), standing_bound(rows)
            return Answer(gpus, score, row, tuple(rows), claim, reserve, service, fleet=fleet)
    return None


@dataclass(frozen=True)
class _Asked:
    """What the GPUs of a candidate are asked: whose requests, and what is to be kept."""

    adapters: Sequence[Adapter]
    traffic: Traffic
    profile: ServingProfile
    service: ServiceLevel
    runs: pd.DataFrame | None
    fleet: Fleet | None

    def _profile_of(self, plan: GpuPlan) -> ServingProfile:
        return self.profile if self.fleet is None else self.fleet.type_of(plan).profile

    def answer(self, number: int, plan: GpuPlan, intervals: NDArray[np.float64] | None) -> tuple[GpuAnswer, GpuResult]:
        """One GPU of a placement, counted from 0."""
        result = self._simulated(plan, intervals, shown=INTERACTIVE)

        def fails(factor: float) -> bool:
            return self._simulated(plan, intervals, factor).fails

        grown = 1.0 if result.fails else growth(fails)
        mine = [self.adapters[index] for index in plan.adapters]
        found = _gpu_answer(number, plan, mine, self._profile_of(plan), result, grown)
        if self.fleet is not None:
            kind = self.fleet.type_of(plan)
            found = replace(found, gpu_type=kind.name, price=kind.price)
        return replace(found, evidence=self._evidence(plan)), result

    def _evidence(self, plan: GpuPlan) -> Evidence:
        mine = [self.adapters[index] for index in plan.adapters]
        part = workload_of(mine, self.traffic, self.profile, ids=plan.adapters)
        alone = GpuPlan(tuple(range(len(mine))), plan.max_loras, plan.shares)
        return evidence_of([alone], part, self._profile_of(plan), self.runs)[0]

    def _simulated(
        self,
        plan: GpuPlan,
        intervals: NDArray[np.float64] | None,
        factor: float = 1.0,
        shown: ServiceLevel | None = None,
    ) -> GpuResult:
        mine = [self.adapters[index] for index in plan.adapters]
        part = workload_of(mine, self.traffic, self.profile, ids=plan.adapters, factor=factor)
        return simulate_gpu(
            part,
            tuple(range(len(mine))),
            self._profile_of(plan),
            plan.max_loras,
            intervals=intervals,
            max_cpu_loras=plan.max_cpu_loras,
            service=self.service,
            shown=shown,
        )


def growth(fails: Callable[[float], bool]) -> float:
    """By how much a load could grow, found by doubling the step and halving the interval.

    Parameters
    ----------
    fails : callable
        Whether the GPU fails its service level at a factor of its load; it does not at 1.

    Returns
    -------
    float
        A factor at which it does not fail, within 2 % of one at which it does; `MOST_GROWTH` if it does not up to there.
    """
    low, step = 1.0, _GROWTH_STEP
    while not fails(min(low + step, MOST_GROWTH)):
        low, step = min(low + step, MOST_GROWTH), 2 * step
        if low == MOST_GROWTH:
            return low
    high = min(low + step, MOST_GROWTH)
    while high - low > _GROWTH_STEP:
        middle = (low + high) / 2
        low, high = (low, middle) if fails(middle) else (middle, high)
    return low


def _gpu_answer(  # noqa: PLR0913  # one GPU from all sides
    number: int,
    plan: GpuPlan,
    mine: Sequence[Adapter],
    profile: ServingProfile,
    result: GpuResult,
    grown: float,
) -> GpuAnswer:
    shares = plan.shares or (1.0,) * len(mine)
    flags = ServerFlags.of(profile, [adapter.rank for adapter in mine], plan.max_loras, plan.max_cpu_loras)
    return GpuAnswer(
        gpu=number,
        adapters=tuple(mine),
        shares=plan.shares,
        max_loras=flags.max_loras,
        max_lora_rank=flags.max_lora_rank,
        max_cpu_loras=flags.max_cpu_loras,
        rate=float(sum(adapter.rate * share for adapter, share in zip(mine, shares, strict=True))),
        throughput=result.throughput,
        offered_throughput=result.offered_throughput,
        ttft_ms=_finite(result.ttft.mean_ms),
        ttft_p99_ms=_finite(result.ttft.p99_ms),
        itl_ms=_finite(result.itl.mean_ms),
        e2e_ms=_finite(result.e2e.mean_ms),
        kv_usage=result.mean_kv_tokens / result.kv_capacity_tokens if result.kv_capacity_tokens else 0.0,
        growth=grown,
        starved_adapters=tuple(mine[index].name for index in result.starved_adapters),
        failing_adapters=tuple(mine[index].name for index in result.failing_adapters),
        ttft_p95_ms=_finite(result.ttft.p95_ms),
        goodput=None if result.judgement is None else result.judgement.goodput,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
