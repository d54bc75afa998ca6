"""The YAML files of the comparison: each can be composed and built."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

import bench.__main__  # noqa: F401  # registers the schema
from bench.comparison.build import build_workload
from bench.comparison.config import BenchConfig
from bench.shared.overrides import CONF
from bench.shared.plugins import register_solvers
from solvers.registry import list_solvers
from twin import Lengths, load_profile

PROFILE = load_profile("llama-3.1-8b")


def composed(*overrides: str) -> BenchConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_object(compose("config", list(overrides)))
    assert isinstance(config, BenchConfig)
    return config


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("name", choices("solver"))
def test_a_solver_yaml_puts_its_options_under_its_name(name: str) -> None:
    """Without its `# @package` line it could not be compared with others."""
    config = composed(f"solver={name}")
    assert list(config.solver) == [name]
    (entry,) = (entry for entry in list_solvers() if entry.name == name)
    assert type(instantiate(config.solver[name])) is entry.solver


def test_every_shipped_solver_is_compared_by_default() -> None:
    shipped = {entry.name for entry in list_solvers() if entry.target.startswith("solvers.")}
    assert set(composed().solver) == shipped


def test_a_solver_of_another_package_is_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint("theirs", "solvers.max_pack:MaxPack", "lora_placement_bench.solvers")
    monkeypatch.setattr(
        "bench.shared.plugins.metadata.entry_points", lambda group: [point] if group == point.group else []
    )
    register_solvers()
    config = composed("solver=[theirs,max_pack]")
    assert config.solver["theirs"] == {"_target_": "solvers.max_pack.MaxPack"}
    assert set(config.solver) == {"theirs", "max_pack"}


@pytest.mark.parametrize("name", choices("objective"))
def test_an_objective_yaml_is_called_as_its_objective(name: str) -> None:
    assert instantiate(composed(f"objective={name}").objective).name == name


@pytest.mark.parametrize(
    "name", [name for name in choices("workload") if not name.startswith(("azure", "groups", "trace"))]
)
def test_a_workload_yaml_builds_a_workload_of_its_name(name: str) -> None:
    workload = build_workload(composed(f"workload={name}", "seed=11").workload, PROFILE)
    assert (workload.name, workload.seed) == (name, 11)
    assert workload.n_adapters > 0
    # Only requests finished inside the window count: a shorter one would starve everybody a little.
    assert workload.duration_s >= 600


@pytest.mark.parametrize("profile", ["llama-3.1-8b", "qwen-2.5-7b"])
def test_chat_lengths_are_those_of_the_twin(profile: str) -> None:
    workload = build_workload(composed("workload=small").workload, load_profile(profile))
    assert workload.lengths == Lengths(generated_fraction=load_profile(profile).generated_fraction)


def test_lengths_are_a_choice_of_the_workload() -> None:
    options = composed("workload=small", "workload/lengths=fixed", "workload.lengths.prompt_tokens=9").workload
    requests = build_workload(options | {"ignore_eos": True}, PROFILE).requests
    assert set(requests.prompt_tokens) == {9}
    assert set(requests.output_tokens) == {options["lengths"]["output_tokens"]}


@pytest.mark.parametrize("name", choices("workload/arrivals"))
def test_arrivals_are_a_choice_of_the_workload(name: str) -> None:
    workload = build_workload(composed("workload=small", f"workload/arrivals={name}").workload, PROFILE)
    assert type(workload.arrivals).__name__ == f"{name.capitalize()}Arrivals"
    assert len(workload.requests)


@pytest.mark.parametrize("name", choices("experiment"))
def test_a_preset_is_a_sweep_over_options_that_there_are_or_a_suite(name: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        preset = compose("config", [f"experiment={name}", "workload=small"], return_hydra_config=True)
        if preset.suite is not None:
            return
        swept = preset.hydra.sweeper.params
        assert preset.hydra.mode.name == "MULTIRUN"
        first = [f"{key}={str(values).split(',')[0]}" for key, values in swept.items() if str(values)[-1] != ")"]
        assert compose("config", [f"experiment={name}", *first])
