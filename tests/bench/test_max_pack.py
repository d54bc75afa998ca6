"""Max_pack on the twin: its definition, the curves, the files."""

from pathlib import Path

import pandas as pd
import pytest

from bench.max_pack import MaxPackConfig, main
from bench.studies.max_pack import IdenticalAdapters, identical_adapters, measure
from solvers.oracles.twin import TwinOracle
from twin import load_profile, workload_from_groups

LENGTHS = {"_target_": "twin.lengths.fixed_lengths", "prompt_tokens": 250, "output_tokens": 231}
ARRIVALS = {"_target_": "twin.arrivals.PoissonArrivals"}


def identical(rate: float = 0.8, most: int = 60, rank: int = 16, slots: list[int] | None = None) -> IdenticalAdapters:
    config = MaxPackConfig(
        most_adapters=most, max_loras=slots, duration_s=600.0, lengths=LENGTHS, arrivals=ARRIVALS, seed=3
    )
    return identical_adapters(config, rank, rate)


def test_it_is_the_largest_count_such_that_it_and_every_smaller_one_are_served() -> None:
    """Asked of another oracle, so that nothing remembered can answer."""
    curves = identical()
    count, capped = curves.max_pack()
    assert 0 < count < 60
    assert not capped
    fresh = TwinOracle(curves.workload, load_profile("llama-3.1-8b"))

    def served(n: int) -> bool:
        return fresh.find_max_loras(tuple(range(n))) is not None

    assert served(count)
    assert all(served(n) or fresh.is_cut_off(tuple(range(n))) for n in range(1, count))
    # Whatever is served beyond lies behind a count that starves.
    beyond = [n for n in range(count + 1, count + 10) if not served(n) and not fresh.is_cut_off(tuple(range(n)))]
    assert beyond
    assert not any(served(n) for n in range(count + 1, beyond[0]))


def test_fewer_slots_to_choose_from_serve_no_more() -> None:
    every, one = identical().max_pack()[0], identical(slots=[1]).max_pack()[0]
    assert one < every


def test_higher_rates_leave_room_for_fewer() -> None:
    assert identical(rate=1.6).max_pack()[0] < identical(rate=0.8).max_pack()[0]


def test_a_search_that_ends_early_says_so() -> None:
    pack, _ = measure(identical(most=5))
    assert (pack.n_adapters, pack.capped) == (5, True)


def test_the_frontier_is_the_best_of_each_count() -> None:
    pack, points = measure(identical())
    for count in {point.n_adapters for point in points}:
        mine = [point for point in points if point.n_adapters == count]
        (best,) = [point for point in mine if point.frontier]
        assert best.throughput == max(point.throughput for point in mine)
        assert {point.offered_throughput for point in mine} == {best.offered_throughput}
    at = next(point for point in points if point.frontier and point.n_adapters == pack.n_adapters)
    assert (pack.max_loras, pack.throughput) == (at.max_loras, at.throughput)
    assert not at.starved
    assert max(point.n_adapters for point in points) > pack.n_adapters


def test_a_lone_request_cut_off_by_the_end_of_the_window_is_no_starvation() -> None:
    workload = workload_from_groups([(4, 8, 0.01)], duration_s=300.0, seed=1)
    curves = IdenticalAdapters(workload, load_profile("llama-3.1-8b"))
    assert curves.max_pack() == (4, True)


@pytest.mark.usefixtures("_in_tmp_path")
def test_the_command_writes_table_points_and_picture(capsys: pytest.CaptureFixture[str]) -> None:
    main(["ranks=[8,16]", "rates=[1.6]", "most_adapters=40", "duration_s=300", "out=there"])
    table = pd.read_csv("there/max_pack.csv")
    assert table["rank"].tolist() == [8, 16]
    points = pd.read_parquet("there/points.parquet")
    assert set(points["rank"]) == {8, 16}
    assert Path("there/max_pack.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert all(str(count) in out for count in table["n_adapters"])


@pytest.mark.usefixtures("_in_tmp_path")
@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("rates=[0]", "rates: 0 must be above 0"),
        ("rates=[]", "ranks and rates must name at least one each"),
        ("ranks=[999]", "999"),
        ("most_adapters=0", "most_adapters=0 must be 1 or more"),
        ("max_loras=[0]", "max_loras=[0]"),
    ],
)
def test_a_mistake_is_one_line(option: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([option])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
