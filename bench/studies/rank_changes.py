"""How much the order of solvers changes between the profile itself and its moved versions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from twin import PUBLISHED


@dataclass(frozen=True)
class SolverStability:
    """One solver under moved profiles.

    Attributes
    ----------
    solver : str
    instances : int
    verdicts_kept : float
        Share of (instance, moved profile) with the verdict (feasible or not) of the profile itself.
    feasible, feasible_moved : float
        Share of feasible placements under the profile itself; under the moved ones.
    cost, ratio : float
        What the placements cost (GPUs, or a latency), and the same over the least of any solver: means over the instances where the
        placement is feasible under the profile itself; NaN if there is none.
    mean_rank, lowest_rank, highest_rank : float
        Over the instances, under the profile itself; the least and the largest under a moved one.
    """

    solver: str
    instances: int
    verdicts_kept: float
    feasible: float
    feasible_moved: float
    cost: float
    ratio: float
    mean_rank: float
    lowest_rank: float
    highest_rank: float


@dataclass(frozen=True)
class RankChanges:
    """All solvers under moved profiles.

    Attributes
    ----------
    solvers : tuple of SolverStability
        The best mean rank first.
    samples : int
        Moved profiles.
    instances : int
    orders_changed : float
        Share of (instance, pair of solvers, moved profile) whose order is another than under the profile itself; a tie
        that breaks is a change.
    orders_reversed : float
        The same, where the one that was better becomes the worse.
    tau : float
        Kendall's rank correlation of the mean ranks with those under the profile itself, the least over the moved profiles.
    best_kept : float
        Share of the moved profiles under which a solver that was best by mean rank is best.
    """

    solvers: tuple[SolverStability, ...]
    samples: int
    instances: int
    orders_changed: float
    orders_reversed: float
    tau: float
    best_kept: float

    def in_words(self) -> list[str]:
        """The outcome in sentences."""
        first = self.solvers[0]
        return [
            (
                f"Over {self.instances} instances and {self.samples} moved profiles, {self.orders_changed:.1%} of the orders of two "
                f"solvers change; {self.orders_reversed:.1%} are reversed, the rest are ties that break or come about."
            ),
            (
                f"The best mean rank ({first.solver}) stays the best under {self.best_kept:.0%} of the moved profiles; the rank "
                f"correlation with the ranking of the profile itself is {self.tau:.2f} or more."
            ),
        ]


def changes_by_track(table: pd.DataFrame) -> dict[str, RankChanges]:
    """What changes for each objective under each service level, among which solvers are not compared.

    Parameters
    ----------
    table : DataFrame
        As for `rank_changes`, with a column objective, and service; scores of old releases without it are of the published rule.

    Returns
    -------
    dict
        By the objective's name, followed by the service level's where there are several levels.
    """
    service = table["service"].fillna(PUBLISHED.name) if "service" in table else PUBLISHED.name
    table = table.assign(service=service)
    groups = list(table.groupby(["objective", "service"], sort=False))
    several = len({service for (_, service), _ in groups}) > 1
    return {
        f"{objective}, {service}" if several else str(objective): rank_changes(group)
        for (objective, service), group in groups
    }


def rank_changes(table: pd.DataFrame) -> RankChanges:
    """Compare the orders under each moved profile with those under the profile itself.

    Parameters
    ----------
    table : DataFrame
        Columns instance, solver, sample (0 is the profile itself), feasible, cost: infeasible placements rank behind all others.
    """
    scored = table.assign(key=np.where(table.feasible, table.cost, np.inf))
    wide = scored.pivot_table(index=["instance", "sample"], columns="solver", values="key", dropna=False)
    instances, solvers = wide.index.unique("instance"), list(wide.columns)
    samples = int(scored["sample"].max())
    # Shape (n_instances, 1 + samples, n_solvers); NaN where a solver has no placement.
    full = pd.MultiIndex.from_product([instances, range(samples + 1)], names=["instance", "sample"])
    keys = wide.reindex(full).to_numpy(dtype=float).reshape(len(instances), samples + 1, len(solvers))
    changed, reversed_ = _order_changes(keys)
    ranks = stats.rankdata(np.where(np.isnan(keys), np.inf, keys), axis=2)
    ranks = np.where(np.isnan(keys), np.nan, ranks)
    means = np.nanmean(ranks, axis=0)
    best = np.flatnonzero(np.isclose(means[0], means[0].min()))
    kept = [bool(np.isclose(line[best], line.min()).any()) for line in means[1:]]
    taus = [_tau(means[0], line) for line in means[1:]]
    feasible = np.where(np.isnan(keys), np.nan, np.isfinite(keys))
    itself = np.where(np.isfinite(keys[:, 0]), keys[:, 0], np.nan)
    ratios = itself / np.fmin.reduce(itself, axis=1, keepdims=True)
    found = [
        SolverStability(
            solver=str(solver),
            instances=int((~np.isnan(keys[:, 0, place])).sum()),
            verdicts_kept=float(_share(feasible[:, 1:, place], feasible[:, :1, place])),
            feasible=float(np.nanmean(feasible[:, 0, place])),
            feasible_moved=float(np.nanmean(feasible[:, 1:, place])),
            cost=_mean(itself[:, place]),
            ratio=_mean(ratios[:, place]),
            mean_rank=float(means[0, place]),
            lowest_rank=float(means[1:, place].min()),
            highest_rank=float(means[1:, place].max()),
        )
        for place, solver in enumerate(solvers)
    ]
    return RankChanges(
        solvers=tuple(sorted(found, key=lambda line: line.mean_rank)),
        samples=samples,
        instances=len(instances),
        orders_changed=changed,
        orders_reversed=reversed_,
        tau=min(taus),
        best_kept=float(np.mean(kept)),
    )


def _order_changes(keys: NDArray[np.float64]) -> tuple[float, float]:
    """Shares of changed and of reversed orders over all instances, pairs and moved profiles."""
    first, second = np.triu_indices(keys.shape[2], k=1)
    one, other = keys[:, :, first], keys[:, :, second]
    order = (one > other).astype(float) - (one < other)
    order[np.isnan(one) | np.isnan(other)] = np.nan
    before, after = order[:, :1], order[:, 1:]
    known = ~np.isnan(before + after)
    if not known.any():
        return 0.0, 0.0
    return float(((before != after) & known).sum() / known.sum()), float(((before * after) == -1).sum() / known.sum())


def _share(after: NDArray[np.float64], before: NDArray[np.float64]) -> float:
    known = ~np.isnan(after + before)
    return float(((after == before) & known).sum() / max(known.sum(), 1))


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _tau(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """Kendall's tau-b; 1 where all solvers are equal both times."""
    tau = float(stats.kendalltau(before, after).statistic)
    return 1.0 if np.isnan(tau) and np.allclose(after, after[0]) else tau
