"""vLLM's own V1 scheduler under a virtual clock: the reference for the twin's decisions.

The class that a vLLM server runs (`vllm.v1.core.sched.scheduler.Scheduler`, or `AsyncScheduler`) takes every decision. This
module plays the parts around it: the engine's loop (`EngineCore.step` and `EngineCore.step_with_batch_queue`), a model that takes as long
as it is told and samples one token for every request whose tokens are all computed, and the clients.
"""

import functools
import json
import math
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vllm.config import CacheConfig, DeviceConfig, LoRAConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.lora.request import LoRARequest
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

NO_ADAPTER = -1

# A server opens a second batch while the first one runs (`VllmConfig.max_concurrent_batches` without pipeline parallelism).
BATCHES_IN_FLIGHT_ASYNC = 2

# Any ids will do, as the end-of-sequence token is ignored. Those of a shared prompt and of outputs are all alike: the adapter's
# name and the tokens before them tell them apart. From the second on each is one request's own.
TOKEN_ID, FIRST_OWN_ID = 1, 2


@dataclass(frozen=True)
class ScheduledStep:
    """What one call of the scheduler decided; requests are named by their index in the arrays that `run` got.

    Attributes
    ----------
    decided_s
        When the scheduler was called. It knows the arrivals up to this moment.
    start_s
        When the model starts on this step: `decided_s`, or with asynchronous scheduling the end of the step before, if that is later.
    scheduled
        (request, tokens) in scheduling order: running requests, then admissions.
    samples
        For each pair of `scheduled`, whether the step yields an output token for the request.
    preempted
        Requests in the order in which they were preempted.
    running
        Running requests in queue order, admissions included.
    waiting
        Waiting requests in queue order.
    blocks_in_use
        KV blocks that requests hold. At most `num_gpu_blocks - 1`: vLLM keeps one for itself.
    """

    decided_s: float
    start_s: float
    scheduled: tuple[tuple[int, int], ...]
    samples: tuple[bool, ...]
    preempted: tuple[int, ...]
    running: tuple[int, ...]
    waiting: tuple[int, ...]
    blocks_in_use: int


@dataclass(frozen=True)
class StepRecord(ScheduledStep):
    """A `ScheduledStep` and what came of it.

    Attributes
    ----------
    duration_s
        What the caller's step time function said.
    finished
        Requests that got their last token at `start_s + duration_s`, in scheduling order.
    """

    duration_s: float
    finished: tuple[int, ...]


@dataclass(frozen=True)
class DriverRun:
    """One run of the scheduler over a trace.

    Attributes
    ----------
    steps
        Every step that scheduled or preempted a request, in order.
    first_token_s, finish_s
        Time of each request's first and last output token; NaN where it got none.
    preemptions
        How often each request was preempted.
    stalled
        True where the head of the queue does not fit in an empty KV cache, so that nothing will ever be scheduled again.
    complete
        True where every request finished.
    """

    steps: tuple[StepRecord, ...]
    first_token_s: tuple[float, ...]
    finish_s: tuple[float, ...]
    preemptions: tuple[int, ...]
    stalled: bool
    complete: bool


class VllmSchedulerDriver:
    """A vLLM scheduler for one GPU with a made-up model and a KV cache of a given size.

    The configuration is built once; every `run` starts a new scheduler on it.

    Parameters
    ----------
    num_gpu_blocks
        KV blocks in the cache, with the one that vLLM keeps for itself (its null block).
    block_size
        Tokens in a KV block.
    max_num_seqs
        Most requests running at once.
    max_num_batched_tokens
        Most tokens in a step; at least `max_num_seqs`.
    max_loras
        Most distinct adapters in a step, or None to serve without LoRA.
    max_model_len
        Most tokens of a request, prompt and output together.
    async_scheduling
        Schedule a step while the one before it runs, as servers on GPUs do by default.
    scheduler_reserve_full_isl
        Admit a request only where its whole prompt fits, and not its first chunk alone.
    watermark
        Fraction of the KV blocks that an admission must leave free while others run.
    long_prefill_token_threshold
        Most tokens of one request in a step, 0 for no limit. vLLM leaves a request that is alone without it.
    enable_chunked_prefill
        Split a prompt that does not fit in the step's token budget.
    enable_prefix_caching
        Find full blocks of tokens again that were computed before.

    Raises
    ------
    ValueError
        Where vLLM refuses the configuration (pydantic's ValidationError is one).
    """

    def __init__(
        self,
        *,
        num_gpu_blocks: int,
        block_size: int = 16,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int = 2048,
        max_loras: int | None = 4,
        max_model_len: int = 2048,
        async_scheduling: bool = False,
        scheduler_reserve_full_isl: bool = True,
        watermark: float = 0.0,
        long_prefill_token_threshold: int = 0,
        enable_chunked_prefill: bool = True,
        enable_prefix_caching: bool = False,
    ) -> None:
        self.num_gpu_blocks = num_gpu_blocks
        self.block_size = block_size
        self.max_loras = max_loras
        self.max_model_len = max_model_len
        self.async_scheduling = async_scheduling
        self.block_hasher = get_request_block_hasher(block_size, sha256) if enable_prefix_caching else None
        init_none_hash(sha256)
        self.config = VllmConfig(
            model_config=_model_config(max_model_len),
            cache_config=CacheConfig(block_size=block_size, enable_prefix_caching=enable_prefix_caching),
            scheduler_config=SchedulerConfig(
                max_model_len=max_model_len,
                is_encoder_decoder=False,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_num_batched_tokens,
                long_prefill_token_threshold=long_prefill_token_threshold,
                enable_chunked_prefill=enable_chunked_prefill,
                scheduler_reserve_full_isl=scheduler_reserve_full_isl,
                watermark=watermark,
                async_scheduling=async_scheduling,
            ),
            lora_config=None if max_loras is None else LoRAConfig(max_loras=max_loras),
            device_config=DeviceConfig("cpu"),
        )
        # The platform of the CPU build switches asynchronous scheduling off; the scheduler itself does not mind where it runs.
        self.config.scheduler_config.async_scheduling = async_scheduling
        self.config.cache_config.num_gpu_blocks = num_gpu_blocks
        dtype = self.config.model_config.dtype
        layer = FullAttentionSpec(block_size=block_size, num_kv_heads=1, head_size=64, dtype=dtype)
        self._kv_cache_config = KVCacheConfig(
            num_blocks=num_gpu_blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], layer)]
        )
        self._structured_output_manager = StructuredOutputManager(self.config)

    def run(
        self,
        arrival_s: Sequence[float],
        prompt_tokens: Sequence[int],
        output_tokens: Sequence[int],
        adapter: Sequence[int],
        step_time_fn: Callable[[ScheduledStep], float],
        max_steps: int = 1_000_000,
        shared_tokens: Sequence[int] | None = None,
    ) -> DriverRun:
        """Serve a trace until every request finished, nothing can be scheduled any more, or `max_steps` are made.

        Parameters
        ----------
        arrival_s : sequence of shape (n_requests,)
            Arrival times in any order; those who arrive together queue by index.
        prompt_tokens, output_tokens : sequences of shape (n_requests,)
            Lengths, at least 1 each. Every request gets exactly its `output_tokens`.
        adapter : sequence of shape (n_requests,)
            Adapter index, or `NO_ADAPTER` for the base model.
        step_time_fn
            Says how long a step takes, in seconds. It is asked once for each step of the result, also for one that only preempts.
        max_steps
            Most steps to make.
        shared_tokens : sequence of shape (n_requests,), optional
            Tokens at the beginning of each prompt that are those of all its adapter's shared prompts; none by default.

        Raises
        ------
        ValueError
            Where the arrays do not match, a length is out of range or a step time is negative or not finite.
        """
        shared = shared_tokens or [0] * len(arrival_s)
        run = _Run(self, arrival_s, prompt_tokens, output_tokens, adapter, step_time_fn, shared)
        while not run.over and run.n_steps < max_steps:
            run.turn()
        while run.in_flight:
            run.report()
        return run.result()

    def new_scheduler(self) -> Scheduler:
        """Start a scheduler with empty queues and an empty KV cache."""
        scheduler_class = AsyncScheduler if self.async_scheduling else Scheduler
        return scheduler_class(
            vllm_config=self.config,
            kv_cache_config=self._kv_cache_config,
            structured_output_manager=self._structured_output_manager,
            block_size=self.block_size,
        )


@dataclass(frozen=True)
class _Batch:
    """A scheduled batch that the model has yet to report; one without tokens and preemptions has no step."""

    output: SchedulerOutput
    step: ScheduledStep | None
    duration_s: float


class _Run:
    """The engine's loop around one scheduler, over one trace."""

    def __init__(
        self,
        driver: VllmSchedulerDriver,
        arrival_s: Sequence[float],
        prompt_tokens: Sequence[int],
        output_tokens: Sequence[int],
        adapter: Sequence[int],
        step_time_fn: Callable[[ScheduledStep], float],
        shared_tokens: Sequence[int],
    ) -> None:
        n_requests = _checked_size(driver, arrival_s, prompt_tokens, output_tokens, adapter)
        self.scheduler = driver.new_scheduler()
        self.max_in_flight = BATCHES_IN_FLIGHT_ASYNC if driver.async_scheduling else 1
        self.usable_blocks = driver.num_gpu_blocks - 1
        self.arrival_s = [float(arrival) for arrival in arrival_s]
        self.prompt_tokens = [int(tokens) for tokens in prompt_tokens]
        self.output_tokens = [int(tokens) for tokens in output_tokens]
        self.adapter = [int(index) for index in adapter]
        self.shared_tokens = [int(tokens) for tokens in shared_tokens]
        self.block_hasher = driver.block_hasher
        self.step_time_fn = step_time_fn
        self.to_arrive = deque(sorted(range(n_requests), key=self.arrival_s.__getitem__))
        self.unfinished = n_requests
        self.now_s = self.model_free_s = -math.inf
        self.in_flight: deque[_Batch] = deque()
        self.steps: list[StepRecord] = []
        self.first_token_s = [math.nan] * n_requests
        self.finish_s = [math.nan] * n_requests
        self.preemptions = [0] * n_requests
        self.stalled = False

    @property
    def over(self) -> bool:
        return self.stalled or self.unfinished == 0

    @property
    def n_steps(self) -> int:
        """Steps made or under way; a batch of nothing is none."""
        return len(self.steps) + sum(batch.step is not None for batch in self.in_flight)

    def turn(self) -> None:
        """Go once through the engine's loop: take in the arrivals, schedule, and wait for a batch if no other one may be opened."""
        if not self.in_flight and not self.scheduler.has_unfinished_requests():
            self.now_s = max(self.now_s, self.arrival_s[self.to_arrive[0]])
        while self.to_arrive and self.arrival_s[self.to_arrive[0]] <= self.now_s:
            self.scheduler.add_request(self.request(self.to_arrive.popleft()))
        if self.scheduler.has_requests():
            tokens = self.schedule()
            if len(self.in_flight) < self.max_in_flight and (tokens or self.scheduler.has_requests()):
                return
        if not self.stalled:
            self.report()

    def request(self, index: int) -> Request:
        """Make vLLM's request for a row of the trace."""
        adapter, shared = self.adapter[index], self.shared_tokens[index]
        own = [FIRST_OWN_ID + index] * (self.prompt_tokens[index] - shared)
        return Request(
            request_id=str(index),
            prompt_token_ids=[TOKEN_ID] * shared + own,
            sampling_params=_sampling_params(self.output_tokens[index]),
            pooling_params=None,
            arrival_time=self.arrival_s[index],
            lora_request=None if adapter == NO_ADAPTER else _lora_request(adapter),
            block_hasher=self.block_hasher,
        )

    def schedule(self) -> int:
        """Call the scheduler, put its batch in the queue and return the batch's tokens."""
        output = self.scheduler.schedule()
        step = None
        duration_s = 0.0
        if output.num_scheduled_tokens or output.preempted_req_ids:
            step = self.scheduled_step(output)
            duration_s = self.step_time_fn(step)
            if not 0 <= duration_s < math.inf:
                raise ValueError(f"step_time_fn says {duration_s} s for {step}, not a finite time of at least 0 s")
            self.model_free_s = step.start_s + duration_s
            for index in step.preempted:
                self.preemptions[index] += 1
        elif not self.scheduler.running and not any(batch.step for batch in self.in_flight):
            self.stalled = bool(self.scheduler.waiting)
        self.in_flight.append(_Batch(output, step, duration_s))
        return int(output.total_num_scheduled_tokens)

    def scheduled_step(self, output: SchedulerOutput) -> ScheduledStep:
        """Read off what the scheduler has just decided."""
        waiting = tuple(int(request.request_id) for request in self.scheduler.waiting)
        # vLLM hands the preempted requests out as a set. Each one went to the head of the queue, and nothing else moves in such a step.
        preempted_ids = output.preempted_req_ids or set()
        preempted = waiting[: len(preempted_ids)][::-1]
        if {str(index) for index in preempted} != preempted_ids:
            raise RuntimeError(f"preempted {preempted_ids}, but the queue begins with {preempted[::-1]}")
        return ScheduledStep(
            decided_s=self.now_s,
            start_s=max(self.now_s, self.model_free_s),
            scheduled=tuple((int(request_id), tokens) for request_id, tokens in output.num_scheduled_tokens.items()),
            samples=tuple(
                not self.scheduler.requests[request_id].is_prefill_chunk for request_id in output.num_scheduled_tokens
            ),
            preempted=preempted,
            running=tuple(int(request.request_id) for request in self.scheduler.running),
            waiting=waiting,
            blocks_in_use=self.usable_blocks - self.scheduler.kv_cache_manager.block_pool.get_num_free_blocks(),
        )

    def report(self) -> None:
        """Wait for the oldest batch and hand its tokens to the scheduler."""
        batch = self.in_flight.popleft()
        step = batch.step
        if step is not None:
            self.now_s = step.start_s + batch.duration_s
        finished = []
        for engine_outputs in self.scheduler.update_from_output(batch.output, _model_output(batch)).values():
            for engine_output in engine_outputs.outputs:
                index = int(engine_output.request_id)
                if math.isnan(self.first_token_s[index]):
                    self.first_token_s[index] = self.now_s
                if engine_output.finish_reason is not None:
                    self.finish_s[index] = self.now_s
                    finished.append(index)
        self.unfinished -= len(finished)
        if step is not None:
            self.steps.append(StepRecord(**vars(step), duration_s=batch.duration_s, finished=tuple(finished)))

    def result(self) -> DriverRun:
        return DriverRun(
            steps=tuple(self.steps),
            first_token_s=tuple(self.first_token_s),
            finish_s=tuple(self.finish_s),
            preemptions=tuple(self.preemptions),
            stalled=self.stalled,
            complete=self.unfinished == 0,
        )


def _model_output(batch: _Batch) -> ModelRunnerOutput:
    """Sample a token for each request of the batch whose tokens are all computed."""
    request_ids = list(batch.output.num_scheduled_tokens)
    samples = batch.step.samples if batch.step else ()
    return ModelRunnerOutput(
        req_ids=request_ids,
        req_id_to_index={request_id: index for index, request_id in enumerate(request_ids)},
        sampled_token_ids=[[TOKEN_ID] if sampled else [] for sampled in samples],
    )


def _checked_size(
    driver: VllmSchedulerDriver,
    arrival_s: Sequence[float],
    prompt_tokens: Sequence[int],
    output_tokens: Sequence[int],
    adapter: Sequence[int],
) -> int:
    """Return the number of requests of a trace that the driver's server would accept."""
    sizes = {len(arrival_s), len(prompt_tokens), len(output_tokens), len(adapter)}
    if len(sizes) != 1:
        raise ValueError(f"the arrays of a trace must have one length, not {sorted(sizes)}")
    for index, (prompt, output) in enumerate(zip(prompt_tokens, output_tokens, strict=True)):
        if prompt < 1 or output < 1 or prompt + output > driver.max_model_len:
            raise ValueError(
                f"request {index}: {prompt} prompt and {output} output tokens, "
                f"not at least 1 each and together at most max_model_len={driver.max_model_len}"
            )
    if any(index < NO_ADAPTER for index in adapter):
        raise ValueError(f"an adapter is an index or {NO_ADAPTER}, not {min(adapter)}")
    if driver.max_loras is None and any(index != NO_ADAPTER for index in adapter):
        raise ValueError("requests have adapters, but max_loras is None")
    return len(arrival_s)


@functools.cache
def _model_config(max_model_len: int) -> ModelConfig:
    """Describe a model that only has to exist: the scheduler reads its maximum length, and that it is a plain text decoder."""
    hf_config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "num_hidden_layers": 1,
        "vocab_size": 128,
        "max_position_embeddings": max_model_len,
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(hf_config), encoding="utf-8")
        return ModelConfig(
            model=folder,
            tokenizer=folder,
            skip_tokenizer_init=True,
            dtype="float32",
            max_model_len=max_model_len,
            enforce_eager=True,
        )


@functools.cache
def _sampling_params(output_tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=output_tokens, ignore_eos=True, detokenize=False)


@functools.cache
def _lora_request(adapter: int) -> LoRARequest:
    # vLLM's ids begin at 1; the path is never opened.
    return LoRARequest(lora_name=f"adapter-{adapter}", lora_int_id=adapter + 1, lora_path="unused")
