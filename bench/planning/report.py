"""What `python -m bench.plan` prints, and the files that it writes."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.comparison.rows import Row
from bench.evidence.runs import Evidence
from bench.planning.answer import MOST_GROWTH, Answer, GpuAnswer
from bench.planning.costs import costs, proven_cost
from bench.planning.fleets import mix_in_words
from bench.planning.kubernetes import TYPE_LABEL, Cluster, helm_values, lora_adapters
from bench.planning.vllm_commands import Serving, arguments, command_line, script
from bench.shared.files import written
from bench.statistics.contradictions import standing_bound
from twin import INTERACTIVE, PUBLISHED, ServiceLevel

FORMAT = 1
#: A command longer than this is cut on the terminal; the files have all of it. By hand, as are the two below.
_MOST_CHARACTERS = 600
#: More GPUs than these are left to the files.
_MOST_GPUS = 16
# Columns of a row, and figures of a score, that plan.json has.
_OF_CANDIDATES = (
    "solver", "status", "feasible", "gpus", "lower_bound", "goodput", "failing_adapters", "ttft_p95_ms", "solve_time_s", "message",
)  # fmt: skip
_OF_SERVICE = ("goodput", "worst_gpu_goodput", "worst_adapter_goodput", "failing_adapters", "starved_adapters")
# More adapters that fail than these are not named.
_MOST_NAMED = 5
_NONE = "–"  # noqa: RUF001  # a dash, as printed tables have it


def plan_report(found: Answer, serving: Serving, heading: Sequence[str]) -> RenderableType:
    """The answer for a terminal: the count and its bound, a line for each GPU.

    Parameters
    ----------
    found : Answer
    serving : Serving
    heading : sequence of str
        What was asked.
    """
    parts: list[RenderableType] = [*map(Text, heading)]
    parts += [Text(line, style="bold yellow") for line in _missed(found)]
    parts += [_verdict(found), Text(_proven(found))]
    if found.published is not None:
        parts.append(Text(found.published.in_words(len(found.gpus))))
    if found.chance is not None:
        parts.append(Text(found.chance.in_words(serving.profile.name)))
    parts.append(_table(found.gpus))
    if len(found.gpus) > _MOST_GPUS:
        parts.append(Text(f"... and {len(found.gpus) - _MOST_GPUS} more GPUs, in the files", style="dim"))
    parts.append(Text(_totals(found)))
    parts += [Text(line, style="dim") for line in _notes(found, serving)]
    return Group(*parts)


def command_lines(found: Answer, serving: Serving) -> list[str]:
    """The command of each GPU for a terminal; to be printed without breaking lines, so that they can be copied."""
    return [_cut(command_line(gpu, serving)) for gpu in found.gpus[:_MOST_GPUS]]


def plan_dict(found: Answer, serving: Serving, asked: dict[str, Any]) -> dict[str, Any]:
    """The answer as data: what was asked, the candidates, and each GPU with its command."""
    return {
        "format": FORMAT,
        "asked": asked,
        "gpus": len(found.gpus),
        "lower_bound": found.lower_bound,
        "bound_by": None if found.claim is None else found.claim.by,
        "bound_scope": None if found.claim is None else found.claim.scope,
        "proved": found.proved,
        **costs(found),
        "contradictions": found.contradictions,
        "solver": found.row.solver,
        "expected": {
            name: value if math.isfinite(value := getattr(found.score, name)) else None
            for name in ("throughput", "offered_throughput", "ttft_ms", "ttft_p99_ms", "itl_ms", "e2e_ms")
        }
        | {name: getattr(found.score, name) for name in _OF_SERVICE},
        "published": None if found.published is None else asdict(found.published),
        "chance": None if found.chance is None else asdict(found.chance),
        "slowdown": found.slowdown,
        "candidates": [{name: getattr(each, name) for name in _OF_CANDIDATES} for each in found.rows],
        "placement": [{**gpu.to_dict(), "command": arguments(gpu, serving)} for gpu in found.gpus],
    }


def write_plan(  # noqa: PLR0913  # what each of the files says
    found: Answer,
    serving: Serving,
    cluster: Cluster,
    asked: dict[str, Any],
    workload: dict[str, Any],
    folder: Path,
) -> list[Path]:
    """Write everything about an answer into a folder, each file atomically.

    Parameters
    ----------
    found : Answer
    serving, cluster : Serving, Cluster
    asked : dict
        What the answer is to.
    workload : dict
        Builder and options of the workload, for commands that replay it.
    folder : Path

    Returns
    -------
    list of Path
        In the order in which a reader wants them.

    Raises
    ------
    UserError
        If the folder cannot be written to.
    """
    data = plan_dict(found, serving, asked)
    texts = {
        "plan.json": json.dumps(data, indent=1, ensure_ascii=False) + "\n",
        "plan.yaml": _yaml(data),
        "placement.csv": _placement_csv(found.gpus),
        "placement.json": _placement_json(found, asked["profile"], workload),
    }
    hosts = sorted({serving.place_of(gpu.gpu)[0] for gpu in found.gpus})
    texts |= {f"serve-host-{host}.sh": script(found.gpus, serving, host) for host in hosts}
    texts["values.yaml"] = _yaml(helm_values(found.gpus, serving, cluster))
    if cluster.adapters == "resources":
        resources = lora_adapters(found.gpus, serving, cluster)
        texts["lora-adapters.yaml"] = yaml.safe_dump_all(resources, sort_keys=False, allow_unicode=True, width=120)
    paths = []
    for name, text in texts.items():
        path = folder / name
        with written(path, f"out={folder}: {name}") as temporary:
            temporary.write_text(text, encoding="utf-8")
            if path.suffix == ".sh":
                temporary.chmod(0o755)
        paths.append(path)
    return paths


def failure_lines(  # noqa: PLR0913  # what was asked, by whom, and what came of it
    rows: Sequence[Row],
    names: Sequence[str],
    gpus: int | None,
    reserve: float = 0.0,
    hot: str | None = None,
    service: ServiceLevel = PUBLISHED,
) -> list[str]:
    """Why there is no answer, a line for each reason, the adapters by their names; `hot` is about one that needs replicas."""
    claim = standing_bound(rows)
    limit = f" on {gpus} GPU{'s' * (gpus != 1)}" if gpus is not None else ""
    kept = f" with {reserve:.0%} in reserve" if reserve else ""
    kept += f" that keeps {service.name} ({service.in_words()})" if service.judges_requests else ""
    lines = [f"no feasible placement was found{limit}{kept}"]
    if gpus is not None and claim is not None and claim.bound > gpus:
        lines = [
            f"infeasible{limit}{kept}: at least {claim.bound} GPUs are needed, as {claim.by} proved ({claim.scope})"
        ]
    elif hot is not None:
        lines = [f"no placement was found{limit}{kept}", hot]
    fail = "fail" if service.judges_requests else "starve"
    for row in rows:
        if row.gpus is not None:
            why = f"{row.gpus} GPUs, of which {row.failed_gpus} {fail} on the twin"
        else:
            why = f"{row.status.replace('_', ' ')}: {_named(row.message, names)}" if row.message else row.status
        lines.append(f"{row.solver}: {why}")
    if gpus is not None:
        lines.append("leave gpus out to learn how many are needed")
    return lines


def _named(message: str, names: Sequence[str]) -> str:
    """A solver's message with the adapters, which it knows by number, called by their names."""
    words = message.split(" ")
    for place in range(len(words) - 1):
        number = words[place + 1].rstrip(",:;.")
        if words[place].lower() == "adapter" and number.isdigit() and int(number) < len(names):
            words[place + 1] = words[place + 1].replace(number, names[int(number)])
    return " ".join(words)


def _verdict(found: Answer) -> Text:
    count = len(found.gpus)
    kept = f", {found.reserve:.0%} in reserve" if found.reserve else ""
    text = Text(f"{count} GPU{'s' * (count != 1)}", style="bold green")
    if found.fleet is not None:
        text.append(f", {mix_in_words([gpu.gpu_type for gpu in found.gpus])}, at {found.score.cost:g} together")
    return text.append(f" for {found.service.in_words()}{kept}", style="not bold default")


def _proven(found: Answer) -> str:
    """What is proven about the number of GPUs, by the numbers that the files have."""
    claim = found.claim
    if found.fleet is not None and found.fleet.is_mixed:
        return proven_cost(found)
    if claim is None:
        refuted = "; what was claimed is refuted by a placement" if found.contradictions else ""
        return f"no lower bound was proven{refuted}"
    if found.proved:
        return f"no placement on fewer GPUs: {claim.by} proved it ({claim.scope})"
    more = "; more time may close the gap: time_limit_s=N" if claim.bound < len(found.gpus) else ""
    return f"at least {claim.bound} needed, as {claim.by} proved ({claim.scope}){more}"


def _missed(found: Answer) -> list[str]:
    """What to say first of an answer that misses a latency, promised or not."""
    score, service = found.score, found.service
    if score.failed_gpus:
        return [f"MISSED on {score.failed_gpus} of {score.gpus} GPUs: {service.in_words()}"]
    if found.row.missed:
        nobody = ", which no placement found keeps" if all(row.missed for row in found.rows if row.feasible) else ""
        return [f"MISSED: {found.row.missed}, a limit of objective {found.row.objective}{nobody}"]
    if service.judges_requests or score.goodput is None or (score.worst_gpu_goodput or 0.0) >= INTERACTIVE.share:
        return []
    wait_s = score.worst_ms("ttft", 95) / 1000
    return [
        (
            f"no latency is promised, and requests wait: one in twenty for {wait_s:.3g} s or more on the worst GPU; "
            "service=interactive plans for short waits"
        )
    ]


def _table(gpus: Sequence[GpuAnswer]) -> Table:
    table = Table(header_style="bold")
    typed = any(gpu.gpu_type for gpu in gpus)
    # With types there is room for fewer figures; the files have them all.
    tail, rank = (("TTFT\np99 ms",), ("max_\nlora_\nrank",)) if not typed else ((), ())
    for column in (
        "GPU", *(["type"] if typed else []), "adapters", "fail", "max_\nloras", *rank, "req.\nper s", "served", "good-\nput",
        "TTFT\np95 ms", *tail, "ITL\nms", "KV in\nuse", "head-\nroom", "real\nGPU",
    ):  # fmt: skip
        table.add_column(column, justify="right", no_wrap=True)
    for gpu in gpus[:_MOST_GPUS]:
        share = gpu.throughput / gpu.offered_throughput if gpu.offered_throughput else 1.0
        table.add_row(
            str(gpu.gpu),
            *([gpu.gpu_type or ""] if typed else []),
            str(len(gpu.adapters)),
            str(len(gpu.failing_adapters)),
            str(gpu.max_loras),
            *([str(gpu.max_lora_rank)] if rank else []),
            f"{gpu.rate:.2f}",
            f"{share:.1%}",
            _percent(gpu.goodput),
            _number(gpu.ttft_p95_ms, 0),
            *([_number(gpu.ttft_p99_ms, 0)] if tail else []),
            _number(gpu.itl_ms, 1),
            f"{gpu.kv_usage:.0%}",
            _headroom(gpu.growth),
            gpu.evidence.kind,
        )
    return table


def _headroom(growth: float) -> str:
    if growth >= MOST_GROWTH:
        return f"> {100 * (growth - 1):.0f} %"
    percent = 100 * (growth - 1)
    return f"{percent:.0f} %" if percent >= 2 else "< 2 %"


def _totals(found: Answer) -> str:
    score = found.score
    return (
        f"all GPUs: goodput {_percent(score.goodput)}, TTFT {_number(score.ttft_ms, 0)} ms, ITL {_number(score.itl_ms, 1)} ms, "
        f"E2E {_number(score.e2e_ms, 0)} ms (means); {score.throughput:.0f} of {score.offered_throughput:.0f} tokens/s served; "
        f"by {found.row.solver}"
    )


def _notes(found: Answer, serving: Serving) -> list[str]:
    judge = found.service if found.service.judges_requests else INTERACTIVE
    limits = judge.in_words().partition(" with ")[2].partition(",")[0]
    notes = [
        f"served: tokens, of those offered; goodput: requests with {limits}, of those judged",
        "head-room: how much all rates of the GPU could grow before it fails, by the twin",
        _evidence_in_words([gpu.evidence for gpu in found.gpus]),
    ]
    for gpu in found.gpus:
        if gpu.failing_adapters:
            named = ", ".join(gpu.failing_adapters[:_MOST_NAMED]) + ", ..." * (len(gpu.failing_adapters) > _MOST_NAMED)
            notes.append(f"GPU {gpu.gpu} as a whole does not fail, but these of its adapters get too little: {named}")
    if any(not adapter.path for gpu in found.gpus for adapter in gpu.adapters):
        notes.append(f"adapters without a path are looked for at {serving.adapter_path} (adapter_path=...)")
    if serving.kinds:
        notes.append(f"values.yaml: pods go to nodes with the label {TYPE_LABEL}=TYPE; label yours, or change the term")
    if any(gpu.shares is not None for gpu in found.gpus):
        notes.append("adapters have replicas: the router must send each GPU the share that plan.json says")
    failed = [row for row in found.rows if row.gpus is None]
    notes += [f"{row.solver}: {row.status.replace('_', ' ')}: {row.message}" for row in failed]
    profiles = {serving.profile_of(gpu.gpu).name: serving.profile_of(gpu.gpu) for gpu in found.gpus}
    for profile in profiles.values():
        if not (known := profile.provenance).get("estimated"):
            continue
        instead = "confidence=0.95 plans for that" if found.fleet is None else "reserve=0.2 plans for a fifth more load"
        error = known.get("step_time_error_pct_estimated", float("nan"))
        notes.append(
            f"profile {profile.name} is estimated, nobody measured such a server: step times of measured ones were {error:.0f} % "
            f"off in the mean when estimated; {instead}"
        )
    notes += [
        f"the figures are those of {profile.engine} {profile.engine_version}, which profile {profile.name} is of"
        for profile in profiles.values()
        if profile.engine_version.split(".")[:2] != ["0", "32"]
    ]
    return notes


def _evidence_in_words(evidence: Sequence[Evidence]) -> str:
    """What stands in the last column, and what it rests on."""
    kinds = {one.kind for one in evidence}
    said = []
    if "served" in kinds:
        said.append(
            "served: one was asked for at least as much of everything, with max_loras of its own, did not starve"
        )
    if "near" in kinds:
        near = [one for one in evidence if one.kind == "near"]
        off = [one.error_pct for one in near if one.error_pct is not None]
        error = f", the twin's throughput {max(off):.1f} % off them at most" if off else ""
        said.append(
            f"near: runs within 1.5 times are known, of the nearest three up to {max(one.starved for one in near)} starved{error}"
        )
    if "none" in kinds:
        said.append("none: no run is near, or requests, arrivals or profile are others")
    return f"real GPU: published runs of real vLLM, and those of evidence=DIR. {'; '.join(said)}"


def _cut(command: str) -> str:
    if len(command) <= _MOST_CHARACTERS:
        return command
    kept = command[:_MOST_CHARACTERS].rpartition(" ")[0]
    return f"{kept} ... ({len(command) - len(kept)} characters more in the files)"


def _placement_csv(gpus: Sequence[GpuAnswer]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    typed = any(gpu.gpu_type for gpu in gpus)
    writer.writerow(["name", "gpu", "share", "rank", "rate", *(["type"] if typed else [])])
    for gpu in gpus:
        for adapter, share in zip(gpu.adapters, gpu.shares or (1.0,) * len(gpu.adapters), strict=True):
            kind = [_cell(gpu.gpu_type or "")] if typed else []
            writer.writerow([_cell(adapter.name), gpu.gpu, f"{share:g}", adapter.rank, f"{adapter.rate:g}", *kind])
    return stream.getvalue()


def _cell(text: str) -> str:
    """A name that spreadsheets show rather than compute."""
    return f"'{text}" if text[:1] in "=+@" else text


def _placement_json(found: Answer, profile: str, workload: dict[str, Any]) -> str:
    """The placement as `python -m bench.validate` reads it, adapters counted from 0."""
    placement = json.loads(found.row.placement or "[]")
    data = {"profile": profile, "workload": workload, "placement": placement}
    if found.fleet is not None:
        data["fleet"] = costs(found)["fleet"]
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n"


def _yaml(data: dict[str, Any]) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1%}"


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
