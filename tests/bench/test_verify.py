"""The command that proves bounds again from rows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.certificates.proof import checksum_of
from bench.comparison.cell import Cell
from bench.comparison.rows import Row, read_rows, write_rows
from bench.comparison.run import run_cell
from bench.verify import main

WORKLOAD = {
    "_target_": "twin.builders.groups",
    "name": "two-ranks",
    "duration_s": 120.0,
    "seed": 3,
    "groups": [{"count": 6, "rank": 8, "rate": 7.0}, {"count": 6, "rank": 16, "rate": 7.0}],
    "arrivals": {"_target_": "twin.arrivals.PoissonArrivals"},
}
EXACT = {"_target_": "solvers.exact.Exact", "oracle": "twin", "workers": 1, "best_service": False}


@pytest.fixture(scope="module")
def row() -> Row:
    """Of `exact`, which proves three GPUs."""
    found = run_cell(Cell(solver="exact", solver_options=EXACT, workload=WORKLOAD, seed=3, time_limit_s=20.0))
    assert (found.status, found.lower_bound, found.gpus) == ("optimal", 3, 3)
    assert found.certificate is not None
    assert "certificate" not in json.loads(found.details)
    return found


def verified(rows: Sequence[Row], path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    """Exit code, output and errors of the command on rows."""
    write_rows(rows, path)
    assert read_rows(path) == list(rows)
    code: object = 0
    try:
        main([str(path)])
    except SystemExit as stopped:
        code = stopped.code
    shown = capsys.readouterr()
    return code, " ".join(shown.out.split()), shown.err


def test_a_row_is_proven_again(row: Row, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = verified([row], tmp_path / "rows.parquet", capsys)
    assert code == 0
    assert "1 of 1 bounds were proven again" in out
    assert "feasible" in out


def test_what_is_not_proven_is_said(row: Row, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No certificate, a bound of one GPU, a bound that is above what the certificate has, a workload of somebody else."""
    cell = json.loads(row.cell)
    cell["workload"]["_target_"] = "os.system"
    rows = [
        replace(row, solver="without", certificate=None),
        replace(row, solver="trivial", lower_bound=1),
        replace(row, solver="more", lower_bound=4, gpus=None, placement=None, gpu_results=None, feasible=False),
        replace(row, solver="strange", cell=json.dumps(cell)),
    ]
    code, out, _ = verified(rows, tmp_path / "rows.parquet", capsys)
    assert code == 0
    assert "1 of 4 bounds were proven again" in out
    for words in (
        "no certificate",
        "nothing to prove",
        "the rest is by",
        "os.system",
    ):
        assert words in out


def tampered(row: Row, **changes: Any) -> str:  # noqa: ANN401  # whatever a certificate may hold
    """The certificate with other values and a checksum that is right."""
    values = {**json.loads(row.certificate or ""), **changes}
    return json.dumps({**values, "checksum": checksum_of(values)})


def test_what_is_wrong_is_told(row: Row, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A certificate that was changed, a placement that fails, a count of GPUs, and a proof that a placement refutes."""
    one_gpu = json.dumps([{"max_loras": 12, "adapters": list(range(12))}])
    rows = [
        replace(row, solver="forged", certificate=tampered(row, bound=4)),
        replace(row, solver="failing", placement=one_gpu, gpus=1, gpu_results=None),
        replace(row, solver="above", lower_bound=7),
        replace(row, solver="above without", lower_bound=7, certificate=None),
        replace(row, solver="right"),
    ]
    code, _, errors = verified(rows, tmp_path / "rows.parquet", capsys)
    assert code == 3
    lines = errors.splitlines()
    assert [line.split(": ")[1:3] for line in lines] == [
        ["forged", "REFUSED"],
        ["failing", "WRONG"],
        ["above", "CONTRADICTION"],
        ["above without", "CONTRADICTION"],
    ]


@pytest.mark.parametrize("mistake", [["solvers=[ffd]"], ["instances=[none]"]])
def test_a_mistake_is_one_line(
    row: Row, mistake: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.parquet"
    write_rows([row], path)
    with pytest.raises(SystemExit) as stopped:
        main([str(path), *mistake])
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert mistake[0].partition("=")[0] in line
    assert line.count("\n") == 1
    write_rows([replace(row, lower_bound=None, certificate=None)], path)
    with pytest.raises(SystemExit) as stopped:
        main([str(path)])
    assert stopped.value.code == 2


def test_no_solver_is_imported() -> None:
    """What proves a bound again shares no code with what found it."""
    script = "import sys, bench.verify; print([name for name in sys.modules if name.split('.')[0] == 'solvers'])"
    shown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "[]"


def test_it_is_short_enough_to_be_read() -> None:
    """Whoever wants to trust a bound reads this, and nothing of the solvers."""
    root = Path(bench.__file__).parent
    files = [root / "verify.py", *(root / "certificates").glob("*.py")]
    assert sum(bool(line.strip()) for file in files for line in file.read_text(encoding="utf-8").splitlines()) <= 400
