"""The files of the workload suite: schema, generator, tiers."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import bench.__main__  # noqa: F401  # says what the options of conf/config.yaml are
from bench.comparison.build import build_workload
from bench.shared.overrides import CONF
from bench.suites.generate import collection
from bench.suites.instance import Instance, check_instance, read_instance
from bench.suites.library import FOLDER, instance_path, load_suite, read_benchmark, write_instances
from bench.suites.select import QUOTAS, farthest_points, size_class
from solvers.oracles.twin import TwinOracle
from twin import INTERACTIVE, PUBLISHED, ServiceLevel, UserError, load_profile


@pytest.fixture(scope="module")
def shipped() -> list[Instance]:
    return load_suite("collection")


def test_the_collection_is_what_the_generator_makes(shipped: list[Instance]) -> None:
    """So that the files can be made again, and nobody edits one by hand."""
    assert [instance.to_yaml() for instance in shipped] == [instance.to_yaml() for instance in collection()]
    texts = {path.name: path.read_text(encoding="utf-8") for path in (FOLDER / "instances").glob("*.yaml")}
    assert texts == {f"{instance.id}.yaml": instance.to_yaml() for instance in shipped}


def test_the_collection_covers_what_is_promised(shipped: list[Instance]) -> None:
    assert len(shipped) >= 200
    assert {instance.profile for instance in shipped} == {"llama-3.1-8b", "qwen-2.5-7b"}
    assert {instance.adapters["family"] for instance in shipped} == {"zipf", "dirichlet", "mixed", "groups"}
    assert {instance.arrivals["process"] for instance in shipped} == {"poisson", "gamma", "unpredictable"}
    tags = {tag for instance in shipped for tag in instance.tags}
    assert {"chat", "fixed", "short", "long-prompt", "long-output", "paper"} <= tags
    sizes = [instance.workload().n_adapters for instance in shipped]
    assert (min(sizes), max(sizes)) == (7, 2000)
    assert len({instance.seed for instance in shipped}) > 100


def test_no_adapter_is_too_much_for_a_gpu(shipped: list[Instance]) -> None:
    """Every instance has a feasible placement: at worst each adapter on a GPU of its own."""
    for instance in [instance for instance in shipped if "hot" not in instance.tags][::20]:
        workload = instance.workload()
        assert (workload.rates * workload.lengths.mean_total_tokens).max() < 9000.0


@pytest.mark.parametrize("level", [PUBLISHED, INTERACTIVE], ids=lambda level: str(level.name))
def test_a_hot_instance_has_an_adapter_that_no_gpu_holds(shipped: list[Instance], level: ServiceLevel) -> None:
    """Under both levels: only replicas serve it. There are 20, of both profiles, with one such adapter and with several, and in bursts."""
    hot = [instance for instance in shipped if "hot" in instance.tags]
    assert len(hot) == 20
    assert Counter(instance.profile for instance in hot) == {"llama-3.1-8b": 10, "qwen-2.5-7b": 10}
    assert {"giants", "zipf", "poisson", "bursts-2", "bursts-4"} <= {tag for instance in hot for tag in instance.tags}
    too_much: Counter[str] = Counter()
    for instance in hot:
        profile = load_profile(instance.profile)
        workload = instance.workload(profile)
        twin = TwinOracle(workload, profile, service=level)
        busiest = np.argsort(-workload.rates)[:5].tolist()
        too_much[instance.id] = sum(twin.find_max_loras((adapter,)) is None for adapter in busiest)
    assert (min(too_much.values()), max(too_much.values())) == (1, 4)


def test_the_benchmark_tier_meets_its_quotas(shipped: list[Instance]) -> None:
    names = read_benchmark()
    assert len(names) == sum(QUOTAS.values())
    by_id = {instance.id: instance for instance in shipped}
    classes = [size_class(by_id[name].workload()) for name in names]
    assert {name: classes.count(name) for name in QUOTAS} == QUOTAS
    assert {"paper_1gpu", "paper_4gpus"} <= set(names)


@pytest.mark.parametrize("name", ["paper_1gpu", "paper_4gpus"])
def test_a_paper_scenario_is_the_workload_of_the_same_name(name: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        options = OmegaConf.to_container(compose("config", [f"workload={name}"]).workload, resolve=True)
    profile = load_profile("llama-3.1-8b")
    theirs, ours = build_workload(options, profile), read_instance(instance_path(name)).workload()  # type: ignore[arg-type]
    assert (ours.duration_s, ours.seed, ours.lengths, ours.arrivals) == (
        theirs.duration_s, theirs.seed, theirs.lengths, theirs.arrivals,
    )  # fmt: skip
    np.testing.assert_array_equal(ours.rates, theirs.rates)
    np.testing.assert_array_equal(ours.ranks, theirs.ranks)


GOOD = instance_path("zipf-llama-0100").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sed": 3}, "sed: no such option (did you mean seed?)"),
        ({"seed": "many"}, "seed=many must be a whole number"),
        ({"seed": -1}, "seed=-1 must be a whole number"),
        ({"seed": None}, "seed: "),
        ({"schema_version": 9}, "schema_version: 9 is not known"),
        ({"id": "other"}, "id: other must be the file's name"),
        ({"profile": "llama-9"}, "llama-9"),
        ({"duration_s": -5.0}, "duration_s"),
        ({"arrivals": {"process": "gamma"}}, "arrivals.cv: is missing"),
        ({"arrivals": {"process": "gamma", "cv": -1.0}}, "cv=-1.0 must be a number"),
        ({"arrivals": {"process": "fractal"}}, "arrivals.process: fractal must be one of"),
        ({"arrivals": {"process": "poisson", "cv": 2.0}}, "arrivals.cv: no such option"),
        (
            {"adapters": {"family": "zipf", "n_adapters": 5, "total_rate": 1.0, "exponent": 1.0}},
            "adapters.ranks: is missing",
        ),
        ({"adapters": {"family": "groups", "groups": [{"count": 3, "rank": 8}]}}, "rate: is missing"),
        ({"adapters": {"family": "groups", "groups": [{"count": 3, "rank": 999, "rate": 0.1}]}}, "rank"),
        ({"adapters": {"family": "groups", "groups": []}}, "there must be one or more"),
        ({"adapters": "many"}, "adapters"),
    ],
    ids=str,
)
def test_a_mistake_in_a_file_is_one_clear_line(tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = tmp_path / "zipf-llama-0100.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(GOOD) | change), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        check_instance(read_instance(path), path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", ["1:30", "010", "0x1F", "1_000", "0b11", ".inf"])
def test_numbers_in_a_notation_of_yaml_alone_are_refused(tmp_path: Path, seed: str) -> None:
    """`1:30` would be the seed 90, `010` the seed 8."""
    path = tmp_path / "zipf-llama-0100.yaml"
    path.write_text(re.sub(r"(?m)^seed: .*$", f"seed: {seed}", GOOD), encoding="utf-8")
    with pytest.raises(UserError, match=rf"line \d+: {re.escape(seed)} must be a number in decimal digits"):
        read_instance(path)


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2", "7"])
def test_what_is_no_instance_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.yaml: (not YAML|must hold)"):
        read_instance(path)


def test_a_file_says_what_the_instance_is(tmp_path: Path, shipped: list[Instance]) -> None:
    """Written and read, an instance is the same; what is gone from the collection is gone from the folder."""
    write_instances(shipped[:3], tmp_path)
    write_instances(shipped[1:4], tmp_path)
    assert load_suite("collection", tmp_path) == shipped[1:4]


def test_instances_are_chosen_by_tag_and_id() -> None:
    both = load_suite("collection", tags=["large", "zipf"])
    assert both
    assert all({"large", "zipf"} <= set(instance.tags) for instance in both)
    (one,) = load_suite("benchmark", ids=["paper_1gpu"])
    assert one.id == "paper_1gpu"
    with pytest.raises(UserError, match="tag larg: no instance has it"):
        load_suite("collection", tags=["larg"])
    with pytest.raises(UserError, match="no instance nobody"):
        load_suite("collection", ids=["nobody"])
    with pytest.raises(UserError, match="tier=all"):
        load_suite("all")


def test_farthest_points_are_spread_and_keep_the_quotas() -> None:
    points = np.array([[0.0], [0.1], [0.2], [5.0], [10.0], [10.1]])
    classes = ["a", "a", "a", "b", "b", "b"]
    assert farthest_points(points, classes, {"a": 1, "b": 2}, [0]) == [0, 5, 3]
    assert sorted(farthest_points(points, classes, {"a": 9, "b": 9}, [2])) == list(range(6))
