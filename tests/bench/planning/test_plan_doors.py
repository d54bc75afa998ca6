"""What contradicts a plan is refused or said: flags of vLLM, images, profiles that start nothing, adapters that need replicas."""

import re
from dataclasses import replace

import pytest

from bench.planning.adapters import Adapter, Traffic, workload_of
from bench.planning.kubernetes import Cluster
from bench.planning.limits import hot_adapter, nothing_starts
from bench.planning.report import failure_lines
from bench.planning.vllm_arguments import PLANNED, check_arguments
from bench.shared.options import SPANS, check_known, check_options
from twin import INTERACTIVE, UserError, load_profile, simulate_gpu

PROFILE = load_profile("llama-3.1-8b")
TRAFFIC = Traffic.of(PROFILE, duration_s=60.0)


@pytest.mark.parametrize("flag", PLANNED)
def test_flags_of_the_plan_are_its_own(flag: str) -> None:
    for argument in (flag, f"{flag}=1", "--" + flag[2:].replace("-", "_")):
        with pytest.raises(UserError, match="is set by the plan"):
            check_arguments([argument, "1"])


@pytest.mark.parametrize(
    "flags",
    [["--tensor-parallel-size", "2"], ["-tp=4"], ["--pipeline_parallel_size=2"], ["-dp"], ["--tensor-par", "2"]],
)
def test_a_server_has_one_gpu(flags: list[str]) -> None:
    with pytest.raises(UserError, match="GPUs for a server; a plan gives each server one"):
        check_arguments(flags)


def test_other_flags_pass_and_those_that_change_figures_are_said() -> None:
    assert check_arguments(["--host", "0.0.0.0", "--tensor-parallel-size", "1", "--seed", "-1"]) == []  # noqa: S104  # a flag
    assert "changes what a server holds" in check_arguments(["--quantization", "awq"])[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"cpus": -1},
        {"memory": "lots"},
        {"memory": "0Gi"},
        {"memory": "-1Gi"},
        {"tag": "a b"},
        {"repository": "--x"},
        {"secret": "My Secret"},
    ],
)
def test_what_kubernetes_would_refuse_is_refused(changes: dict[str, object]) -> None:
    (key,) = changes
    with pytest.raises(UserError, match=f"kubernetes.{key}="):
        Cluster(**changes)  # type: ignore[arg-type]
    assert Cluster(memory="1.5Gi", cpus=2, secret="hf-token").cpus == 2  # noqa: S106  # a name


def test_a_profile_that_starts_nothing_is_infeasible_whoever_solves_it() -> None:
    adapters = [Adapter("a", 16, 1.0)]
    assert nothing_starts(adapters, PROFILE) is None
    tight = replace(PROFILE, max_model_len=10_000_000)
    assert "adapter a of rank 16 (memory error)" in (nothing_starts(adapters, tight) or "")


def test_an_adapter_that_one_gpu_cannot_serve_is_named() -> None:
    assert hot_adapter([Adapter("a", 16, 1.0), Adapter("b", 8, 0.0)], TRAFFIC, PROFILE) is None
    hot = hot_adapter([Adapter("cold", 8, 0.5), Adapter("hot", 16, 80.0)], TRAFFIC, PROFILE)
    assert hot is not None
    assert hot.startswith("adapter hot asks for more than one GPU serves")
    assert failure_lines([], ["hot"], None, hot=hot)[:2] == [
        "no placement was found",
        hot,
    ]


def test_replicas_that_keep_the_level_are_hinted_at() -> None:
    hot = hot_adapter([Adapter("hot", 16, 80.0)], TRAFFIC, PROFILE, INTERACTIVE)
    assert hot is not None
    gpus = int(re.findall(r"gpus=(\d+) or more", hot)[0])

    def fails(share: float) -> bool:
        part = workload_of([Adapter("hot", 16, 80.0)], TRAFFIC, PROFILE, factor=share)
        return simulate_gpu(part, (0,), PROFILE, 1, service=INTERACTIVE).fails

    assert not fails(1 / gpus)
    assert "and keeps the limits for " in hot


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", [*SPANS, "anything", "solver.exact.gap"])
def test_no_option_is_nan_or_infinite(key: str, value: float) -> None:
    options: object = value
    for part in reversed(key.split(".")):
        options = {part: options}
    with pytest.raises(UserError, match=f"{key}="):
        check_options(options)  # type: ignore[arg-type]  # a mapping
    with pytest.raises(UserError, match=f"{key}="):
        check_options({key: [1, value]})


def test_text_that_cannot_be_shown_is_refused() -> None:
    check_options({"out": "a b/ü'\"[x]"})
    for text in ("a\x1b[2J", "a\u202eb", "a\ud800"):
        with pytest.raises(UserError, match=r"out=.*cannot be shown"):
            check_options({"out": text})


def test_keys_that_nothing_reads_are_refused() -> None:
    from bench.plan import PlanConfig

    check_known({"adapters": "a", "what_if": {"rate": {"any": 1}}, "solver": {"any": {}}}, PlanConfig)
    with pytest.raises(UserError, match="pin: no such option"):
        check_known({"pin": {"t00": 0}}, PlanConfig)
    with pytest.raises(UserError, match=r"what_if.rates: no such option \(did you mean what_if.rate"):
        check_known({"what_if": {"rates": {}}}, PlanConfig)


def test_the_hot_adapter_is_the_one_with_the_most_tokens_whatever_the_requests() -> None:
    """Of three that ask most often for next to nothing, and one at 45 requests/s of the usual length."""
    short = Adapter("short", 8, 50.0, prompt_tokens=4.0, output_tokens=2.0)
    hot = hot_adapter([short, Adapter("hot", 16, 45.0)], TRAFFIC, PROFILE)
    assert hot is not None
    assert hot.startswith("adapter hot asks")
    assert hot_adapter([short], TRAFFIC, PROFILE) is None


def test_requests_that_are_long_for_the_limits_are_no_hot_adapter() -> None:
    """The GPU serves all of them, only not in time: more GPUs for this adapter alone would change nothing."""
    said = hot_adapter([Adapter("long", 8, 0.05, 32_000, 100), Adapter("chat", 8, 0.1)], TRAFFIC, PROFILE, INTERACTIVE)
    assert said is not None
    assert said.startswith("adapter long keeps the limits for ")
    assert "service.ttft_ms" in said
