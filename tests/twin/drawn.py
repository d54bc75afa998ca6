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
        """Run the twin on this server; options replace or add to the arguments that the server gives."""
        given: dict[str, Any] = {
            "duration_s": self.duration_s,
            "kv_tokens": self.kv_tokens,
            "max_cpu_loras": self.max_cpu_loras,
            "open_cap": self.open_cap,
            **options,
        }
        return simulate_requests(self.requests, self.ranks, self.profile, self.max_loras, **given)

    def with_profile(self, **fields: Any) -> "Server":  # noqa: ANN401  # fields of all types
        """Change some fields of the profile."""
        return replace(self, profile=replace(self.profile, **fields))


def make_requests(*rows: tuple[float, int, int, int]) -> Requests:
    """Requests from rows of (arrival_s, adapter, prompt tokens, output tokens), sorted by arrival."""
    ordered = sorted(rows, key=lambda row: row[0])
    arrival, adapter, prompt, output = zip(*ordered, strict=True) if rows else ((), (), (), ())
    of, tokens, made = (np.array(values, dtype=np.int64) for values in (adapter, prompt, output))
    return Requests(np.array(arrival, dtype=np.float64), of, tokens, made, made.copy())


@st.composite
def traces(draw: st.DrawFn, n_adapters: int, max_tokens: int, max_requests: int) -> Requests:
    """Draw requests that come at once, in bursts or spread out; one-token outputs and long prompts among them.

    Hypothesis draws the shape of a trace, and the seed of its rows: rows of its own are too simple to fill a server.
    """
    rows = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, max_requests))
    arrival = rows.uniform(0, draw(st.sampled_from([0.0, 0.2, 1.0, 4.0])), count)
    if draw(st.booleans()):
        # Multiples of a quarter second meet the end of a step when steps last that long, and each other.
        arrival = np.round(arrival * 4) / 4
    arrival[rows.random(count) < draw(st.sampled_from([0.0, 0.5]))] = 0.0
    prompt = rows.integers(1, draw(st.sampled_from([8, max_tokens // 2])), count, endpoint=True)
    output = rows.integers(1, draw(st.sampled_from([1, 16, max_tokens // 2])), count, endpoint=True)
    output[rows.random(count) < draw(st.sampled_from([0.0, 0.3]))] = 1
    if draw(st.integers(0, 5)) == 0:
        # All alike and at once: they want their next block in the same step.
        arrival[:], prompt[:], output[:] = 0.0, prompt[0], output[0]
    adapter = rows.integers(0, n_adapters, count)
    return make_requests(*zip(arrival, adapter, prompt, output, strict=True))


@st.composite
def servers(
    draw: st.DrawFn,
    *,
    asynchronous: bool | None = None,
    reserve: bool | None = None,
    long_prefill: bool = False,
    caching: bool | None = None,
    count_running: bool | None = None,
    max_requests: int = 40,
) -> Server:
    """Draw servers whose every limit binds in some of the draws."""
    n_adapters = draw(st.integers(1, 6))
    seats = draw(st.integers(1, 10))
    budget = draw(st.one_of(st.just(seats), st.integers(seats, 64), st.just(200)))
    block_size = draw(st.sampled_from([4, 16]))
    # Too few for the longest request, as few as a server starts with, plenty.
    one_request = 128 // block_size
    blocks = 1 + draw(
        st.one_of(
            st.integers(1, one_request),
            st.integers(one_request, 3 * one_request),
            st.integers(one_request, 2 * one_request),
            st.just(100 * one_request),
        )
    )
    profile = small_profile(
        block_size=block_size,
        max_num_seqs=seats,
        max_num_batched_tokens=budget,
        max_model_len=128,
        reserve_full_prompt=draw(st.booleans()) if reserve is None else reserve,
        watermark_blocks=min(draw(st.sampled_from([0, 0, 1, 3])), blocks - 1),
        async_scheduling=draw(st.booleans()) if asynchronous is None else asynchronous,
        long_prefill_token_threshold=draw(st.sampled_from([1, 5, 20])) if long_prefill else 0,
        prefix_caching=draw(st.booleans()) if caching is None else caching,
        count_running_adapters=draw(st.booleans()) if count_running is None else count_running,
        # A step of a quarter second ends when some requests arrive.
        min_step_ms=draw(st.sampled_from([0.5, 250.0])),
    )
    return Server(
        # Shared prompts of no token, of less than a block, and of more than some of the prompts have.
        requests=draw(traces(n_adapters, 128, max_requests)).sharing(
            np.array(draw(st.lists(st.integers(0, 40), min_size=n_adapters, max_size=n_adapters)))
        ),
        ranks=np.array(draw(st.lists(st.sampled_from([8, 16]), min_size=n_adapters, max_size=n_adapters))),
        profile=profile,
        max_loras=draw(st.integers(1, 4)),
        kv_tokens=blocks * block_size,
        duration_s=60.0,
        max_cpu_loras=n_adapters,
    )
