"""`python -m bench.calibrate campaign=DIR`: a serving profile from the points of `python -m bench.campaign`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from bench.vllm.measurement import Measurement, load_measurement, open_requests
from twin import ServingProfile, UserError
from twin.calibration import kv_capacity_from_rows, load_times_from_rows, step_term_values
from twin.calibration.counted import CountedFit, CountedWindows, fit_counted_steps, slot_loads
from twin.calibration.step_time import Floats
from twin.inputs import read_json
from twin.moved import measured_uncertainty
from twin.numbers import whole
from twin.profile import STEP_TERMS, KvCapacity, Uncertainty

#: A point's first seconds, in which its requests come together, and the length of the windows that the rest is cut into.
#: By hand: a point of 15 s (`conf/campaign.yaml`) gives three windows and half of one.
SKIPPED_S = 1.5
WINDOW_S = 3.5
#: Points that time one load each, by name, and at how many requests they are: too few to count steps of.
HIT, MISS = "hit", "miss"
# Steps of time in which a server is busy or idle. By hand: a few engine steps.
_GRID_S = 0.05


def profile_from_campaign(folder: str, name: str | None, console: Console) -> ServingProfile:
    """Fit a profile to a campaign and print what it is made of.

    Raises
    ------
    UserError
        If the folder holds no campaign, or too few points.
    """
    root = Path(folder)
    if not (root / "campaign.json").is_file():
        raise UserError(f"campaign={folder}: no campaign.json in it; `python -m bench.campaign out={folder}` makes one")
    try:
        return _fitted(root, name, console)
    except UserError as error:
        if folder in str(error):
            raise
        raise UserError(f"campaign={folder}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(
            f"campaign={folder}: not what python -m bench.campaign of this version wrote ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]})"
        ) from None


def _fitted(root: Path, name: str | None, console: Console) -> ServingProfile:
    about = _object(root / "campaign.json")
    servers = [_object(path) for path in sorted(root.glob("*/server.json"))]
    points = read_points(root)
    capacity = capacity_of(servers)
    load_ms, disk_ms = load_times(points, capacity.max_lora_rank)
    counted = [(path, point) for path, point in points if point.about["concurrency"] > 1]
    if not counted:
        raise UserError(f"campaign={root}: no load point is finished")
    joined = _joined([windows_of(point, number, load_ms) for number, (_, point) in enumerate(counted)])
    fit = fit_counted_steps(joined)
    console.print(_points_table(counted, joined, fit))
    console.print(
        f"mean absolute step-time error over {len(joined.step_ms)} windows of {len(counted)} points: "
        f"{fit.error_pct:.1f} %; on points left out of the fit, each in turn: {fit.left_out_error_pct:.1f} %"
    )
    loads, disk = load_times_from_rows(load_ms, disk_ms)
    full_name = name or f"{about['model'].rsplit('/', 1)[-1].lower()}/{about['gpu']}"
    profile = ServingProfile(
        name=full_name,
        model=about["model"],
        gpu=about["gpu"],
        engine=about["engine"]["name"],
        engine_version=str(about["vllm"]),
        kv=capacity,
        step_ms=fit.step_ms,
        # The engine's own time between two steps is part of the steps that were counted.
        scheduler_ms=(0.0, 0.0, 0.0, 0.0),
        load_ms=loads,
        disk_load_ms=disk,
        max_num_seqs=int(about["max_num_seqs"]),
        max_num_batched_tokens=int(about["max_num_batched_tokens"]),
        max_model_len=int(about["max_model_len"]),
        block_size=int(about["block_size"]),
        min_step_ms=round(max(0.1, 0.5 * min(fit.step_ms[0], float(joined.step_ms.min()))), 3),
        reserve_full_prompt=bool(about["reserve_full_prompt"]),
        async_scheduling=bool(about["async_scheduling"]),
        generated_fraction=1.0,
    )
    overhead_ms = request_overhead_ms(points, profile)
    console.print(
        f"request overhead {overhead_ms:.1f} ms; adapter loads {_pairs(load_ms)} ms, from disk {_pairs(disk_ms)} ms"
    )
    return replace(
        profile,
        request_overhead_ms=round(overhead_ms, 2),
        uncertainty=_left_open(joined, fit, len(counted)),
        provenance={
            **_source(about, full_name),
            "points": len(counted),
            "windows": len(joined.step_ms),
            "step_time_error_pct_fitted": round(fit.error_pct, 2),
            "step_time_error_pct_left_out": round(fit.left_out_error_pct, 2),
            "seed": about["seed"],
        },
    )


def _left_open(joined: CountedWindows, fit: CountedFit, points: int) -> Uncertainty:
    source = f"step times of {points} load points, each left out of a fit in turn"
    return measured_uncertainty(joined.terms, fit.step_ms, fit.left_out_error_pct, source)


def _joined(windows: Sequence[CountedWindows]) -> CountedWindows:
    """The windows of all points as one."""
    return CountedWindows(
        np.vstack([w.terms for w in windows]),
        np.concatenate([w.step_ms for w in windows]),
        np.concatenate([w.other_ms for w in windows]),
        np.concatenate([w.point for w in windows]),
    )


def _source(about: dict[str, Any], name: str) -> dict[str, Any]:
    """What the provenance of a profile says of its campaign."""
    return {
        "source": "load points on a real server, steps counted by its own metrics",
        "command": f"python -m bench.calibrate campaign=DIR name={name}",
        "engine": about["engine"],
        "versions": {key: about[key] for key in ("vllm", "torch", "transformers", "python")},
        "hardware": about["hardware"],
    }


def _object(path: Path) -> dict[str, Any]:
    """A JSON object of the campaign, whose numbers are finite."""
    what = "what python -m bench.campaign wrote"
    data = read_json(path, what)
    if not isinstance(data, dict):
        raise UserError(f"{path}: a JSON object is needed; it must be {what}")
    for key in ("max_loras", "max_lora_rank", "max_num_seqs", "max_num_batched_tokens", "max_model_len", "block_size"):
        if key in data:
            whole(f"{path}: {key}", data[key], at_least=1, at_most=10**8)
    if "kv_cache_tokens" in data:
        whole(f"{path}: kv_cache_tokens", data["kv_cache_tokens"], at_least=0, at_most=10**10)
    return data


def read_points(root: Path) -> list[tuple[str, Measurement]]:
    """Finished points of a campaign, by server and name."""
    found = []
    for path in sorted(root.glob("*/*.json")):
        point = None
        if path.name != "server.json":
            _object(path)
            point = _point(path)
        if point is not None:
            found.append((f"{path.parent.name}/{path.stem}", point))
    return found


def _point(path: Path) -> Measurement | None:
    import pyarrow as pa

    try:
        return load_measurement(path.parent, path.stem)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise UserError(
            f"{path}: its tables beside it, {path.stem}.requests.parquet and {path.stem}.metrics.parquet, cannot be read "
            f"({' '.join(str(error).split())[:200]})"
        ) from None


def capacity_of(servers: list[dict[str, Any]]) -> KvCapacity:
    """KV capacity over all pairs of flags of the servers.

    A pair that was not measured has at least what a server with more slots and a larger rank has.
    """
    measured = {(s["max_loras"], s["max_lora_rank"]): int(s["kv_cache_tokens"]) for s in servers}
    if not measured:
        raise UserError("no server of the campaign was started")
    rows = dict(measured)
    for slots in {slots for slots, _ in measured}:
        for rank in {rank for _, rank in measured}:
            above = [tokens for (s, r), tokens in measured.items() if s >= slots and r >= rank and tokens > 0]
            if (slots, rank) not in measured and above:
                rows[slots, rank] = max(above)
    return kv_capacity_from_rows(
        ((slots, rank, tokens) for (slots, rank), tokens in sorted(rows.items())), max(measured.values())
    )


def load_times(
    points: list[tuple[str, Measurement]], ranks: tuple[int, ...]
) -> tuple[dict[tuple[int, int], float], dict[int, float]]:
    """Load times from host and from disk, in ms.

    One request at a time goes to the same adapter, or to all adapters in turn: the difference of the times to first token is
    what a load takes. Where the host has fewer slots than there are adapters, it is a load from disk.

    Returns
    -------
    load_ms, disk_load_ms
        By (max_lora_rank, rank) and by rank. Ranks that were not timed are interpolated; an adapter of a smaller rank
        than its server's takes as long as the server's, because the whole slot is written.
    """
    hit: dict[tuple[int, bool], float] = {}
    miss: dict[tuple[int, bool], float] = {}
    for _, point in points:
        target = {HIT: hit, MISS: miss}.get(point.about["point"])
        flags = point.about["flags"]
        answers = point.answers[np.isfinite(point.answers.finish_s)]
        if target is None or answers.empty:
            continue
        from_disk = flags["max_cpu_loras"] < answers.adapter.nunique()
        if point.about["point"] == HIT:
            from_disk = False
        time_ms = float((answers.first_token_s - answers.sent_s).median() * 1000)
        target.setdefault((int(flags["max_lora_rank"]), from_disk), time_ms)
    host = {
        rank: max(0.0, time - hit[rank, False])
        for (rank, disk), time in miss.items()
        if not disk and (rank, False) in hit
    }
    disk_ms = {
        rank: max(0.0, time - miss[rank, False])
        for (rank, disk), time in miss.items()
        if disk and (rank, False) in miss
    }
    host_of, disk_of = _over_ranks(host, ranks), _over_ranks(disk_ms, ranks)
    return {(server, own): host_of[server] for server in ranks for own in ranks if own <= server}, disk_of


def _over_ranks(known: dict[int, float], ranks: tuple[int, ...]) -> dict[int, float]:
    if not known:
        return dict.fromkeys(ranks, 0.0)
    at = sorted(known)
    return {rank: float(np.interp(rank, at, [known[r] for r in at])) for rank in ranks}


def windows_of(point: Measurement, number: int, load_ms: dict[tuple[int, int], float]) -> CountedWindows:
    """Mean steps of the windows of a point."""
    table = point.metrics.dropna(subset=["steps", "step_tokens", "generation_tokens", "running"])
    table = table[table.time_s >= SKIPPED_S]
    flags, answers = point.about["flags"], point.answers
    max_loras, rank = int(flags["max_loras"]), int(flags["max_lora_rank"])
    ran = answers[np.isfinite(answers.first_token_s)]
    label = pd.factorize(ran.adapter)[0]
    begin = ran.first_token_s.to_numpy()
    end = ran.finish_s.fillna(np.inf).to_numpy()
    loads_s = slot_loads(begin, end, label, max_loras)
    grid = np.arange(0.0, float(table.time_s.max()) + _GRID_S, _GRID_S) if len(table) else np.empty(0)
    # Windows count only while requests are open: a server without any makes no steps.
    running, waiting = open_requests(answers, grid)
    busy = np.concatenate([[0.0], np.cumsum((running + waiting > 0) * _GRID_S)])
    distinct = _distinct(begin, end, label, grid)
    rows = []
    at = 0
    for last in range(1, len(table)):
        first_row, last_row = table.iloc[at], table.iloc[last]
        if last_row.time_s - first_row.time_s < WINDOW_S:
            continue
        low, high = int(first_row.time_s / _GRID_S), int(last_row.time_s / _GRID_S)
        idle_s = (high - low) * _GRID_S - (busy[high] - busy[low])
        length_s = last_row.time_s - first_row.time_s - idle_s
        steps = last_row.steps - first_row.steps
        loaded = ((loads_s >= first_row.time_s) & (loads_s < last_row.time_s)).sum()
        inside = table.iloc[at : last + 1]
        at = last
        if steps <= 0 or length_s <= 0:
            continue
        rows.append(
            (
                (last_row.generation_tokens - first_row.generation_tokens) / steps,
                distinct[low:high].mean(),
                (last_row.step_tokens - first_row.step_tokens) / steps,
                float(inside.kv_usage.mean()) * point.about["kv_cache_tokens"],
                loaded / steps,
                1000 * length_s / steps,
            )
        )
    running_, adapters, tokens, kv, loads, step = np.array(rows).reshape(-1, 6).T
    terms = step_term_values(running_, adapters, tokens, kv, loads, max_loras, rank, int(1e9))
    return CountedWindows(terms, step, loads * load_ms[rank, rank], np.full(len(step), number))


def _distinct(begin: Floats, end: Floats, label: np.ndarray, grid: Floats) -> Floats:
    """Distinct adapters that run at each time of a grid."""
    count = np.zeros(len(grid))
    for name in np.unique(label):
        own = label == name
        here = np.searchsorted(np.sort(begin[own]), grid, side="right") - np.searchsorted(
            np.sort(end[own]), grid, side="right"
        )
        count += here > 0
    return count


def request_overhead_ms(points: list[tuple[str, Measurement]], profile: ServingProfile) -> float:
    """What a client sees on top of a step: the time to first token of an idle server less the step that makes it."""
    over = []
    for _, point in points:
        if point.about["point"] != HIT:
            continue
        flags, answers = point.about["flags"], point.answers
        answers = answers[np.isfinite(answers.finish_s)]
        if answers.empty:
            continue
        one, tokens = np.ones(1), np.array([float(answers.prompt_tokens.mean())])
        terms = step_term_values(
            one, one, tokens, tokens, 0 * one, int(flags["max_loras"]), int(flags["max_lora_rank"]), int(1e9)
        )
        step_ms = float((terms @ np.array(profile.step_ms))[0])
        over.append(float((answers.first_token_s - answers.sent_s).median() * 1000) - step_ms)
    return max(0.0, float(np.median(over))) if over else 0.0


def _points_table(counted: list[tuple[str, Measurement]], windows: CountedWindows, fit: CountedFit) -> Table:
    table = Table(title="Load points: mean step")
    for heading in ("point", "windows", "running", "tokens", "adapters", "measured ms", "model ms", "error"):
        table.add_column(heading, justify="left" if heading == "point" else "right")
    place = {term: STEP_TERMS.index(term) for term in ("running", "tokens", "adapters")}
    model = windows.terms @ np.array(fit.step_ms) + windows.other_ms
    for number, (name, _) in enumerate(counted):
        own = windows.point == number
        if not own.any():
            continue
        values = [f"{windows.terms[own, place[term]].mean():.1f}" for term in ("running", "tokens", "adapters")]
        measured, said = windows.step_ms[own].mean(), model[own].mean()
        table.add_row(
            name, str(own.sum()), *values, f"{measured:.1f}", f"{said:.1f}", f"{(said / measured - 1) * 100:+.1f} %"
        )
    return table


def _pairs(values: dict[Any, float]) -> str:
    return ", ".join(f"{key}: {value:.1f}" for key, value in sorted(values.items()))
