"""`python -m bench.calibrate runs=DIR`: fit serving profiles to published vLLM runs.

Other sources: bench/measured/profile_from_scrapes.py, bench/measured/profile_from_campaign.py. S-LoRA's runs: slora_runs.py there.

KV capacity and adapter load times are looked up in the measured tables, scheduler time and step time are fitted
(`twin.calibration`). Whole scenarios are left out of the fit, and the step-time error on their runs is printed and kept
in the profile with everything else that it was made of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.measured.profile_from_campaign import profile_from_campaign
from bench.measured.profile_from_runs import CalibrationOptions, calibrate
from bench.measured.profile_from_scrapes import FLAGS as FLAGS_OF_A_SERVER
from bench.measured.profile_from_scrapes import profile_from_metrics
from bench.measured.published import PROFILE_OF_MODEL
from bench.measured.slora_runs import fit_slora, is_slora
from bench.shared.command import command
from bench.shared.files import check_folder
from bench.shared.terminal import console
from twin import UserError
from twin.profile import ServingProfile


@dataclass
class CalibrateConfig(CalibrationOptions):
    """Options of `python -m bench.calibrate`; `conf/calibrate.yaml` says what each is for."""

    runs: str | None = None
    metrics: list[str] | None = None
    campaign: str | None = None
    max_loras: int | None = None
    max_lora_rank: int | None = None
    kv_cache_tokens: int | None = None
    n_adapters: int | None = None
    prior: str = "llama-3.1-8b"
    name: str | None = None
    scrape_window_s: float = 60.0
    models: list[str] = field(default_factory=lambda: sorted(PROFILE_OF_MODEL))
    out: str = "results/runs/profiles"


@command("calibrate", CalibrateConfig)
def main(config: CalibrateConfig) -> None:
    """Fit the profiles asked for and write them."""
    terminal = console()
    if [config.runs, config.metrics, config.campaign].count(None) != 2:
        raise UserError(
            "give either runs=DIR (published runs), metrics=[FILE,...] (scrapes of a running server) or "
            "campaign=DIR (what python -m bench.campaign measured)"
        )
    out = check_folder("out", config.out)
    if config.metrics is not None:
        profile = profile_from_metrics(
            config.metrics,
            {flag: getattr(config, flag) for flag in FLAGS_OF_A_SERVER},
            config.prior,
            config.name or "my-model/my-gpu",
            config.scrape_window_s,
            terminal,
        )
        save(profile, out, terminal)
        return
    if config.campaign is not None:
        save(profile_from_campaign(config.campaign, config.name, terminal), out, terminal)
        return
    if is_slora(str(config.runs)):
        save(fit_slora(str(config.runs), config.seed, config.threads, terminal), out, terminal)
        return
    terminal.print(f"calibrating {', '.join(config.models)} on {config.runs}, seed {config.seed}")
    table = Table(title="Mean absolute step-time error")
    for heading in ("profile", "runs fitted", "error", "runs left out", "error on runs left out", "micro-benchmarks"):
        table.add_column(heading, justify="left" if heading == "profile" else "right")
    for model in config.models:
        if model not in PROFILE_OF_MODEL:
            raise UserError(f"models={model}: no such model in the run tables; known are {sorted(PROFILE_OF_MODEL)}")
        report = calibrate(config, str(config.runs), model, terminal)
        save(report.profile, out, terminal)
        table.add_row(
            report.profile.name,
            str(report.fitted_runs),
            f"{report.fit_error_pct:.2f} %",
            str(report.left_out_runs),
            f"{report.left_out_error_pct:.2f} %",
            f"{report.micro_error_pct:.2f} %",
        )
    terminal.print(table)


def save(profile: ServingProfile, folder: Path, terminal: Console) -> None:
    """Write a profile under its name."""
    path = folder / (profile.name.replace("/", "__") + ".json")
    profile.save(path)
    terminal.print(f"wrote {path}")


if __name__ == "__main__":
    main()
