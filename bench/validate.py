"""`python -m bench.validate placement=FILE`: a placement on real vLLM servers, beside what the twin says of it.

Each GPU of the placement becomes a server with its flags and adapters; it gets exactly the requests that the twin saw, at
their times. A finished GPU is on disk at once, and the same command goes on where it was interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from bench.evidence.runs import write_own
from bench.shared.command import command
from bench.shared.files import check_file, check_folder
from bench.shared.terminal import console
from bench.vllm.as_evidence import evidence_rows
from bench.vllm.backends import find_python, versions
from bench.vllm.comparison import report, write_summary
from bench.vllm.measurement import write_json
from bench.vllm.pictures import draw
from bench.vllm.placements import read_placed
from bench.vllm.stopping import run_until_stopped
from bench.vllm.validation import ValidationOptions, comparison_of, finished, jobs_of, measure, versions_of
from twin import UserError


@dataclass
class ValidateConfig(ValidationOptions):
    """Options of `python -m bench.validate`; `conf/validate.yaml` says what each is for."""

    placement: str = MISSING
    solver: str | None = None
    row_seed: int | None = None
    workload: dict[str, Any] | None = None
    profile: str | None = None
    gpus: list[int] | None = None
    repeats: int = 1
    out: str = "results/runs/validate"
    picture: str | None = None
    trust: list[str] = field(default_factory=list)


@command("validate", ValidateConfig)
def main(config: ValidateConfig) -> None:
    """Measure what is missing, compare, and write summary and picture."""
    terminal = console(width=140)
    if config.repeats < 1:
        raise UserError(f"repeats={config.repeats} must be 1 or more")
    if config.parallel is not None and config.parallel < 1:
        raise UserError(f"parallel={config.parallel} must be 1 or more, or null for one on each GPU")
    out = check_folder("out", config.out)
    picture = check_file("picture", config.picture) if config.picture else out / "validation.png"
    placed = read_placed(
        config.placement,
        solver=config.solver,
        seed=config.row_seed,
        workload=config.workload,
        profile=config.profile,
        duration_s=config.duration_s,
        trust=config.trust,
    )
    jobs = jobs_of(placed, config.gpus)
    kept = finished(placed, jobs, config.repeats, out)
    missing = {job: [r for r in range(config.repeats) if (job.number, r) not in kept] for job in jobs}
    todo = [(job, repeats) for job, repeats in missing.items() if repeats]
    # What is only compared again needs no vLLM.
    found = versions(find_python(config.engine.python)) if todo else versions_of(kept)
    terminal.print(
        f"validating {placed.label}: {len(jobs)} of {placed.placement.n_gpus} GPUs, {placed.workload.duration_s:g} s, "
        f"{config.repeats} times; profile {placed.profile.name}, vLLM {found['vllm']} on {found['hardware']}, "
        f"seed {placed.workload.seed}"
    )
    if str(found["vllm"]) != placed.profile.engine_version:
        terminal.print(
            f"note: the profile is of vLLM {placed.profile.engine_version}; what differs between versions shows as error"
        )
    if kept:
        terminal.print(f"{len(kept)} windows are in {out} already, {sum(map(len, missing.values()))} are missing")
    try:
        if todo:
            run_until_stopped(measure(config, placed, todo, out, terminal))
    finally:
        kept = finished(placed, jobs, config.repeats, out)
        if len(kept) < len(jobs) * config.repeats:
            terminal.print(f"{len(kept)} finished windows are kept in {out}; the same command goes on with the others")
    comparisons = [comparison_of(job, [kept[job.number, r] for r in range(config.repeats)], placed) for job in jobs]
    terminal.print(report(comparisons, placed.profile.name))
    write_summary(comparisons, out / "summary.csv")
    write_own(evidence_rows(comparisons, placed), out)
    write_json({"profile": placed.profile.name, "placement": placed.label, **found}, out / "validation.json")
    draw(comparisons, picture, f"{placed.label}: real vLLM {found['vllm']} and the twin ({placed.profile.name})")
    terminal.print(
        f"summary  {out / 'summary.csv'}\npicture  {picture}\nevidence {out} (python -m bench.plan evidence={out})",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
