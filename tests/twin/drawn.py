"""Drawn servers with requests: small enough to fill the KV cache, the seats and the adapter slots."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from twin import GpuResult, Requests, ServingProfile, simulate_requests
from twin.profile import STEP_TERMS, KvCapacity

# Milliseconds; every term of the model counts, so that a decision taken differently shows in the times.
STEP_MS = {
    "constant": 10.0,
    "running": 0.1,
    "adapters": 0.5,
    "tokens": 0.05,
    "tokens_x_adapters": 0.001,
    "kv_tokens": 0.001,
    "max_loras": 0.02,
    "rank": 0.01,
    "max_loras_x_rank": 0.001,
    "adapters_x_rank": 0.002,
    "tokens_x_rank": 0.0001,
    "tokens_x_max_loras": 0.0002,
    "tokens_x_max_loras_x_rank": 0.00001,
    "eager_step": 3.0,
    "eager_tokens": 0.02,
    "loads": 1.5,
    "loads_x_adapters": 0.1,
}


def small_profile(**fields: Any) -> ServingProfile:  # noqa: ANN401  # fields of all types
    """Make a server that starts with up to 8 slots of rank 8 and up to 4 of rank 16."""
    given: dict[str, Any] = {
        "name": "small",
        "model": "none",
        "gpu": "none",
        "engine": "vllm",
        "engine_version": "0",
        "kv": KvCapacity((1, 4, 8), (8, 16), ((4800, 4000, 3200), (4000, 3200, 0)), 6400),
        "step_ms": tuple(STEP_MS[term] for term in STEP_TERMS),
        "scheduler_ms": (0.1, 0.01, 0.005, 0.001),
        "load_ms": ((8, 8, 3.0), (16, 8, 4.0), (16, 16, 5.0)),
        "disk_load_ms": ((8, 20.0), (16, 30.0)),
        "max_num_seqs": 16,
        "max_num_batched_tokens": 64,
        "max_model_len": 256,
        "eager_above_tokens": 20,
        **fields,
    }
    return ServingProfile(**given)


@dataclass(frozen=True)
class Server:
    """One GPU and its requests: arguments of `simulate_requests`."""

    requests: Requests
    ranks: NDArray[np.int64]
    profile: ServingProfile
    max_loras: int
    kv_tokens: int
    duration_s: float
    max_cpu_loras: int
    open_cap: int = 0

    @property
    def blocks(self) -> int:
        """KV blocks that requests can use: vLLM keeps one for itself."""
        return self.kv_tokens // self.profile.block_size - 1

    def simulate(self, **options: Any) -> GpuResult:  # noqa: ANN401  # options of all types
        given: dict[str, Any] = {
            "duration_s": self.duration_s,
            "kv_tokens": self.kv_tokens,
            "max_cpu_loras": self.max_cpu_loras,
            "open_cap": self.open_cap,
            **options,
        }
        return simulate_requests(self.requests, self.ranks, self.profile, self.max_loras, **given)

    def with_profile(self, **fields: Any) -> "Server":  # noqa: ANN401  # fields of all types
        return replace(self, profile=replace(self.profile, **fields))


def make_requests(*rows: tuple[float, int, int, int]) -> Requests:
    """Requests from rows of (arrival_s, adapter, prompt tokens, output tokens), sorted by arrival."""
    ordered = sorted(rows, key=lambda row: row[0])
    arrival, adapter, prompt, output = zip(*ordered, strict=True) if rows else ((), (), (), ())
    lengths = [np.array(values, dtype=np.int64) for values in (adapter, prompt, output)]
    return Requests(np.array(arrival, dtype=np.float64), *lengths, lengths[-1].copy())


@st.composite
def traces(draw: st.DrawFn, n_adapters: int, max_tokens: int, max_requests: int) -> Requests:
    """Requests that come in bursts, spread out, or both; one-token outputs and long prompts among them."""
    count = draw(st.integers(1, max_requests))
    # Multiples of a quarter second meet the end of a step when steps last that long, and each other.
    instant = st.one_of(st.just(0.0), st.integers(0, 12).map(lambda n: n / 4), st.floats(0, 4, width=32))
    longest = draw(st.sampled_from([2, max_tokens // 4, max_tokens // 2]))
    row = st.tuples(
        instant,
        st.integers(0, n_adapters - 1),
        st.one_of(st.integers(1, 8), st.integers(1, max_tokens // 2)),
        st.one_of(st.just(1), st.integers(1, longest), st.integers(1, longest)),
    )
    rows = draw(st.lists(row, min_size=count, max_size=count))
    if draw(st.integers(0, 3)) == 0:
        # All alike and at once: they want their next blocks in the same step.
        rows = [(0.0, adapter, *rows[0][2:]) for _, adapter, _, _ in rows]
    return make_requests(*rows)


@st.composite
def servers(
    draw: st.DrawFn,
    *,
    asynchronous: bool | None = None,
    reserve: bool | None = None,
    long_prefill: bool = False,
    max_requests: int = 40,
) -> Server:
    """Draw servers whose every limit binds in some of the draws."""
    n_adapters = draw(st.integers(1, 6))
    seats = draw(st.integers(1, 10))
    budget = draw(st.one_of(st.just(seats), st.integers(seats, 64), st.just(200)))
    block_size = draw(st.sampled_from([4, 16]))
    blocks = draw(st.one_of(st.integers(2, 12), st.integers(10, 60), st.just(300)))
    profile = small_profile(
        block_size=block_size,
        max_num_seqs=seats,
        max_num_batched_tokens=budget,
        max_model_len=128,
        reserve_full_prompt=draw(st.booleans()) if reserve is None else reserve,
        watermark_blocks=min(draw(st.sampled_from([0, 0, 1, 3])), blocks - 1),
        async_scheduling=draw(st.booleans()) if asynchronous is None else asynchronous,
        long_prefill_token_threshold=draw(st.sampled_from([1, 5, 20])) if long_prefill else 0,
        # A step of a quarter second ends when some requests arrive.
        min_step_ms=draw(st.sampled_from([0.5, 250.0])),
    )
    return Server(
        requests=draw(traces(n_adapters, 128, max_requests)),
        ranks=np.array(draw(st.lists(st.sampled_from([8, 16]), min_size=n_adapters, max_size=n_adapters))),
        profile=profile,
        max_loras=draw(st.integers(1, 4)),
        kv_tokens=blocks * block_size,
        duration_s=30.0,
        max_cpu_loras=n_adapters,
    )
