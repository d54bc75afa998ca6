"""What is said of the published rule beside a plan."""

import pytest

from bench.comparison.compare import Comparison, compare
from bench.planning.published import PublishedNeed, published_need
from solvers.max_pack import MaxPack
from twin import INTERACTIVE, Placement, score_placement


@pytest.mark.parametrize(
    ("need", "gpus", "said"),
    [
        (PublishedNeed(1, "s", 0.4), 2, "1 GPU would do, as s finds; there 40% of the requests keep the limits"),
        (PublishedNeed(2, "s", 0.4), None, "2 GPUs would do, as s finds; there 40% of the requests keep the limits"),
        (PublishedNeed(2, "s", 1.0), 2, "s finds nothing on fewer GPUs"),
        (PublishedNeed(3, "s", 1.0), 2, "s finds nothing on fewer GPUs"),
    ],
)
def test_it_is_one_line(need: PublishedNeed, gpus: int | None, said: str) -> None:
    assert need.in_words(gpus) == f"by the published rule (throughput alone) {said}"


def test_its_placement_is_judged_by_the_level_asked_for(comparison: Comparison) -> None:
    (row,) = compare(comparison, {"max_pack": MaxPack})
    need = published_need(row, comparison.workload, comparison.profile, INTERACTIVE)
    placement = Placement.from_json(row.placement or "")
    score = score_placement(comparison.workload, placement, comparison.profile, service=INTERACTIVE)
    assert need == PublishedNeed(placement.n_gpus, "max_pack", score.goodput or 0.0)
