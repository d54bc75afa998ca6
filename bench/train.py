"""`python -m bench.train`: train predictors on labelled contents, and print their errors on contents left out.

Without options this makes the shipped models afresh from the shipped profiles: the data, the models, and the
tables of their errors in results/predictors.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import MISSING
from rich.console import Console
from rich.table import Table

from bench.shared.command import command
from bench.shared.files import check_file, check_folder, write_text
from bench.shared.terminal import at_work, console
from bench.training.labels import LEVELS, STARVATION, DatasetOptions, make_dataset, read_dataset, read_level_dataset
from bench.training.level_errors import level_table, write_levels
from bench.training.model_card import write_card
from predictors import Predictor, load_predictor, save_predictor
from predictors.fit import fit_predictor
from predictors.fit_levels import fit_levels
from predictors.levels import LevelModels
from predictors.options import FAMILIES, TrainingOptions
from twin import ServingProfile, UserError, load_profile, shipped_profiles

#: Where data are kept that were made for training only.
DATA_FOLDER = Path("results/runs/train")

#: What can be trained: throughput, starvation, mean latency and feasible load; and service levels and percentiles of latency.
MODELS = (STARVATION, LEVELS)

FIGURES = (
    ("throughput_smape", "throughput SMAPE %"),
    ("itl_smape", "ITL"),
    ("ttft_smape", "TTFT"),
    ("feasible_load_smape", "feasible load"),
    ("starvation_macro_f1", "starvation macro-F1"),
    ("safe_macro_f1", "F1 at safe threshold"),
    ("missed_starvation", "missed starvation %"),
    ("needless_refusals", "needless refusals %"),
)


@dataclass
class TrainConfig:
    """Options of `python -m bench.train`; `conf/train.yaml` says what each is for."""

    profile: str | None = None
    models: list[str] = field(default_factory=lambda: list(MODELS))
    data: str | None = None
    points: int = 50_000
    level_data: str | None = None
    level_points: int = 12_000
    workers: int = 2
    out: str | None = None
    tables: str | None = "results/predictors"
    families: list[str] = field(default_factory=lambda: list(FAMILIES))
    trees: int = MISSING
    forest_leaves: int = MISSING
    boosting_rounds: int = MISSING
    boosting_leaves: int = MISSING
    boosting_inputs: float = MISSING
    learning_rate: float = MISSING
    neighbours: int = MISSING
    svm_rows: int = MISSING
    comparison_rows: int = MISSING
    distilled_leaves: int = MISSING
    distillation_points: int = MISSING
    distillation_attempts: int = MISSING
    folds: int = MISSING
    test_share: float = MISSING
    risk: float = MISSING
    seed: int = 0


@command("train", TrainConfig)
def main(config: TrainConfig) -> None:
    """Train a predictor for one profile or for all shipped ones of GPUs."""
    if config.profile is None and (config.data or config.level_data or config.out):
        raise UserError("profile must be given with data, level_data or out: profile=NAME")
    if not config.models or not set(config.models) <= set(MODELS):
        raise UserError(f"models={config.models}: choose among {list(MODELS)}")
    if config.out:
        check_file("out", config.out, ".npz")
    if config.tables:
        check_folder("tables", config.tables)
    options = training_options(config)
    # The tiny model on a CPU is there to check placements on real servers; no solver needs to be that fast on it.
    of_gpus = [name for name in shipped_profiles() if not name.endswith("/cpu")]
    for name in [config.profile] if config.profile else of_gpus:
        profile = load_profile(name)
        terminal = console(stderr=True)
        begin = time.perf_counter()
        out = Path(config.out) if config.out else shipped_path(profile)
        predictor = (
            train(profile, config, options, terminal) if STARVATION in config.models else load_predictor(str(out))
        )
        if LEVELS in config.models:
            predictor = replace(predictor, levels=train_levels(profile, config, options, terminal))
        save_predictor(predictor, out)
        seconds = time.perf_counter() - begin
        screen = console()
        screen.print(report(predictor))
        screen.print(card_lines(predictor), soft_wrap=True)
        if predictor.levels is not None:
            screen.print(level_table(predictor))
        screen.print(f"{out}: {out.stat().st_size / 1024:.0f} KiB, made in {seconds:.0f} s", soft_wrap=True)
        if config.tables:
            screen.print(f"errors by region: {write_regions(predictor, Path(config.tables))}", soft_wrap=True)
            if predictor.levels is not None:
                screen.print(f"service levels: {write_levels(predictor, Path(config.tables))}", soft_wrap=True)
            screen.print(f"model card: {write_card(predictor, Path(config.tables))}", soft_wrap=True)


def training_options(config: TrainConfig) -> TrainingOptions:
    """The options that concern the models.

    Raises
    ------
    UserError
        For a value out of range.
    """
    values: dict[str, Any] = {part.name: getattr(config, part.name) for part in fields(TrainingOptions)}
    return TrainingOptions(**{**values, "families": tuple(config.families)})


def shipped_path(profile: ServingProfile) -> Path:
    """Where the shipped predictor of a profile stands."""
    return Path(str(resources.files("predictors"))) / "models" / f"{profile.name.replace('/', '__')}.npz"


def train(profile: ServingProfile, config: TrainConfig, options: TrainingOptions, terminal: Console) -> Predictor:
    """Read or make the data and fit a predictor to them.

    Raises
    ------
    UserError
        If the data were made with another profile, or are too few.
    """
    path = Path(config.data) if config.data else _made(profile, config, terminal, STARVATION)
    data, made_with, settings = read_dataset(path)
    _check_same(path, made_with, profile)
    with at_work(terminal, f"{profile.name}: training") as show:
        predictor = fit_predictor(data, profile, options, lambda line: show(f"{profile.name}: {line}"))
    predictor.card["data"] = _about(settings)
    return predictor


def train_levels(
    profile: ServingProfile, config: TrainConfig, options: TrainingOptions, terminal: Console
) -> LevelModels:
    """Read or make the data of service levels and fit models to them.

    Raises
    ------
    UserError
        If the data were made with another profile, or are too few.
    """
    path = Path(config.level_data) if config.level_data else _made(profile, config, terminal, LEVELS)
    data, made_with, settings = read_level_dataset(path)
    _check_same(path, made_with, profile)
    with at_work(terminal, f"{profile.name}: training service levels") as show:
        models = fit_levels(data, profile, options, lambda line: show(f"{profile.name}: {line}"))
    models.card["data"] = _about(settings)
    return models


def _check_same(path: Path, made_with: ServingProfile, profile: ServingProfile) -> None:
    if replace(made_with, provenance={}) != replace(profile, provenance={}):
        raise UserError(
            f"data={path}: made with another version of profile {made_with.name} than {profile.name} is now; "
            f"make them again: python -m bench.dataset profile={profile.name} out={path}"
        )


def _about(settings: dict[str, Any]) -> dict[str, Any]:
    kept = ("points", "wanted_points", "boundary", "guide", "seed", "piece")
    return {key: settings[key] for key in kept if key in settings}


def _made(profile: ServingProfile, config: TrainConfig, terminal: Console, labels: str) -> Path:
    ending, points = ("", config.points) if labels == STARVATION else ("__levels", config.level_points)
    out = DATA_FOLDER / f"{profile.name.replace('/', '__')}{ending}.parquet"
    settings = DatasetOptions(out=str(out), points=points, seed=config.seed, workers=config.workers, labels=labels)
    path = make_dataset(settings, profile, terminal)
    if path is None:
        raise UserError(f"data: {out} is being made by another command; wait for it, or give data=FILE.parquet")
    return path


def report(predictor: Predictor) -> Table:
    """The errors on contents left out of the training, for people."""
    card = predictor.card
    table = Table(title=f"{predictor.profile_name}: {card['test']} contents left out of {card['points']}")
    table.add_column("contents")
    table.add_column("model")
    for _, title in FIGURES:
        table.add_column(title, justify="right")
    for part, models in card["test_errors"].items():
        for name, figures in models.items():
            shown = (f"{figures.get(key, np.nan):.{3 if 'f1' in key else 2}f}".replace("nan", "") for key, _ in FIGURES)
            table.add_row(part, name, *shown)
    return table


def card_lines(predictor: Predictor) -> str:
    """What else the model card says that a user should see."""
    card = predictor.card
    size = ", ".join(f"{name} {trees} x {leaves // trees} leaves" for name, (trees, leaves) in card["size"].items())
    chosen = "; ".join(
        f"{target}: " + ", ".join(f"{family} {error:.4f}" for family, error in errors.items())
        for target, errors in card["cross_validation"].items()
    )
    return (
        f"seed {card['seed']}, data seed {card['data']['seed']}, {100 * card['starved_share']:.1f} % starved; "
        f"starved from probability {predictor.starvation_threshold:.3f} on (distilled "
        f"{predictor.distilled_threshold:.3f}), so that {100 * card['risk']:g} % of the starved of the designed sample "
        f"are missed\ncross-validated error  {chosen}\nsize  {size}"
    )


def write_regions(predictor: Predictor, folder: Path) -> Path:
    """Write the errors by region as CSV."""
    rows = []
    card = predictor.card
    parts = [{"input": f"all {part}", **errors} for part, errors in card["test_errors"].items()]
    for region in [*parts, *card["regions"]]:
        for model in ("full", "distilled"):
            figures = {key: round(region[model].get(key, np.nan), 4) for key, _ in FIGURES}
            rows.append(
                {
                    "profile": predictor.profile_name, "model": model, "input": region["input"],
                    "above": region.get("above"), "up_to": region.get("up_to"), "points": region.get("points"), **figures,
                }
            )  # fmt: skip
    path = folder / f"{predictor.profile_name.replace('/', '__')}.csv"
    write_text(path, pd.DataFrame(rows).to_csv(index=False))
    return path


if __name__ == "__main__":
    main()
