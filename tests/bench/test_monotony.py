"""How far one more adapter makes up for a shortfall, as a command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import monotony
from bench.monotony import main
from bench.studies.monotony import MonotonyOptions, grow
from solvers.oracles.twin import TwinOracle
from twin import INTERACTIVE, PUBLISHED, load_profile, workload_from_groups

IDS = "ids=[zipf-llama-0008]"


def test_contents_grow_past_where_they_fail() -> None:
    """By hand: of 24 adapters at 4 requests/s a GPU serves some, and each one more makes it worse."""
    workload = workload_from_groups([(24, 8, 4.0)], duration_s=120.0, seed=3)
    for service in (PUBLISHED, INTERACTIVE):
        oracle = TwinOracle(workload, load_profile("llama-3.1-8b"), service=service)
        found = grow("mine", oracle, MonotonyOptions(draws=2, steps=3))
        assert found.service == service.name
        assert 2 <= found.pairs <= 6
        assert found.rises <= found.pairs
        assert 0 <= found.refuted <= found.beyond_doubt <= found.pairs
        assert found.made_good_from == 0 or found.made_good > 0


def test_what_all_fits_on_a_gpu_has_nothing_to_say() -> None:
    oracle = TwinOracle(workload_from_groups([(3, 8, 0.1)], duration_s=120.0, seed=3), load_profile("llama-3.1-8b"))
    found = grow("mine", oracle, MonotonyOptions())
    assert (found.pairs, found.rises, found.largest_rise, found.refuted) == (0, 0, 0.0, 0)


def test_levels_share_a_table_and_what_is_there_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "monotony.csv"
    for service in ("interactive", "published"):
        main([IDS, "tier=collection", "steps=1", f"service={service}", f"table={table}"])
    assert "share rose in" in capsys.readouterr().out
    lines = pd.read_csv(table)
    assert lines.service.tolist() == ["interactive", "published"]
    assert np.isfinite(lines.largest_rise).all()

    def again(*_: object) -> None:
        pytest.fail("an instance was grown again")

    monkeypatch.setattr(monotony, "grow", again)
    main([IDS, "tier=collection", "steps=1", f"table={table}"])
    with pytest.raises(SystemExit):
        main([IDS, "tier=collection", "steps=2", f"table={table}"])
    assert "lines made with another steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mistake", "said"), [("draws=0", "draws=0 must be 1 or more"), ("adapters=3", "adapters=3: no instance")]
)
def test_a_mistake_is_one_line(mistake: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([mistake])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
