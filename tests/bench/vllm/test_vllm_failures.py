"""What a dead server's log is told as, from lines that vLLM and torch really write."""

from __future__ import annotations

import pytest

from bench.vllm.failures import Kind, explain_log, last_lines, without_prefix

ENGINE = "(EngineCore pid=1460) ERROR 11-21 04:39:36 [core.py:1100] "


@pytest.mark.parametrize(
    ("log", "kind", "says"),
    [
        (
            "usage: api_server.py [-h] [--headless]\napi_server.py: error: unrecognized arguments: --max-lorass 4",
            Kind.UNKNOWN_FLAG,
            "does not know the flag --max-lorass 4",
        ),
        (
            "api_server.py: error: argument --max-loras: invalid int value: 'x'",
            Kind.UNKNOWN_FLAG,
            "refuses its flags: argument --max-loras: invalid int value: 'x'",
        ),
        (
            "/usr/bin/python: Error while finding module specification (ModuleNotFoundError: No module named 'vllm')",
            Kind.NOT_INSTALLED,
            "no module vllm",
        ),
        (
            "(APIServer pid=7) OSError: [Errno 98] Address already in use",
            Kind.PORT_IN_USE,
            "the port is in use",
        ),
        (
            "(APIServer pid=7) RuntimeError: Failed to infer device type, please set the environment variable",
            Kind.NO_GPU,
            "no GPU (Failed to infer device type)",
        ),
        (
            ENGINE + "RuntimeError: No CUDA GPUs are available",
            Kind.NO_GPU,
            "engine=vllm_cpu",
        ),
        (
            ENGINE + "ValueError: LoRA rank 32 is greater than max_lora_rank 16.",
            Kind.RANK_ABOVE_LIMIT,
            "rank 32 is above the server's max_lora_rank=16",
        ),
        (
            (
                "ValueError: To serve at least one request with the model's max seq len (131072), (16.00 GiB KV cache is "
                "needed, which is larger than the available KV cache memory (9.11 GiB). Based on the available memory, the "
                "estimated maximum model length is 74624."
            ),
            Kind.KV_CACHE_TOO_SMALL,
            "too small for one request of max_model_len=131072: it takes 16.00 GiB, there are 9.11 GiB",
        ),
        (
            (
                "ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be stored "
                "in KV cache (20048). Try increasing `gpu_memory_utilization`"
            ),
            Kind.KV_CACHE_TOO_SMALL,
            "max_model_len=32768: it holds 20048 tokens",
        ),
        (
            ENGINE + "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
            Kind.OUT_OF_MEMORY,
            "nothing is left for the KV cache",
        ),
        (
            (
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 896.00 MiB. GPU 0 has a total capacity of "
                "79.10 GiB of which 512.00 MiB is free."
            ),
            Kind.OUT_OF_MEMORY,
            "CUDA out of memory. Tried to allocate 896.00 MiB",
        ),
        (
            (
                "RuntimeError: [enforce fail at alloc_cpu.cpp:118] data. DefaultCPUAllocator: can't allocate memory: you "
                "tried to allocate 68719476736 bytes. Error code 12 (Cannot allocate memory)"
            ),
            Kind.OUT_OF_MEMORY,
            "can't allocate memory",
        ),
        (
            ENGINE
            + "ValueError: Free memory on device (2.15/79.10 GiB) on startup is less than desired GPU memory utilization",
            Kind.OUT_OF_MEMORY,
            "Free memory on device (2.15/79.10 GiB)",
        ),
        (
            ENGINE
            + "ValueError: Available memory on node 0 (13.97/23.54 GiB) on startup is less than desired CPU memory",
            Kind.OUT_OF_MEMORY,
            "Available memory on node 0 (13.97/23.54 GiB)",
        ),
    ],
)
def test_the_cause_is_named_in_one_line(log: str, kind: Kind, says: str) -> None:
    error = explain_log(
        [*log.splitlines(), "RuntimeError: Engine core initialization failed. See root cause above."], 1
    )
    assert error.kind is kind
    assert says in str(error)
    assert "\n" not in str(error)
    assert error.is_memory_error is (kind in (Kind.OUT_OF_MEMORY, Kind.KV_CACHE_TOO_SMALL))


def test_a_killed_server_shows_the_last_lines_of_its_log() -> None:
    log = [f"(APIServer pid=3) INFO 11-21 04:33:59 [launcher.py:195] line {k}" for k in range(20)]
    error = explain_log(log, -9)
    assert error.kind is Kind.DIED
    assert "killed by signal 9" in str(error)
    assert str(error).endswith("line 17 | line 18 | line 19")
    assert "line 16" not in str(error)


def test_the_first_exception_is_the_cause() -> None:
    log = [
        "(Worker pid=1) ERROR 11-21 04:50:54 [multiproc_executor.py:1063] ValueError: No common block size for 16",
        "(EngineCore pid=1) ERROR 11-21 04:50:54 [core.py:1] Exception: WorkerProc initialization failed",
        "(APIServer pid=1) Traceback (most recent call last):",
        '(APIServer pid=1)   File "a.py", line 3, in b',
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    assert last_lines(log).startswith("ValueError: No common block size for 16 | ")


def test_an_empty_log_is_said_to_be_empty() -> None:
    assert str(explain_log([], None)).endswith("(empty)")


def test_a_line_loses_what_vllm_puts_before_it() -> None:
    line = "(APIServer pid=31232) WARNING 11-21 04:33:59 [base.py:380] Chat template warmup failed"
    assert without_prefix(line) == "Chat template warmup failed"
    assert without_prefix("plain") == "plain"
