"""`python -m bench.online`: rows, the sentence, what is not computed again, and what is refused in one line."""

from pathlib import Path

import numpy as np
import pytest

from bench.changing.rows import BOUND, DayRow, in_words, read_days
from bench.comparison.sources import _code_hash, find_source, source_hash
from bench.online import OnlineConfig, _question, main

SMALL = [
    "workload.n_adapters=12",
    "workload.total_rate=6",
    "workload.duration_s=1800",
    "workload.arrivals.day_s=1800",
    "controller=[static_peak,headroom]",
]


def test_a_day_is_written_once_and_not_served_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*SMALL, "bound_s=0.2", "seed=4", f"out={tmp_path}"]
    main(arguments)
    printed = capsys.readouterr().out
    assert "seeds from 4" in printed
    rows = {row.controller: row for row in read_days(tmp_path / "rows.parquet")}
    assert list(rows) == [BOUND, "static_peak", "headroom"]
    assert rows["static_peak"].goodput > 0.99
    assert rows["static_peak"].moves_per_adapter == 0
    assert rows["static_peak"].over_bound == pytest.approx(rows["static_peak"].gpu_hours / rows[BOUND].gpu_hours)
    assert (tmp_path / "day.png").stat().st_size > 10_000
    assert len((tmp_path / "online.csv").read_text(encoding="utf-8").splitlines()) == 4

    def refuse(*_: object) -> None:
        raise AssertionError("served again")

    monkeypatch.setattr("bench.online.DayStudy", refuse)
    main(arguments)
    assert list(read_days(tmp_path / "rows.parquet")) == list(rows.values()) or np.isnan(rows[BOUND].goodput)


def forget_sources() -> None:
    for remembered in (source_hash, find_source, _code_hash):
        remembered.cache_clear()


def test_another_code_of_a_controller_is_another_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of an earlier version would otherwise stand for the new one."""
    monkeypatch.syspath_prepend(tmp_path)
    config = OnlineConfig(
        controller={"mine": {"_target_": "edited_controller.Mine"}, "other": {"_target_": "twin.Lengths"}}
    )
    found = []
    for code in ("A = 1\n", "A = 2\n"):
        (tmp_path / "edited_controller.py").write_text(code, encoding="utf-8")
        forget_sources()
        found.append([_question(config, 0, name) for name in ("mine", "other")])
    forget_sources()
    assert found[0][0] != found[1][0]
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["gpus=0"], "gpus=0 must be a whole number, 1 or more"),
        (["days=0"], "days=0 must be a number, 1 or more"),
        (["days=1000000000"], "days=1000000000 must be a number"),
        (["tick_s=inf"], "tick_s=inf must be a number"),
        (["tick_s=100000"], "tick_s=100000.0 must be a number"),
        (["interval_s=inf"], "interval_s=inf must be a number"),
        (["price=nan"], "price=nan must be a number"),
        (["service=published"], "service=published: controllers need limits on latency"),
        (["controller.headroom.memory_s=0"], "memory_s=0"),
        (["+controller.odd._target_=twin.Lengths"], "controller.odd: twin.Lengths is no"),
        (["profile=mistral-7b/a100-80gb"], "controllers ask a predictor"),
    ],
)
def test_a_mistake_is_one_line(
    overrides: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*SMALL, "bound_s=0", f"out={tmp_path}", *overrides])
    assert caught.value.code == 2
    printed = capsys.readouterr()
    error = printed.err.strip()
    assert message in error
    assert "\n" not in error
    if "must be a" in message:
        assert not printed.out


def test_another_file_in_the_folder_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.parquet").write_text("mine", encoding="utf-8")
    with pytest.raises(SystemExit):
        main([*SMALL, "bound_s=0", f"out={tmp_path}"])
    assert "rows.parquet holds no rows" in capsys.readouterr().err
    assert (tmp_path / "rows.parquet").read_text(encoding="utf-8") == "mine"


def row(controller: str, gpu_hours: float, goodput: float) -> DayRow:
    return DayRow(
        "q", controller, "w", "interactive", "p", 0, 1, 1, gpu_hours, gpu_hours, gpu_hours / 10, 1.0, goodput, 0, 1.5, 0,
        0.0, 0.0, [], [],
    )  # fmt: skip


def test_the_verdict_names_the_cheapest_that_serves_nearly_all() -> None:
    rows = [row(BOUND, 10.0, float("nan")), row("cheap", 11.0, 0.9), row("good", 12.0, 0.999), row("dear", 20.0, 1.0)]
    assert in_words(rows).startswith("good needs the fewest GPU-hours")
    assert "20% above the bound" in in_words(rows)
    assert in_words(rows[:2]) == "No controller reaches a goodput of 99.5%; cheap comes nearest with 90.00%."
