"""Contents labelled for service levels: one simulation judged by many limits at once.

For some limits on the time to the first token (TTFT) a label says the least limit on the mean time of each later one (TPOT)
with which the content keeps the service level: so it answers for every pair of these limits with the TTFT among them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from bench.shared.files import write_table
from bench.training.pieces import BOUNDARY, Piece
from predictors.design import DrawnContent, content_generator, draw_content, draw_requests
from predictors.features import FEATURE_NAMES
from predictors.fit_levels import LabelledLevels
from predictors.levels import N_TTFT_LIMITS, PERCENTILE_NAMES, PERCENTILES, TPOT_LIMITS_MS, TTFT_LIMITS_MS
from predictors.meanfield import profile_table
from twin import BATCH, INTERACTIVE, GpuResult, Judgement, Requests, ServiceLevel, ServingProfile, simulate_requests
from twin.profile_files import parse_profile

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Where the estimated load of the part near the boundary is drawn about, and how widely, as a factor and the deviation of its
#: logarithm: goodput falls below its share somewhat before throughput does. By hand.
NEAR_LOAD, NEAR_SPREAD = 0.75, 0.35
#: Most requests of one simulation, by hand: it is longer than that of a label of starvation, and judges every request many times.
MOST_REQUESTS = 24_000
#: Raised when older samples no longer say the same.
FORMAT = 1
# Streams of its own, away from those of other samples and parts.
_FIRST_INDEX, _FIRST_BOUNDARY_INDEX = 1 << 42, 1 << 43

LIMIT_NAMES = tuple(f"ttft_limit_ms_{number}" for number in range(N_TTFT_LIMITS))
CRITICAL_NAMES = tuple(f"critical_tpot_ms_{number}" for number in range(N_TTFT_LIMITS))
LABELS = (
    "throughput", "offered_throughput", "starved", "memory_error", "judged", "keeps_batch", *LIMIT_NAMES, *CRITICAL_NAMES,
    *PERCENTILE_NAMES,
)  # fmt: skip


def label_piece(profile_json: str, seed: int, folder: str, piece: Piece) -> int:
    """Draw, simulate and store one piece; returns how many contents it has.

    Parameters
    ----------
    profile_json : str
        The serving profile; processes share nothing but text.
    seed : int
    folder : str
        For the piece.
    piece : Piece
    """
    profile = parse_profile(profile_json, "profile")
    table = profile_table(profile)
    near = piece.part == BOUNDARY
    load = {"load": NEAR_LOAD, "load_spread": NEAR_SPREAD} if near else {}
    rows = []
    for index in range(piece.first, piece.last):
        number = index + (_FIRST_BOUNDARY_INDEX if near else _FIRST_INDEX)
        content = draw_content(content_generator(seed, number), profile, table, **load)
        rows.append(_label(content, content_generator(seed, number, 1), profile))
    columns = {name: [row[place] for row in rows] for place, name in enumerate((*FEATURE_NAMES, *LABELS))}
    columns = {"part": [piece.part] * len(rows), "index": list(range(piece.first, piece.last)), **columns}
    write_table(pa.table(columns), Path(folder) / piece.file_name)
    return len(rows)


def labelled_levels(table: pa.Table) -> LabelledLevels:
    """Contents and labels of a table's rows."""

    def columns(names: Sequence[str]) -> NDArray[np.float64]:
        return np.column_stack([table[name].to_numpy() for name in names])

    n_percentiles = len(PERCENTILES)
    return LabelledLevels(
        columns(FEATURE_NAMES),
        np.array(table["part"].to_pylist()) == BOUNDARY,
        table["offered_throughput"].to_numpy(),
        columns(LIMIT_NAMES),
        columns(CRITICAL_NAMES),
        table["keeps_batch"].to_numpy(zero_copy_only=False),
        columns(PERCENTILE_NAMES[:n_percentiles]),
        columns(PERCENTILE_NAMES[n_percentiles:]),
    )


def drawn_limits(generator: np.random.Generator) -> NDArray[np.float64]:
    """Limits on the TTFT in ms, shape (N_TTFT_LIMITS,): that of `interactive`, and one from each part of the range."""
    low, high = np.log(TTFT_LIMITS_MS)
    count = N_TTFT_LIMITS - 1
    parts = low + (high - low) * (np.arange(count) + generator.random(count)) / count
    return np.concatenate([[INTERACTIVE.limits["ttft_ms"]], np.exp(parts)])


def _label(content: DrawnContent, generator: np.random.Generator, profile: ServingProfile) -> list[Any]:
    limits = drawn_limits(generator)
    longest_s = max(60.0, MOST_REQUESTS / float(content.rates.sum()))
    content = replace(content, window_s=min(content.window_s, longest_s))
    requests = draw_requests(generator, replace(content, window_s=content.window_s + INTERACTIVE.tail_s))
    result = simulate_requests(
        requests, content.ranks, profile, content.max_loras, duration_s=content.window_s, service=_loosest(requests)
    )
    judged = INTERACTIVE.judged(requests, content.window_s)
    if result.memory_error:
        critical, batch = np.full(N_TTFT_LIMITS, np.inf), False
    else:
        critical = critical_tpot_ms(result, requests, judged, limits, profile.request_overhead_ms)
        batch = keeps(result, requests, content.window_s, BATCH, profile.request_overhead_ms)
    figures = [getattr(result, what) for what in ("ttft", "itl")]
    return [
        *content.features(),
        result.throughput, result.offered_throughput, result.starved, result.memory_error,
        judged.stop - judged.start, batch, *limits.tolist(), *critical.tolist(),
        *(getattr(figure, f"p{q}_ms") for figure in figures for q in (50, 90, 95, 99)),
    ]  # fmt: skip


def _loosest(requests: Requests) -> ServiceLevel:
    """A level that is judged no sooner than any that is learned."""
    longest = int(requests.output_tokens.max(initial=1))
    latest_ms = max(BATCH.limits["e2el_ms"], TTFT_LIMITS_MS[1] + longest * TPOT_LIMITS_MS[1])
    return replace(BATCH, name="labels", e2el_ms=latest_ms)


def keeps(result: GpuResult, requests: Requests, window_s: float, level: ServiceLevel, overhead_ms: float) -> bool:
    """Whether a GPU keeps a level, by the times of its requests, which were known until later than the level asks for."""
    judged = level.judged(requests, window_s)
    met = level.met(requests, result.first_token_s, result.finish_s, overhead_ms / 1000)[judged]
    adapter, count = requests.adapter[judged], len(result.adapter_ids)
    of_adapters = np.bincount(adapter, minlength=count), np.bincount(adapter[met], minlength=count)
    return Judgement(level, *of_adapters).worst >= level.share


def critical_tpot_ms(
    result: GpuResult, requests: Requests, judged: slice, limits_ms: NDArray[np.float64], overhead_ms: float
) -> NDArray[np.float64]:
    """The least limit on the TPOT with which a content keeps the share of `interactive`, for each limit on the TTFT.

    Parameters
    ----------
    result : GpuResult
        With the times of the requests.
    requests : Requests
    judged : slice
        Those of them that are judged.
    limits_ms : array of shape (n,)
        On the TTFT.
    overhead_ms : float
        What the server adds to the latency of a request.

    Returns
    -------
    array of shape (n,)
        In milliseconds; infinite where no limit would do.
    """
    first, finish = result.first_token_s[judged], result.finish_s[judged]
    later = requests.output_tokens[judged] - 1
    with np.errstate(invalid="ignore"):
        ttft = (first - requests.arrival_s[judged]) * 1000 + overhead_ms
        ttft[~(first >= 0)] = np.inf
        tpot = np.where(later > 0, (finish - first) * 1000 / np.maximum(later, 1), 0.0)
        tpot[~((finish >= 0) | (later == 0))] = np.inf
    order = np.argsort(tpot)
    places, first_place, needed = _groups(requests.adapter[judged][order], len(result.adapter_ids))
    if not len(first_place):
        return np.zeros(len(limits_ms))
    tpot, in_time = tpot[order][places], ttft[order]
    end = np.append(first_place[1:], len(places))
    found = np.full(len(limits_ms), np.inf)
    for number, limit in enumerate(limits_ms):
        met = in_time <= limit
        if met.sum() < needed[0]:
            continue
        count = np.cumsum(met[places])
        before = np.where(first_place > 0, count[first_place - 1], 0)
        # Of each group the request with which enough have met both limits.
        place = np.searchsorted(count, before + needed)
        found[number] = np.max(np.where(place < end, tpot[np.minimum(place, len(tpot) - 1)], np.inf))
    return found


def _groups(
    adapter: NDArray[np.int64], n_adapters: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """What is judged together: all, each adapter with enough requests, and the others, if they have enough (`twin.Judgement`).

    Returns
    -------
    places : array
        Of the requests of one group after the other, in each as they come.
    first : array of shape (n_groups,)
        Where each group begins among these.
    needed : array of shape (n_groups,)
        How many of it must meet their limits.
    """
    level = INTERACTIVE
    count = np.bincount(adapter, minlength=n_adapters)
    alone = count[adapter] >= level.least_judged
    everybody = np.arange(len(adapter))
    # Of 16 bits, which are sorted in one pass.
    mine = everybody[alone][np.argsort(adapter[alone].astype(np.uint16), kind="stable")]
    few = everybody[~alone]
    if len(few) < level.least_judged:
        few = few[:0]
    sizes = np.array([len(adapter), *count[count >= level.least_judged], len(few)])
    sizes = sizes[sizes > 0]
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else np.zeros(0, np.int64)
    needed = np.array([_needed(int(size), level.share) for size in sizes], np.int64)
    return np.concatenate([everybody, mine, few]), first.astype(np.int64), needed


def _needed(count: int, share: float) -> int:
    """The fewest of so many that are a share of them, as floating point compares them."""
    least = math.floor(share * count)
    return least if least / count >= share else least + 1
