"""`make benchmarks` leaves a table of its figures in results/benchmarks/."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

TABLE = Path("results/benchmarks/speed.csv")


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Write what was measured, with the machine that it was measured on, as a table."""
    rows = [
        {
            "benchmark": entry["name"],
            "median_ms": round(entry["stats"]["median"] * 1000, 4),
            "quartiles_apart_ms": round(entry["stats"]["iqr"] * 1000, 4),
            "rounds": entry["stats"]["rounds"],
            **{key: value for key, value in entry["extra_info"].items() if isinstance(value, (int, float))},
        }
        for entry in output_json["benchmarks"]
    ]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    path = config.rootpath / TABLE
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        processor = output_json["machine_info"].get("cpu", {}).get("brand_raw", "unknown processor")
        file.write(
            f"# one core of {processor}, Python {output_json['machine_info']['python_version']}; make benchmarks\n"
        )
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)
