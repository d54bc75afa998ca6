"""Wins, ties and losses of each pair of solvers, with a test that stands many comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bench.statistics.bootstrap import Estimate, geometric
from bench.statistics.paired import Paired

#: Level of the tests, over all pairs together: the customary one.
SIGNIFICANCE = 0.05

#: Up to so many instances that differ, all 2^n signs are tried, which takes 30 ms for 12 and doubles with each more; a normal
#: approximation is good enough for more.
_MOST_EXACT = 12


@dataclass(frozen=True)
class Pair:
    """One solver against another on the instances that both have rows of.

    Attributes
    ----------
    first, second : str
    wins, ties, losses : int
        Of the first: a feasible placement beats none, then the smaller cost wins.
    p_value, p_holm : float
        Two-sided Wilcoxon signed-rank test; the same after Holm's correction for the number of pairs.
    ratio : Estimate
        Geometric mean of the first's cost over the second's, where both are feasible.
    """

    first: str
    second: str
    wins: int
    ties: int
    losses: int
    p_value: float
    p_holm: float
    ratio: Estimate

    @property
    def significant(self) -> bool:
        """Whether the two differ at the level of `SIGNIFICANCE`, whatever the number of pairs."""
        return self.p_holm < SIGNIFICANCE


def pairs(paired: Paired, counts: NDArray[np.float64]) -> list[Pair]:
    """Every pair of solvers, in the order of the table.

    Parameters
    ----------
    paired : Paired
    counts : array of shape (samples, n_cases)
        From `bootstrap.resampled`.
    """
    found = []
    for one, other in combinations(range(len(paired.solvers)), 2):
        first, second = paired.cost[:, one], paired.cost[:, other]
        difference = differences(first, second)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = geometric(first / second, counts)
        found.append((one, other, difference, signed_rank(difference), ratio))
    corrected = holm([p_value for *_, p_value, _ in found])
    return [
        Pair(
            first=paired.solvers[one],
            second=paired.solvers[other],
            wins=int((difference < 0).sum()),
            ties=int((difference == 0).sum()),
            losses=int((difference > 0).sum()),
            p_value=p_value,
            p_holm=p_holm,
            ratio=ratio,
        )
        for (one, other, difference, p_value, ratio), p_holm in zip(found, corrected, strict=True)
    ]


def differences(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of first over second where both have rows, negative where the first is better.

    Feasibility goes first: against an infeasible placement a feasible one is better by more than any two feasible ones
    differ. Two infeasible ones are equal.
    """
    here = ~np.isnan(first) & ~np.isnan(second)
    first, second = first[here], second[here]
    both = np.isfinite(first) & np.isfinite(second)
    result = np.zeros(len(first))
    result[both] = np.log(first[both]) - np.log(second[both])
    # Equal costs can differ in the last bit of their logarithms.
    result[np.isclose(result, 0.0, atol=1e-12)] = 0.0
    most = np.abs(result).max(initial=0.0) + 1.0
    result[np.isfinite(first) & ~np.isfinite(second)] = -most
    result[~np.isfinite(first) & np.isfinite(second)] = most
    return result


def signed_rank(difference: NDArray[np.float64]) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test; ties between the solvers are ranked too (Pratt, 1959)."""
    # Half a second to import, which commands that compare nothing need not wait for.
    from scipy import stats

    different = int(np.count_nonzero(difference))
    if not different:
        return 1.0
    if different <= _MOST_EXACT:
        # `stats.wilcoxon` with a `PermutationMethod` does the same in 2 s instead of 30 ms for 12 differences, and flips the
        # signs of equal candidates as well, which make no difference: forty of them would leave it to chance.
        signed = (stats.rankdata(np.abs(difference)) * np.sign(difference))[difference != 0]
        if different == 1:
            return 1.0  # either sign is as extreme; SciPy's test asks for two observations
        tried = stats.permutation_test((signed,), np.sum, permutation_type="samples", n_resamples=2**_MOST_EXACT)
        return float(tried.pvalue)
    return float(stats.wilcoxon(difference, zero_method="pratt", method="asymptotic").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down method (Scandinavian Journal of Statistics 6, 1979)."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(order))
    largest = 0.0
    for place, number in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p_values[number]))
        corrected[number] = largest
    return corrected.tolist()
