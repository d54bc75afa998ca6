"""Workloads with drawn popularity: what the instances of the suite need beside `twin.builders`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from twin import Lengths, ServingProfile, UserError, Workload
from twin.arrivals import Arrivals
from twin.builders import groups

# Streams of adapters count up from 0, those of `twin.builders` down from 2**63 - 2.
_POPULARITY_STREAM = 2**63 - 9


def dirichlet(  # noqa: PLR0913  # the options of one description, all by keyword
    profile: ServingProfile,
    *,
    n_adapters: int,
    total_rate: float,
    concentration: float,
    ranks: Sequence[int],
    duration_s: float,
    lengths: Lengths | None = None,
    arrivals: Arrivals | None = None,
    ignore_eos: bool = False,
    seed: int = 0,
    name: str = "dirichlet",
) -> Workload:
    """Adapters whose shares of the requests come from a symmetric Dirichlet distribution, as in arXiv 2602.24044 v2.

    Parameters
    ----------
    profile : ServingProfile
    n_adapters : int
    total_rate : float
        Requests per second of all adapters together.
    concentration : float
        0.5 in the paper; the smaller, the fewer adapters get most of the requests.
    ranks : sequence of int
        LoRA ranks, given in turn.
    duration_s : float
        Window in seconds.
    lengths : Lengths, optional
    arrivals : Arrivals, optional
        A Poisson process by default.
    ignore_eos : bool
        Every request gets all the output tokens that it asks for; otherwise the model stops as early as the profile says.
    seed : int
        Of the popularity and of the requests.
    name : str

    Returns
    -------
    Workload

    Raises
    ------
    UserError
        For a value out of range, or a rank that the profile does not know.
    """
    if n_adapters < 1:
        raise UserError(f"workload {name}: n_adapters={n_adapters} must be 1 or more")
    if not concentration > 0:
        raise UserError(f"workload {name}: concentration={concentration} must be above 0")
    if not ranks:
        raise UserError(f"workload {name}: ranks=[] must name at least one rank")
    draws = np.random.Generator(np.random.Philox(key=[seed, _POPULARITY_STREAM]))
    rates = total_rate * draws.dirichlet(np.full(n_adapters, concentration))
    return groups(
        profile,
        groups=[
            {"count": 1, "rank": ranks[index % len(ranks)], "rate": float(rate)} for index, rate in enumerate(rates)
        ],
        duration_s=duration_s,
        lengths=lengths,
        arrivals=arrivals,
        ignore_eos=ignore_eos,
        seed=seed,
        name=name,
    )
