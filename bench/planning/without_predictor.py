"""Which solvers plan for a profile that no predictor was trained for, and how."""

from __future__ import annotations

from typing import Any

from bench.comparison.build import maker_of
from predictors import shipped_predictors
from twin import UserError


def asking_the_twin(solvers: dict[str, Any], profile: str) -> tuple[dict[str, Any], list[str]]:
    """The solvers that can do without a predictor, asking the twin where they have the choice, and a line for what is not as asked.

    Parameters
    ----------
    solvers : dict
        Options of each, by its name.
    profile : str
        Name of the serving profile.

    Raises
    ------
    UserError
        If none can.
    """
    if profile in shipped_predictors():
        return solvers, []
    kept, instead, left_out = {}, [], []
    for name, options in solvers.items():
        if not maker_of(name, options)().tags.needs_predictor:
            kept[name] = options
            continue
        try:
            other = {**options, "oracle": "twin"}
            if maker_of(name, other)().tags.needs_predictor:
                left_out.append(name)
                continue
        except UserError:
            left_out.append(name)
            continue
        kept[name] = other
        instead.append(name)
    if not kept:
        raise UserError(
            f"profile={profile}: no predictor was trained for it, which solver {', '.join(left_out)} cannot do without; exact and "
            f"max_pack ask the twin, or train one: python -m bench.train profile={profile} out=FILE.npz"
        )
    notes = []
    if instead:
        notes.append(f"{' and '.join(instead)}: asked the twin, as no predictor was trained for profile {profile}")
    if left_out:
        notes.append(f"{' and '.join(left_out)}: left out, as no predictor was trained for profile {profile}")
    return kept, notes
