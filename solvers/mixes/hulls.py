"""Mixes that are too little, and the cheapest one that may be enough: a small whole-number programme.

Prices of adapters and the price of the dearest content of each type rule mixes out: GPUs that hold all adapters hold the sum of their
prices, and each holds what the dearest content of its type costs at most. For one type this is Farley's bound; with several, each set of
prices is one inequality in the numbers of GPUs, whatever it was found for, and all of them hold together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ortools.sat.python import cp_model

from solvers.contents.patterns import cp_solver
from twin import Fleet

#: Inequalities are solved with whole numbers that are multiples of this share; rounded so that no mix is ruled out by it.
SCALE = 10**9
#: Largest whole prices that are used as they are; others are rounded down to shares of the dearest.
_LARGEST = 10**9
#: What rounding of sums may be.
ROUNDING = 1e-9
#: The programme has one variable for each type; it is solved in milliseconds.
_TIME_S, _WORKERS = 5.0, 1


@dataclass(frozen=True)
class Needed:
    """One inequality that every mix which holds all adapters keeps: sum(share * GPUs of the type) >= 1.

    Attributes
    ----------
    shares : tuple of float
        For each type the most that one GPU holds of what all adapters are worth.
    """

    shares: tuple[float, ...]

    def keeps(self, mix: Sequence[int]) -> bool:
        """Whether a mix keeps it, up to rounding."""
        return math.fsum(share * number for share, number in zip(self.shares, mix, strict=True)) >= 1 - ROUNDING


@dataclass(frozen=True)
class CheapestMix:
    """The cheapest mix that keeps all inequalities.

    Attributes
    ----------
    cost : float
        No mix that keeps them costs less.
    mix : tuple of int
    """

    cost: float
    mix: tuple[int, ...]


def cheapest_mix(
    fleet: Fleet, needed: Sequence[Needed], *, max_gpus: int | None, most: int, each_gpu: bool = False
) -> CheapestMix | None:
    """The cheapest mix that keeps all inequalities; None where there is none.

    Parameters
    ----------
    fleet : Fleet
    needed : sequence of Needed
    max_gpus : int, optional
        GPUs of all types together.
    most : int
        GPUs of a type without a count: large enough to be no limit.
    each_gpu : bool
        Count GPUs, in place of their prices.

    Raises
    ------
    ArithmeticError
        When the programme is not solved in time, which none has been seen to need.
    """
    model = cp_model.CpModel()
    numbers = [model.new_int_var(0, most if kind.count is None else kind.count, kind.name) for kind in fleet.types]
    for each in needed:
        shares = [math.ceil((share + ROUNDING / 10) * SCALE) for share in each.shares]
        model.add(cp_model.LinearExpr.weighted_sum(numbers, shares) >= SCALE)
    model.add(cp_model.LinearExpr.sum(numbers) >= 1)
    if max_gpus is not None:
        model.add(cp_model.LinearExpr.sum(numbers) <= max_gpus)
    prices, unit = _whole_prices([1.0 if each_gpu else kind.price for kind in fleet.types])
    model.minimize(cp_model.LinearExpr.weighted_sum(numbers, prices))
    solver = cp_solver(_TIME_S, _WORKERS)
    status = solver.solve(model)
    if status == cp_model.INFEASIBLE:
        return None
    if status != cp_model.OPTIMAL:
        raise ArithmeticError("the cheapest mix was not found in time")
    mix = tuple(solver.value(number) for number in numbers)
    return CheapestMix(round(solver.objective_value) * unit, mix)


def _whole_prices(prices: Sequence[float]) -> tuple[list[int], float]:
    """Prices as whole numbers of a unit, exactly where their decimals allow it, otherwise rounded down."""
    exact = [Fraction(repr(float(price))) for price in prices]
    parts = math.lcm(*(price.denominator for price in exact))
    whole = [int(price * parts) for price in exact]
    if max(whole) <= _LARGEST:
        return whole, 1 / parts
    unit = max(prices) / _LARGEST
    return [math.floor(price / unit) for price in prices], unit
