"""The launchers of our own, under the names by which `conf/hydra/launcher` asks for them."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from bench.launchers.ray_launcher import RayLauncher
from bench.launchers.submitit_launcher import SubmititLauncher

#: Hydra takes plug-ins under names in `hydra_plugins` alone.
NAMESPACE = "hydra_plugins.lora_placement_bench"


def register_launchers() -> None:
    """Make our launchers known to Hydra."""
    # Finds the packages that extend Hydra, which register what they have.
    known = Plugins.instance().class_name_to_class
    for launcher in (RayLauncher, SubmititLauncher):
        known[f"{NAMESPACE}.{launcher.__name__}"] = launcher
    configurations = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for name in ("submitit_local", "submitit_slurm"):
        # Hydra would hold our YAML to the options that hydra-submitit-launcher, if it is installed, has under this name.
        configurations.pop(f"{name}.yaml", None)
