"""An estimated profile, scaled to what one server of one's own was measured to do; and one of a server with specialised LoRA kernels."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.estimating.estimate import ONE_POINT_ERROR_PCT, transfer_uncertainty
from bench.measured.profile_from_campaign import capacity_of, load_times, read_points
from bench.measured.profile_from_campaign import windows_of as windows_of_point
from bench.measured.profile_from_scrapes import read_scrape, scaled_capacity
from twin import ServingProfile, UserError
from twin.calibration.telemetry import windows_of
from twin.moved import resized
from twin.profile import STEP_TERMS

Floats = NDArray[np.float64]

#: Of a scrape all windows are one point; shorter ones than this say little. In seconds, by hand.
_WINDOW_S = 60.0
#: A factor beyond this is no error of an estimate: another model or GPU was measured. By hand.
_MOST = 4.0
#: vLLM takes the number of active adapters rounded up to a power of two: half as many again in the mean.
_ROUNDED_UP = 1.5
#: Terms that count slots, and those that count active adapters in their place.
_OF_ACTIVE = {
    "max_loras": "adapters", "max_loras_x_rank": "adapters_x_rank", "tokens_x_max_loras": "tokens_x_adapters",
}  # fmt: skip


@dataclass(frozen=True)
class Anchor:
    """What a measured server says of an estimate.

    Attributes
    ----------
    steps : float
        Measured over estimated step time, median over the windows.
    scatter_pct : float
        Mean absolute error in per cent that is left after scaling.
    kv_cache : float
        Measured over estimated KV cache.
    windows : int
    """

    steps: float
    scatter_pct: float
    kv_cache: float
    windows: int


def anchored(profile: ServingProfile, path: str, flags: dict[str, int | None]) -> tuple[ServingProfile, Anchor]:
    """The profile with step times and KV cache scaled to a measured server.

    Parameters
    ----------
    profile : ServingProfile
        An estimated one.
    path : str
        A scrape as `python -m bench.collect` saves it, or the folder of `python -m bench.campaign`.
    flags : dict
        Those of the scraped server, where the file does not have them.

    Raises
    ------
    UserError
        Naming what is wrong in the file, or a server that cannot be the one that was estimated.
    """
    anchor = _of_campaign(profile, Path(path)) if Path(path).is_dir() else _of_scrape(profile, path, flags)
    for what, factor in (("steps", anchor.steps), ("KV cache", anchor.kv_cache)):
        if not 1 / _MOST <= factor <= _MOST:
            raise UserError(
                f"anchor={path}: its {what} are {factor:.2g} times those of {profile.name}; a server of this model and GPU would be right"
            )
    scaled = replace(
        profile,
        step_ms=tuple(float(f"{value * anchor.steps:.6g}") for value in profile.step_ms),
        kv=resized(profile, anchor.kv_cache),
        uncertainty=transfer_uncertainty(
            max(ONE_POINT_ERROR_PCT, anchor.scatter_pct),
            "step times of a measured model, estimated from the other one and scaled to one run",
            kv_pct=0.0,
        ),
        provenance={
            **profile.provenance,
            "step_time_error_pct_estimated": round(max(ONE_POINT_ERROR_PCT, anchor.scatter_pct), 2),
            "anchor": {
                "source": "a measured server", "steps": round(anchor.steps, 4), "kv_cache": round(anchor.kv_cache, 4),
                "windows": anchor.windows, "scatter_pct": round(anchor.scatter_pct, 2),
            },
        },
    )  # fmt: skip
    return scaled, anchor


def _anchor(profile: ServingProfile, terms: Floats, step_ms: Floats, other_ms: Floats, kv_cache: float) -> Anchor:
    ratios = (step_ms - other_ms) / (terms @ np.array(profile.step_ms))
    factor = float(np.median(ratios))
    scatter = float(np.abs(ratios / factor - 1).mean() * 100)
    return Anchor(factor, scatter, kv_cache, len(ratios))


def _of_scrape(profile: ServingProfile, path: str, flags: dict[str, int | None]) -> Anchor:
    scrape = read_scrape(path, flags)
    span_s = float(scrape.time_s[-1] - scrape.time_s[0])
    windows = windows_of(scrape, profile, min(_WINDOW_S, 0.99 * span_s))
    return _anchor(profile, windows.terms, windows.step_ms, windows.other_ms, scaled_capacity([scrape], profile)[1])


def _of_campaign(profile: ServingProfile, root: Path) -> Anchor:
    points = read_points(root)
    try:
        servers = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(root.glob("*/server.json"))]
    except (OSError, ValueError) as error:
        raise UserError(f"anchor={root}: {error}") from None
    counted = [point for _, point in points if point.about["concurrency"] > 1]
    if not counted or not servers:
        raise UserError(f"anchor={root}: no load point of python -m bench.campaign is finished in it")
    capacity = capacity_of(servers)
    load_ms, _ = load_times(points, capacity.max_lora_rank)
    windows = [windows_of_point(point, number, load_ms) for number, point in enumerate(counted)]
    ratios = [
        tokens / estimated
        for rank, row in zip(capacity.max_lora_rank, capacity.tokens, strict=True)
        for slots, tokens in zip(capacity.max_loras, row, strict=True)
        if tokens and (estimated := profile.kv.lookup(slots, profile.server_rank(rank)))
    ]
    terms, step_ms, other_ms = (
        np.concatenate([getattr(one, key) for one in windows]) for key in ("terms", "step_ms", "other_ms")
    )
    return _anchor(profile, terms, step_ms, other_ms, float(np.median(ratios)) if ratios else 1.0)


def with_specialised_kernels(profile: ServingProfile) -> ServingProfile:
    """The profile of the same server with `--specialize-active-lora`: active adapters cost time, empty slots none.

    vLLM then captures CUDA graphs for 1, 2, 4, ... active adapters. What they take of memory is not known, and not taken off.

    Raises
    ------
    UserError
        If its terms do not tell.
    """
    steps = dict(zip(STEP_TERMS, profile.step_ms, strict=True))
    if steps["tokens_x_max_loras_x_rank"]:
        raise UserError(
            f"specialize_active_lora=true: profile {profile.name} has the term tokens_x_max_loras_x_rank, which has no such form"
        )
    for slots, active in _OF_ACTIVE.items():
        steps[active] = float(f"{steps[active] + _ROUNDED_UP * steps[slots]:.6g}")
        steps[slots] = 0.0
    return replace(
        profile, step_ms=tuple(steps.values()), provenance={**profile.provenance, "specialize_active_lora": True}
    )
