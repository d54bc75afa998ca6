"""Best known figures: what is proven for whom, what is better, and what a fingerprint holds."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from bench.comparison.rows import Row
from bench.comparison.sources import source_files
from bench.statistics.contradictions import all_contradictions
from bench.suites import bounds
from bench.suites.bounds import TRIVIAL, best_bounds, fingerprint, improved, proven_bound
from bench.suites.library import BestKnown, load_suite, read_best_known, write_best_known
from twin import UserError, load_profile
from twin.profile import Uncertainty

TWIN, PREDICTOR = '{"oracle": "twin"}', '{"oracle": "predictor"}'
(INSTANCE,) = load_suite("collection", ids=["zipf-llama-0100"])
ROW = Row(
    workload=INSTANCE.id, instance=INSTANCE.id, seed=INSTANCE.seed, solver="exact", objective="min_gpus",
    profile=load_profile(INSTANCE.profile).name, duration_s=INSTANCE.duration_s, status="feasible", feasible=True,
    gpus=5, lower_bound=3, details=TWIN, time_limit_s=60.0,
)  # fmt: skip


@pytest.mark.parametrize(("details", "bound"), [(TWIN, 3), (PREDICTOR, None), ("{}", None)])
def test_a_bound_is_proven_for_the_oracle_that_was_asked(details: str, bound: int | None) -> None:
    assert proven_bound(replace(ROW, details=details)) == bound
    assert proven_bound(replace(ROW, lower_bound=None)) is None


def test_the_best_bound_is_the_largest_that_was_ever_proven() -> None:
    assert best_bounds([ROW, replace(ROW, lower_bound=2)], {}) == {INSTANCE.id: 3}
    assert best_bounds([ROW], {INSTANCE.id: 4, "other": 1}) == {INSTANCE.id: 4, "other": 1}
    assert best_bounds([ROW], {INSTANCE.id: 2}) == {INSTANCE.id: 3}
    assert best_bounds([replace(ROW, best_bound=6)], {}) == {INSTANCE.id: 6}
    assert best_bounds([replace(ROW, details=PREDICTOR)], {}) == {}


def test_a_claim_that_a_feasible_placement_refutes_is_no_bound() -> None:
    boast = replace(ROW, solver="boastful", gpus=9, lower_bound=9)
    assert best_bounds([ROW, boast], {}) == {INSTANCE.id: 3}
    (kept,) = improved([INSTANCE], {}, [boast, ROW], "again").values()
    assert (kept.lower_bound, kept.gpus) == (1, 5)
    known = BestKnown(INSTANCE.id, 2, "exact (60 s)", 6, "ffd (60 s)", "before", fingerprint(INSTANCE.profile))
    (kept,) = improved([INSTANCE], {INSTANCE.id: known}, [boast, ROW], "again").values()
    assert (kept.lower_bound, kept.lower_bound_solver, kept.gpus) == (2, "exact (60 s)", 5)


@pytest.mark.parametrize(
    ("change", "refuted"),
    [
        ({"gpus": 2}, True),
        ({"gpus": 3}, False),
        ({"gpus": 2, "feasible": False}, False),
        ({"gpus": None, "feasible": False}, False),
        ({"gpus": 2, "seed": 99}, False),
        ({"gpus": 2, "workload": "other"}, False),
        ({"gpus": 2, "profile": "other"}, False),
        ({"gpus": 2, "objective": "other"}, False),
    ],
)
def test_a_feasible_placement_below_a_bound_for_the_same_instance_is_told(
    change: dict[str, Any], *, refuted: bool
) -> None:
    other = replace(ROW, **{"solver": "greedy", "lower_bound": None, **change})
    lines = all_contradictions([ROW, other])
    assert bool(lines) == refuted
    if refuted:
        assert lines == [f"{INSTANCE.id}: greedy has a feasible placement on 2 GPUs, below the bound of 3 by exact"]
    assert all_contradictions([replace(ROW, details=PREDICTOR), other]) == []


def test_an_earlier_run_s_bound_counts_as_well() -> None:
    (line,) = all_contradictions([replace(ROW, lower_bound=None, best_bound=6)])
    assert line.endswith("on 5 GPUs, below the bound of 6 by an earlier run")


def known(**change: Any) -> dict[str, BestKnown]:  # noqa: ANN401  # fields of BestKnown
    mark = fingerprint(INSTANCE.profile)
    best = BestKnown(INSTANCE.id, 3, "before (1 s)", 5, "before (1 s)", "old", mark)
    return {INSTANCE.id: replace(best, **change)}


@pytest.mark.parametrize(
    ("change", "lower_bound", "gpus", "command"),
    [
        ({}, 3, 5, "old"),
        ({"lower_bound": 4}, 4, 5, "new"),
        ({"lower_bound": 2}, 3, 5, "old"),
        ({"lower_bound": 4, "details": PREDICTOR}, 3, 5, "old"),
        ({"gpus": 4}, 3, 4, "new"),
        ({"gpus": 6}, 3, 5, "old"),
        ({"gpus": 4, "feasible": False}, 3, 5, "old"),
        ({"gpus": 4, "lower_bound": 4}, 4, 4, "new"),
        # Not the instance as it is in the suite.
        ({"gpus": 4, "seed": INSTANCE.seed + 1}, 3, 5, "old"),
        ({"gpus": 4, "profile": "other"}, 3, 5, "old"),
        ({"gpus": 4, "duration_s": 1.0}, 3, 5, "old"),
        ({"gpus": 4, "workload_options": "n_adapters=3"}, 3, 5, "old"),
        ({"gpus": 4, "workload": "other"}, 3, 5, "old"),
    ],
)
def test_only_what_is_better_replaces_what_is_known(
    change: dict[str, Any], lower_bound: int, gpus: int, command: str
) -> None:
    after = improved([INSTANCE], known(), [replace(ROW, **change)], "new")[INSTANCE.id]
    assert (after.lower_bound, after.gpus, after.command) == (lower_bound, gpus, command)
    assert after.lower_bound_solver == ("exact (60 s)" if lower_bound > 3 else "before (1 s)")
    assert after.gpus_solver == ("exact (60 s)" if gpus < 5 else "before (1 s)")


def test_what_is_known_of_a_level_is_told_by_rows_of_that_level() -> None:
    """An interactive placement on fewer GPUs says nothing of the published rule, and the other way round."""
    interactive = replace(ROW, service="interactive", gpus=4, lower_bound=4)
    assert improved([INSTANCE], known(), [interactive], "new") == known()
    found = improved([INSTANCE], {}, [interactive, ROW], "new", "interactive")[INSTANCE.id]
    assert (found.lower_bound, found.gpus, found.service) == (4, 4, "interactive")
    assert best_bounds([interactive, ROW], {}, "interactive") == {INSTANCE.id: 4}
    # The bound of one level refutes no placement of another.
    assert not all_contradictions([replace(interactive, gpus=3, lower_bound=None), ROW])


def test_the_table_keeps_what_it_says_of_other_levels(tmp_path: Path) -> None:
    of_interactive = known(service="interactive", gpus=9)
    write_best_known(known(), tmp_path)
    write_best_known(of_interactive, tmp_path, "interactive")
    assert read_best_known(tmp_path) == known()
    assert read_best_known(tmp_path, "interactive") == of_interactive
    assert read_best_known(tmp_path, "batch") == {}
    table = tmp_path / "best_known.csv"
    table.write_text(table.read_text().replace(",interactive", ",mine"))
    with pytest.raises(UserError, match="line 3: service=mine must be one of published, interactive, batch"):
        read_best_known(tmp_path)


def test_figures_of_another_twin_are_dropped() -> None:
    after = improved([INSTANCE], known(twin="0123456789ab", lower_bound=9), [], "new")[INSTANCE.id]
    assert (after.lower_bound, after.lower_bound_solver, after.gpus) == (1, TRIVIAL, None)
    assert after.twin == fingerprint(INSTANCE.profile)
    first = improved([INSTANCE], {}, [ROW], "new")[INSTANCE.id]
    assert (first.lower_bound, first.gpus) == (3, 5)


PROFILE = load_profile("llama-3.1-8b")


def changed(value: Any) -> Any:  # noqa: ANN401  # a field of any type
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, tuple):
        return (*value[:-1], changed(value[-1]))
    field = "source" if isinstance(value, Uncertainty) else "without_lora_tokens"
    return replace(value, **{field: changed(getattr(value, field))})


def mark_of(profile: Any, monkeypatch: pytest.MonkeyPatch) -> str:  # noqa: ANN401  # a profile
    monkeypatch.setattr(bounds, "load_profile", lambda _: profile)
    return fingerprint.__wrapped__("any")


@pytest.mark.parametrize("name", [field.name for field in fields(PROFILE) if field.name != "provenance"])
def test_a_fingerprint_holds_every_field_of_the_profile(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for where it came from."""
    before = mark_of(PROFILE, monkeypatch)
    assert mark_of(replace(PROFILE, provenance={"source": "elsewhere"}), monkeypatch) == before
    other = replace(PROFILE)
    object.__setattr__(other, name, changed(getattr(PROFILE, name)))
    assert mark_of(other, monkeypatch) != before


def test_a_fingerprint_holds_the_code_that_decides_what_is_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Followed through the imports: from how requests are drawn to when a GPU starves."""
    asked: list[tuple[str, ...]] = []

    def source_hash(modules: tuple[str, ...], **_: object) -> str:
        asked.append(modules)
        return str(len(asked))

    monkeypatch.setattr(bounds, "source_hash", source_hash)
    assert mark_of(PROFILE, monkeypatch) != mark_of(PROFILE, monkeypatch), "other code, another mark"
    names = "arrivals builders engine lengths placement profile queues results score simulate traces workload"
    assert {f"twin.{name}" for name in names.split()} <= set(source_files(asked[0]))


def test_no_shipped_bound_is_above_the_shipped_placement() -> None:
    best = read_best_known()
    assert best
    assert all(entry.gpus is None or entry.lower_bound <= entry.gpus for entry in best.values())
