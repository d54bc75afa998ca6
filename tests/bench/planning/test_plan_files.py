"""Command lines and Kubernetes manifests of a placement."""

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench.planning.adapters import Adapter
from bench.planning.answer import MOST_GROWTH, GpuAnswer, growth
from bench.planning.kubernetes import Cluster, helm_values, kubernetes_name, lora_adapters
from bench.planning.vllm_commands import Serving, arguments, command_line, lora_modules, script
from bench.vllm.flags import VLLM_LORA_RANKS, vllm_lora_rank
from twin import UserError, load_profile

SERVING = Serving("org/base", load_profile("qwen-2.5-7b"), first_port=9000, gpus_per_host=2, extra=("--quiet",))

# The keys and types that the chart vllm-stack 0.1.16 knows: helm/values.schema.json of vllm-project/production-stack
# at commit 01eaf92 (servingEngineSpec.modelSpec.items, its vllmConfig, loraAdapters.items, loraController).
MODEL_SPEC = {
    "name": str, "repository": str, "tag": str, "modelURL": str, "enableLoRA": bool, "replicaCount": int,
    "requestCPU": int, "requestMemory": str, "requestGPU": int, "vllmConfig": dict, "env": list, "hf_token": (str, dict),
}  # fmt: skip
VLLM_CONFIG = {"maxLoras": int, "maxModelLen": int, "maxNumSeqs": int, "extraArgs": list}
LORA_ADAPTER = {"name": str, "baseModel": str, "adapterSource": dict, "loraAdapterDeploymentConfig": dict}
HELM_SOURCE = {"type": str, "adapterName": str, "adapterPath": str, "repository": str, "credentials": (str, dict)}
# The custom resource: helm/crds/crd-lora-adapter.yaml at commit a7d2672, whose enums these are.
SOURCE = {"type": str, "adapterName": str, "adapterPath": str, "repository": str, "credentialsSecretRef": dict}
SOURCE_TYPES = {"local", "s3", "http", "huggingface"}
ALGORITHMS = {"default", "ordered", "equalized"}


def gpu(number: int, *adapters: Adapter, **flags: int) -> GpuAnswer:
    given_flags: dict[str, Any] = {"max_loras": 4, "max_lora_rank": 16, "max_cpu_loras": 5} | flags
    return GpuAnswer(
        number, adapters, None, rate=1.0, throughput=1.0, offered_throughput=1.0, ttft_ms=1.0, ttft_p99_ms=1.0,
        itl_ms=1.0, e2e_ms=1.0, kv_usage=0.1, growth=1.5, **given_flags,
    )  # fmt: skip


GPUS = (
    gpu(0, Adapter("billing", 8, 1.0, path="/w/billing"), Adapter("Code/Assist=v2", 16, 1.0)),
    gpu(1, Adapter("search", 8, 1.0, path="org/search"), max_loras=1),
    gpu(2, Adapter("it's, this", 8, 1.0)),
)


def has_form(data: dict[str, Any], form: dict[str, Any]) -> bool:
    return all(key in form and isinstance(value, form[key]) for key, value in data.items())


# --- command lines


def test_the_command_of_a_gpu() -> None:
    assert arguments(GPUS[0], SERVING) == [
        "vllm", "serve", "org/base", "--port", "9000", "--max-model-len", "32768", "--max-num-seqs", "2048",
        "--max-num-batched-tokens", "2048", "--block-size", "16", "--no-enable-prefix-caching",
        "--enable-lora", "--max-loras", "4", "--max-lora-rank", "16", "--max-cpu-loras", "5", "--quiet",
        "--lora-modules", "billing=/w/billing",
        '{"name": "Code/Assist=v2", "path": "/adapters/Code/Assist=v2"}',
    ]  # fmt: skip


def test_servers_are_started_with_the_prefix_caching_that_was_simulated() -> None:
    for name, flag in (
        ("mistral-7b/h100-80gb", "--enable-prefix-caching"),
        ("llama-3.1-8b", "--no-enable-prefix-caching"),
    ):
        flags = [
            word for word in arguments(GPUS[0], Serving("org/base", load_profile(name))) if "prefix-caching" in word
        ]
        assert flags == [flag]


@given(st.lists(st.text(min_size=1), min_size=1), st.text(min_size=1))
def test_vllm_gets_every_name_and_path_as_it_is(names: list[str], path: str) -> None:
    """Reads them back as vLLM 0.32 does (`LoRAParserAction`), after the shell."""
    adapters = [Adapter(name, 8, 1.0, path=path) for name in names]
    _, *modules = shlex.split(shlex.join(lora_modules(adapters, SERVING)))
    read = []
    for item in modules:
        if "=" in item and "," not in item:
            read.append(tuple(item.split("=", 1)))
        else:
            module = json.loads(item)
            read.append((module["name"], module["path"]))
    assert read == [(name, path) for name in names]


def test_ports_and_devices_start_anew_on_each_host() -> None:
    assert [SERVING.place_of(number) for number in range(4)] == [(0, 0, 9000), (0, 1, 9001), (1, 0, 9000), (1, 1, 9001)]
    assert command_line(GPUS[1], SERVING).startswith("CUDA_VISIBLE_DEVICES=1 vllm serve org/base --port 9001 ")


def test_the_script_starts_the_servers_of_its_host(tmp_path: Path) -> None:
    """Run by a shell in which `vllm` writes down what it gets."""
    fake = tmp_path / "vllm"
    fake.write_text('#!/bin/sh\nfor word in "$CUDA_VISIBLE_DEVICES" "$@"; do echo "$word"; done > "$OUT.$5$4"\n')
    fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "OUT": str(tmp_path / "got")}
    for host in (0, 1):
        subprocess.run(["/bin/sh", "-c", script(GPUS, SERVING, host)], env=environment, check=True)
        got = sorted(path.read_text().splitlines() for path in tmp_path.glob("got.*"))
        expected = [g for g in GPUS if SERVING.place_of(g.gpu)[0] == host]
        assert got == [[str(SERVING.place_of(g.gpu)[1]), *arguments(g, SERVING)[1:]] for g in expected]
        for path in tmp_path.glob("got.*"):
            path.unlink()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"adapter_path": "/w"}, "adapter_path=/w must have {name}"),
        ({"gpus_per_host": 0}, "gpus_per_host=0"),
        ({"first_port": 65535}, "port=65535"),
    ],
)
def test_servers_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Serving("m", SERVING.profile, **options)


def test_ranks_are_those_that_vllm_takes() -> None:
    assert [vllm_lora_rank(rank) for rank in (1, 2, 8, 12, 33, 320, 512)] == [1, 8, 8, 16, 64, 320, 512]
    assert all(vllm_lora_rank(rank) == rank for rank in VLLM_LORA_RANKS)
    with pytest.raises(UserError, match="rank=513"):
        vllm_lora_rank(513)


@given(st.floats(1.0, 10.0))
def test_growth_is_found_within_its_step(limit: float) -> None:
    found = growth(lambda factor: factor > limit)
    assert 1.0 <= found <= MOST_GROWTH
    assert found == pytest.approx(min(limit, MOST_GROWTH), abs=0.021)
    assert found <= limit


# --- Kubernetes


@pytest.mark.parametrize("adapters", ["modules", "resources"])
def test_helm_values_have_the_form_of_the_chart(adapters: str) -> None:
    cluster = Cluster(adapters=adapters, secret="hf")  # noqa: S106  # its name
    values = yaml.safe_load(yaml.safe_dump(helm_values(GPUS, SERVING, cluster)))
    specs = values["servingEngineSpec"]["modelSpec"]
    assert all(has_form(spec, MODEL_SPEC) and has_form(spec["vllmConfig"], VLLM_CONFIG) for spec in specs)
    assert [spec["name"] for spec in specs] == ["lora-gpu-0", "lora-gpu-1", "lora-gpu-2"]
    assert [spec["vllmConfig"]["maxLoras"] for spec in specs] == [4, 1, 4]
    assert all(isinstance(argument, str) for spec in specs for argument in spec["vllmConfig"]["extraArgs"])
    for spec, plan in zip(specs, GPUS, strict=True):
        # What the chart's template makes of a spec: the flags that it has keys for, then extraArgs.
        made = [
            "vllm", "serve", spec["modelURL"], "--max-model-len", str(spec["vllmConfig"]["maxModelLen"]),
            "--max-num-seqs", str(spec["vllmConfig"]["maxNumSeqs"]), "--enable-lora",
            "--max-loras", str(spec["vllmConfig"]["maxLoras"]), *spec["vllmConfig"]["extraArgs"],
        ]  # fmt: skip
        wanted = arguments(plan, SERVING)
        if adapters == "resources":
            wanted = wanted[: wanted.index("--lora-modules")]
        del wanted[3:5]  # the chart chooses the port
        assert sorted(made) == sorted(wanted)


def test_each_adapter_is_bound_to_the_gpu_that_it_is_placed_on() -> None:
    cluster = Cluster(adapters="resources", secret="hf")  # noqa: S106
    values = helm_values(GPUS, SERVING, cluster)
    assert values["loraController"] == {"enableLoraController": True}
    assert all({"name": "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "value": "True"} in spec["env"] for spec in
               values["servingEngineSpec"]["modelSpec"])  # fmt: skip
    listed = values["loraAdapters"]
    assert all(has_form(entry, LORA_ADAPTER) and has_form(entry["adapterSource"], HELM_SOURCE) for entry in listed)
    assert {(entry["adapterSource"]["adapterName"], entry["baseModel"]) for entry in listed} == {
        ("billing", "lora-gpu-0"), ("Code/Assist=v2", "lora-gpu-0"), ("search", "lora-gpu-1"), ("it's, this", "lora-gpu-2"),
    }  # fmt: skip
    assert listed[2]["adapterSource"] == {
        "type": "huggingface", "adapterName": "search", "repository": "org/search",
        "credentials": {"secretName": "hf", "secretKey": "HF_TOKEN"},
    }  # fmt: skip


def test_the_resources_have_the_form_of_their_definition() -> None:
    cluster = Cluster(adapters="resources", secret="hf")  # noqa: S106
    resources = list(yaml.safe_load_all(yaml.safe_dump_all(lora_adapters(GPUS, SERVING, cluster))))
    assert len(resources) == 4
    for resource in resources:
        assert set(resource) == {"apiVersion", "kind", "metadata", "spec"}
        assert (resource["apiVersion"], resource["kind"]) == ("production-stack.vllm.ai/v1alpha1", "LoraAdapter")
        spec = resource["spec"]
        assert set(spec) == {"baseModel", "adapterSource", "loraAdapterDeploymentConfig"}
        assert has_form(spec["adapterSource"], SOURCE)
        assert spec["adapterSource"]["type"] in SOURCE_TYPES
        assert spec["loraAdapterDeploymentConfig"]["algorithm"] in ALGORITHMS


def test_a_replicated_adapter_has_a_resource_on_each_gpu() -> None:
    twice = (gpu(0, GPUS[0].adapters[0]), gpu(1, GPUS[0].adapters[0]))
    resources = lora_adapters(twice, SERVING, Cluster(adapters="resources"))
    assert [resource["metadata"]["name"] for resource in resources] == ["billing-gpu-0", "billing-gpu-1"]


def test_a_repository_needs_a_secret() -> None:
    with pytest.raises(UserError, match=r"adapter search: .* kubernetes\.secret=NAME"):
        helm_values(GPUS, SERVING, Cluster(adapters="resources"))


@pytest.mark.parametrize("options", [{"adapters": "files"}, {"name": "Lora"}, {"name": "x" * 31}, {"name": ""}])
def test_a_cluster_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^kubernetes\."):
        Cluster(**options)


@given(st.lists(st.text(min_size=1), unique=True))
def test_names_are_those_of_kubernetes_and_stay_apart(names: list[str]) -> None:
    made = [kubernetes_name(name) for name in names]
    assert all(name[0].isalnum() and name[-1].isalnum() and len(name) <= 63 for name in made)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for name in made)
    assert len(set(made)) == len(names)
    assert [kubernetes_name(name) for name in made if len(name) <= 40] == [name for name in made if len(name) <= 40]
