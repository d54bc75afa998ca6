"""`python -m bench.report RESULTS`: one self-contained HTML file of a comparison, with its figures and tables for a paper."""

from __future__ import annotations

import contextlib
import gc
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

from omegaconf import MISSING

from bench.comparison.rows import read_any
from bench.evidence.runs import known_runs
from bench.reporting.content import Part
from bench.reporting.page import render
from bench.reporting.paper import write_paper
from bench.reporting.parts import (
    anytime,
    candidates,
    fidelity,
    latency,
    overview,
    pairwise,
    quality,
    reproduce,
    workloads,
)
from bench.reporting.parts.real_gpus import real_gpus
from bench.reporting.parts.stability import stability
from bench.reporting.study import Study
from bench.shared.command import command
from bench.shared.files import check_file, check_folder, write_text
from bench.shared.terminal import at_work, console
from bench.studies.robustness import target_beside
from twin import UserError

#: What the page is called beside a folder of rows.
PAGE = "report.html"


@dataclass
class ReportConfig:
    """Options of `python -m bench.report`; `conf/report.yaml` says what each is for.

    Attributes
    ----------
    rows : str
        Folder or Parquet file.
    out : str, optional
        HTML file.
    paper : str, optional
        Folder.
    paper_workloads : bool
        Whether the pages of the workloads go there as well.
    title : str
    placements : int
        Drawn for each workload.
    samples, seed : int
        Of the bootstrap.
    fidelity : str, optional
        CSV of `python -m bench.fidelity`.
    robustness : str, optional
        Parquet file of `python -m bench.robustness`.
    evidence : list of str
        Folders of `python -m bench.validate`.
    """

    rows: str = MISSING
    out: str | None = None
    paper: str | None = None
    paper_workloads: bool = True
    title: str = "LoRA placement: comparison of solvers"
    placements: int = 4
    samples: int = 2000
    seed: int = 0
    fidelity: str | None = None
    robustness: str | None = None
    evidence: list[str] = field(default_factory=list)


@command("report", ReportConfig, positional="rows")
def main(config: ReportConfig) -> None:
    """Read rows, write the page and the files for a paper, and say where they are."""
    out = _target(config)
    if config.samples < 1 or config.placements < 0:
        raise UserError(f"samples={config.samples} must be 1 or more, placements={config.placements} must be 0 or more")
    study = Study(read_any(Path(config.rows)), samples=config.samples, seed=config.seed)
    terminal = console()
    with at_work(console(stderr=True), "drawing"), _kept():
        parts, pages = make_parts(study, config)
        write_text(out, render(study, config.title, parts, pages))
    terminal.print(f"report   {out} ({out.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)
    if config.paper is not None:
        with at_work(console(stderr=True), "drawing for a paper"):
            written = write_paper(Path(config.paper), [*parts, *(pages if config.paper_workloads else [])])
        terminal.print(f"paper    {len(written)} files in {config.paper}", soft_wrap=True)


@contextlib.contextmanager
def _kept() -> Iterator[None]:
    """Let the collector pass over what has been read: looking at millions of values again and again is a tenth of the time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def make_parts(study: Study, config: ReportConfig) -> tuple[list[Part], list[Part]]:
    """Parts of the first page, and the pages of the workloads."""
    if config.fidelity is not None:
        summary: Path | None = Path(config.fidelity)
    else:
        summary = fidelity.SUMMARY if fidelity.SUMMARY.is_file() else None
    beside = target_beside(Path(config.rows))
    scores = Path(config.robustness) if config.robustness is not None else (beside if beside.is_file() else None)
    parts = [
        overview.overview(study),
        quality.quality(study),
        pairwise.pairwise(study),
        stability(scores),
        real_gpus(study, known_runs(config.evidence)),
        anytime.anytime(study),
        latency.latency(study),
        workloads.index(study),
        candidates.candidates(study),
        fidelity.fidelity(study, summary),
        reproduce.reproduce(study, _command(config)),
    ]
    pages = workloads.pages(study, workloads.Options(placements=config.placements))
    return [part for part in parts if part is not None], pages


def _command(config: ReportConfig) -> str:
    """The command line of this run."""
    options = [
        f"{option.name}={getattr(config, option.name)}"
        for option in fields(config)
        if option.name != "rows" and getattr(config, option.name) not in (option.default, [])
    ]
    return shlex.join(["python", "-m", "bench.report", config.rows, *options])


def _target(config: ReportConfig) -> Path:
    rows = Path(config.rows)
    beside = rows / PAGE if rows.is_dir() else rows.with_suffix(".html")
    out = Path(config.out) if config.out else beside
    if config.paper is not None:
        check_folder("paper", config.paper)
    return check_file("out", str(out), ".html")


if __name__ == "__main__":
    main()
