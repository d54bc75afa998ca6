"""The notebook of the documentation runs from top to bottom and shows what its words say."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorials" / "quickstart.ipynb"


def read() -> Any:  # noqa: ANN401  # nbformat has no types
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]


def outputs(notebook: Any) -> list[Any]:  # noqa: ANN401  # nbformat has no types
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures(notebook: Any) -> int:  # noqa: ANN401  # nbformat has no types
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def tables(notebook: Any) -> list[str]:  # noqa: ANN401  # nbformat has no types
    return [output["data"]["text/plain"] for output in outputs(notebook) if output.output_type == "execute_result"]


def said(notebook: Any) -> str:  # noqa: ANN401  # nbformat has no types
    return "".join(output.text for output in outputs(notebook) if output.output_type == "stream")


def test_it_runs_and_shows_plan_placement_curves_and_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = [str(NOTEBOOK.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    # The tests draw into files; a notebook has a backend of its own.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    made, kept = read(), read()
    client = NotebookClient(made, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    for one in (made, kept):
        assert pictures(one) == 3
        assert re.search(r"^\d GPUs for 95% of the requests", said(one), re.MULTILINE)
        # Warnings would stand between the figures.
        assert not any(output.output_type == "stream" and output.name == "stderr" for output in outputs(one))
    # What is committed has the columns and solvers that come out.
    rows = [[line.split()[0] for line in table.splitlines()] for one in (made, kept) for table in tables(one)]
    assert len(rows) == 4
    assert rows[:2] == rows[2:]
    assert "exact" in rows[1]
