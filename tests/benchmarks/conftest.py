"""`make benchmarks` leaves a table of its figures in results/benchmarks/, and a picture of how they grow."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from bench.shared.figures import MARKERS, png_figure
from tests.benchmarks.figures import CALIBRATION, in_calibrations

FOLDER = Path("results/benchmarks")


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Write what was measured, with the machine that it was measured on: points of curves in a table of their own, and drawn."""
    curves = [entry for entry in output_json["benchmarks"] if "curve" in entry["extra_info"]]
    others = [entry for entry in output_json["benchmarks"] if "curve" not in entry["extra_info"]]
    folder = config.rootpath / FOLDER
    if curves:
        write_table(folder / "growth.csv", curves, output_json)
        draw_growth(curves, folder / "growth.png")
    if {entry["name"] for entry in others} - {CALIBRATION}:
        write_table(folder / "speed.csv", others, output_json)


def write_table(path: Path, entries: list[dict[str, Any]], output_json: dict[str, Any]) -> None:
    """A row for each benchmark, its time in calibration loops too where that loop was measured."""
    loops = in_calibrations(output_json)
    rows = [
        {
            "benchmark": entry["name"],
            "median_ms": round(entry["stats"]["median"] * 1000, 4),
            "calibration_loops": float(f"{loops[entry['name']]:.4g}") if entry["name"] in loops else "",
            "quartiles_apart_ms": round(entry["stats"]["iqr"] * 1000, 4),
            "rounds": entry["stats"]["rounds"],
            **{key: value for key, value in entry["extra_info"].items() if isinstance(value, (int, float))},
        }
        for entry in entries
    ]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        processor = output_json["machine_info"].get("cpu", {}).get("brand_raw", "unknown processor")
        python = output_json["machine_info"]["python_version"]
        file.write(f"# CPU time on {processor}, Python {python}; make benchmarks\n")
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def draw_growth(entries: list[dict[str, Any]], path: Path) -> None:
    """Time over how many requests, adapters and GPUs there are; nothing where no curve was measured."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for entry in entries:
        told = entry["extra_info"]
        if "curve" in told:
            points = curves.setdefault(told["unit"], {}).setdefault(told["curve"], [])
            points.append((told["over"], entry["stats"]["median"] * 1000))
    if not curves:
        return
    with png_figure(path, (4.0 * len(curves), 3.4)) as figure:
        for axes, (unit, lines) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
            for marker, (label, points) in zip(MARKERS, lines.items(), strict=False):
                axes.plot(*zip(*sorted(points), strict=True), marker=marker, markersize=4, label=label)
            axes.set(xscale="log", yscale="log", xlabel=f"{unit}s".replace("gpu", "GPU"), ylabel="ms of CPU time")
            axes.legend(frameon=False, fontsize=7)
