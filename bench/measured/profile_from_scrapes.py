"""`python -m bench.calibrate metrics=FILE`: a serving profile from the counters of a running vLLM server.

The file is a saved scrape of the server's Prometheus metrics, CSV or Parquet, one row per scrape. Several files (servers with
other flags) are fitted together: `max_loras` can only be told from servers that differ in it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from bench.measured.tables import check_columns, read_frame
from twin import ServingProfile, UserError, load_profile
from twin.calibration.telemetry import Scrape, TelemetryFit, fit_telemetry, windows_of
from twin.moved import measured_uncertainty
from twin.numbers import MOST_ADAPTERS, number, whole
from twin.profile import KvCapacity

_log = logging.getLogger(__name__)

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
# By hand: far above any server, so that a column taken for another is refused.
_MOST = {"max_loras": 10**5, "max_lora_rank": 2**16, "kv_cache_tokens": 10**10, "n_adapters": MOST_ADAPTERS}


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
    wanted = f"a CSV or Parquet file with the columns {', '.join(METRIC_OF_COLUMN)}"
    table = read_frame(Path(path), wanted, key="metrics")
    for column, metric in METRIC_OF_COLUMN.items():
        if column not in table:
            raise UserError(f"{path}: column {column} ({metric}) is missing; it has {list(table.columns)}")
    table = _without_gaps(table, path)
    check_columns(table, path, tuple(METRIC_OF_COLUMN))
    time_s = table.time_s.to_numpy(dtype=float)
    if len(time_s) < 2 or not (np.diff(time_s) > 0).all():
        raise UserError(f"{path}: column time_s must hold at least two times and ascend")
    _check_samples(table, path)
    values = {flag: _flag(table, flag, options[flag], path) for flag in FLAGS}
    adapters = _running_adapters(table, path) if "adapters" in table else None
    if adapters is not None and (adapters > values["n_adapters"]).any():
        raise UserError(
            f"{path}: column adapters has {np.nanmax(adapters):g} that run at once; n_adapters={values['n_adapters']} must be as many "
            "or more"
        )
    return Scrape(
        time_s=time_s,
        running=table.running.to_numpy(dtype=float),
        waiting=table.waiting.to_numpy(dtype=float),
        prompt_tokens=table.prompt_tokens.to_numpy(dtype=float),
        generation_tokens=table.generation_tokens.to_numpy(dtype=float),
        kv_usage=table.kv_usage.to_numpy(dtype=float),
        adapters=adapters,
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
        value = float(found[0]) if isinstance(found[0], (int, float, np.number)) else found[0]
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        if option is not None and option != value:
            raise UserError(f"{path}: column {flag} says {value}, the option {flag}={option}; they must agree")
        return whole(f"{path}: {flag}", value, at_least=1, at_most=_MOST[flag])
    if option is None:
        raise UserError(f"{path}: {flag} is not in the file; give it as {flag}=NUMBER or as a column")
    return whole(flag, option, at_least=1, at_most=_MOST[flag])


def _without_gaps(table: pd.DataFrame, path: str) -> pd.DataFrame:
    """The samples that have all figures: where a scrape failed, tools leave a row with gaps."""
    whole_rows = table[list(METRIC_OF_COLUMN)].notna().all(axis=1)
    if not whole_rows.all():
        _log.info("%s: %d of %d samples have gaps and are left out", path, (~whole_rows).sum(), len(table))
    return table[whole_rows]


def _check_samples(table: pd.DataFrame, path: str) -> None:
    """Refuse shares in per cent, and totals that fall."""
    if len(table) and table.kv_usage.max() > 1:
        raise UserError(
            f"{path}: column kv_usage goes up to {table.kv_usage.max():g}; it must be the share in use, from 0 to 1, as "
            "vllm:kv_cache_usage_perc has it: divide per cent by 100"
        )
    for column in ("prompt_tokens", "generation_tokens"):
        fell = np.flatnonzero(np.diff(table[column].to_numpy(dtype=float)) < 0)
        if len(fell):
            raise UserError(
                f"{path}: column {column} falls in row {table.index[fell[0] + 1] + 2}; it is a total since the server's start: "
                "after a restart begin another file, metrics=[FIRST,SECOND]"
            )
    if len(table) > 1:
        span_s = float(table.time_s.iloc[-1] - table.time_s.iloc[0])
        made = float(table.generation_tokens.iloc[-1] - table.generation_tokens.iloc[0])
        _log.info(
            "%s: %d samples over %.0f s, %.1f requests running in the mean, %.0f tokens/s generated, KV cache %.0f %% in use",
            path, len(table), span_s, table.running.mean(), made / max(span_s, 1e-9), 100 * table.kv_usage.mean(),
        )  # fmt: skip
    others = sorted(set(map(str, table.columns)) - {*METRIC_OF_COLUMN, *FLAGS, "adapters"})
    if others:
        _log.info("%s: columns that are not used: %s", path, ", ".join(others))


def _running_adapters(table: pd.DataFrame, path: str) -> np.ndarray:
    """How many adapters run at each sample: numbers, or the names in `running_lora_adapters`, joined by commas."""
    if pd.api.types.is_numeric_dtype(table.adapters):
        check_columns(table, path, ("adapters",), empty=True)
        return table.adapters.to_numpy(dtype=float)
    names = table.adapters.fillna("").astype(str)
    return np.array([len({name.strip() for name in text.split(",")} - {""}) for text in names], dtype=float)


def profile_from_metrics(  # noqa: PLR0913  # the options of the command
    paths: list[str],
    options: dict[str, int | None],
    prior_name: str,
    name: str,
    window_s: float,
    console: Console,
) -> ServingProfile:
    """Fit a profile to saved scrapes and print where each coefficient comes from."""
    number("scrape_window_s", window_s, above=0.0, unit="seconds")
    if not paths:
        raise UserError("metrics=[]: name at least one file")
    prior = load_profile(prior_name)
    scrapes = [read_scrape(path, options) for path in paths]
    windows = [windows_of(scrape, prior, window_s) for scrape in scrapes]
    fit = fit_telemetry(windows, prior)
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
        uncertainty=measured_uncertainty(
            np.vstack([one.terms for one in windows]),
            fit.step_ms,
            fit.error_pct,
            f"step times of {fit.windows} windows that were fitted to",
        ),
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
