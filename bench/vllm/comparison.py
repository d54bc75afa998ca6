"""Measured beside simulated: errors, verdicts and run-to-run noise, as a table and as CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.shared.files import write_text
from bench.vllm.flags import ServerFlags
from bench.vllm.measurement import Figures
from twin import GpuResult, engine

#: Figures that are compared, by name.
COMPARED = ("throughput", "ttft_ms", "itl_ms", "e2e_ms")
#: And where requests are judged by the limits of a service level.
JUDGED = ("goodput", "worst_goodput", "failing_adapters", "fails")


@dataclass(frozen=True)
class GpuComparison:
    """One GPU of a placement: its measured windows and what the twin says.

    Attributes
    ----------
    number : int
    flags : ServerFlags
    n_adapters : int
    measured : tuple of Figures
        One for each repeat.
    simulated : Figures
    metrics : tuple of DataFrame
        Samples of each window (`bench.vllm.metrics`).
    curves : DataFrame
        The twin's `running` and `waiting` requests over `time_s`.
    client_limited : bool
        In some window the load generator was late.
    """

    number: int
    flags: ServerFlags
    n_adapters: int
    measured: tuple[Figures, ...]
    simulated: Figures
    metrics: tuple[pd.DataFrame, ...]
    curves: pd.DataFrame
    client_limited: bool = False

    def mean(self, name: str) -> float:
        """Mean of a measured figure over the repeats."""
        return float(np.mean([getattr(figures, name) for figures in self.measured]))

    def noise_pct(self, name: str) -> float:
        """Run-to-run standard deviation over the mean, in percent; NaN for a single run."""
        values = [getattr(figures, name) for figures in self.measured]
        mean = float(np.mean(values))
        return float(np.std(values, ddof=1) / mean * 100) if len(values) > 1 and mean > 0 else float("nan")

    def error_pct(self, name: str) -> float:
        """Simulated over the measured mean, less 1, in percent; NaN where one of them is missing."""
        mean = self.mean(name)
        return float((getattr(self.simulated, name) / mean - 1) * 100) if mean > 0 else float("nan")

    @property
    def verdicts_right(self) -> int:
        """Windows of which the twin says rightly whether the GPU fails its service level and whether it starts."""
        said = (self.simulated.fails, self.simulated.memory_error)
        return sum((figures.fails, figures.memory_error) == said for figures in self.measured)

    @property
    def judged(self) -> bool:
        """Whether single requests were judged by the limits of a service level."""
        return any(figures.judgement is not None for figures in (self.simulated, *self.measured))


def simulated_figures(result: GpuResult) -> Figures:
    """The twin's result as the figures that are compared."""
    return Figures(
        throughput=result.throughput,
        offered_throughput=result.offered_throughput,
        memory_error=result.memory_error,
        arrived=result.arrived,
        finished=result.finished,
        ttft_ms=result.ttft.mean_ms,
        itl_ms=result.itl.mean_ms,
        e2e_ms=result.e2e.mean_ms,
        judgement=None if result.memory_error else result.judgement,
    )


def simulated_curves(result: GpuResult, arrival_s: NDArray[np.float64], duration_s: float) -> pd.DataFrame:
    """Running and waiting requests of the twin once a second; its samples are of steps, and an idle engine makes none."""
    time_s = np.arange(0.0, duration_s)
    end = np.where(np.isfinite(result.finish_s), result.finish_s, np.inf)
    is_open = np.searchsorted(np.sort(arrival_s), time_s, side="right") > np.searchsorted(np.sort(end), time_s)
    curves = pd.DataFrame({"time_s": time_s, "running": 0.0, "waiting": 0.0})
    if len(result.samples):
        last = np.searchsorted(result.samples[:, engine.SAMPLE_START], time_s, side="right") - 1
        known = is_open & (last >= 0)
        for name, place in (("running", engine.SAMPLE_RUNNING), ("waiting", engine.SAMPLE_WAITING)):
            curves[name] = np.where(known, result.samples[np.maximum(last, 0), place], 0.0)
    return curves


def summary_table(comparisons: Sequence[GpuComparison]) -> pd.DataFrame:
    """One row per GPU and run."""
    rows = []
    for gpu in comparisons:
        for run, figures in enumerate(gpu.measured):
            row = {
                "gpu": gpu.number,
                "run": run,
                "max_loras": gpu.flags.max_loras,
                "max_lora_rank": gpu.flags.max_lora_rank,
                "n_adapters": gpu.n_adapters,
                "offered_throughput": figures.offered_throughput,
            }
            for name in COMPARED:
                row[f"measured_{name}"] = getattr(figures, name)
                row[f"simulated_{name}"] = getattr(gpu.simulated, name)
            for name in ("starved", "memory_error", "finished", "arrived", *(JUDGED if gpu.judged else ())):
                row[f"measured_{name}"] = getattr(figures, name)
                row[f"simulated_{name}"] = getattr(gpu.simulated, name)
            rows.append(row)
    return pd.DataFrame(rows)


def write_summary(comparisons: Sequence[GpuComparison], path: Path) -> None:
    """Write `summary_table` as CSV."""
    write_text(path, summary_table(comparisons).to_csv(index=False, float_format="%.6g"))


def mean_error_pct(comparisons: Sequence[GpuComparison], name: str) -> float:
    """Mean absolute error over the GPUs, in percent."""
    errors = [abs(gpu.error_pct(name)) for gpu in comparisons if np.isfinite(gpu.error_pct(name))]
    return float(np.mean(errors)) if errors else float("nan")


def report(comparisons: Sequence[GpuComparison], profile: str) -> RenderableType:
    """Table and summary for the terminal."""
    table = Table(title="Measured / simulated")
    judged = any(gpu.judged for gpu in comparisons)
    goodput = ("goodput\n%", "worst\n%", "fails") if judged else ()
    headings = ("GPU", "max_loras", "adapters", "offered\ntok/s", "throughput\ntok/s", "error", "starves", "TTFT\nms",
                "error", "ITL\nms", "error", "memory\nerror", *goodput)  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="right")
    for gpu in comparisons:
        table.add_row(
            str(gpu.number),
            str(gpu.flags.max_loras),
            str(gpu.n_adapters),
            f"{gpu.simulated.offered_throughput:.0f}",
            _pair(gpu, "throughput", 0),
            _error(gpu, "throughput"),
            _verdicts(gpu, lambda figures: figures.starved),
            _pair(gpu, "ttft_ms", 0),
            _error(gpu, "ttft_ms"),
            _pair(gpu, "itl_ms", 1),
            _error(gpu, "itl_ms"),
            _verdicts(gpu, lambda figures: figures.memory_error),
            *(_goodput(gpu) if judged else ()),
        )
    windows = sum(len(gpu.measured) for gpu in comparisons)
    right = sum(gpu.verdicts_right for gpu in comparisons)
    errors = ", ".join(
        f"{label} {mean_error_pct(comparisons, name):.1f} %"
        for label, name in (("throughput", "throughput"), ("ITL", "itl_ms"), ("TTFT", "ttft_ms"))
    )
    lines = [
        f"mean absolute error of {profile}: {errors}",
        f"{'service-level' if judged else 'starvation'} and memory-error verdicts right in {right} of {windows} windows",
    ]
    if judged:
        level = next(
            each.judgement.level for gpu in comparisons for each in (gpu.simulated, *gpu.measured) if each.judgement
        )
        lines.append(f"goodput by {level.name}: {level.in_words()}; worst: the least of the GPU and its adapters")
    noise = {name: [gpu.noise_pct(name) for gpu in comparisons] for name in ("throughput", "itl_ms", "ttft_ms")}
    if np.isfinite(noise["throughput"]).any():
        means = [float(np.nanmean(values)) for values in noise.values()]
        lines.append(
            f"run-to-run noise (standard deviation): throughput {means[0]:.1f} %, ITL {means[1]:.1f} %, TTFT {means[2]:.1f} %"
        )
    limited = [str(gpu.number) for gpu in comparisons if gpu.client_limited]
    if limited:
        lines.append(
            f"GPU {', '.join(limited)}: the load generator was late; it, not the server, may have been the limit"
        )
    return Group(table, *(Text(line) for line in lines))


def _goodput(gpu: GpuComparison) -> tuple[str, str, str]:
    def share(name: str) -> str:
        return f"{100 * gpu.mean(name):.1f} / {100 * getattr(gpu.simulated, name):.1f}"

    return share("goodput"), share("worst_goodput"), _verdicts(gpu, lambda figures: figures.fails)


def _pair(gpu: GpuComparison, name: str, digits: int) -> str:
    return f"{gpu.mean(name):.{digits}f} / {getattr(gpu.simulated, name):.{digits}f}"


def _error(gpu: GpuComparison, name: str) -> str:
    error = gpu.error_pct(name)
    return f"{error:+.1f} %" if np.isfinite(error) else "-"


def _verdicts(gpu: GpuComparison, verdict: Callable[[Figures], bool]) -> str:
    said = ["yes" if verdict(figures) else "no" for figures in gpu.measured]
    measured = said[0] if len(set(said)) == 1 else "mixed"
    return f"{measured} / {'yes' if verdict(gpu.simulated) else 'no'}"
