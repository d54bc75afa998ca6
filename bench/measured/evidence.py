"""Published runs as `bench.evidence` reads them: what was asked for, the verdict, and simulated over measured."""

from __future__ import annotations

import pandas as pd

from bench.evidence.demand import demand_of, lengths_of
from bench.evidence.runs import COLUMNS, record
from bench.measured.published import run_of_row
from twin import ServingProfile


def evidence_rows(runs: pd.DataFrame, rows: pd.DataFrame, profiles: dict[str, ServingProfile]) -> pd.DataFrame:
    """One row for each run.

    Parameters
    ----------
    runs : DataFrame
        As `bench.measured.published.read_runs` gives them.
    rows : DataFrame
        The twin beside them, in the same order.
    profiles : dict
        By model.
    """
    records = []
    for (_, run), row in zip(runs.iterrows(), rows.to_dict("records"), strict=True):
        workload = run_of_row(run, profiles[run.model]).workload
        lengths = lengths_of(workload)
        assert lengths is not None  # noqa: S101  # the published clients draw Poisson arrivals
        ratios = [row[f"simulated_{name}"] / row[f"measured_{name}"] for name in ("throughput", "itl_ms", "ttft_ms")]
        records.append(
            record(
                demand_of(workload.ranks, workload.rates),
                lengths,
                (bool(row["measured_starved"]), bool(row["measured_memory_error"])),
                ratios,
                run=row["run_id"],
                profile=profiles[run.model].name,
                window_s=workload.duration_s,
                max_loras=row["max_loras"],
                max_lora_rank=int(run.max_lora_rank),
            )
        )
    return pd.DataFrame(records, columns=list(COLUMNS))
