"""Labelled contents: drawn contents of a GPU with what the twin says of them, in resumable pieces."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import MISSING
from rich.console import Console
from threadpoolctl import threadpool_limits

from bench.shared.files import check_file, write_table
from bench.shared.terminal import progress_bar
from bench.training import level_labels
from bench.training.pieces import BOUNDARY, DESIGNED, Piece, claim, in_processes, in_turn, joined, missing, pieces_of
from predictors.boundary import LADDER, draw_boundary_content, feasible_load, next_factor, scaled_content
from predictors.design import DrawnContent, content_generator, draw_content, draw_requests
from predictors.errors import LabelledContents
from predictors.features import FEATURE_NAMES
from predictors.fit import fit_boundary_model
from predictors.fit_levels import LabelledLevels
from predictors.meanfield import profile_table
from twin import ServingProfile, UserError, simulate_requests
from twin.profile_files import parse_profile

#: Where the configuration stands in the metadata of a file.
METADATA_KEY = b"lora_placement_bench.dataset"
#: What a sample is labelled for: `predictors.model` or `predictors.levels`.
STARVATION, LEVELS = "starvation", "levels"
#: Raised when older files no longer say the same.
FORMAT = 2

# A stream of its own for each part; 2**40 contents of either are more than anybody draws.
FIRST_BOUNDARY_INDEX = 1 << 40
LABELS = (
    "throughput", "offered_throughput", "starved", "memory_error", "itl_ms", "ttft_ms", "e2e_ms",
    "mean_running", "mean_adapters", "arrived", "finished", "preemptions", "loads", "busy_s", "feasible_load",
)  # fmt: skip


@dataclass
class DatasetOptions:
    """The sample, and who labels which of its pieces.

    `conf/dataset.yaml` says what each option is for.
    """

    out: str = MISSING
    points: int = 50_000
    boundary: float = 0.5
    guide: int = 4_000
    seed: int = 0
    workers: int = 2
    piece: int = 250
    job: int = 0
    jobs: int = 1
    labels: str = STARVATION


def make_dataset(options: DatasetOptions, profile: ServingProfile, terminal: Console) -> Path | None:
    """Label the contents of a sample, as far as they are not there yet.

    Parameters
    ----------
    options : DatasetOptions
    profile : ServingProfile
    terminal : Console
        For progress.

    Returns
    -------
    Path or None
        The file; None from one of several jobs, which leaves it to the last command.

    Raises
    ------
    UserError
        For options out of range, or if pieces of another sample are in the way.
    """
    _check(options)
    out = Path(options.out)
    settings = dataset_settings(options, profile)
    if out.is_file() and read_settings(out) == settings:
        terminal.print(f"{out} is this sample already", soft_wrap=True)
        return out
    folder = out.with_name(out.name + ".pieces")
    claim(folder, settings)
    n_boundary = round(options.points * options.boundary)
    designed = pieces_of(DESIGNED, options.points - n_boundary, options.piece)
    boundary = pieces_of(BOUNDARY, n_boundary, max(LADDER, options.piece - options.piece % LADDER))
    with progress_bar(terminal) as progress:
        task = progress.add_task(f"{profile.name}: contents", total=options.points)
        make = _label_levels if options.labels == LEVELS else _label_starvation
        make(options, profile, folder, (designed, boundary), partial(progress.advance, task))
    pieces = designed + boundary
    if options.jobs > 1 or missing(pieces, folder):
        return None
    _put_together(pieces, folder, out, settings)
    return out


Parts = tuple[Sequence[Piece], Sequence[Piece]]


def _label_levels(
    options: DatasetOptions, profile: ServingProfile, folder: Path, parts: Parts, advance: Callable[[float], None]
) -> None:
    label = partial(level_labels.label_piece, profile.to_json(), options.seed, str(folder))
    _run(options, folder, in_turn(*parts), label, advance)


def _label_starvation(
    options: DatasetOptions, profile: ServingProfile, folder: Path, parts: Parts, advance: Callable[[float], None]
) -> None:
    """The first contents, a model of the boundary that is learned from these, and all others."""
    designed, boundary = parts
    first = [piece for piece in designed if piece.first < options.guide] if boundary else designed
    label = partial(label_piece, profile.to_json(), options.seed, str(folder), None)
    _run(options, folder, first, label, advance)
    if boundary:
        # The model of the boundary wants all of these. Nobody waits for the others: a piece is the same whoever makes it.
        _make(options, folder, first, label, advance)
        guide = folder / "guide.parquet"
        if not guide.is_file():
            write_table(joined(folder, first), guide)
        near = partial(label_piece, profile.to_json(), options.seed, str(folder), str(guide))
        _run(options, folder, in_turn(designed[len(first) :], boundary), near, advance)


def _run(
    options: DatasetOptions,
    folder: Path,
    pieces: Sequence[Piece],
    work: Callable[[Piece], int],
    advance: Callable[[float], None],
) -> None:
    """Make the pieces that are this job's."""
    mine = [piece for number, piece in enumerate(pieces) if number % options.jobs == options.job]
    there = set(mine) - set(missing(mine, folder))
    advance(sum(piece.last - piece.first for piece in there))
    _make(options, folder, mine, work, advance)


def _make(
    options: DatasetOptions,
    folder: Path,
    pieces: Sequence[Piece],
    work: Callable[[Piece], int],
    advance: Callable[[float], None],
) -> None:
    for done in in_processes(work, missing(pieces, folder), options.workers):
        advance(done)


def _put_together(pieces: Sequence[Piece], folder: Path, out: Path, settings: dict[str, Any]) -> None:
    """Make the file of a sample of its pieces, which are not needed any more."""
    table = joined(folder, pieces).replace_schema_metadata({METADATA_KEY: json.dumps(settings).encode()})
    write_table(table, out)
    shutil.rmtree(folder)


def dataset_settings(options: DatasetOptions, profile: ServingProfile) -> dict[str, Any]:
    """What the rows of a sample depend on; stored in its file."""
    of_levels = {"labels": LEVELS, "level_format": level_labels.FORMAT} if options.labels == LEVELS else {}
    return {
        **of_levels,
        "format": FORMAT,
        "features": list(FEATURE_NAMES),
        "points": options.points,
        "boundary": options.boundary,
        "guide": options.guide,
        "piece": options.piece,
        "seed": options.seed,
        "profile": json.loads(profile.to_json()),
    }


def read_settings(path: Path) -> dict[str, Any] | None:
    """Configuration of a sample's file, or None if it is not one."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        settings: dict[str, Any] = json.loads(metadata[METADATA_KEY])
    except (OSError, KeyError, ValueError):
        return None
    return settings


def read_dataset(path: Path) -> tuple[LabelledContents, ServingProfile, dict[str, Any]]:
    """A labelled sample, the profile that it was made with, and its configuration.

    Parameters
    ----------
    path : Path
        A file of `python -m bench.dataset`, or the folder with the pieces of one that is not finished; the `points` of
        the configuration are then those that are there.

    Raises
    ------
    UserError
        If there is no such file, or it is not one of `python -m bench.dataset`.
    """
    table, profile, settings = _read(path, STARVATION)
    return labelled(table), profile, settings


def read_level_dataset(path: Path) -> tuple[LabelledLevels, ServingProfile, dict[str, Any]]:
    """As `read_dataset`, of a sample that was labelled for service levels (`labels=levels`)."""
    table, profile, settings = _read(path, LEVELS)
    return level_labels.labelled_levels(table), profile, settings


def _read(path: Path, labels: str) -> tuple[pa.Table, ServingProfile, dict[str, Any]]:
    """The rows of a sample that was labelled for something, its profile and its configuration."""
    if path.is_dir():
        table, settings = _unfinished(path)
    elif path.is_file():
        settings = read_settings(path)
        table = pq.read_table(path) if settings else None
    else:
        raise UserError(f"data={path}: no such file; make it: python -m bench.dataset profile=NAME out={path}")
    if settings is None or table is None:
        raise UserError(f"data={path}: not a Parquet file of python -m bench.dataset")
    made_for = settings.get("labels", STARVATION)
    if made_for != labels:
        raise UserError(f"data={path}: labelled for {made_for}, and labels={labels} are needed")
    formats = settings.get("format"), settings.get("level_format", level_labels.FORMAT)
    if formats != (FORMAT, level_labels.FORMAT) or settings.get("features") != list(FEATURE_NAMES):
        raise UserError(f"data={path}: made by another release; make it again: python -m bench.dataset out={path}")
    return table, parse_profile(json.dumps(settings["profile"]), str(path)), settings


def _unfinished(folder: Path) -> tuple[pa.Table | None, dict[str, Any] | None]:
    """The pieces that are there, and their configuration."""
    pieces = sorted([*folder.glob(f"{DESIGNED}-*.parquet"), *folder.glob(f"{BOUNDARY}-*.parquet")])
    try:
        settings: dict[str, Any] = json.loads((folder / "settings.json").read_text())
    except (OSError, ValueError):
        return None, None
    if not pieces:
        raise UserError(f"data={folder}: no piece is finished yet")
    table = pa.concat_tables([pq.read_table(piece) for piece in pieces])
    return table, {**settings, "points": table.num_rows, "wanted_points": settings["points"]}


def labelled(table: pa.Table) -> LabelledContents:
    """Contents and labels of a table's rows."""
    boundary = np.array(table["part"].to_pylist()) == BOUNDARY
    index = table["index"].to_numpy()
    return LabelledContents(
        np.column_stack([table[name].to_numpy() for name in FEATURE_NAMES]),
        table["throughput"].to_numpy(),
        table["offered_throughput"].to_numpy(),
        table["starved"].to_numpy(),
        boundary,
        table["itl_ms"].to_numpy(),
        table["ttft_ms"].to_numpy(),
        table["feasible_load"].to_numpy(),
        np.where(boundary, -1 - index // LADDER, index),
    )


def label_piece(profile_json: str, seed: int, folder: str, guide: str | None, piece: Piece) -> int:
    """Draw, simulate and store one piece; returns how many contents it has.

    Parameters
    ----------
    profile_json : str
        The serving profile; processes share nothing but text.
    seed : int
    folder : str
        For the piece.
    guide : str, optional
        Parquet file that the boundary is learned from, for pieces near it.
    piece : Piece
    """
    profile = parse_profile(profile_json, "profile")
    table = profile_table(profile)
    indices = range(piece.first, piece.last)
    if piece.part == DESIGNED:
        rows = [
            _label(draw_content(content_generator(seed, i), profile, table), content_generator(seed, i, 1), profile)
            for i in indices
        ]
    else:
        model = _boundary_model(str(guide), profile_json, seed)
        rows = []
        for first in indices[::LADDER]:
            generator = content_generator(seed, FIRST_BOUNDARY_INDEX + first)
            content = draw_boundary_content(generator, profile, table, model)
            rows += _ladder(content, FIRST_BOUNDARY_INDEX + first, min(LADDER, piece.last - first), seed, profile)
    columns = {name: [row[place] for row in rows] for place, name in enumerate((*FEATURE_NAMES, *LABELS))}
    columns = {"part": [piece.part] * len(rows), "index": list(indices), **columns}
    write_table(pa.table(columns), Path(folder) / piece.file_name)
    return len(rows)


# Learned once in a process, not once for each of its pieces.
_boundary_models: dict[str, Callable[[np.ndarray], np.ndarray]] = {}


def _boundary_model(guide: str, profile_json: str, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    if guide not in _boundary_models:
        data = labelled(pq.read_table(guide))
        # Each process learns it, at the same time: with all cores for each they would wait for one another.
        with threadpool_limits(1):
            _boundary_models[guide] = fit_boundary_model(data, parse_profile(profile_json, "profile"), seed)
    return _boundary_models[guide]


def _label(content: DrawnContent, generator: np.random.Generator, profile: ServingProfile) -> list[Any]:
    result = simulate_requests(
        draw_requests(generator, content), content.ranks, profile, content.max_loras, duration_s=content.window_s
    )
    return [
        *content.features(),
        result.throughput, result.offered_throughput, result.starved, result.memory_error,
        result.itl.mean_ms, result.ttft.mean_ms, result.e2e.mean_ms, result.mean_running, result.mean_adapters,
        result.arrived, result.finished, result.preemptions, result.loads, result.busy_s, np.nan,
    ]  # fmt: skip


def _ladder(content: DrawnContent, index: int, steps: int, seed: int, profile: ServingProfile) -> list[list[Any]]:
    """Rows of a content and of the same at rates closer to the boundary, each with its own draw of requests."""
    rows: list[list[Any]] = []
    factors: list[float] = []
    shares: list[float] = []
    factor = 1.0
    for step in range(steps):
        scaled = scaled_content(content, factor)
        row = _label(scaled, content_generator(seed, index + step, 1), profile)
        rows.append(row)
        throughput, offered = row[len(FEATURE_NAMES)], row[len(FEATURE_NAMES) + 1]
        # Where rates met their limits, the load did not grow by the factor.
        factors.append(float(scaled.rates.sum() / content.rates.sum()))
        shares.append(throughput / offered if offered > 0 else 1.0)
        factor = next_factor(factors, shares)
    for row, load in zip(rows, feasible_load(factors, shares), strict=True):
        row[-1] = load
    return rows


def _check(options: DatasetOptions) -> None:
    for key in ("points", "workers", "piece", "jobs"):
        if getattr(options, key) < 1:
            raise UserError(f"{key}={getattr(options, key)} must be 1 or more")
    if not 0 <= options.boundary < 1:
        raise UserError(f"boundary={options.boundary} must be at least 0 and below 1")
    if not 0 <= options.job < options.jobs:
        raise UserError(f"job={options.job} must be at least 0 and below jobs={options.jobs}")
    if options.seed < 0:
        raise UserError(f"seed={options.seed} must not be negative")
    if options.labels not in (STARVATION, LEVELS):
        raise UserError(f"labels={options.labels}: must be one of {[STARVATION, LEVELS]}")
    check_file("out", options.out, ".parquet")
