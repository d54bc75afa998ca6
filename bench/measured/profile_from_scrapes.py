"""`python -m bench.calibrate metrics=FILE`: a serving profile from the counters of a running vLLM server.

The file is a saved scrape of the server's Prometheus metrics, CSV or Parquet, one row per scrape. Several files (servers with
other flags) are fitted together: `max_loras` can only be told from servers that differ in it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from twin import ServingProfile, UserError, load_profile
from twin.calibration.telemetry import Scrape, TelemetryFit, fit_telemetry, windows_of
from twin.profile import KvCapacity

#: Column of a scrape, and the vLLM metric that it holds.
METRIC_OF_COLUMN = {
    "time_s": "time of the scrape",
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "generation_tokens": "vllm:generation_tokens_total",
    "kv_usage": "vllm:kv_cache_usage_perc",
}
#: Flags and sizes of the server: a column of the scrape, or an option of the command.
FLAGS = ("max_loras", "max_lora_rank", "kv_cache_tokens", "n_adapters")


def read_scrape(path: str, options: dict[str, int | None]) -> Scrape:
    """Read one saved scrape.

    Parameters
    ----------
    path : str
    options : dict
        For each of `FLAGS` the option's value, used where the file has no such column.

    Raises
    ------
    UserError
        Naming the file and the column that is missing or wrong.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"metrics={path}: no such file")
    table = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    for column, metric in METRIC_OF_COLUMN.items():
        if column not in table:
            raise UserError(f"{path}: column {column} ({metric}) is missing; it has {list(table.columns)}")
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise UserError(f"{path}: column {column} must hold numbers")
    time_s = table.time_s.to_numpy(dtype=float)
    if len(time_s) < 2 or not (np.diff(time_s) > 0).all():
        raise UserError(f"{path}: column time_s must hold at least two times and ascend")
    values = {flag: _flag(table, flag, options[flag], path) for flag in FLAGS}
    return Scrape(
        time_s=time_s,
        running=table.running.to_numpy(dtype=float),
        waiting=table.waiting.to_numpy(dtype=float),
        prompt_tokens=table.prompt_tokens.to_numpy(dtype=float),
        generation_tokens=table.generation_tokens.to_numpy(dtype=float),
        kv_usage=table.kv_usage.to_numpy(dtype=float),
        adapters=table.adapters.to_numpy(dtype=float) if "adapters" in table else None,
        max_loras=values["max_loras"],
        max_lora_rank=values["max_lora_rank"],
        kv_cache_tokens=values["kv_cache_tokens"],
        n_adapters=values["n_adapters"],
    )


def _flag(table: pd.DataFrame, flag: str, option: int | None, path: str) -> int:
    if flag in table:
        found = table[flag].dropna().unique()
        if len(found) != 1:
            raise UserError(f"{path}: column {flag} must hold one value, the server's; it has {len(found)}")
        return int(found[0])
    if option is None:
        raise UserError(f"{path}: {flag} is not in the file; give it as {flag}=NUMBER or as a column")
    return option


def profile_from_metrics(  # noqa: PLR0913  # the options of the command
    paths: list[str],
    options: dict[str, int | None],
    prior_name: str,
    name: str,
    window_s: float,
    console: Console,
) -> ServingProfile:
    """Fit a profile to saved scrapes and print where each coefficient comes from."""
    prior = load_profile(prior_name)
    scrapes = [read_scrape(path, options) for path in paths]
    fit = fit_telemetry([windows_of(scrape, prior, window_s) for scrape in scrapes], prior)
    console.print(_table(fit, prior))
    console.print(
        f"mean absolute step-time error over {fit.windows} windows of {window_s:g} s: {fit.error_pct:.1f} % "
        f"(the prior alone: {fit.prior_error_pct:.1f} %)"
    )
    capacity, scale = scaled_capacity(scrapes, prior)
    console.print(
        f"KV capacity: that of {prior.name} times {scale:.3f}, which is what the scraped servers have; "
        "scale=1 means the same GPU and flags"
    )
    return replace(
        prior,
        name=name,
        kv=capacity,
        step_ms=tuple(float(f"{c:.6g}") for c in fit.step_ms),
        provenance={
            "source": "telemetry of a running server",
            "command": f"python -m bench.calibrate metrics=[{len(paths)} files] prior={prior_name} window_s={window_s:g}",
            "prior": prior.name,
            "fitted_terms": [term.term for term in fit.terms if term.source == "fitted"],
            "prior_terms": {term.term: term.reason for term in fit.terms if term.source == "prior"},
            "windows": fit.windows,
            "step_time_error_pct_fitted": round(fit.error_pct, 2),
            "step_time_error_pct_prior": round(fit.prior_error_pct, 2),
            "kv_capacity": f"prior times {scale:.4f}",
        },
    )


def scaled_capacity(scrapes: list[Scrape], prior: ServingProfile) -> tuple[KvCapacity, float]:
    """The prior's capacity table, scaled to what the scraped servers have.

    A table over all flags needs a start-up at each; from one server only the size of the GPU can be told.
    """
    ratios = []
    for scrape in scrapes:
        expected = prior.kv.lookup(scrape.max_loras, prior.server_rank(scrape.max_lora_rank))
        if expected > 0:
            ratios.append(scrape.kv_cache_tokens / expected)
    scale = float(np.median(ratios)) if ratios else 1.0
    kv = prior.kv
    return (
        KvCapacity(
            kv.max_loras,
            kv.max_lora_rank,
            tuple(tuple(round(tokens * scale) for tokens in row) for row in kv.tokens),
            round(kv.without_lora_tokens * scale),
        ),
        scale,
    )


def _table(fit: TelemetryFit, prior: ServingProfile) -> Table:
    table = Table(title="Step-time model, ms")
    for heading in ("term", "prior", "coefficient", "source"):
        table.add_column(heading, justify="right" if heading in ("prior", "coefficient") else "left")
    for term, before in zip(fit.terms, prior.step_ms, strict=True):
        source = term.source if not term.reason else f"{term.source}: {term.reason}"
        table.add_row(term.term, f"{before:.4g}", f"{term.coefficient:.4g}", source)
    return table
