"""The benchmark tier: a diverse part of the collection, chosen without looking at any result."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.shared.terminal import tracked
from bench.suites.generate import NOMINAL_TOKENS_PER_S
from bench.suites.instance import Instance
from solvers.oracles.twin import TwinOracle
from twin import Workload, load_profile

#: In the tier whatever their features: the paper's scenarios as `conf/workload` has them.
ALWAYS = ("paper_1gpu", "paper_4gpus")

#: How many of each class, by hand. Small ones can be proven, heavy ones take most of the time.
QUOTAS = {"small": 14, "medium": 14, "large": 10, "heavy": 2}

#: Most adapters of a small and of a medium instance; nominal GPUs above which an instance is heavy. By hand.
SMALL, MEDIUM, HEAVY = 64, 400, 15.0

# How bursty arrivals are, in steps: features are compared with each other in such units.
_BURSTS = {"poisson": 0.0, "gamma": 1.0, "unpredictable": 2.0}


def size_class(workload: Workload) -> str:
    """The class of an instance, of which `QUOTAS` says how many are wanted."""
    if _nominal_gpus(workload) > HEAVY:
        return "heavy"
    if workload.n_adapters <= SMALL:
        return "small"
    return "medium" if workload.n_adapters <= MEDIUM else "large"


def features(instance: Instance, workload: Workload) -> NDArray[np.float64]:
    """What instances are told apart by, shape (n_features,): size, load, types, ranks, rates, lengths, bursts, window."""
    rates, ranks = workload.rates, workload.ranks.astype(np.float64)
    types = len(np.unique(np.stack([ranks, rates]), axis=1).T)
    lengths = workload.lengths
    together = float(np.corrcoef(ranks, rates)[0, 1]) if ranks.std() and rates.std() else 0.0
    return np.array(
        [
            np.log2(workload.n_adapters),
            np.log2(_nominal_gpus(workload)),
            np.log2(types),
            np.log2(ranks.mean()),
            ranks.std() / ranks.mean(),
            np.log1p(rates.std() / rates.mean()),
            together,
            np.log2(lengths.mean_total_tokens),
            lengths.output.mean_tokens / lengths.mean_total_tokens,
            _BURSTS[instance.arrivals["process"]] * np.log2(instance.arrivals.get("cv", 2.0)),
            float(workload.duration_s > 600),
        ]
    )


def _nominal_gpus(workload: Workload) -> float:
    return workload.total_rate * workload.lengths.mean_total_tokens / NOMINAL_TOKENS_PER_S


def farthest_points(
    points: NDArray[np.float64],
    classes: Sequence[str],
    quotas: dict[str, int],
    start: Sequence[int],
) -> list[int]:
    """Greedy choice of points that are far from each other (Gonzalez, 1985), with so many of each class.

    Parameters
    ----------
    points : array of shape (n, n_features)
        Scaled to unit deviation here.
    classes : sequence of str, shape (n,)
    quotas : dict of str to int
    start : sequence of int
        Chosen before all others.

    Returns
    -------
    list of int
        In the order of choice; of two as far from all chosen, the first.
    """
    deviation = points.std(axis=0)
    scaled = (points - points.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    left = dict(quotas)
    chosen: list[int] = []
    nearest = np.full(len(points), np.inf)

    def choose(index: int) -> None:
        chosen.append(index)
        left[classes[index]] = left.get(classes[index], 0) - 1
        np.minimum(nearest, np.linalg.norm(scaled - scaled[index], axis=1), out=nearest)

    for index in start:
        choose(index)
    while True:
        open_to = np.array([left.get(name, 0) > 0 for name in classes])
        open_to[chosen] = False
        if not open_to.any():
            return chosen
        # Rounded, so that the last bit of another machine's arithmetic decides nothing.
        choose(int(np.argmax(np.where(open_to, np.round(nearest, 6), -np.inf))))


def select(instances: Sequence[Instance]) -> list[str]:
    """Ids of the benchmark tier of a collection.

    The candidates are the instances that one GPU does not serve, whatever its `max_loras`: the twin is asked. On the
    others all solvers that can count to one would tie. Nor are those with an adapter that no GPU holds (tag "hot"), on which all
    solvers would tie that give each adapter one GPU.
    """
    instances = [i for i in tracked(instances, "choosing") if _is_candidate(i)]
    workloads = [instance.workload() for instance in instances]
    points = np.array([features(i, w) for i, w in zip(instances, workloads, strict=True)])
    profiles = sorted({instance.profile for instance in instances})
    points = np.column_stack([points, [profiles.index(instance.profile) for instance in instances]])
    start = [number for number, instance in enumerate(instances) if instance.id in ALWAYS]
    chosen = farthest_points(points, [size_class(workload) for workload in workloads], QUOTAS, start)
    return sorted(instances[number].id for number in chosen)


def _is_candidate(instance: Instance) -> bool:
    if instance.id in ALWAYS:
        return True
    if "hot" in instance.tags:
        return False
    profile = load_profile(instance.profile)
    workload = instance.workload(profile)
    return TwinOracle(workload, profile).find_max_loras(tuple(range(workload.n_adapters))) is None
