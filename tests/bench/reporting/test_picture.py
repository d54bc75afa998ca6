"""The picture: drawn whatever the rows hold, and never half written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib.image as mpimg
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bench.comparison.compare import Comparison, compare
from bench.comparison.rows import Row
from bench.reporting.bars import FEASIBLE, STARVED, bars_of_solvers
from bench.reporting.picture import (
    MOST_GPUS_DRAWN,
    MOST_PLACEMENTS_DRAWN,
    MOST_WORKLOADS_DRAWN,
    _worth_drawing,
    draw,
    draw_placements,
)
from solvers.base import Solver
from twin import UserError


@pytest.fixture
def rows(comparison: Comparison, makers: dict[str, Callable[[], Solver]]) -> list[Row]:
    return list(compare(comparison, makers))


def share_of(colour: str, path: Path) -> float:
    """Share of the pixels that have a colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return float((np.abs(mpimg.imread(path)[..., :3] - wanted).max(axis=-1) < 0.02).mean())


def test_feasible_and_starved_placements_look_different(rows: list[Row], tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    draw([row for row in rows if row.solver == "alone"], good)
    draw([row for row in rows if row.solver == "crowded"], bad)
    assert share_of(FEASIBLE, good) > 0.005 > share_of(FEASIBLE, bad)
    assert share_of(STARVED, bad) > 0.002
    assert share_of(STARVED, good) == 0


def test_all_kinds_of_candidates_in_one_picture(rows: list[Row], tmp_path: Path) -> None:
    draw(rows, tmp_path / "all.png")
    assert mpimg.imread(tmp_path / "all.png").shape[0] > 500
    assert [entry.name for entry in tmp_path.iterdir()] == ["all.png"]


def test_several_seeds_and_several_workloads(rows: list[Row], tmp_path: Path) -> None:
    seeds = rows + [replace(row, seed=6) for row in rows]
    draw(seeds, tmp_path / "seeds.png")
    draw(seeds + [replace(row, workload="other") for row in rows], tmp_path / "workloads.png")
    assert share_of(FEASIBLE, tmp_path / "workloads.png") > 0.005


def test_bars_that_dwarf_all_others_are_cut(rows: list[Row]) -> None:
    """The axis is for those that can be compared; a figure beside the cut bar says how long it is."""
    placed = next(row for row in rows if row.feasible and row.gpus)
    counts = {"a": 3, "b": 3, "c": 4, "random": 60}
    same = replace(placed, lower_bound=None, ttft_p95_ms=2345.0)
    axes = Figure().subplots()
    bars_of_solvers(
        axes, [replace(same, solver=name, gpus=gpus, objective_key=[float(gpus)]) for name, gpus in counts.items()]
    )
    assert [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)] == [3, 3, 4, 5]
    written = [text.get_text() for text in axes.texts]
    assert written[::2] == ["3", "3", "4", "60"]
    assert set(written[1::2]) == {"TTFT p95 2.35 s"}
    assert max(axes.get_xticks()) <= 5


def test_seeds_on_which_a_solver_is_feasible_are_counted_in_words(rows: list[Row]) -> None:
    placed = next(row for row in rows if row.feasible and row.gpus)
    seeds = [replace(placed, seed=seed, feasible=seed > 0, lower_bound=None, ttft_p95_ms=None) for seed in range(3)]
    axes = Figure().subplots()
    bars_of_solvers(axes, seeds)
    assert "feasible on 2 of 3 seeds" in [text.get_text() for text in axes.texts]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["not feasible on every seed", "one seed"]


def test_bars_are_of_what_the_objective_is_about(rows: list[Row]) -> None:
    """GPUs for the fewest of them, the key of an objective of one's own, whose best candidate has the shortest bar and is on top."""
    placed = [row for row in rows if row.feasible and row.gpus]
    fewest, more = replace(placed[0], gpus=2), replace(placed[0], solver="spread", gpus=5)
    for objective, keys, label in (
        ("min_gpus", [(2.0, 9.0), (5.0, 1.0)], "GPUs"),
        ("cost", [(9.0, 2.0), (1.0, 5.0)], "objective cost"),
        ("min_latency", [(1.0, 900.0), (1.0, 100.0)], "mean latency (ms)"),
    ):
        axes = Figure().subplots()
        mine = [
            replace(row, objective=objective, objective_key=list(key))
            for row, key in zip((fewest, more), keys, strict=True)
        ]
        bars_of_solvers(axes, mine)
        assert axes.get_xlabel() == label
        widths = [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)]
        place = 1 if objective == "min_latency" else 0
        assert widths == sorted(key[place] for key in keys)
        best = axes.get_yticklabels()[0].get_text()
        assert best == (fewest if objective == "min_gpus" else more).solver_label
        texts = " ".join(text.get_text() for text in axes.texts)
        assert ("on 5 GPUs" in texts) == (objective != "min_gpus")


def test_of_many_placements_the_best_and_one_that_starves_are_drawn(rows: list[Row]) -> None:
    alone, crowded = (next(row for row in rows if row.solver == name) for name in ("alone", "crowded"))
    good = [
        replace(alone, solver=f"a{i}", gpus=9 - i, objective_key=[9.0 - i], placement=f"{alone.placement}{' ' * i}")
        for i in range(8)
    ]
    same = replace(good[7], solver="same")
    drawn = _worth_drawing([*good, same, crowded])
    assert [row.solver for row in drawn] == ["a7", "a6", "a5", "a4", "a3", "crowded"]
    assert len(drawn) == MOST_PLACEMENTS_DRAWN
    assert _worth_drawing(good[:3]) == good[:3]


def test_a_placement_of_very_many_gpus_does_not_take_the_picture_from_the_others(rows: list[Row]) -> None:
    alone, crowded = (next(row for row in rows if row.solver == name) for name in ("alone", "crowded"))
    vast = replace(crowded, gpus=MOST_GPUS_DRAWN + 1)
    assert _worth_drawing([vast, alone]) == [alone]
    assert _worth_drawing([vast, alone, *[replace(crowded, placement=str(i)) for i in range(9)]])[0] is alone


def test_nothing_placed_is_still_a_picture(rows: list[Row], tmp_path: Path) -> None:
    draw([row for row in rows if row.placement is None], tmp_path / "none.png")
    assert (tmp_path / "none.png").stat().st_size > 1000


def test_a_place_that_cannot_be_written_is_named(rows: list[Row], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/a\.png: cannot be written"):
        draw(rows[:1], tmp_path / "file" / "a.png")


def test_many_workloads_are_drawn_over_all_instances(rows: list[Row], tmp_path: Path) -> None:
    """A panel for each would make a picture that nothing can show."""
    many = [replace(row, workload=f"w{number}") for number in range(MOST_WORKLOADS_DRAWN + 1) for row in rows]
    draw(many, tmp_path / "many.png")
    height, width, _ = mpimg.imread(tmp_path / "many.png").shape
    assert height < 4 * width


def test_placements_of_a_workload_in_one_picture(rows: list[Row], tmp_path: Path) -> None:
    placed = [row for row in rows if row.placement is not None]
    draw_placements(placed[:1], tmp_path / "one.png")
    draw_placements(placed, tmp_path / "all.png")
    one, several = (mpimg.imread(tmp_path / f"{name}.png").shape[0] for name in ("one", "all"))
    assert several > 1.5 * one
