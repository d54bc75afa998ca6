"""Solvers of other packages, known to Hydra as those of `conf/solver` are."""

from __future__ import annotations

from importlib import metadata

from hydra.core.config_store import ConfigStore

from solvers.registry import ENTRY_POINTS

#: Entry-point groups by which other packages make known what data files may name.
GROUPS = {
    "solver": (ENTRY_POINTS,),
    "objective": ("lora_placement_bench.objectives",),
    "workload": ("lora_placement_bench.builders", "lora_placement_bench.lengths", "lora_placement_bench.arrivals"),
}


def register_solvers() -> None:
    """Make `solver=NAME` work for each entry point `NAME = "package.module:Class"` in the group `ENTRY_POINTS`.

    Nothing is imported: a package that fails to import fails as one candidate, when it is asked for. A YAML of the same
    name in `conf/solver` goes first.
    """
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        target = entry.value.partition("[")[0].strip().replace(":", ".")
        ConfigStore.instance().store(
            group="solver", name=entry.name, node={"_target_": target}, package=f"solver.{entry.name}"
        )
