"""What `python -m bench.plan` prints, and the files that it writes."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.comparison.rows import Row
from bench.planning.answer import MOST_GROWTH, Answer, GpuAnswer
from bench.planning.kubernetes import Cluster, helm_values, lora_adapters
from bench.planning.vllm_commands import Serving, arguments, command_line, script
from bench.shared.files import written

FORMAT = 1
#: A command longer than this is cut on the terminal; the files have all of it. By hand, as are the two below.
_MOST_CHARACTERS = 600
#: More GPUs than these are left to the files.
_MOST_GPUS = 16
# Nobody calls an answer usable that begins after this.
_LONG_MEAN_MS, _LONG_TAIL_MS = 5_000.0, 60_000.0
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
    parts: list[RenderableType] = [*map(Text, heading), _verdict(found), _table(found.gpus)]
    if (warning := _long_waits(found)) is not None:
        parts.insert(len(heading) + 1, Text(warning, style="bold yellow"))
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
        "bound_by": found.bound_by or None,
        "solver": found.row.solver,
        "expected": {
            name: value if math.isfinite(value := getattr(found.score, name)) else None
            for name in ("throughput", "offered_throughput", "ttft_ms", "ttft_p99_ms", "itl_ms", "e2e_ms")
        },
        "candidates": [
            {
                name: getattr(each, name)
                for name in ("solver", "status", "feasible", "gpus", "lower_bound", "solve_time_s", "message")
            }
            for each in found.rows
        ],
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


def failure_lines(
    rows: Sequence[Row], names: Sequence[str], gpus: int | None, reserve: float = 0.0, hot: str | None = None
) -> list[str]:
    """Why there is no answer, a line for each reason, the adapters by their names; `hot` is about one that needs replicas."""
    bounds = [row.lower_bound for row in rows if row.lower_bound is not None]
    limit = f" on {gpus} GPU{'s' * (gpus != 1)}" if gpus is not None else ""
    kept = f" with {reserve:.0%} in reserve" if reserve else ""
    lines = [f"no feasible placement was found{limit}{kept}"]
    if gpus is not None and bounds and max(bounds) > gpus:
        lines = [f"infeasible{limit}{kept}: at least {max(bounds)} GPUs are needed, which is proven"]
    elif hot is not None:
        lines = [f"no placement that gives each adapter one GPU was found{limit}{kept}", hot]
    for row in rows:
        if row.gpus is not None:
            why = f"{row.gpus} GPUs, of which {row.starved_gpus} starve on the twin"
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
    count, bound = len(found.gpus), found.lower_bound
    kept = f" with {found.reserve:.0%} in reserve" if found.reserve else ""
    text = Text(f"{count} GPU{'s' * (count != 1)}", style="bold green")
    if bound is None:
        return text.append("; no lower bound was proven", style="not bold default")
    if bound >= count:
        return text.append(f", and fewer cannot serve them{kept}: {found.bound_by} proved it", style="not bold default")
    return text.append(
        f"; at least {bound} are needed{kept}, as {found.bound_by} proved. More time may close the gap: time_limit_s=N",
        style="not bold default",
    )


def _long_waits(found: Answer) -> str | None:
    """What to say of an answer that serves the throughput asked for, but not in a time that users wait."""
    mean, tail = found.score.ttft_ms, found.score.ttft_p99_ms
    if not (mean > _LONG_MEAN_MS or tail > _LONG_TAIL_MS):
        return None
    return (
        f"requests wait long for their first token on it: {mean / 1000:.1f} s in the mean, p99 {tail / 1000:.0f} s. It serves the "
        "throughput, no latency is asked for: reserve=0.2 plans with head-room, gpus=N objective=min_latency for short waits"
    )


def _table(gpus: Sequence[GpuAnswer]) -> Table:
    table = Table(header_style="bold")
    for column in (
        "GPU", "adapters", "max_\nloras", "max_lora_\nrank", "requests\nper s", "served /\noffered", "TTFT\nms",
        "TTFT\np99 ms", "ITL\nms", "KV\nin use", "head-\nroom",
    ):  # fmt: skip
        table.add_column(column, justify="right", no_wrap=True)
    for gpu in gpus[:_MOST_GPUS]:
        share = gpu.throughput / gpu.offered_throughput if gpu.offered_throughput else 1.0
        table.add_row(
            str(gpu.gpu),
            str(len(gpu.adapters)),
            str(gpu.max_loras),
            str(gpu.max_lora_rank),
            f"{gpu.rate:.2f}",
            f"{share:.1%}",
            _number(gpu.ttft_ms, 0),
            _number(gpu.ttft_p99_ms, 0),
            _number(gpu.itl_ms, 1),
            f"{gpu.kv_usage:.0%}",
            _headroom(gpu.growth),
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
        f"all GPUs: TTFT {_number(score.ttft_ms, 0)} ms, ITL {_number(score.itl_ms, 1)} ms, end to end "
        f"{_number(score.e2e_ms, 0)} ms (means); throughput {score.throughput:.0f} of {score.offered_throughput:.0f} "
        f"tokens/s offered; found by {found.row.solver}"
    )


def _notes(found: Answer, serving: Serving) -> list[str]:
    notes = ["head-room: how much all rates of the GPU could grow before it starves, by the twin"]
    if any(not adapter.path for gpu in found.gpus for adapter in gpu.adapters):
        notes.append(f"adapters without a path are looked for at {serving.adapter_path} (adapter_path=...)")
    if any(gpu.shares is not None for gpu in found.gpus):
        notes.append("adapters have replicas: the router must send each GPU the share that plan.json says")
    failed = [row for row in found.rows if row.gpus is None]
    notes += [f"{row.solver}: {row.status.replace('_', ' ')}: {row.message}" for row in failed]
    if serving.profile.engine_version.split(".")[:2] != ["0", "32"]:
        profile = serving.profile
        notes.append(
            f"the figures are those of {profile.engine} {profile.engine_version}, which profile {profile.name} is of"
        )
    return notes


def _cut(command: str) -> str:
    if len(command) <= _MOST_CHARACTERS:
        return command
    kept = command[:_MOST_CHARACTERS].rpartition(" ")[0]
    return f"{kept} ... ({len(command) - len(kept)} characters more in the files)"


def _placement_csv(gpus: Sequence[GpuAnswer]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["name", "gpu", "share", "rank", "rate"])
    for gpu in gpus:
        for adapter, share in zip(gpu.adapters, gpu.shares or (1.0,) * len(gpu.adapters), strict=True):
            writer.writerow([_cell(adapter.name), gpu.gpu, f"{share:g}", adapter.rank, f"{adapter.rate:g}"])
    return stream.getvalue()


def _cell(text: str) -> str:
    """A name that spreadsheets show rather than compute."""
    return f"'{text}" if text[:1] in "=+@" else text


def _placement_json(found: Answer, profile: str, workload: dict[str, Any]) -> str:
    """The placement as `python -m bench.validate` reads it, adapters counted from 0."""
    placement = json.loads(found.row.placement or "[]")
    data = {"profile": profile, "workload": workload, "placement": placement}
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n"


def _yaml(data: dict[str, Any]) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
