"""The twin beside published runs, run by run and summed up by model and scenario."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from bench.measured.observation import SAMPLE_EVERY_S, ClientModel, observed_itl_ms, observed_ttft_ms, stalls_of
from bench.measured.published import PROFILE_OF_MODEL, replay, run_of_row
from bench.shared.figures import png_figure
from bench.shared.files import write_text
from bench.shared.terminal import in_threads, progress_bar
from predictors.errors import macro_f1, smape
from twin import ServingProfile, UserError, load_profile

COLUMNS = (
    "run_id", "model", "scenario", "max_loras", "n_adapters", "offered_throughput",
    "measured_throughput", "simulated_throughput", "measured_itl_ms", "simulated_itl_ms",
    "measured_ttft_ms", "simulated_ttft_ms", "measured_starved", "simulated_starved",
    "measured_memory_error", "simulated_memory_error", "port_exhaustion", "wall_s", "cpu_s",
)  # fmt: skip


@dataclass
class ReplayOptions:
    """How published runs are replayed.

    `conf/fidelity.yaml` says what each option is for.
    """

    seed: int = 0
    noise_seeds: int = 1
    threads: int = 1


def profiles_of(runs: pd.DataFrame, override: str | None) -> dict[str, ServingProfile]:
    """The profile of each model in the runs; `override` names one for all, for runs of a single model."""
    models = sorted(runs.model.unique())
    if override is not None and len(models) != 1:
        raise UserError(f"profile={override}: the runs are of {models}; one profile fits the runs of one model only")
    return {model: load_profile(override or PROFILE_OF_MODEL[model]) for model in models}


def replay_runs(
    runs: pd.DataFrame, profiles: dict[str, ServingProfile], options: ReplayOptions, console: Console
) -> pd.DataFrame:
    """One row per run, in the order of the table."""
    # The first call loads the compiled event loop; that is no run's own time.
    first = runs[~runs.memory_error].iloc[0]
    replay(run_of_row(first, profiles[first.model], seed=options.seed), profiles[first.model])
    with progress_bar(console) as progress:
        task = progress.add_task("replaying", total=len(runs))

        def one(row: pd.Series) -> dict[str, object]:
            result = replay_row(row, profiles[row.model], options.seed)
            progress.advance(task)
            return result

        rows = in_threads(one, [row for _, row in runs.iterrows()], options.threads)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def replay_row(row: pd.Series, profile: ServingProfile, seed: int) -> dict[str, object]:
    """Measured and simulated figures of one run; latencies are empty where nothing was served."""
    run = run_of_row(row, profile, seed=seed)
    _ = run.workload.requests
    start, start_cpu = time.perf_counter(), time.thread_time()
    result = replay(run, profile, sample_every_s=SAMPLE_EVERY_S)
    wall_s, cpu_s = time.perf_counter() - start, time.thread_time() - start_cpu
    failed = bool(row.memory_error)
    itl_ms, ttft_ms = result.itl.mean_ms, result.ttft.mean_ms
    coefficients = profile.provenance.get("client_model")
    if coefficients and not result.memory_error:
        client = ClientModel(**coefficients)
        stalls = stalls_of(result, run.workload.requests, run.workload.duration_s)
        itl_ms = observed_itl_ms(result, stalls, client)
        ttft_ms = observed_ttft_ms(result, stalls, client)
    return {
        "run_id": row.run_id,
        "model": row.model,
        "scenario": row.scenario,
        "max_loras": int(row.max_loras),
        "n_adapters": int(row.n_adapters),
        "offered_throughput": result.offered_throughput,
        "measured_throughput": np.nan if failed else row.total_throughput,
        "simulated_throughput": np.nan if result.memory_error else result.throughput,
        "measured_itl_ms": np.nan if failed else row.mean_itl_ms,
        "simulated_itl_ms": itl_ms,
        "measured_ttft_ms": np.nan if failed else row.mean_ttft_ms,
        "simulated_ttft_ms": ttft_ms,
        "measured_starved": failed or str(row.starved_est).lower() == "true",
        "simulated_starved": result.starved,
        "measured_memory_error": failed,
        "simulated_memory_error": result.memory_error,
        "port_exhaustion": bool(row.port_exhaustion),
        "wall_s": wall_s,
        "cpu_s": cpu_s,
    }


def noise_table(
    runs: pd.DataFrame,
    profiles: dict[str, ServingProfile],
    rows: pd.DataFrame,
    options: ReplayOptions,
    console: Console,
) -> Table:
    """Differences between simulations of the same runs with other draws: the floor under every error.

    The runs' own arrivals and lengths are not known, so even a perfect twin would differ from them by as much as two of
    its own simulations differ.
    """
    mine = runs[~runs.port_exhaustion & ~runs.memory_error]
    first = rows.set_index("run_id").loc[mine.run_id].reset_index()
    others = [
        replay_runs(mine, profiles, replace(options, seed=options.seed + number), console)
        for number in range(1, options.noise_seeds + 1)
    ]
    table = Table(title=f"Noise: the twin against itself with {options.noise_seeds} other seed(s), SMAPE in %")
    for heading in ("model", "runs", "throughput", "ITL", "TTFT", "equal starvation verdicts"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for model in sorted(mine.model.unique()):
        chosen = (first.model == model).to_numpy()
        cells = []
        for column in ("simulated_throughput", "simulated_itl_ms", "simulated_ttft_ms"):
            errors = [smape(other[column][chosen], first[column][chosen]) for other in others]
            cells.append(f"{np.mean(errors):.2f}")
        equal = np.mean([(other.simulated_starved == first.simulated_starved)[chosen].mean() for other in others])
        table.add_row(model, str(int(chosen.sum())), *cells, f"{equal * 100:.1f} %")
    return table


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table."""
    write_text(path, table.to_csv(index=False, float_format="%.6g"))


def bias(simulated: pd.Series, measured: pd.Series) -> float:
    """Mean of s / m - 1 in percent."""
    return float(((simulated / measured) - 1).mean() * 100)


def published_twin(folder: str) -> pd.DataFrame | None:
    """The published twin's figures on the same runs, if the folder has them."""
    path = Path(folder) / "published_twin_vs_real.csv"
    if not path.is_file():
        return None
    table = pd.read_csv(path)
    return table.drop_duplicates("run_id").set_index("run_id")


def summarise(rows: pd.DataFrame, left_out: dict[str, list[str]], published: pd.DataFrame | None) -> pd.DataFrame:
    """Errors by model and scenario, and over groups of rows; measured and simulated runs only."""
    served = rows[~rows.measured_memory_error].copy()
    served["left_out"] = [
        scenario in left_out.get(model, []) for model, scenario in zip(served.model, served.scenario, strict=True)
    ]
    records = []
    for model, mine in served.groupby("model"):
        unforced = mine[~mine.port_exhaustion]
        groups: list[tuple[str, pd.DataFrame]] = [
            (f"{scenario}{' *' if group.left_out.all() else ''}", group)
            for scenario, group in unforced.groupby("scenario")
        ]
        groups += [
            ("all, fitted", unforced[~unforced.left_out]),
            ("all, left out *", unforced[unforced.left_out]),
            ("all", unforced),
            ("all + port exhaustion, left out *", mine[mine.left_out]),
            ("all + port exhaustion", mine),
        ]
        records += [
            {"model": model, "runs of": name, **errors_of(group, published)} for name, group in groups if len(group)
        ]
    return pd.DataFrame(records)


def errors_of(group: pd.DataFrame, published: pd.DataFrame | None) -> dict[str, float]:
    """Errors over a group of rows, in percent, and the share of equal starvation verdicts."""
    record: dict[str, float] = {"runs": len(group)}
    for metric in ("throughput", "itl", "ttft"):
        unit = "" if metric == "throughput" else "_ms"
        simulated, measured = group[f"simulated_{metric}{unit}"], group[f"measured_{metric}{unit}"]
        record[f"{metric}_smape"] = smape(simulated, measured)
        record[f"{metric}_bias"] = bias(simulated, measured)
        if published is not None:
            column = {"throughput": "dt_total_throughput", "itl": "dt_itl_ms", "ttft": "dt_ttft_ms"}[metric]
            real = {"throughput": "real_total_throughput", "itl": "real_mean_itl_ms", "ttft": "real_mean_ttft_all_ms"}
            theirs = published.reindex(group.run_id)
            record[f"{metric}_published_smape"] = smape(theirs[column], theirs[real[metric]])
    record["starvation_agreement"] = float((group.simulated_starved == group.measured_starved).mean() * 100)
    record["starvation_macro_f1"] = macro_f1(group.simulated_starved, group.measured_starved, of_true=True)
    return record


def summary_tables(summary: pd.DataFrame) -> list[Table]:
    """The summary for the terminal, a table per model."""
    tables = []
    for model, mine in summary.groupby("model"):
        table = Table(
            title=f"{model}: SMAPE without the factor 2 in %, bias in % (* left out of the fit; published: the twin of arXiv 2508.08343)"
        )
        table.add_column("runs of", no_wrap=True)
        for heading in ("runs", "throughput", "published", "ITL", "published", "TTFT", "published", "starvation", "F1"):
            table.add_column(heading, justify="right", no_wrap=True)
        for _, row in mine.iterrows():
            cells = [str(row["runs of"]), str(row.runs)]
            for metric in ("throughput", "itl", "ttft"):
                cells.append(f"{row[f'{metric}_smape']:.2f} ({row[f'{metric}_bias']:+.1f})")
                theirs = row.get(f"{metric}_published_smape", np.nan)
                cells.append("" if pd.isna(theirs) else f"{theirs:.2f}")
            cells += [f"{row.starvation_agreement:.1f} %", f"{row.starvation_macro_f1:.3f}"]
            if str(row["runs of"]).startswith("all, fitted"):
                table.add_section()
            table.add_row(*cells)
        tables.append(table)
    return tables


def draw(rows: pd.DataFrame, left_out: dict[str, list[str]], path: Path, what: str = "simulated") -> None:
    """Simulated (or predicted) over measured throughput, ITL and TTFT, one row of panels per model."""
    from matplotlib.ticker import NullFormatter

    served = rows[~rows.measured_memory_error & ~rows.simulated_memory_error]
    models = sorted(served.model.unique())
    panels = (
        ("throughput", "Throughput (tokens/s)"),
        ("itl_ms", "Inter-token latency (ms)"),
        ("ttft_ms", "Time to first token (ms)"),
    )
    kinds = (
        ("fitted scenarios", "#4c78a8", "o", lambda g, lo: ~g.port_exhaustion & ~lo),
        ("left-out scenarios", "#e4572e", "^", lambda g, lo: ~g.port_exhaustion & lo),
        ("client out of ports", "#b8b8b8", ".", lambda g, _: g.port_exhaustion),
    )
    with png_figure(path, (12, 3.8 * len(models)), font_size=10, dpi=110) as figure:
        axes = figure.subplots(len(models), 3, squeeze=False)
        for line, model in zip(axes, models, strict=True):
            mine = served[served.model == model]
            unseen = mine.scenario.isin(left_out.get(model, []))
            for axis, (metric, title) in zip(line, panels, strict=True):
                for label, colour, marker, choose in reversed(kinds):
                    group = mine[choose(mine, unseen)]
                    axis.scatter(
                        group[f"measured_{metric}"], group[f"simulated_{metric}"],
                        s=14, marker=marker, color=colour, alpha=0.8, linewidths=0, label=label,
                    )  # fmt: skip
                low = min(axis.get_xlim()[0], axis.get_ylim()[0])
                ends = np.array(
                    [max(low, mine[f"measured_{metric}"].min() * 0.8), mine[f"measured_{metric}"].max() * 1.2]
                )
                axis.plot(ends, ends, color="black", linewidth=0.8)
                axis.set(xscale="log", yscale="log", xlabel="measured", ylabel=what, title=f"{title}, {model}")
                for side in (axis.xaxis, axis.yaxis):
                    # Less than two decades would otherwise get labels at every tick, which overlap.
                    side.set_minor_formatter(NullFormatter())
                axis.title.set_fontsize(9)
                axis.grid(alpha=0.2, which="both")
        axes[0][0].legend(fontsize=8, frameon=False)
