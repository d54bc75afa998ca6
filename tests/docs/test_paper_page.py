"""docs/paper.md: every figure in its table is that of results/paper, and every table there is on the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.measured.predictors_beside_runs import PUBLISHED
from predictors import load_predictor
from predictors.errors import smape

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "paper.md"
MODELS = ("llama-3.1-8b-instruct", "qwen-2.5-7b-instruct")


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / "results" / "paper" / f"{name}.csv")


def at(frame: pd.DataFrame, key: Any) -> Any:  # noqa: ANN401  # a row or a few, by the index
    """The row of a key."""
    return frame.loc[key]


def pair(values: list[float], digits: int) -> str:
    """Llama's and Qwen's figure."""
    return " / ".join(f"{value:.{digits}f}" for value in values)


def cells() -> dict[str, tuple[str, str]]:
    """Published figure and ours, by the row's first cell."""
    return {**_max_pack(), **_twin(), **_learned(), **_over_time(), **_placements(), **_latency(), **_slora()}


def _max_pack() -> dict[str, tuple[str, str]]:
    pairs, curves = table("max_pack"), table("max_pack_curves")
    curves = curves[curves.started]
    same = pairs.measured_adapters == pairs.simulated_adapters
    both = same & (pairs.measured_max_loras == pairs.simulated_max_loras)
    agree = curves.measured_adapters == curves.simulated_adapters
    error = (pairs.simulated_throughput / pairs.measured_throughput - 1).abs() * 100
    mean = smape(pairs.simulated_throughput, pairs.measured_throughput)
    return {
        "Figure 1": (
            f"{len(pairs)} pairs, {len(curves)} curves (logs)",
            (
                f"same adapters on {same.sum()} of {len(pairs)}, same adapters and slots on {both.sum()}; {agree.sum()} of "
                f"{len(curves)} curves end at the same count; throughput {mean:.1f} % off"
            ),
        ),
        "Max_pack predicted": (
            "at most 7.2 % off (paper)",
            f"{error.mean():.1f} % in the mean, at most {error.max():.1f} %",
        ),
    }


def _twin() -> dict[str, tuple[str, str]]:
    errors, times = table("twin_errors"), table("twin_times").set_index("engine")
    found = {}
    for kind, title in (("arrivals replayed", "Table 1"), ("arrivals drawn", "Table 1, requests drawn")):
        mine = errors[errors.arrivals == kind].set_index("model").loc[list(MODELS)]
        theirs, ours = [], []
        for name, label in (("throughput", "throughput"), ("itl", "ITL"), ("ttft", "TTFT")):
            ours.append(f"{label} {pair(list(mine[f'{name}_this_twin']), 1)}")
            if mine[f"{name}_published_twin"].notna().all():
                theirs.append(f"{label} {pair(list(mine[f'{name}_published_twin']), 1)}")
        found[title] = (f"{', '.join(theirs)} % (logs)", f"{', '.join(ours)} % on {mine.runs.sum()} runs")
    published, cpu = at(times, "published_twin_wall_s"), at(times, "this_twin_cpu_s")
    found["Table 2"] = (
        f"{published.mean_s:.1f} s a run, {published.runs:.0f} runs (logs)",
        f"{cpu.mean_s:.2f} s of CPU, {published.mean_s / cpu.mean_s:.0f} times less",
    )
    overheads = table("overheads").set_index(["overhead", "model"])
    for number, overhead in (
        ("Figure 4", "memory: KV cache left"),
        ("Figure 5", "computing: a step without scheduling"),
        ("Figure 6", "loading: an adapter to the GPU"),
        ("Figure 7", "scheduling: a step"),
    ):
        mine = at(overheads, overhead)
        mine = mine.loc[list(MODELS)] if len(mine) > 1 else mine
        starts = (
            f"; starts or not as measured on {mine.agree_on_starting.sum()} of {mine.points.sum()}"
            if number == "Figure 4"
            else ""
        )
        found[number] = (
            f"{mine.points.sum()} points{_of_their_formula(mine)} (logs)",
            f"{pair(list(mine.mean_error_pct), 1)} % off in the mean{starts}",
        )
    return found


def _of_their_formula(mine: pd.DataFrame) -> str:
    theirs = mine.published_twin_mean_error_pct
    return "" if theirs.isna().all() else f", the published formula {pair(list(theirs), 1)} % off"


def _learned() -> dict[str, tuple[str, str]]:
    tests = table("predictors").set_index(["predictor", "model"])
    everything = pd.read_csv(ROOT / "results" / "predictors" / "real_runs.csv")
    everything = everything[everything["runs of"] == "all + port exhaustion"].set_index(["predictor", "model"])
    found = {}
    for predictor, title in (("full", "Tables 3 and 4"), ("distilled", "Table 5")):
        mine = [at(tests, (predictor, model)) for model in MODELS]
        theirs = [PUBLISHED[model, predictor] for model in MODELS]
        assert [(o.published_throughput_smape, o.published_starvation_macro_f1) for o in mine] == theirs
        published = f"throughput {pair([e for e, _ in theirs], 2)} %, macro-F1 {pair([f for _, f in theirs], 3)}"
        ours = f"{pair([o.throughput_smape for o in mine], 2)} %, {pair([o.starvation_macro_f1 for o in mine], 3)}"
        ours = f"{ours} on the same {sum(int(o.runs) for o in mine)} runs"
        if predictor == "distilled":
            rules = " / ".join(
                str(load_predictor(name).starvation_tree.n_leaves) for name in ("llama-3.1-8b", "qwen-2.5-7b")
            )
            found[title] = (f"{published}, 15 to 32 rules (paper)", f"{ours}, {rules} rules")
        else:
            whole = [at(everything, (predictor, model)) for model in MODELS]
            more = (
                f"{pair([o.throughput_smape for o in whole], 2)} %, {pair([o.starvation_macro_f1 for o in whole], 3)}"
            )
            found[title] = (f"{published} (paper)", f"{ours}; {more} on all 856")
    return found


def _slora() -> dict[str, tuple[str, str]]:
    runs = pd.read_csv(ROOT / "results" / "fidelity" / "slora.csv").set_index("runs")
    kept = at(runs, "kept back")
    assert runs.verdicts_wrong.sum() == 0
    ours = (
        f"a loop of its own; on runs kept back from the fit: throughput {kept.throughput_error_pct:.1f} %, "
        f"ITL {kept.itl_ms_error_pct:.1f} % ({kept.client_itl_ms_error_pct:.1f} % as the client saw it), "
        f"mean batch {kept.batch_error_pct:.1f} % off, all verdicts right"
    )
    return {"Figure A.13 (S-LoRA)": ("\N{EN DASH}", ours)}


def _over_time() -> dict[str, tuple[str, str]]:
    runs = table("over_time").set_index("model").loc[list(MODELS)]
    theirs = "; ".join(f"{what} {pair(list(runs[f'measured_{what}']), 0)}" for what in ("running", "waiting"))
    ours = "; ".join(
        f"{what} {pair(list(runs[f'simulated_{what}']), 0)}, the curves {pair(list(runs[f'distance_{what}']), 0)} apart"
        for what in ("running", "waiting")
    )
    return {"Figure 9": (f"in the mean {theirs} (logs)", ours)}


def _placements() -> dict[str, tuple[str, str]]:
    saving = table("four_gpus_saving").set_index("solver")
    ffd, plus = at(saving, "ffd"), at(saving, "ffd_plus")
    found = {
        "Figures 10 and 11, Table 6": (
            "60 % fewer GPUs on average (paper)",
            (
                f"`ffd` {ffd.saving_pct:.1f} % over all {ffd.loads:.0f} loads, {ffd.saving_there_pct:.1f} % on the "
                f"{ffd.all_others_feasible_on:.0f} on which all others are feasible; `ffd_plus` {plus.saving_pct:.1f} and "
                f"{plus.saving_there_pct:.1f} %"
            ),
        )
    }
    fair = table("fewest_gpus_saving").set_index(["solver", "rates"]).saving_pct
    of = {solver: [fair[solver, rates] for rates in ("all", "low", "high", "mixed")] for solver in ("ffd", "ffd_plus")}
    text = "; ".join(
        f"`{solver}` {values[0]:.0f} % (low rates {values[1]:.0f}, high {values[2]:.0f}, mixed {values[3]:.0f} %)"
        for solver, values in of.items()
    )
    found["The same, each method at its fewest GPUs"] = ("not done", text)
    fewest = table("fewest_gpus")
    gpus = fewest[fewest.feasible].pivot_table(index="instance", columns="solver", values="gpus")
    both = gpus[["ffd", "max_pack"]].dropna().astype(int)
    found["Close to Max_pack"] = (
        "said to be close",
        f"{both.ffd.sum()} GPUs against {both.max_pack.sum()} on {len(both)} instances",
    )
    return found


def _latency() -> dict[str, tuple[str, str]]:
    rows = table("latency")
    loads = rows[["profile", "adapters"]].drop_duplicates()
    e2e = rows[rows.feasible].pivot_table(index=["profile", "adapters"], columns="solver", values="e2e_ms")
    over = {
        solver: (e2e[solver] / e2e.latency - 1).mean() * 100
        for solver in ("least_loaded", "dlora", "lora_serve", "latency_search")
    }
    text = ", ".join(f"`{solver}` {value:+.1f} %" for solver, value in over.items())
    return {
        "Figure 12": (
            "the lowest latency (paper)",
            f"an answer on {e2e.latency.notna().sum()} of {len(loads)} loads; mean latency against it: {text}",
        )
    }


def page_rows() -> dict[str, list[str]]:
    """Cells of the page's table, by the first."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        parts = [part.strip() for part in line.split("|")[1:-1]]
        if len(parts) == 6 and parts[0] != "of the paper" and not set(parts[0]) <= set("-: "):  # the table's columns
            found[parts[0]] = parts
    return found


@pytest.mark.parametrize("name", list(cells()))
def test_the_figures_of_a_row_are_those_of_the_results(name: str) -> None:
    published, ours = cells()[name]
    row = page_rows()[name]
    assert row[2:4] == [published, ours]


def test_every_row_with_figures_of_ours_is_checked() -> None:
    for name, row in page_rows().items():
        if name not in cells():
            assert not re.search(r"\d", row[3]), f"{name}: {row[3]} is not checked"


def test_every_result_has_its_place_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for path in (ROOT / "results" / "paper").iterdir():
        assert path.name in text, path.name


def test_what_the_notes_say_of_single_loads_is_so() -> None:
    latency, saving = table("latency"), table("four_gpus_saving").set_index("solver")
    refused = latency[(latency.solver == "latency") & ~latency.feasible]
    assert [tuple(key) for key in refused[["profile", "adapters"]].to_numpy()] == [
        ("llama-3.1-8b/h100-64gb", 1024),
        ("llama-3.1-8b/h100-64gb", 1280),
    ]
    assert latency[latency.solver == "latency_search"].feasible.all()
    assert saving.feasible_on["max_backbone"] == 1
    assert (
        sorted(latency.adapters.unique()) == sorted(table("four_gpus").adapters.unique()) == [256, 512, 768, 1024, 1280]
    )


def test_the_readme_says_the_same() -> None:
    design = table("four_gpus_saving").set_index("solver").saving_pct["ffd"]
    fair = table("fewest_gpus_saving").set_index(["solver", "rates"]).saving_pct
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    assert (
        f"`ffd` saves {design:.0f} %; each at its fewest, over {table('fewest_gpus').instance.nunique()} workloads it takes "
        f"{-fair['ffd', 'all']:.0f} % more than `dlora` in the mean, `ffd_plus` {fair['ffd_plus', 'all']:.0f} % fewer"
    ) in readme
