"""The command lines of `python -m bench.plan` are read by vLLM's own parser as they are meant."""

from typing import get_args

import pytest

from bench.planning.adapters import Adapter
from bench.planning.answer import GpuAnswer
from bench.planning.vllm_commands import Serving, arguments
from bench.vllm.flags import VLLM_LORA_RANKS
from twin import load_profile

pytestmark = pytest.mark.conformance
cli_args = pytest.importorskip("vllm.entrypoints.launchers.cli_args")


def test_ranks_are_those_of_vllm() -> None:
    from vllm.config.lora import MaxLoRARanks

    assert get_args(MaxLoRARanks) == VLLM_LORA_RANKS


def test_vllm_reads_the_command_as_it_is_meant() -> None:
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    adapters = (Adapter("billing", 8, 1.0, path="/w/a b"), Adapter("x=y, z", 16, 1.0, path="org/x"))
    gpu = GpuAnswer(
        gpu=1, adapters=adapters, shares=None, max_loras=4, max_lora_rank=16, max_cpu_loras=7, rate=1.0, throughput=1.0,
        offered_throughput=1.0, ttft_ms=1.0, ttft_p99_ms=1.0, itl_ms=1.0, e2e_ms=1.0, kv_usage=0.1, growth=2.0,
    )  # fmt: skip
    profile = load_profile("qwen-2.5-7b")
    _, _, model, *flags = arguments(gpu, Serving("org/base", profile, extra=("--no-enable-prefix-caching",)))
    read = cli_args.make_arg_parser(FlexibleArgumentParser()).parse_args([model, *flags])
    assert (read.model_tag, read.port, read.enable_lora) == ("org/base", 8001, True)
    assert (read.max_loras, read.max_lora_rank, read.max_cpu_loras) == (4, 16, 7)
    assert (read.max_model_len, read.max_num_seqs) == (profile.max_model_len, profile.max_num_seqs)
    assert read.max_num_batched_tokens == profile.max_num_batched_tokens
    assert [(module.name, module.path) for module in read.lora_modules] == [(a.name, a.path) for a in adapters]
    assert read.enable_prefix_caching is False
