"""Running a tier, its summary, and the table of best known GPU counts."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.__main__ import main as bench_main
from bench.comparison.rows import Row, read_rows
from bench.report import main as report_main
from bench.statistics.contradictions import CONTRADICTION, all_contradictions
from bench.suite import main
from bench.suites.bounds import TRIVIAL, fingerprint, improved
from bench.suites.instance import Instance
from bench.suites.library import BestKnown, load_suite, read_best_known, write_best_known, write_instances
from bench.suites.run import with_bounds
from bench.suites.summary import lines, results_csv, summary_markdown
from twin import UserError


def row(
    solver: str, gpus: int | None, *, instance: str = "one", feasible: bool = True, bound: int | None = None
) -> Row:
    return Row(
        workload=instance,
        instance=instance,
        seed=0,
        solver=solver,
        objective="min_gpus",
        profile="llama-3.1-8b/h100-64gb",
        status="feasible" if gpus else "infeasible",
        feasible=feasible and gpus is not None,
        gpus=gpus,
        lower_bound=bound,
        solve_time_s=1.0,
        time_limit_s=5.0,
        details='{"oracle": "twin"}' if bound else "{}",
        duration_s=600.0,
    )


ROWS = [
    row("exact", 2, bound=2),
    row("greedy", 3),
    row("loose", 1, feasible=False),
    row("exact", 4, instance="two", bound=3),
    row("greedy", 4, instance="two"),
    row("loose", None, instance="two"),
]


def test_a_solver_is_counted_over_all_instances() -> None:
    found = {line.solver: line for line in lines(with_bounds(ROWS, {}))}
    exact, greedy, loose = found["exact"], found["greedy"], found["loose"]
    assert list(found) == ["exact", "greedy", "loose"]
    assert (exact.feasible, exact.best, exact.alone, exact.infeasible_share) == (2, 2, 1, 0.0)
    assert (greedy.feasible, greedy.best, greedy.alone) == (2, 1, 0)
    assert exact.mean_gap == pytest.approx((0 + 1 / 3) / 2)
    assert greedy.mean_gap == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert greedy.gpus_over_best == pytest.approx(1 / 4)
    assert (loose.feasible, loose.infeasible_share, loose.mean_gap) == (0, 1.0, None)
    # Without a placement the time limit counts: exp(mean(log(1 + 1), log(5 + 1))) - 1.
    assert loose.time_s == pytest.approx(12**0.5 - 1)


def test_a_known_bound_is_used_where_it_is_better() -> None:
    bounded = with_bounds(ROWS, {"two": 4})
    assert [one.best_bound for one in bounded] == [2, 2, 2, 4, 4, 4]
    assert [one.gap for one in bounded] == [0.0, 0.5, None, 0.0, 0.0, None]


def test_the_summary_shows_bounds_and_verdicts() -> None:
    text = summary_markdown(with_bounds(ROWS, {}), "python -m bench suite=benchmark")
    assert "`python -m bench suite=benchmark`" in text
    assert "| one |  |  | **2** | 2 | 3 | 1! |" in text
    assert "| two |  |  | 3 | 4 | 4 | - |" in text
    assert "The fewest GPUs are proven on 1 of 2 instances" in text
    assert "CONTRADICTION" not in text
    assert results_csv(ROWS).count("\n") == len(ROWS) + 1


def test_a_placement_below_a_bound_of_the_twin_is_found() -> None:
    assert all_contradictions(ROWS) == []
    wrong = [*ROWS, row("lucky", 2, instance="two")]
    assert all_contradictions(wrong) == ["two: lucky has a feasible placement on 2 GPUs, below the bound of 3 by exact"]
    assert "CONTRADICTION: two: lucky" in summary_markdown(wrong, "")
    # A bound for a predictor says nothing about the twin, and an infeasible placement refutes nothing.
    of_predictor = replace(ROWS[3], details='{"oracle": "llama-3.1-8b"}')
    assert all_contradictions([of_predictor, row("lucky", 2, instance="two")]) == []
    assert all_contradictions([ROWS[3], row("lucky", 2, instance="two", feasible=False)]) == []
    assert all_contradictions([replace(row("lucky", 2), best_bound=3)]) != []


@pytest.fixture
def instances(tmp_path: Path) -> list[Instance]:
    """A suite of two small instances in `tmp_path`."""
    chosen = [
        replace(
            instance, adapters={"family": "groups", "groups": [{"count": 2, "rank": 8, "rate": rate}]}, duration_s=300.0
        )
        for instance, rate in zip(
            load_suite("collection", ids=["zipf-llama-0008", "zipf-qwen-0008"]), (0.5, 9.0), strict=True
        )
    ]
    write_instances(chosen, tmp_path)
    (tmp_path / "benchmark.txt").write_text("zipf-llama-0008\nzipf-qwen-0008\n", encoding="utf-8")
    return chosen


@pytest.mark.usefixtures("_in_tmp_path")
def test_every_solver_runs_on_every_instance(
    tmp_path: Path, instances: list[Instance], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["suite=benchmark", f"suite.folder={tmp_path}", "solver=[max_pack,exact,least_loaded]", "time_limit_s=10"]
    bench_main([*options, "suite.results=out"])
    rows = read_rows(Path("out/rows.parquet"))
    assert [(one.instance, one.solver) for one in rows] == [
        (instance.id, solver) for instance in instances for solver in ("max_pack", "exact", "least_loaded")
    ]
    assert all(one.feasible and one.best_bound is not None and one.gap is not None for one in rows)
    assert [one.seed for one in rows[::3]] == [instance.seed for instance in instances]
    assert "max_pack" in capsys.readouterr().out
    assert Path("out/results.csv").read_text(encoding="utf-8").count("zipf-llama-0008") == 3

    # The table of best known figures takes them up, and a later run contradicts a bound that was wrong.
    main(["action=update", f"folder={tmp_path}", "results=[out]", "command=the test"])
    known = read_best_known(tmp_path)
    assert {name: (best.lower_bound, best.gpus) for name, best in known.items()} == {
        one.instance: (one.best_bound, one.gpus) for one in rows if one.solver == "exact"
    }
    name = "zipf-llama-0008"
    write_best_known(known | {name: replace(known[name], lower_bound=3)}, tmp_path)
    with pytest.raises(SystemExit) as caught:
        bench_main([*options, "suite.results=out"])
    assert caught.value.code == CONTRADICTION
    assert f"CONTRADICTION: {name}: max_pack has a feasible placement on 1 GPU," in capsys.readouterr().err


@pytest.mark.usefixtures("_in_tmp_path", "instances")
def test_service_levels_lie_side_by_side_and_are_compared_by_themselves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["suite=benchmark", f"suite.folder={tmp_path}", "solver=[max_pack,least_loaded]", "time_limit_s=10"]
    levels = {
        "published": ["service=published"],
        "interactive": ["service=interactive"],
        "interactive-ttft_ms-500": ["service=interactive", "service.ttft_ms=500"],
    }
    for changed in levels.values():
        bench_main([*options, "suite.results='out/{level}'", *changed])
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(levels)
    for name in levels:
        services = {one.service for one in read_rows(Path("out", name, "rows.parquet"))}
        assert len(services) == 1
        assert f"Service level `{services.pop()}`" in Path("out", name, "summary.md").read_text(encoding="utf-8")
    assert ",interactive," in Path("out/interactive/results.csv").read_text(encoding="utf-8")

    # Figures known are taken level by level, and those of a level that has no name of its own by nobody.
    main(["action=update", f"folder={tmp_path}", "results=[out]", "command=the test"])
    for level in ("published", "interactive"):
        best = {
            instance: min(
                one.gpus or 99 for one in read_rows(Path("out", level, "rows.parquet")) if one.instance == instance
            )
            for instance in ("zipf-llama-0008", "zipf-qwen-0008")
        }
        assert {name: found.gpus for name, found in read_best_known(tmp_path, level).items()} == best

    # A report of them all ranks and draws each level by itself.
    capsys.readouterr()
    report_main(["out", "paper=figures", "samples=20", "paper_workloads=false"])
    for track in ("min-gpus-published", "min-gpus-interactive", "min-gpus-interactive-ttft-ms-500"):
        assert Path("figures", f"summary-{track}.csv").is_file()
        assert Path("figures", f"ratio-{track}.png").is_file()
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "objective min_gpus, interactive" in page
    assert "95% of the requests with TTFT" in page


@pytest.mark.usefixtures("_in_tmp_path")
def test_a_suite_is_not_swept(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench_main(["-m", "suite=benchmark", "seed=0,1"])
    assert "cannot be swept" in capsys.readouterr().err


def test_only_better_figures_of_the_same_instance_are_taken(instances: list[Instance]) -> None:
    first, second = instances
    mark = fingerprint(first.profile)
    known = {
        first.id: BestKnown(first.id, 2, "exact (60 s)", 4, "ffd_plus (60 s)", "before", mark),
        second.id: BestKnown(second.id, 5, "exact (60 s)", 9, "ffd_plus (60 s)", "before", "another twin"),
    }
    good = replace(row("exact", 3, instance=first.id, bound=2), seed=first.seed, duration_s=first.duration_s)
    other_seed = replace(good, seed=first.seed + 1, gpus=1)
    changed = replace(good, workload_options="n_adapters=2", gpus=1)
    found = improved(instances, known, [good, other_seed, changed], "now")
    assert found[first.id] == BestKnown(first.id, 2, "exact (60 s)", 3, "exact (5 s)", "now", mark)
    assert found[second.id] == BestKnown(second.id, 1, TRIVIAL, None, "", "", fingerprint(second.profile))


@pytest.mark.usefixtures("_in_tmp_path")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["action=lst"], "action=lst: must be one of"),
        (["tier=all"], "tier=all: must be one of"),
        (["action=update"], "results must be given"),
        (["action=update", "results=[nothing.parquet]"], "nothing.parquet"),
        (["folder=nowhere"], "holds no instances"),
    ],
)
def test_a_mistake_is_one_line(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(options)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("_in_tmp_path")
def test_instances_are_listed_and_checked(
    tmp_path: Path, instances: list[Instance], capsys: pytest.CaptureFixture[str]
) -> None:
    main([f"folder={tmp_path}", "tier=benchmark"])
    assert "2 instances" in capsys.readouterr().out
    main([f"folder={tmp_path}", "action=check"])
    assert "2 instances are well formed" in capsys.readouterr().out
    with pytest.raises(UserError):
        load_suite("benchmark", tmp_path, ids=["nobody"])
