"""The search for the fewest GPUs."""

from hypothesis import given
from hypothesis import strategies as st

from bench.fleet import fewest_gpus


@given(needed=st.integers(1, 300), most=st.integers(1, 300))
def test_finds_the_fewest_when_more_never_harm(needed: int, most: int) -> None:
    gpus, outcome = fewest_gpus(lambda gpus: gpus >= needed, bool, most)
    assert (gpus, outcome) == (min(needed, most), needed <= most)


@given(good=st.sets(st.integers(1, 64)), most=st.integers(1, 64))
def test_what_it_returns_was_tried_and_is_what_the_attempt_gave(good: set[int], most: int) -> None:
    tried: dict[int, tuple[int, bool]] = {}

    def attempt(gpus: int) -> tuple[int, bool]:
        assert gpus not in tried, "the same fleet twice is wasted work"
        assert 1 <= gpus <= most
        tried[gpus] = (gpus, gpus in good)
        return tried[gpus]

    gpus, outcome = fewest_gpus(attempt, lambda outcome: outcome[1], most)
    assert outcome is tried[gpus]
    assert outcome[1] or not any(succeeded for _, succeeded in tried.values())


def test_few_attempts() -> None:
    calls = []

    def attempt(gpus: int) -> bool:
        calls.append(gpus)
        return gpus >= 700

    fewest_gpus(attempt, bool, 100_000)
    assert len(calls) <= 20
