"""Serving profiles: what one (model, GPU, engine version) does; `twin.profile_files` reads and checks their JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from twin.errors import UserError
from twin.files import write_text

SCHEMA_VERSION = 1

#: Engines that the twin has the loop of: vLLM's V1 scheduler (its CPU build as well), and S-LoRA's (`twin.slora`).
SLORA = "slora"
ENGINES = ("vllm", "vllm_cpu", SLORA)

#: Terms of the step-time model in the order of its coefficients. `tokens` counts the tokens
#: computed in the step (one per decoding request, and the prefill tokens), `running` the requests
#: scheduled, `adapters` the distinct adapters among them, `kv_tokens` the tokens that running
#: requests hold in the KV cache; `rank` is the server's `max_lora_rank`. vLLM's LoRA kernels launch
#: thread blocks for every (slot, tile of tokens), used or not, hence the products with `max_loras`.
#: A step of more than `eager_above_tokens` tokens runs without CUDA graphs: it costs `eager_step`
#: more, and `eager_tokens` for each token above. `loads` counts the adapters loaded into a slot in
#: the step: in serving a load costs more than the copy that `load_ms` times.
STEP_TERMS = (
    "constant",
    "running",
    "adapters",
    "tokens",
    "tokens_x_adapters",
    "kv_tokens",
    "max_loras",
    "rank",
    "max_loras_x_rank",
    "adapters_x_rank",
    "tokens_x_rank",
    "tokens_x_max_loras",
    "tokens_x_max_loras_x_rank",
    "eager_step",
    "eager_tokens",
    "loads",
    "loads_x_adapters",
)


@dataclass(frozen=True)
class KvCapacity:
    """Measured KV-cache size per (`max_loras`, `max_lora_rank`); absent means: does not start.

    Attributes
    ----------
    max_loras : tuple of int, shape (n_slots,), ascending
    max_lora_rank : tuple of int, shape (n_ranks,), ascending
    tokens : tuple of tuples, shape (n_ranks, n_slots)
        Tokens of KV cache, or 0 where the engine did not start (memory error).
    without_lora_tokens : int
        With LoRA off.
    """

    max_loras: tuple[int, ...]
    max_lora_rank: tuple[int, ...]
    tokens: tuple[tuple[int, ...], ...]
    without_lora_tokens: int

    def lookup(self, max_loras: int, max_lora_rank: int) -> int:
        """KV-cache tokens, 0 for a memory error.

        Between two measured `max_loras` the capacity is interpolated linearly (the LoRA buffers grow
        linearly with the slots). Beyond the largest measured that started, the answer is 0.
        """
        row = self.tokens[self.max_lora_rank.index(max_lora_rank)]
        if max_loras <= self.max_loras[0]:
            return row[0]
        right = int(np.searchsorted(self.max_loras, max_loras))
        if right == len(self.max_loras) or row[right] == 0:
            exact = right < len(self.max_loras) and self.max_loras[right] == max_loras
            return row[right] if exact else 0
        x0, x1 = self.max_loras[right - 1], self.max_loras[right]
        y0, y1 = row[right - 1], row[right]
        return int(y0 + (y1 - y0) * (max_loras - x0) / (x1 - x0))


@dataclass(frozen=True)
class Uncertainty:
    """How far the real server may be from its profile, as standard deviations (`twin.moved` draws from them).

    Attributes
    ----------
    all_steps : float
        Of the logarithm of one factor on all step times: what is carried over from another model or GPU is off as a whole.
    terms : tuple of float, shape (len(STEP_TERMS),)
        Relative, of each coefficient by itself: what a fit leaves open.
    kv_cache : float
        Of the logarithm of a factor on the KV cache.
    step_time : float
        Relative, of the step time altogether in the states that it was measured in.
    source : str
        Where the figures come from.
    """

    all_steps: float
    terms: tuple[float, ...]
    kv_cache: float
    step_time: float
    source: str


@dataclass(frozen=True)
class ServingProfile:
    """What the twin knows of one (model, GPU, engine version).

    Attributes
    ----------
    step_ms : tuple of float, shape (len(STEP_TERMS),)
        Step-time coefficients in milliseconds, in the order of `STEP_TERMS`.
    eager_above_tokens : int
        Steps that schedule more tokens than this run without CUDA graphs (`eager_step`).
    min_step_ms : float
        No step is shorter.
    scheduler_ms : tuple of float, shape (4,)
        Scheduler time per step: constant, per running request, per waiting request that the
        `max_loras` scan skipped, per waiting request.
    load_ms : tuple of (max_lora_rank, rank, ms)
        Host-to-GPU load time of an adapter of `rank` on a server of `max_lora_rank`.
    disk_load_ms : tuple of (rank, ms)
        Disk-to-host load time.
    request_overhead_ms : float
        What a client sees on top of the engine's time to first token: HTTP and tokenisation.
    reserve_full_prompt : bool
        A waiting request is admitted only if its whole prompt fits into the free blocks
        (`scheduler_reserve_full_isl`); otherwise its first chunk is enough.
    watermark_blocks : int
        Blocks that admission leaves free, unless nothing runs.
    async_scheduling : bool
        A step is decided while the one before it runs (vLLM's default on GPUs): scheduler
        time hides behind the model, and what a finished request frees comes back a step later.
    prefix_caching : bool
        Full blocks of a shared prompt, and of a preempted request, are found again while they are in the KV cache.
    count_running_adapters : bool
        Adapters of all running requests count against `max_loras` (vLLM from 0.33 on), also of those whose last token is
        on its way; otherwise those of the step alone. It makes a difference with asynchronous scheduling only.
    long_prefill_token_threshold : int
        Most prompt tokens of one request in a step, if it is not alone; 0 for no such limit.
    tensor_parallel_size : int
        GPUs that one server takes; they are counted as one GPU of the plan.
    engine, engine_version : str
        One of `ENGINES`: the loop that the twin runs. S-LoRA has no `max_loras` (any value serves alike), no blocks, and one pool for
        KV cache and adapters, which `kv` has for every `max_loras`; its terms `eager_step` and `eager_tokens` are those of a prefill.
    uncertainty : Uncertainty, optional
        How far the server may be from all this; None where nobody knows.
    provenance : dict
        Where the figures come from: source, command, runs fitted on, runs left out, fit error.
    """

    name: str
    model: str
    gpu: str
    engine: str
    engine_version: str
    kv: KvCapacity
    step_ms: tuple[float, ...]
    scheduler_ms: tuple[float, float, float, float]
    load_ms: tuple[tuple[int, int, float], ...]
    disk_load_ms: tuple[tuple[int, float], ...]
    max_num_seqs: int = 2048
    max_num_batched_tokens: int = 2048
    max_model_len: int = 32768
    block_size: int = 16
    eager_above_tokens: int = 512
    min_step_ms: float = 1.0
    request_overhead_ms: float = 0.0
    reserve_full_prompt: bool = False
    watermark_blocks: int = 0
    async_scheduling: bool = False
    prefix_caching: bool = False
    count_running_adapters: bool = False
    long_prefill_token_threshold: int = 0
    tensor_parallel_size: int = 1
    generated_fraction: float = 1.0
    uncertainty: Uncertainty | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def ranks(self) -> tuple[int, ...]:
        """Largest LoRA ranks the profile has measurements for, ascending."""
        return self.kv.max_lora_rank

    def server_rank(self, rank: int) -> int:
        """The smallest known `max_lora_rank` that serves adapters of `rank`.

        Raises
        ------
        UserError
            If every known rank is smaller.
        """
        for known in self.ranks:
            if known >= rank:
                return known
        msg = f"profile {self.name}: rank={rank} is unknown to it; known ranks are {list(self.ranks)}"
        raise UserError(msg)

    def check_ranks(self, ranks: np.ndarray) -> None:
        """Raise `UserError` for the first rank above those the profile knows."""
        if len(ranks):
            self.server_rank(int(np.max(ranks)))

    @lru_cache(maxsize=65536)  # noqa: B019  # profiles are few and live as long as the program
    def kv_tokens(self, max_loras: int, max_lora_rank: int) -> int:
        """KV-cache tokens with these flags, 0 for a memory error.

        A KV cache too small for one request of `max_model_len` is a memory error too: vLLM refuses
        to start with it.
        """
        if max_loras == 0:
            return self.kv.without_lora_tokens
        tokens = self.kv.lookup(max_loras, self.server_rank(max_lora_rank))
        return tokens if tokens >= self.max_model_len else 0

    @lru_cache(maxsize=1024)  # noqa: B019
    def largest_max_loras(self, max_lora_rank: int) -> int:
        """The most adapter slots with which the engine starts at this `max_lora_rank`."""
        low, high = 0, self.kv.max_loras[-1]
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.kv_tokens(middle, max_lora_rank) else (low, middle - 1)
        return low

    def load_time_ms(self, max_lora_rank: int, rank: int) -> float:
        """Host-to-GPU load time of one adapter in milliseconds."""
        server, own = self.server_rank(max_lora_rank), self.server_rank(rank)
        return self._load_table[(server, own)]

    def disk_time_ms(self, rank: int) -> float:
        """Disk-to-host load time of one adapter in milliseconds."""
        return dict(self.disk_load_ms)[self.server_rank(rank)]

    @cached_property
    def _load_table(self) -> dict[tuple[int, int], float]:
        return {(server, own): ms for server, own, ms in self.load_ms}

    def step_coefficients(self, max_loras: int, max_lora_rank: int) -> np.ndarray:
        """Step-time coefficients with the server's flags folded in.

        Returns
        -------
        array of shape (10,)
            Milliseconds per: step, running request, distinct adapter, token, token x adapter, KV
            token, eager step, eager token, load, load x adapter (`twin.engine` names the places).
        """
        c = dict(zip(STEP_TERMS, self.step_ms, strict=True))
        rank = self.server_rank(max_lora_rank) if max_loras else 0
        return np.array(
            [
                c["constant"]
                + c["max_loras"] * max_loras
                + c["rank"] * rank
                + c["max_loras_x_rank"] * max_loras * rank,
                c["running"],
                c["adapters"] + c["adapters_x_rank"] * rank,
                c["tokens"]
                + c["tokens_x_rank"] * rank
                + c["tokens_x_max_loras"] * max_loras
                + c["tokens_x_max_loras_x_rank"] * max_loras * rank,
                c["tokens_x_adapters"],
                c["kv_tokens"],
                c["eager_step"],
                c["eager_tokens"],
                c["loads"],
                c["loads_x_adapters"],
            ]
        )

    def to_json(self) -> str:
        """The profile as JSON text; `parse_profile` reads it back."""
        data = asdict(self)
        data["step_ms"] = dict(zip(STEP_TERMS, self.step_ms, strict=True))
        if self.uncertainty is None:
            del data["uncertainty"]
        else:
            named = zip(STEP_TERMS, self.uncertainty.terms, strict=True)
            data["uncertainty"]["terms"] = {term: value for term, value in named if value}
        return json.dumps(data, indent=1) + "\n"

    def save(self, path: Path) -> None:
        """Write the profile, whole or not at all.

        Raises
        ------
        UserError
            If the file cannot be written.
        """
        write_text(path, self.to_json())

    # A profile is compared and hashed by what it says; the lookup tables derive from it.
    def __hash__(self) -> int:
        return hash((self.name, self.engine_version, self.step_ms, self.kv.tokens))
