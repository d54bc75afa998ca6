"""The compiled event loop of one vLLM GPU: V1 scheduler decisions, O(1) work per step.

A step's decisions are those of vLLM's `Scheduler.schedule` (checked against that class in
tests/conformance). The trick is that every running request that finished its prefill gets exactly
one token in every step, whatever its place in the queue: vLLM demands
`max_num_batched_tokens >= max_num_seqs`, and an unfinished prefill is always the last of the running
requests. So a step does not visit the running requests. A request that will finish at step `f` waits
in bucket `f`, the blocks that the step needs are counted per residue of the sequence length
modulo the block size, and the running requests are walked in order only when blocks run out.
Waiting requests stand in one queue per adapter; two winner trees (adapters in this step's set,
adapters outside it) give the next request that the `max_loras` scan would admit.

Work is done per arrival, admission, finish and preemption. A step in which nobody comes, joins or leaves is decided like the
one before it: such steps pass in a loop of their own, nanoseconds each. Who comes while nobody waits is admitted without having
been in a queue.

With asynchronous scheduling a step is decided while the one before it runs, so that what a request
frees when it finishes comes back one step later: until then it *drains*, in its seat and with its
blocks, but without tokens.

With prefix caching blocks are not looked at one by one either (`twin.free_blocks`); without it none of that is compiled.

`twin.stepwise` takes the same decisions the long way; the two must agree.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from twin.compiled import njit
from twin.free_blocks import cached, give_back, new_queue, take, take_cached
from twin.queues import Ints, list_append, list_remove, tree_update

Floats = NDArray[np.float64]

# Places in the `limits` array.
BLOCK_SIZE, BLOCKS, MAX_SEQS, TOKEN_BUDGET, MAX_LORAS, HOST_SLOTS, OPEN_CAP = range(7)
RESERVE_FULL, WATERMARK, EAGER_ABOVE, ASYNCHRONOUS, LONG_PREFILL, JUDGED, PRICED, COUNT_RUNNING = range(7, 15)
N_LIMITS = 15

# Places in the `totals` array that the loop returns.
(STEPS, PREEMPTIONS, LOADS, DISK_LOADS, DROPPED, STALLED, BUSY_S, RUNNING_S, WAITING_S, ADAPTERS_S,
 KV_TOKENS_S, PREFILL_TOKENS, LOAD_S, SCHEDULER_S, MAX_WAITING, MAX_RUNNING, END_S,
 N_EVENTS, N_SAMPLES) = range(19)  # fmt: skip
N_TOTALS = 19

# Kinds of decisions in the event log: (step, kind, request, tokens). CHUNK is a later part of a
# prefill; a running request without an event gets one token.
ADMIT, CHUNK, PREEMPT, FINISH = range(4)

# Columns of a sample: start and duration of the step, running and waiting requests, KV blocks in
# use, distinct adapters, tokens computed, adapter loads in the step and their time, waiting requests
# skipped, tokens in the KV cache, the time when the step was decided (before its start if scheduling
# is asynchronous).
(SAMPLE_START, SAMPLE_SECONDS, SAMPLE_RUNNING, SAMPLE_WAITING, SAMPLE_BLOCKS, SAMPLE_ADAPTERS,
 SAMPLE_TOKENS, SAMPLE_LOADS, SAMPLE_LOAD_S, SAMPLE_SKIPPED, SAMPLE_KV, SAMPLE_DECIDED) = range(12)  # fmt: skip
N_SAMPLE_COLUMNS = 12

# Places in the `step_s` array.
(PER_STEP, PER_RUNNING, PER_ADAPTER, PER_TOKEN, PER_TOKEN_ADAPTER, PER_KV_TOKEN, PER_EAGER_STEP,
 PER_EAGER_TOKEN, PER_LOAD, PER_LOAD_ADAPTER) = range(10)  # fmt: skip

# Inter-token latencies are counted in bins 1 % wide, from 0.1 ms up.
ITL_BINS = 1600
ITL_FIRST_S = 1e-4
ITL_LOG_WIDTH = math.log(1.01)
# What is that near to the edge of a bin is told by its logarithm.
ITL_EDGE = 1e-12


@njit(cache=True, nogil=True)
def itl_bin(seconds: float) -> int:
    """Bin of `itl_counts` that an inter-token latency falls into."""
    if seconds <= ITL_FIRST_S:
        return 0
    return min(ITL_BINS - 1, int(math.log(seconds / ITL_FIRST_S) / ITL_LOG_WIDTH))


@njit(cache=True, nogil=True)
def bin_edges(place: int, seconds: float) -> tuple[float, float]:
    """Latencies that fall into the bin of `seconds`, as far as can be told without a logarithm of each."""
    low = ITL_FIRST_S * math.exp(place * ITL_LOG_WIDTH) * (1 + ITL_EDGE)
    high = ITL_FIRST_S * math.exp((place + 1) * ITL_LOG_WIDTH) * (1 - ITL_EDGE)
    return (
        low if low <= seconds and itl_bin(low) == place else seconds,
        high if high >= seconds and itl_bin(high) == place else seconds,
    )


@njit(cache=True, nogil=True)
def step_seconds(  # noqa: PLR0913  # the terms of the step-time model
    step_s: Floats, running: int, adapters: int, tokens: int, kv_tokens: int, loads: int, eager_above: int
) -> float:
    """Time of the forward pass of one step, by `ServingProfile.step_coefficients` in seconds."""
    seconds: float = (
        step_s[PER_STEP]
        + step_s[PER_RUNNING] * running
        + step_s[PER_ADAPTER] * adapters
        + step_s[PER_TOKEN] * tokens
        + step_s[PER_TOKEN_ADAPTER] * tokens * adapters
        + step_s[PER_KV_TOKEN] * kv_tokens
    )
    if tokens > eager_above:
        seconds += step_s[PER_EAGER_STEP] + step_s[PER_EAGER_TOKEN] * (tokens - eager_above)
    if loads > 0:
        seconds += loads * (step_s[PER_LOAD] + step_s[PER_LOAD_ADAPTER] * adapters)
    return seconds


@njit(cache=True, nogil=True)
def constant_seconds(step_s: Floats, decoding: int, adapters: int, eager_above: int) -> tuple[float, float]:
    """What is added to the time of the KV tokens in `step_seconds`, before and after, of a step that only decodes."""
    seconds = (
        step_s[PER_STEP]
        + step_s[PER_RUNNING] * decoding
        + step_s[PER_ADAPTER] * adapters
        + step_s[PER_TOKEN] * decoding
        + step_s[PER_TOKEN_ADAPTER] * decoding * adapters
    )
    eager = step_s[PER_EAGER_STEP] + step_s[PER_EAGER_TOKEN] * (decoding - eager_above)
    return seconds, eager if decoding > eager_above else 0.0


@njit(cache=True, nogil=True)
def log_event(  # noqa: PLR0913  # the log, and what one line of it says
    events: Ints, n_events: int, step: int, kind: int, request: int, tokens: int
) -> None:
    """Log a decision where there is room for it."""
    if n_events < len(events):
        events[n_events, 0] = step
        events[n_events, 1] = kind
        events[n_events, 2] = request
        events[n_events, 3] = tokens


@njit(cache=True, nogil=True)
def enqueue(  # noqa: PLR0913  # the queues that it stands in
    i: int,
    a: int,
    queue_head: Ints,
    queue_tail: Ints,
    queue_next: Ints,
    head_key: Ints,
    member: bool,
    tree_in: Ints,
    tree_out: Ints,
) -> None:
    """Put a request that has just come at the end of its adapter's queue."""
    if queue_head[a] < 0:
        queue_head[a] = i
        queue_tail[a] = i
        head_key[a] = i
        if member:
            tree_update(tree_in, head_key, a, True)
        else:
            tree_update(tree_out, head_key, a, True)
    else:
        queue_next[queue_tail[a]] = i
        queue_tail[a] = i


@njit(cache=True, nogil=True)
def run_engine(  # noqa: C901, PLR0912, PLR0913, PLR0915  # one loop, one state: splitting it would pass 30 arrays around
    arrival_s: Floats,
    adapter: Ints,
    prompt: Ints,
    output: Ints,
    n_adapters: int,
    load_s: Floats,
    disk_s: Floats,
    step_s: Floats,
    min_step_s: float,
    scheduler_s: Floats,
    limits: Ints,
    duration_s: float,
    horizon_s: float,
    first_token_s: Floats,
    finish_s: Floats,
    itl_counts: Ints,
    events: Ints,
    samples: Floats,
    sample_every_s: float,
    shared: Ints | None,
) -> Floats:
    """Simulate one GPU until `horizon_s`, until every request is served, or until those that are judged are, after `duration_s`.

    Parameters
    ----------
    arrival_s, adapter, prompt, output : arrays of shape (n_requests,)
        Requests in order of arrival; adapters numbered from 0 to n_adapters - 1.
    load_s, disk_s : arrays of shape (n_adapters,)
        Host-to-GPU and disk-to-host load time of each adapter.
    step_s : array of shape (10,)
        `ServingProfile.step_coefficients` in seconds.
    min_step_s : float
    scheduler_s : array of shape (4,)
        Constant, per running request, per skipped waiting request, per waiting request.
    limits : array of shape (N_LIMITS,), int64
        Of the distinct adapters of a step, the first `limits[PRICED]` cost time.
    duration_s : float
        End of the window that totals, counts of inter-token latencies, events and samples are of.
    horizon_s : float
        `duration_s`, or later: the first `limits[JUDGED]` requests are then served on, beside whatever arrives meanwhile.
    first_token_s, finish_s : arrays of shape (n_requests,), filled in
        Must come in as NaN; a request that was turned away by the cap gets -1 in both.
    itl_counts : array of shape (ITL_BINS,), filled in
        Of length 0: none are counted.
    events : array of shape (n, 4), filled in
        Decision log; of length 0: none is kept.
    samples : array of shape (n, N_SAMPLE_COLUMNS), filled in
        State at the first step at or after each multiple of `sample_every_s`.
    sample_every_s : float
    shared : array of shape (n_requests,), or None
        Tokens at the beginning of each prompt that all requests of its adapter have which have any, fewer than the prompt
        has. None: no prefix caching, and a kernel of its own.

    Returns
    -------
    totals : array of shape (N_TOTALS,)
    """
    n_requests = len(arrival_s)
    block_size = limits[BLOCK_SIZE]
    token_budget = limits[TOKEN_BUDGET]
    max_seqs = limits[MAX_SEQS]
    max_loras = limits[MAX_LORAS]
    host_slots = limits[HOST_SLOTS]
    open_cap = limits[OPEN_CAP]
    reserve_full = limits[RESERVE_FULL] != 0
    eager_above = limits[EAGER_ABOVE]
    priced = limits[PRICED]
    asynchronous = limits[ASYNCHRONOUS] != 0
    count_running = asynchronous and limits[COUNT_RUNNING] != 0
    free = limits[BLOCKS]
    totals = np.zeros(N_TOTALS)

    # Per request: tokens generated before its latest admission, and what its decode phase derives
    # from: at step s it holds `sequence[i] + s` computed tokens and finishes at `last_step[i]`.
    # Once it drains, `sequence[i]` is the number of its blocks, or -1 if they were taken from it.
    generated = np.zeros(n_requests, np.int64)
    sequence = np.zeros(n_requests, np.int64)
    last_step = np.zeros(n_requests, np.int64)
    left_at_s = np.full(n_requests, -1.0)
    run_after = np.full(n_requests + 1, n_requests, np.int64)
    run_before = np.full(n_requests + 1, n_requests, np.int64)
    queue_next = np.full(n_requests, -1, np.int64)
    queue_key = np.zeros(n_requests, np.int64)

    longest = 1
    for i in range(n_requests):
        longest = max(longest, output[i])
    n_buckets = longest + 2
    bucket_head = np.full(n_buckets, -1, np.int64)
    bucket_tail = np.full(n_buckets, -1, np.int64)
    bucket_after = np.full(n_requests, -1, np.int64)
    bucket_before = np.full(n_requests, -1, np.int64)
    crossing = np.zeros(block_size, np.int64)
    # Free blocks with prefix caching; without it they are only counted.
    n_shared = prompt[:0] if shared is None else shared // block_size
    holders, run_size, runs_after, runs_before = new_queue(len(n_shared), n_adapters)
    plain = free

    # Per adapter: its queue, its running requests, its place in the two LRU tiers.
    queue_head = np.full(n_adapters, -1, np.int64)
    queue_tail = np.full(n_adapters, -1, np.int64)
    head_key = np.zeros(n_adapters, np.int64)
    in_step = np.zeros(n_adapters, np.int64)
    drain_of = np.zeros(n_adapters, np.int64)
    on_gpu = np.zeros(n_adapters, np.bool_)
    on_host = np.zeros(n_adapters, np.bool_)
    gpu_after = np.full(n_adapters + 1, n_adapters, np.int64)
    gpu_before = np.full(n_adapters + 1, n_adapters, np.int64)
    host_after = np.full(n_adapters + 1, n_adapters, np.int64)
    host_before = np.full(n_adapters + 1, n_adapters, np.int64)
    n_gpu = 0
    n_host = min(n_adapters, host_slots)
    for a in range(n_host):
        on_host[a] = True
        list_append(host_after, host_before, a)
    n_leaves = 1
    while n_leaves < n_adapters:
        n_leaves *= 2
    tree_in = np.full(2 * n_leaves, -1, np.int64)
    tree_out = np.full(2 * n_leaves, -1, np.int64)

    # Requests that got their prefill done in this step.
    completed = np.empty(max_seqs + 1, np.int64)

    # A step is decided at `now`, and the one before it ends at `free_s`: the same time, unless
    # scheduling is asynchronous.
    now = 0.0
    free_s = 0.0
    # Finished requests, chained by `bucket_after`: those to free before the next step is decided, and
    # those that drain while it is.
    freed = -1
    draining = -1
    n_draining = 0
    # Adapters of draining requests alone that count against `max_loras` all the same.
    n_kept = 0
    step = 0
    upcoming = 0
    # Before it all have been admitted or stand in a queue.
    came = 0
    n_waiting = 0
    n_decoding = 0
    n_active = 0
    partial = -1
    partial_computed = 0
    kv_tokens = 0
    front_key = -1
    next_sample_s = 0.0
    n_events = 0
    n_samples = 0
    event_room = len(events)
    sample_room = len(samples)
    n_unfinished = limits[JUDGED]
    window_is_over = False
    # Inter-token latencies known to fall into one bin.
    bin_of_s, from_s, until_s = 0, np.inf, -np.inf
    totals_of_window = np.zeros(N_TOTALS)
    counting = len(itl_counts) > 0
    itl_counts_of_window = np.zeros(len(itl_counts) if horizon_s > duration_s else 0, np.int64)

    while True:
        while freed >= 0:
            if sequence[freed] >= 0:
                if shared is not None:
                    held, full = sequence[freed], (prompt[freed] + output[freed] - 1) // block_size
                    plain += held - full
                    free += give_back(
                        freed, adapter[freed], held, full, n_shared, holders, run_size, runs_after, runs_before
                    )
                else:
                    free += sequence[freed]
                list_remove(run_after, run_before, freed)
                n_draining -= 1
                if count_running:
                    a = adapter[freed]
                    drain_of[a] -= 1
                    if drain_of[a] == 0 and in_step[a] == 0:
                        n_kept -= 1
                        if queue_head[a] >= 0:
                            tree_update(tree_in, head_key, a, False)
                            tree_update(tree_out, head_key, a, True)
            freed = bucket_after[freed]
        if n_decoding == 0 and partial < 0 and n_waiting == 0 and n_draining == 0:
            if upcoming == n_requests:
                break
            now = max(now, arrival_s[upcoming])
        start = max(now, free_s)
        if start >= duration_s:
            if not window_is_over and horizon_s > duration_s:
                window_is_over = True
                totals[STEPS] = step
                totals[END_S] = start
                totals[N_EVENTS] = n_events
                totals[N_SAMPLES] = n_samples
                totals_of_window[:] = totals
                itl_counts_of_window[:] = itl_counts
                # What is served on leaves no events and no samples.
                event_room = 0
                sample_room = 0
            if start >= horizon_s or n_unfinished == 0:
                break

        while upcoming < n_requests and arrival_s[upcoming] <= now:
            i = upcoming
            upcoming += 1
            n_open = n_decoding + n_draining + n_waiting + (1 if partial >= 0 else 0)
            if open_cap > 0 and n_open >= open_cap:
                totals[DROPPED] += 1
                first_token_s[i] = -1.0
                finish_s[i] = -1.0
                if i < limits[JUDGED]:
                    n_unfinished -= 1
                continue
            queue_key[i] = i
            n_waiting += 1
            if came < i or n_waiting == 1:
                # Nobody else waits: mostly it is admitted without having been in a queue, as are those who come with it.
                continue
            came = upcoming
            a = adapter[i]
            if queue_head[a] >= 0:
                queue_next[queue_tail[a]] = i
                queue_tail[a] = i
                continue
            queue_head[a] = i
            queue_tail[a] = i
            head_key[a] = i
            if in_step[a] + drain_of[a]:
                tree_update(tree_in, head_key, a, True)
            else:
                tree_update(tree_out, head_key, a, True)

        # Running requests first: one token each, the unfinished prefill last.
        chunk = 0
        chunk_blocks = 0
        if partial >= 0:
            remaining = prompt[partial] + generated[partial] - partial_computed
            chunk = min(remaining, token_budget - n_decoding)
            held = (partial_computed + block_size - 1) // block_size
            chunk_blocks = (partial_computed + chunk + block_size - 1) // block_size - held
        need = crossing[(-step) % block_size] + chunk_blocks
        preempted = False
        n_passing = 0
        if need <= free:
            free -= need
            if shared is not None:
                plain = take(need, plain, run_size, runs_after, runs_before)
        else:
            i = run_after[n_requests]
            while i != n_requests:
                if i == partial:
                    need = chunk_blocks
                elif last_step[i] < step:
                    i = run_after[i]
                    continue
                else:
                    need = 1 if (sequence[i] + step) % block_size == 0 else 0
                gave_up = False
                while need > free:
                    victim = run_before[n_requests]
                    list_remove(run_after, run_before, victim)
                    totals[PREEMPTIONS] += 1
                    preempted = True
                    if n_events < event_room:
                        log_event(events, n_events, step, PREEMPT, victim, 0)
                    n_events += 1
                    if victim != partial and last_step[victim] < step:
                        # Its last token is on its way; vLLM lets it pass through the queue.
                        if shared is not None:
                            held_tokens = prompt[victim] + output[victim] - 1
                            known = held_tokens - 1 if held_tokens > prompt[victim] + generated[victim] else held_tokens
                            held, full = sequence[victim], known // block_size
                            plain += held - full
                            free += give_back(
                                victim,
                                adapter[victim],
                                held,
                                full,
                                n_shared,
                                holders,
                                run_size,
                                runs_after,
                                runs_before,
                            )
                        else:
                            free += sequence[victim]
                        sequence[victim] = -1
                        n_draining -= 1
                        n_passing += 1
                        if count_running:
                            a = adapter[victim]
                            drain_of[a] -= 1
                            if drain_of[a] == 0 and in_step[a] == 0:
                                n_kept -= 1
                                if queue_head[a] >= 0:
                                    tree_update(tree_in, head_key, a, False)
                                    tree_update(tree_out, head_key, a, True)
                        continue
                    a = adapter[victim]
                    if victim == partial:
                        kv_tokens -= partial_computed
                        if shared is not None:
                            held, full = (
                                (partial_computed + block_size - 1) // block_size,
                                partial_computed // block_size,
                            )
                            plain += held - full
                            free += give_back(
                                victim, a, held, full, n_shared, holders, run_size, runs_after, runs_before
                            )
                        else:
                            free += (partial_computed + block_size - 1) // block_size
                        partial = -1
                        chunk = 0
                    else:
                        held_tokens = sequence[victim] + step
                        kv_tokens -= held_tokens
                        if shared is not None:
                            # What is on its way is not known yet, and its block not full.
                            decoding = asynchronous and held_tokens > prompt[victim] + generated[victim]
                            known = held_tokens - 1 if decoding else held_tokens
                            held, full = (held_tokens + block_size - 1) // block_size, known // block_size
                            plain += held - full
                            free += give_back(
                                victim, a, held, full, n_shared, holders, run_size, runs_after, runs_before
                            )
                        else:
                            free += (held_tokens + block_size - 1) // block_size
                        generated[victim] = held_tokens - prompt[victim] + 1
                        crossing[sequence[victim] % block_size] -= 1
                        n_decoding -= 1
                        left_at_s[victim] = free_s
                        place = last_step[victim] % n_buckets
                        before, after = bucket_before[victim], bucket_after[victim]
                        if before < 0:
                            bucket_head[place] = after
                        else:
                            bucket_after[before] = after
                        if after < 0:
                            bucket_tail[place] = before
                        else:
                            bucket_before[after] = before
                    in_step[a] -= 1
                    if in_step[a] == 0:
                        list_append(gpu_after, gpu_before, a)
                        list_append(host_after, host_before, a)
                        n_active -= 1
                        if drain_of[a] > 0:
                            n_kept += 1
                        elif queue_head[a] >= 0:
                            tree_update(tree_in, head_key, a, False)
                    # Back to the head of the waiting queue.
                    queue_key[victim] = front_key
                    head_key[a] = front_key
                    front_key -= 1
                    queue_next[victim] = queue_head[a]
                    if queue_head[a] < 0:
                        queue_tail[a] = victim
                    queue_head[a] = victim
                    n_waiting += 1
                    if in_step[a] + drain_of[a]:
                        tree_update(tree_in, head_key, a, True)
                    else:
                        tree_update(tree_out, head_key, a, True)
                    if victim == i:
                        gave_up = True
                        break
                if gave_up:
                    break
                free -= need
                if shared is not None:
                    plain = take(need, plain, run_size, runs_after, runs_before)
                i = run_after[i]

        decoding_now = n_decoding
        prefill_tokens = chunk
        n_completed = 0
        n_scheduled = n_decoding
        if partial >= 0:
            n_scheduled += 1
            partial_computed += chunk
            if n_events < event_room:
                log_event(events, n_events, step, CHUNK, partial, chunk)
            n_events += 1
            if partial_computed == prompt[partial] + generated[partial]:
                completed[0] = partial
                n_completed = 1
                partial = -1

        # Then waiting requests, first come first served, skipping adapters that find no slot.
        load_time = 0.0
        loads_before = totals[LOADS]
        n_skipped = 0
        if not preempted:
            budget = token_budget - n_decoding - chunk
            while budget > 0 and n_waiting > 0 and n_scheduled + n_draining < max_seqs:
                a = tree_in[1]
                if n_active + n_kept < max_loras:
                    other = tree_out[1]
                    if a < 0 or (other >= 0 and head_key[other] < head_key[a]):
                        a = other
                queued = a >= 0
                # Then those who have just come.
                while a < 0 and came < upcoming:
                    b = adapter[came]
                    if finish_s[came] == -1.0:
                        came += 1
                    elif queue_head[b] < 0 and (in_step[b] + drain_of[b] > 0 or n_active + n_kept < max_loras):
                        a = b
                    else:
                        member = in_step[b] + drain_of[b] > 0
                        enqueue(came, b, queue_head, queue_tail, queue_next, head_key, member, tree_in, tree_out)
                        came += 1
                if a < 0:
                    n_skipped = n_waiting
                    break
                i = queue_head[a] if queued else came
                length = prompt[i] + generated[i]
                spare = free - (limits[WATERMARK] if n_scheduled + n_draining > 0 else 0)
                ready = 0
                if shared is not None:
                    found, in_queue = cached(i, a, n_shared, holders, run_size)
                    spare -= in_queue
                    ready = found * block_size
                    if reserve_full and (length + block_size - 1) // block_size - found > spare:
                        break
                    new = min(length - ready, budget)
                    need = (ready + new + block_size - 1) // block_size - found
                    if need > spare:
                        break
                    free -= in_queue
                    take_cached(i, a, n_shared, holders, run_size, runs_after, runs_before)
                    plain = take(need, plain, run_size, runs_after, runs_before)
                    kv_tokens += ready
                else:
                    if reserve_full and (length + block_size - 1) // block_size > spare:
                        break
                    new = min(length, budget)
                    need = (new + block_size - 1) // block_size
                    if need > spare:
                        break
                free -= need
                budget -= new
                prefill_tokens += new
                n_waiting -= 1
                n_scheduled += 1
                if queued:
                    queue_head[a] = queue_next[i]
                    queue_next[i] = -1
                    more = queue_head[a] >= 0
                    if more:
                        head_key[a] = queue_key[queue_head[a]]
                    if in_step[a] + drain_of[a] == 0:
                        tree_update(tree_out, head_key, a, False)
                    tree_update(tree_in, head_key, a, more)
                else:
                    came += 1
                if in_step[a] == 0:
                    n_active += 1
                    if drain_of[a] > 0:
                        n_kept -= 1
                    if on_gpu[a]:
                        list_remove(gpu_after, gpu_before, a)
                    if on_host[a]:
                        list_remove(host_after, host_before, a)
                    else:
                        totals[DISK_LOADS] += 1
                        load_time += disk_s[a]
                        if n_host == host_slots:
                            oldest = host_after[n_adapters]
                            list_remove(host_after, host_before, oldest)
                            on_host[oldest] = False
                            n_host -= 1
                            if on_gpu[oldest]:
                                list_remove(gpu_after, gpu_before, oldest)
                                on_gpu[oldest] = False
                                n_gpu -= 1
                        on_host[a] = True
                        n_host += 1
                    if not on_gpu[a]:
                        totals[LOADS] += 1
                        load_time += load_s[a]
                        if n_gpu == max_loras:
                            oldest = gpu_after[n_adapters]
                            list_remove(gpu_after, gpu_before, oldest)
                            on_gpu[oldest] = False
                            n_gpu -= 1
                        on_gpu[a] = True
                        n_gpu += 1
                in_step[a] += 1
                list_append(run_after, run_before, i)
                if n_events < event_room:
                    log_event(events, n_events, step, ADMIT, i, new)
                n_events += 1
                if ready + new == length:
                    completed[n_completed] = i
                    n_completed += 1
                else:
                    partial = i
                    partial_computed = ready + new
        while came < upcoming:
            if finish_s[came] != -1.0:
                a = adapter[came]
                member = in_step[a] + drain_of[a] > 0
                enqueue(came, a, queue_head, queue_tail, queue_next, head_key, member, tree_in, tree_out)
            came += 1

        if n_scheduled == 0 and not preempted:
            if n_draining == 0:
                # The head of the queue does not fit into an empty KV cache: the engine is stuck.
                totals[STALLED] = 1
                break
            # Nothing to run until the tokens on their way have come.
            now = start
            freed, draining = draining, -1
            continue

        tokens = decoding_now + prefill_tokens
        kv_tokens += tokens
        n_running = n_scheduled + n_draining
        n_queued = n_waiting + n_passing
        n_loads = totals[LOADS] - loads_before
        paid = min(n_active, priced)
        seconds = max(min_step_s, step_seconds(step_s, n_scheduled, paid, tokens, kv_tokens, n_loads, eager_above))
        scheduling = max(
            0.0, scheduler_s[0] + scheduler_s[1] * n_running + scheduler_s[2] * n_skipped + scheduler_s[3] * n_queued
        )
        # Asynchronous scheduling hides behind the step before.
        seconds = (max(seconds, scheduling) if asynchronous else seconds + scheduling) + load_time
        if start >= next_sample_s and n_samples < sample_room:
            samples[n_samples, SAMPLE_START] = start
            samples[n_samples, SAMPLE_SECONDS] = seconds
            samples[n_samples, SAMPLE_RUNNING] = n_running
            samples[n_samples, SAMPLE_WAITING] = n_queued
            samples[n_samples, SAMPLE_BLOCKS] = limits[BLOCKS] - free
            samples[n_samples, SAMPLE_ADAPTERS] = n_active
            samples[n_samples, SAMPLE_TOKENS] = tokens
            samples[n_samples, SAMPLE_LOADS] = n_loads
            samples[n_samples, SAMPLE_LOAD_S] = load_time
            samples[n_samples, SAMPLE_SKIPPED] = n_skipped
            samples[n_samples, SAMPLE_KV] = kv_tokens
            samples[n_samples, SAMPLE_DECIDED] = now
            n_samples += 1
            if sample_every_s > 0:
                next_sample_s = (math.floor(start / sample_every_s) + 1) * sample_every_s
        totals[BUSY_S] += seconds
        totals[RUNNING_S] += seconds * n_running
        totals[WAITING_S] += seconds * n_queued
        totals[ADAPTERS_S] += seconds * n_active
        totals[KV_TOKENS_S] += seconds * kv_tokens
        totals[PREFILL_TOKENS] += prefill_tokens
        totals[LOAD_S] += load_time
        totals[SCHEDULER_S] += scheduling
        totals[MAX_WAITING] = max(totals[MAX_WAITING], n_queued)
        totals[MAX_RUNNING] = max(totals[MAX_RUNNING], n_running)
        now = start if asynchronous else start + seconds
        free_s = start + seconds
        if counting and decoding_now > 0:
            itl_counts[bin_of_s if from_s <= seconds <= until_s else itl_bin(seconds)] += decoding_now

        # Tokens come out at the end of the step: first tokens, joins, finishes.
        i = bucket_head[step % n_buckets]
        bucket_head[step % n_buckets] = -1
        n_joined = 0
        leaving, last_leaving = -1, -1
        while i >= 0 or n_joined < n_completed:
            if i >= 0:
                done = i
                i = bucket_after[i]
                n_decoding -= 1
                crossing[sequence[done] % block_size] -= 1
                held_tokens = sequence[done] + step + 1
            else:
                done = completed[n_joined]
                n_joined += 1
                held_tokens = prompt[done] + generated[done]
                if math.isnan(first_token_s[done]):
                    first_token_s[done] = free_s
                elif counting:
                    # One who was preempted: its client waited since the token before.
                    itl_counts[itl_bin(free_s - left_at_s[done])] += 1
                last_step[done] = step + output[done] - generated[done] - 1
                if last_step[done] > step:
                    # Joins the decoding ones: one token in each step from the next on.
                    n_decoding += 1
                    sequence[done] = held_tokens - step - 1
                    crossing[sequence[done] % block_size] += 1
                    place = last_step[done] % n_buckets
                    before = bucket_tail[place] if bucket_head[place] >= 0 else -1
                    if before < 0:
                        bucket_head[place] = done
                    else:
                        bucket_after[before] = done
                    bucket_before[done] = before
                    bucket_after[done] = -1
                    bucket_tail[place] = done
                    continue
            finish_s[done] = free_s
            if done < limits[JUDGED]:
                n_unfinished -= 1
            kv_tokens -= held_tokens
            sequence[done] = (held_tokens + block_size - 1) // block_size
            bucket_after[done] = -1
            if leaving < 0:
                leaving = done
            else:
                bucket_after[last_leaving] = done
            last_leaving = done
            n_draining += 1
            a = adapter[done]
            in_step[a] -= 1
            if count_running:
                drain_of[a] += 1
            if in_step[a] == 0:
                # The last of its adapter, so that other adapters may take its place.
                list_append(gpu_after, gpu_before, a)
                list_append(host_after, host_before, a)
                n_active -= 1
                if count_running:
                    n_kept += 1
                elif queue_head[a] >= 0:
                    tree_update(tree_in, head_key, a, False)
                    tree_update(tree_out, head_key, a, True)
            if n_events < event_room:
                log_event(events, n_events, step, FINISH, done, 0)
            n_events += 1
        if asynchronous:
            freed, draining = draining, leaving
        else:
            freed = leaving
        step += 1
        if prefill_tokens > 0 or preempted or n_decoding == 0 or leaving >= 0 or freed >= 0 or n_draining > 0:
            continue

        # Nobody came, joined or left: the steps to come are decided like this one until somebody does, or blocks run out.
        end_s = duration_s if not window_is_over else (horizon_s if n_unfinished > 0 else 0.0)
        arrival = arrival_s[upcoming] if upcoming < n_requests else np.inf
        sample_s = next_sample_s if n_samples < sample_room else np.inf
        place, residue = step % n_buckets, (-step) % block_size
        fixed_s, later_s = constant_seconds(step_s, n_decoding, min(n_active, priced), eager_above)
        while (
            free_s < end_s
            and arrival > now
            and free_s < sample_s
            and bucket_head[place] < 0
            and crossing[residue] <= free
        ):
            free -= crossing[residue]
            if shared is not None:
                if crossing[residue] <= plain:
                    plain -= crossing[residue]
                else:
                    plain = take(crossing[residue], plain, run_size, runs_after, runs_before)
            kv_tokens += n_decoding
            seconds = max(min_step_s, fixed_s + step_s[PER_KV_TOKEN] * kv_tokens + later_s)
            seconds = max(seconds, scheduling) if asynchronous else seconds + scheduling
            totals[BUSY_S] += seconds
            totals[RUNNING_S] += seconds * n_decoding
            totals[WAITING_S] += seconds * n_queued
            totals[ADAPTERS_S] += seconds * n_active
            totals[KV_TOKENS_S] += seconds * kv_tokens
            totals[SCHEDULER_S] += scheduling
            now = free_s if asynchronous else free_s + seconds
            free_s += seconds
            if counting:
                if not from_s <= seconds <= until_s:
                    bin_of_s = itl_bin(seconds)
                    from_s, until_s = bin_edges(bin_of_s, seconds)
                itl_counts[bin_of_s] += n_decoding
            step += 1
            place = place + 1 if place + 1 < n_buckets else 0
            residue = residue - 1 if residue > 0 else block_size - 1

    if window_is_over:
        itl_counts[:] = itl_counts_of_window
        return totals_of_window
    totals[STEPS] = step
    totals[END_S] = max(now, free_s)
    totals[N_EVENTS] = n_events
    totals[N_SAMPLES] = n_samples
    return totals
