"""`python -m bench.plan adapters=FILE.csv`: how few GPUs serve these adapters, and how to start vLLM on each.

Several solvers look for a placement; the twin decides which are feasible, the objective which is best.
"""

from __future__ import annotations

import logging
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import MISSING
from rich.text import Text

from bench.comparison.build import objective_of
from bench.comparison.cells import cells_of
from bench.comparison.compare import Comparison
from bench.comparison.config import BenchConfig, ServiceConfig
from bench.comparison.execution import execution_of, run_cells
from bench.comparison.reserve import check_reserve
from bench.comparison.rows import Row
from bench.comparison.run import check_options
from bench.evidence.runs import known_runs
from bench.planning.adapters import Adapter, Traffic, workload_of
from bench.planning.answer import Answer, answer, feasible_rows
from bench.planning.chance import Load, chance_of
from bench.planning.confidence import check_confidence, sure_enough
from bench.planning.counters import read_counters
from bench.planning.fleets import fleet_asked, for_mixed_fleets, types_in_words
from bench.planning.kubernetes import Cluster
from bench.planning.limits import hot_adapter, nothing_starts
from bench.planning.listing import changed, check_counted, check_ranks, read_adapters, with_lengths
from bench.planning.published import published_cell, published_need
from bench.planning.report import command_lines, failure_lines, plan_report, write_plan
from bench.planning.vllm_arguments import check_arguments, profile_arguments
from bench.planning.vllm_commands import Serving
from bench.planning.without_predictor import asking_the_twin
from bench.shared.command import command
from bench.shared.files import check_folder
from bench.shared.mistakes import explain_instantiation
from bench.shared.plugins import register_solvers
from bench.shared.terminal import at_work, console, plain
from bench.statistics.contradictions import end_with, standing_bound
from twin import Fleet, Placement, ServingProfile, UserError, load_profile
from twin.moved import slowed
from twin.profile import SLORA

# By name: as a command this module is called __main__, whose notes nobody shows.
_log = logging.getLogger("bench.plan")

#: Exit code when no placement is feasible; 2 is a user's mistake, 3 a refuted bound.
INFEASIBLE_EXIT = 1


@dataclass
class WhatIf:
    """Changes of single adapters: `what_if.rate.NAME=2`."""

    rate: dict[str, float] = field(default_factory=dict)
    rank: dict[str, int] = field(default_factory=dict)


@dataclass
class Kubernetes:
    """What the pods of the Helm values have in common."""

    name: str = "lora"
    repository: str = "vllm/vllm-openai"
    tag: str = "v0.32.0"
    cpus: int = 8
    memory: str = "32Gi"
    adapters: str = "modules"
    secret: str = ""


@dataclass
class PlanConfig:
    """Options of `python -m bench.plan`; `conf/plan.yaml` says what each is for."""

    adapters: str = MISSING
    counters: Any = None
    counters_interval_s: float | None = None
    counters_metric: str | None = None
    counters_label: str | None = None
    service: ServiceConfig = field(default_factory=ServiceConfig)
    published: bool = True
    profile: str = "llama-3.1-8b"
    fleet: Any = None
    gpus: int | None = None
    reserve: float = 0.0
    confidence: float | None = None
    scale: float = 1.0
    what_if: WhatIf = field(default_factory=WhatIf)
    solver: dict[str, Any] = field(default_factory=dict)
    objective: dict[str, Any] = field(default_factory=dict)
    lengths: dict[str, Any] = field(default_factory=dict)
    arrivals: dict[str, Any] = field(default_factory=dict)
    duration_s: float = 600.0
    seed: int = 0
    time_limit_s: float = 60.0
    threads: int = 2
    model: str | None = None
    adapter_path: str = "/adapters/{name}"
    port: int = 8000
    gpus_per_host: int = 8
    vllm_args: list[str] = field(default_factory=list)
    kubernetes: Kubernetes = field(default_factory=Kubernetes)
    evidence: list[str] = field(default_factory=list)
    out: str | None = None


@command("plan", PlanConfig)
def _run(config: PlanConfig) -> None:
    """Find a placement, print it and write the files that serve it."""
    folder = check_folder("out", config.out or HydraConfig.get().runtime.output_dir)
    fleet = fleet_asked(config, HydraConfig.get().overrides.task)
    profile = load_profile(config.profile)
    if profile.engine == SLORA:
        raise UserError(
            f"profile={config.profile}: is of S-LoRA; a plan is of vLLM servers, whose profile would be right"
        )
    serving = Serving(
        profile.model if config.model is None else config.model, profile, config.adapter_path, config.port, config.gpus_per_host,
        (*profile_arguments(profile), *config.vllm_args), fleet,
    )  # fmt: skip
    check_reserve(config.reserve)
    check_confidence(config.confidence, profile, fleet)
    # A folder without runs is said before anything is solved.
    known_runs(config.evidence)
    cluster = Cluster(**vars(config.kubernetes))
    contradictions = [*check_arguments(config.vllm_args), *_other_model(config.model, profile)]
    adapters, notes = adapters_of(config)
    for each in [profile] if fleet is None else [kind.profile for kind in fleet.types]:
        check_ranks(adapters, each, Path(config.adapters), config.what_if.rank)
    heading = [*_heading(config, adapters, profile), *(types_in_words(fleet) if fleet else ()), *contradictions, *notes]
    found = _found(config, adapters, profile, fleet)
    if fleet is not None and fleet.is_mixed:
        serving = replace(serving, kinds=tuple(gpu.gpu_type for gpu in found.gpus))
    names = write_plan(
        found, serving, cluster, _asked(config, profile, found), workload_options(adapters, config), folder
    )
    out = console()
    out.print(plan_report(found, serving, heading))
    for line in ("", "commands", *command_lines(found, serving)):
        out.print(Text(line), soft_wrap=True)
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    out.print(f"\nwritten to {shown}: {', '.join(path.name for path in names)}", soft_wrap=True)
    end_with(found.contradictions)


def _found(
    config: PlanConfig, adapters: Sequence[Adapter], profile: ServingProfile, fleet: Fleet | None = None
) -> Answer:
    """The answer; where there is none the command ends here and says why."""
    service = config.service.level()
    traffic = Traffic.of(
        profile,
        lengths=_made(config.lengths, "lengths"),
        arrivals=_made(config.arrivals, "arrivals"),
        duration_s=config.duration_s,
        seed=config.seed,
    )
    workload = workload_of(adapters, traffic, profile)
    objective = objective_of(config.objective)
    # What is wrong with the options is said before anything runs.
    Comparison(
        workload, profile, objective, config.gpus, config.time_limit_s, config.seed, config.threads, service=service
    )
    profiles = [profile] if fleet is None else [kind.profile for kind in fleet.types]
    if all(reasons := [nothing_starts(adapters, each) for each in profiles]):
        _fail([f"infeasible: {reasons[0]}"])
    # How few GPUs the published rule would need says nothing of a fleet's cost.
    beside = config.published and service.judges_requests and objective.minimise_gpus and fleet is None
    rows, published = candidates(config, adapters, published=beside)
    need = published_need(published, workload, profile, service, threads=config.threads) if published else None
    load = Load(adapters, traffic, profile, service, config.threads)
    chosen, slowdown = rows, 1.0
    if config.confidence is not None and feasible_rows(rows):
        with at_work(console(stderr=True), "the cheapest plan that is sure enough"):
            sure = sure_enough(rows, config.confidence, load, lambda factor: _slower(config, adapters, profile, factor))
        if sure.share < config.confidence:
            _fail([sure.in_words(config.confidence)])
        chosen, slowdown = [sure.row], sure.slowdown
    with at_work(console(stderr=True), "head-room of each GPU"):
        found = answer(
            chosen, adapters, traffic, profile, service=service, reserve=config.reserve, threads=config.threads,
            runs=known_runs(config.evidence), fleet=fleet,
        )  # fmt: skip
    if found is None:
        hot = None if len(profiles) > 1 else hot_adapter(adapters, traffic, profile, service)
        lines = failure_lines(rows, [adapter.name for adapter in adapters], config.gpus, config.reserve, hot, service)
        _fail([*lines, *([need.in_words()] if need else [])])
    with at_work(console(stderr=True), "servers that are off by what the profile leaves open"):
        # The types of a fleet may be off together or each by itself: nobody knows.
        chance = None if fleet is not None else chance_of(Placement.from_json(found.row.placement or "[]"), load)
    # A bound is about the profile itself, which every plan must hold under.
    return replace(
        found, rows=tuple(rows), claim=standing_bound(rows), published=need, chance=chance, slowdown=slowdown
    )


def _slower(config: PlanConfig, adapters: Sequence[Adapter], profile: ServingProfile, factor: float) -> list[Row]:
    """Placements for servers whose steps all take so many times as long."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slower.json"
        slowed(profile, factor).save(path)
        return candidates(replace(config, profile=str(path)), adapters)[0]


def _asked(config: PlanConfig, profile: ServingProfile, found: Answer) -> dict[str, Any]:
    """What the answer is to, for the files."""
    return {
        "adapters": config.adapters,
        "profile": config.profile,
        "engine": f"{profile.engine} {profile.engine_version}",
        "objective": found.row.objective,
        "service": asdict(found.service),
        "gpus": config.gpus,
        "reserve": config.reserve,
        "confidence": config.confidence,
        "overrides": list(HydraConfig.get().overrides.task),
        "seed": config.seed,
        "duration_s": config.duration_s,
        "version": found.row.version,
    }


def workload_options(adapters: Sequence[Adapter], config: PlanConfig) -> dict[str, Any]:
    """Builder and options of the workload, by which other processes and commands make it again."""
    return {
        "_target_": "bench.planning.adapters.planned",
        "name": Path(config.adapters).name,
        "adapters": [asdict(adapter) for adapter in adapters],
        "duration_s": config.duration_s,
        "lengths": config.lengths,
        "arrivals": config.arrivals,
        "seed": config.seed,
    }


def _fail(lines: Sequence[str]) -> NoReturn:
    """End without an answer, and say why."""
    sys.stderr.write("".join(f"{plain(line)}\n" for line in lines))
    raise SystemExit(INFEASIBLE_EXIT)


def _heading(config: PlanConfig, adapters: Sequence[Adapter], profile: ServingProfile) -> list[str]:
    """What was asked, for the first lines of the answer."""
    total_rate = sum(adapter.rate for adapter in adapters)
    reserve = f", {config.reserve:.0%} in reserve" if config.reserve else ""
    return [
        f"{len(adapters)} adapter{'s' * (len(adapters) != 1)}, {total_rate:.4g} requests/s{reserve} ({config.adapters})",
        (
            f"profile {profile.name}{_kind(profile)} · seed {config.seed} · objective {objective_of(config.objective).name} · "
            f"service {config.service.level().name} · {config.duration_s:g} s simulated"
        ),
    ]


def _kind(profile: ServingProfile) -> str:
    """What of a profile must be known to read the answer: that nobody measured it, that a GPU of the plan is several."""
    said = ["estimated"] if profile.provenance.get("estimated") else []
    if profile.tensor_parallel_size > 1:
        said.append(f"a GPU of the plan is a server of {profile.tensor_parallel_size}")
    return f" ({', '.join(said)})" if said else ""


def _other_model(model: str | None, profile: ServingProfile) -> list[str]:
    """A line for a model that is not the profile's; a folder or a mirror with its name is."""
    if model is None or model.rstrip("/").rpartition("/")[2].lower() == profile.model.rpartition("/")[2].lower():
        return []
    return [
        (
            f"model={model} is not {profile.model}, which profile {profile.name} was measured on: the figures say nothing about "
            "another model; measure it (python -m bench.campaign) and give its profile"
        )
    ]


def adapters_of(config: PlanConfig) -> tuple[list[Adapter], list[str]]:
    """The adapters of the list, with the rates of the counters and the changes asked for, and notes for people."""
    measured, notes = None, []
    _check_counters(config)
    if config.counters is not None:
        files = config.counters if isinstance(config.counters, list) else [config.counters]
        measured = read_counters(
            [str(file) for file in files],
            interval_s=config.counters_interval_s,
            metric=config.counters_metric,
            label=config.counters_label,
        )
    adapters = read_adapters(Path(config.adapters), measured.rates if measured else None)
    if measured:
        adapters = [with_lengths(adapter, measured) for adapter in adapters]
        check_counted(adapters, measured, config.adapters)
        strangers = sorted(set(measured.rates) - {adapter.name for adapter in adapters})
        if strangers:
            shown = ", ".join(strangers[:5]) + (", ..." if len(strangers) > 5 else "")
            notes.append(
                f"counted but not in {config.adapters}, and left out: {shown} "
                f"({sum(measured.rates[name] for name in strangers):.4g} requests/s)"
            )
    return changed(adapters, scale=config.scale, rates=config.what_if.rate, ranks=config.what_if.rank), notes


def _check_counters(config: PlanConfig) -> None:
    """Refuse options of counters where there are none."""
    for option in ("counters_interval_s", "counters_metric", "counters_label"):
        value = getattr(config, option)
        if value is not None and config.counters is None:
            raise UserError(f"{option}={value}: nothing is counted without counters=FILE; leave it out, or give both")


def candidates(
    config: PlanConfig, adapters: Sequence[Adapter], *, published: bool = False
) -> tuple[list[Row], Row | None]:
    """Each solver's placement, made in a process of its own and scored; and that of the published rule, if asked for.

    Raises
    ------
    UserError
        If there is no solver, or none could be run.
    """
    if not config.solver:
        raise UserError("solver: name at least one, for instance solver=exact")
    if config.fleet is not None and len(config.fleet) > 1:
        solvers, instead = for_mixed_fleets(config.solver)
    else:
        solvers, instead = asking_the_twin(config.solver, load_profile(config.profile).name)
    for line in instead:
        _log.info(line)
    # Solvers know adapters by number; a name is a text that the cell would have to escape.
    planned = [
        replace(adapter, name=str(number), path="", rate=adapter.rate * (1 + config.reserve))
        for number, adapter in enumerate(adapters)
    ]
    asked = BenchConfig(
        workload={**workload_options(planned, config), "name": "adapters"},
        solver=solvers,
        objective=config.objective,
        service=config.service,
        profile=config.profile,
        fleet=config.fleet,
        seed=config.seed,
        gpus=config.gpus,
        time_limit_s=config.time_limit_s,
        threads=config.threads,
    )
    cells = cells_of(asked, HydraConfig.get().overrides.task)
    check_options(cells)
    beside = [published_cell(cells[0])] if published else []
    rows = run_cells([*cells, *beside], execution_of(asked))
    found, more = rows[: len(cells)], rows[len(cells) :]
    if all(row.failed for row in found):
        raise UserError(f"{found[0].solver}: {found[0].message}")
    return found, more[0] if more else None


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; `what_if.rate.NAME=2` works for any name of an adapter."""
    _run([with_name_quoted(text) for text in (sys.argv[1:] if arguments is None else arguments)])


def with_name_quoted(argument: str) -> str:
    """An override of `what_if` as Hydra takes it: names of adapters have characters that no key of an option may have."""
    match = re.fullmatch(r"\+{0,2}what_if\.(rate|rank)\.(.+)=([^=]*)", argument)
    if match is None:
        return argument
    option, name, values = match.groups()
    escaped = re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", name)
    return f"++what_if.{option}=" + ",".join(f"{{{escaped}: {value}}}" for value in values.split(","))


def _made(options: dict[str, Any], name: str) -> Any:  # noqa: ANN401  # whatever the option's _target_ makes
    try:
        return instantiate(options, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"{name}: {explain_instantiation(error)}") from None


if __name__ == "__main__":
    register_solvers()
    main()
