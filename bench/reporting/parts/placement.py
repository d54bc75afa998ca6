"""A placement drawn: GPUs as bars of adapters by rank and load, with their slots, and what starves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.comparison.rows import Row

# In pixels, all of them by eye: the page scrolls a wide fleet sideways rather than shrinking it, so that it can be read on a phone.
_LEFT, _TOP, _HEIGHT = 76, 10, 160
# A step from one bar to the next, between these; so many pixels are shared out where there are few GPUs.
_NARROWEST, _WIDEST, _ROOM = 36, 68, 620
_BELOW = 44
_BETWEEN = 10
# Closer lines between adapters would be a grey area.
_LEAST_ADAPTER = 2.0
#: Ranks beyond the last colour of the style sheet share it.
N_RANK_COLOURS = 6


@dataclass(frozen=True)
class _Bars:
    """What the bars of one drawing share.

    Attributes
    ----------
    step : int
        Pixels from one bar to the next.
    adapter_ranks, rates : array of shape (n_adapters,)
        Of the workload's adapters; requests per second.
    ranks : tuple of int
        Of the workload, ascending.
    most : float
        Tokens per second at full height.
    """

    step: int
    adapter_ranks: NDArray[np.int64]
    rates: NDArray[np.float64]
    ranks: tuple[int, ...]
    most: float


def drawn_placement(row: Row, ranks: Sequence[int]) -> str:
    """The placement of a candidate as SVG.

    Parameters
    ----------
    row : Row
        With a placement.
    ranks : sequence of int
        All LoRA ranks of the workload, ascending: each has its colour.
    """
    gpus = row.gpu_figures
    adapter_ranks, rates = np.array(row.adapter_ranks or []), np.array(row.adapter_rates or [])
    most = max((gpu["offered_throughput"] for gpu in gpus), default=0.0) or 1.0
    step = int(np.clip(_ROOM / max(len(gpus), 1), _NARROWEST, _WIDEST))
    width = _LEFT + step * len(gpus) + 6
    height = _TOP + _HEIGHT + _BELOW
    parts = [
        (
            f'<svg class="placement" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
            f'aria-label="{escape(in_words(row))}">'
        ),
        _scale(most, width),
    ]
    bars = _Bars(step, adapter_ranks, rates, tuple(ranks), most)
    parts += [_gpu(number, gpu, bars) for number, gpu in enumerate(gpus)]
    bottom = _TOP + _HEIGHT
    for line, text in ((13, "max_loras"), (25, "adapters"), (37, "below 90 %")):
        parts.append(f'<text class="k" x="{_LEFT - 8}" y="{bottom + line}">{text}</text>')
    parts.append("</svg>")
    return "".join(parts)


def placement_key(row: Row, ranks: Sequence[int]) -> tuple[tuple[str, str], ...]:
    """Legend of a drawn placement: class in the style sheet, label."""
    key = [(f"r{min(place, N_RANK_COLOURS - 1)}", f"rank {rank}") for place, rank in enumerate(ranks)]
    key.append(("t", "throughput"))
    if any(gpu["starved"] and not gpu["memory_error"] for gpu in row.gpu_figures):
        key.append(("starved", "starved GPU"))
    if row.memory_errors:
        key.append(("dead", "does not start"))
    return tuple(key)


def in_words(row: Row) -> str:
    """The placement in one sentence, for those who cannot see it."""
    starved = "no GPU starves" if row.feasible else f"{row.starved_gpus} starve"
    per_gpu = "; ".join(
        f"GPU {number}: {len(gpu['adapters'])} adapters, max_loras {gpu['max_loras']}"
        for number, gpu in enumerate(row.gpu_figures[:8])
    )
    more = f"; and {len(row.gpu_figures) - 8} more" if len(row.gpu_figures) > 8 else ""
    return f"{row.solver_label} uses {row.gpus} GPUs, {starved}. {per_gpu}{more}."


def _scale(most: float, width: int) -> str:
    lines = []
    for value in _ticks(most):
        y = _y(value, most)
        lines.append(
            f'<path class="g" d="M{_LEFT - 4} {y:.1f}H{width}"/><text class="k" x="{_LEFT - 8}" y="{y + 3.5:.1f}">{value:,.0f}</text>'
        )
    return "".join(lines)


def _ticks(most: float) -> list[float]:
    """About four round figures from 0 up to `most`."""
    rough = most / 4
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    return [step * n for n in range(int(most / step) + 1)]


def _y(value: float, most: float) -> float:
    return _TOP + _HEIGHT * (1 - value / most)


def _gpu(number: int, gpu: dict[str, Any], bars: _Bars) -> str:
    x, bar, most = _LEFT + bars.step * number, bars.step - _BETWEEN, bars.most
    adapters = np.array(gpu["adapters"], dtype=int)
    load = bars.rates[adapters] * np.array(gpu.get("shares") or np.ones(len(adapters)))
    offered = gpu["offered_throughput"]
    # The bar is as high as the load that really came, which a mean rate misses by a little.
    load = load * (offered / load.sum() if load.sum() else 0.0)
    order = np.lexsort((-load, bars.adapter_ranks[adapters]))
    rank, height = bars.adapter_ranks[adapters][order], load[order] * (_HEIGHT / most)
    bottom = _TOP + _HEIGHT
    top = bottom - np.cumsum(height)
    parts = [f"<g><title>{escape(_title(number, gpu))}</title>"]
    for place, known in enumerate(bars.ranks):
        chosen = rank == known
        if chosen.any():
            high, low = float(top[chosen].min()), float((top + height)[chosen].max())
            colour = min(place, N_RANK_COLOURS - 1)
            parts.append(f'<rect class="r{colour}" x="{x}" y="{high:.1f}" width="{bar}" height="{low - high:.1f}"/>')
    separators = "".join(
        f"M{x} {y:.1f}h{bar}" for y, tall in zip(top[:-1], height[1:], strict=True) if tall >= _LEAST_ADAPTER
    )
    if separators:
        parts.append(f'<path class="s" d="{separators}"/>')
    starved = bool(gpu["starved"])
    if starved:
        hatch = "dead" if gpu["memory_error"] else "starved"
        tall = max(offered * _HEIGHT / most, 2.0)
        parts.append(f'<rect class="{hatch}" x="{x}" y="{bottom - tall:.1f}" width="{bar}" height="{tall:.1f}"/>')
    y = _y(gpu["throughput"], most)
    parts.append(f'<path class="{"tb" if starved else "t"}" d="M{x - 3} {y:.1f}h{bar + 6}"/>')
    middle = x + bar / 2
    lost = len(gpu["starved_adapters"])
    bad = ' class="b"' if lost else ""
    parts.append(
        f'<text x="{middle:g}" y="{bottom + 13}">{gpu["max_loras"]}</text>'
        f'<text x="{middle:g}" y="{bottom + 25}">{len(adapters)}</text>'
        f'<text{bad} x="{middle:g}" y="{bottom + 37}">{lost}</text></g>'
    )
    return "".join(parts)


def _title(number: int, gpu: dict[str, Any]) -> str:
    verdict = "does not start" if gpu["memory_error"] else ("starves" if gpu["starved"] else "serves")
    lost = len(gpu["starved_adapters"])
    adapters = f"{len(gpu['adapters'])} adapters up to rank {gpu['max_lora_rank']}, max_loras {gpu['max_loras']}"
    return (
        f"GPU {number}: {adapters}; {verdict} {gpu['throughput']:,.0f} of {gpu['offered_throughput']:,.0f} tokens/s"
        + (f"; {lost} adapters below 90 %" if lost else "")
    )
