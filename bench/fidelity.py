"""`python -m bench.fidelity runs=DIR`: the twin beside published vLLM runs.

Every run's workload and configuration go through the twin; nothing that was measured in the run does. One row per run
is written, and a table by model and scenario printed, with the errors of the published twin on the same rows where the
folder has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from omegaconf import MISSING
from rich.console import Console

from bench.measured.evidence import evidence_rows
from bench.measured.predictors_beside_runs import (
    MODELS,
    left_out_twin_data,
    predict_runs,
    predictor_tables,
    predictors_of,
)
from bench.measured.published import read_runs
from bench.measured.slora_runs import PROFILE, is_slora, read_slora_runs, replay_slora, slora_summary, slora_table
from bench.measured.twin_beside_runs import (
    ReplayOptions,
    draw,
    noise_table,
    profiles_of,
    published_twin,
    replay_runs,
    summarise,
    summary_tables,
    write_csv,
)
from bench.shared.command import command
from bench.shared.files import check_file
from bench.shared.terminal import console
from twin import UserError, load_profile
from twin.profile import SLORA


@dataclass
class FidelityConfig(ReplayOptions):
    """Options of `python -m bench.fidelity`; `conf/fidelity.yaml` says what each is for."""

    runs: str = MISSING
    profile: str | None = None
    predictor: str | None = None
    out: str | None = None
    summary: str | None = None
    picture: str | None = None
    evidence: str | None = None


@command("fidelity", FidelityConfig)
def main(config: FidelityConfig) -> None:
    """Replay the runs, print the errors and write them."""
    terminal = console(width=160)
    out, summary_path, picture = _targets(config)
    if is_slora(config.runs):
        of_slora(config, terminal)
        return
    if config.evidence is not None:
        check_file("evidence", config.evidence)
    runs = read_runs(config.runs)
    if config.predictor:
        check_predictors(runs, config, terminal)
        return
    profiles = profiles_of(runs, config.profile)
    terminal.print(
        f"replaying {len(runs)} runs of {config.runs}, seed {config.seed}, profiles "
        f"{', '.join(f'{p.name} ({p.engine} {p.engine_version})' for p in profiles.values())}"
    )
    rows = replay_runs(runs, profiles, config, terminal)
    write_csv(rows, out)
    if config.evidence is not None:
        write_csv(evidence_rows(runs, rows, profiles), check_file("evidence", config.evidence))
        terminal.print(f"wrote {config.evidence}")
    left_out = {name: profile.provenance.get("left_out_scenarios", []) for name, profile in profiles.items()}
    published = published_twin(config.runs)
    summary = summarise(rows, left_out, published)
    write_csv(summary.round(3), summary_path)
    for table in summary_tables(summary):
        terminal.print(table)
    draw(rows, left_out, picture)
    errors = int((rows.measured_memory_error != rows.simulated_memory_error).sum())
    terminal.print(f"memory error: predicted as measured in {len(rows) - errors} of {len(rows)} runs")
    if config.noise_seeds > 0:
        terminal.print(noise_table(runs, profiles, rows, config, terminal))
    hour_s = rows.loc[~rows.simulated_memory_error, "wall_s"]
    terminal.print(
        f"wall time per simulated run (one GPU hour): mean {hour_s.mean() * 1000:.0f} ms, largest "
        f"{hour_s.max() * 1000:.0f} ms; simulated over wall time {(3600 / hour_s).mean():,.0f} in the mean"
    )
    terminal.print(f"wrote {out}, {summary_path} and {picture}")


def _targets(config: FidelityConfig) -> tuple[Path, Path, Path]:
    """Files of the rows, the summary and the picture, once it is clear that they can be written."""
    rows, folder, name = (
        ("predicted", "predictors", "real_runs") if config.predictor else ("runs", "fidelity", "fidelity")
    )
    summary = "real_runs" if config.predictor else "summary"
    return (
        check_file("out", config.out or f"results/runs/fidelity/{rows}.csv"),
        check_file("summary", config.summary or f"results/{folder}/{summary}.csv"),
        check_file("picture", config.picture or f"results/{folder}/{name}.png"),
    )


def of_slora(config: FidelityConfig, terminal: Console) -> None:
    """Replay S-LoRA's runs, print the errors and write them."""
    for option in ("predictor", "picture", "evidence"):
        if getattr(config, option) is not None:
            raise UserError(f"{option}={getattr(config, option)}: is for runs of vLLM; these are of S-LoRA")
    out = check_file("out", config.out or "results/runs/fidelity/slora_runs.csv")
    summary_path = check_file("summary", config.summary or "results/fidelity/slora.csv")
    profile, runs = load_profile(config.profile or PROFILE), read_slora_runs(config.runs)
    if profile.engine != SLORA:
        raise UserError(
            f"profile={config.profile}: is of {profile.engine}; a profile of S-LoRA would be right, such as {PROFILE}"
        )
    terminal.print(f"replaying {len(runs)} runs of S-LoRA, seed {config.seed}, profile {profile.name}")
    rows = replay_slora(runs, profile, config.seed, config.threads)
    summary = slora_summary(rows)
    write_csv(rows.round(4), out)
    write_csv(summary.round(2), summary_path)
    terminal.print(slora_table(summary))
    terminal.print(f"wrote {out} and {summary_path}")


def check_predictors(runs: pd.DataFrame, config: FidelityConfig, terminal: Console) -> None:
    """Ask predictors about the runs, print the errors and write them."""
    predictors = predictors_of(runs, str(config.predictor))
    rows = predict_runs(runs, predictors)
    terminal.print(
        f"predicting {len(rows) // len(MODELS)} runs of {config.runs}, {rows.in_range.mean():.1%} in the trained range"
    )
    out, summary_path, picture = _targets(config)
    write_csv(rows, out)
    left_out = {name: p.profile.provenance.get("left_out_scenarios", []) for name, p in predictors.items()}
    parts = [summarise(rows[rows.predictor == name], left_out, None).assign(predictor=name) for name in MODELS]
    summary = pd.concat([*parts, left_out_twin_data(predictors)], ignore_index=True)
    first = ["model", "predictor"]
    summary = summary[[*first, *(name for name in summary.columns if name not in first)]]
    write_csv(summary.round(3), summary_path)
    for table in predictor_tables(summary):
        terminal.print(table)
    draw(rows[rows.predictor == "full"], left_out, picture, "predicted")
    terminal.print(f"wrote {out}, {summary_path} and {picture}")


if __name__ == "__main__":
    main()
