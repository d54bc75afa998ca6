"""The event loop of one vLLM GPU step by step: each step visits every running and waiting request.

This is vLLM's `Scheduler.schedule` and `update_from_output` as they are written, in one pass over plain arrays: the running
requests in their order, then the waiting ones in theirs. `twin.engine` reaches the same decisions without the visits; this one
is its reference, and serves what its short cuts exclude: several unfinished prefills (`long_prefill_token_threshold`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from twin import block_pool, engine
from twin.compiled import njit
from twin.engine import Floats, itl_bin, log_event, step_seconds
from twin.queues import Ints, list_append, list_prepend, list_remove

Flags = NDArray[np.bool_]


@njit(cache=True, nogil=True)
def _blocks(tokens: int, block_size: int) -> int:
    return (tokens + block_size - 1) // block_size


@njit(cache=True, nogil=True)
def _log(events: Ints, totals: Floats, kind: int, request: int, tokens: int) -> None:
    log_event(events, int(totals[engine.N_EVENTS]), int(totals[engine.STEPS]), kind, request, tokens)
    totals[engine.N_EVENTS] += 1


@njit(cache=True, nogil=True)
def _least_recently_used(resident: Flags, running_of: Ints, left_at: Ints) -> int:
    """The resident adapter without running requests that lost its last one longest ago."""
    oldest = -1
    for a in range(len(resident)):
        if resident[a] and running_of[a] == 0 and (oldest < 0 or left_at[a] < left_at[oldest]):
            oldest = a
    return oldest


@njit(cache=True, nogil=True)
def run_step_by_step(  # noqa: C901, PLR0912, PLR0913, PLR0915  # takes what `run_engine` takes; one loop, one state
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
    """Simulate one GPU; parameters and result are those of `twin.engine.run_engine`."""
    n_requests = len(arrival_s)
    block_size, max_seqs, max_loras = limits[engine.BLOCK_SIZE], limits[engine.MAX_SEQS], limits[engine.MAX_LORAS]
    asynchronous = limits[engine.ASYNCHRONOUS] != 0
    free = limits[engine.BLOCKS]
    totals = np.zeros(engine.N_TOTALS)

    # Per request: tokens known or on their way, tokens computed, blocks held, tokens of this step, the time of the
    # latest token, the step of the last token, whether the prompt is being computed.
    tokens = prompt.copy()
    computed = np.zeros(n_requests, np.int64)
    held = np.zeros(n_requests, np.int64)
    scheduled = np.zeros(n_requests, np.int64)
    token_s = np.zeros(n_requests)
    finished_in = np.full(n_requests, -1, np.int64)
    in_prefill = np.zeros(n_requests, np.bool_)
    sampled_in = np.full(n_requests, -2, np.int64)
    if shared is None:
        pool = block_pool.new_pool(adapter[:0], prompt[:0], prompt[:0], 0, block_size)
    else:
        pool = block_pool.new_pool(adapter, prompt + output, shared, free, block_size)

    running = np.empty(max_seqs, np.int64)
    n_running = 0
    waiting_after = np.full(n_requests + 1, n_requests, np.int64)
    waiting_before = np.full(n_requests + 1, n_requests, np.int64)
    n_waiting = 0

    # Per adapter: running requests that still get tokens, whether it is in this step, in which tier it is, and when
    # its last running request left. At the start the first adapters are on the host, the very first the oldest there.
    running_of = np.zeros(n_adapters, np.int64)
    latest_step = np.full(n_adapters, -1, np.int64)
    counted = np.zeros(n_adapters, np.bool_)
    on_gpu = np.zeros(n_adapters, np.bool_)
    on_host = np.arange(n_adapters) < limits[engine.HOST_SLOTS]
    left_at = np.arange(n_adapters)
    departures = n_adapters

    now = 0.0
    free_s = 0.0
    upcoming = 0
    kv_tokens = 0
    next_sample_s = 0.0
    n_unfinished = limits[engine.JUDGED]
    window_is_over = False
    totals_of_window, itl_counts_of_window = totals, itl_counts

    while True:
        if n_running == 0 and n_waiting == 0:
            if upcoming == n_requests:
                break
            now = max(now, arrival_s[upcoming])
        start = max(now, free_s)
        if start >= duration_s:
            if not window_is_over and horizon_s > duration_s:
                window_is_over = True
                totals[engine.END_S] = start
                totals_of_window = totals.copy()
                itl_counts_of_window = itl_counts.copy()
                events = events[:0]
                samples = samples[:0]
            if start >= horizon_s or n_unfinished == 0:
                break

        while upcoming < n_requests and arrival_s[upcoming] <= now:
            if limits[engine.OPEN_CAP] > 0 and n_running + n_waiting >= limits[engine.OPEN_CAP]:
                totals[engine.DROPPED] += 1
                first_token_s[upcoming] = finish_s[upcoming] = -1.0
                if upcoming < limits[engine.JUDGED]:
                    n_unfinished -= 1
            else:
                list_append(waiting_after, waiting_before, upcoming)
                n_waiting += 1
            upcoming += 1

        step = int(totals[engine.STEPS])
        budget = limits[engine.TOKEN_BUDGET]
        longest = limits[engine.LONG_PREFILL] if n_running + n_waiting > 1 else 0
        n_preempted = 0
        n_passing = 0
        n_scheduled = 0
        n_active = 0
        decoded = 0
        prefilled = 0

        # Running requests, in the order of their admission.
        position = 0
        while position < n_running and budget > 0:
            i = running[position]
            if finished_in[i] >= 0:
                position += 1
                continue
            new = tokens[i] - computed[i]
            if 0 < longest < new:
                new = longest
            new = min(new, budget)
            need = _blocks(computed[i] + new, block_size) - held[i]
            fits = True
            while need > free:
                n_running -= 1
                victim = running[n_running]
                n_preempted += 1
                totals[engine.PREEMPTIONS] += 1
                _log(events, totals, engine.PREEMPT, victim, 0)
                if shared is not None:
                    free += block_pool.release(pool, victim, held[victim])
                else:
                    free += held[victim]
                held[victim] = 0
                if finished_in[victim] >= 0:
                    # Its last token is on its way: it leaves the queue before the next step.
                    n_passing += 1
                    continue
                kv_tokens -= computed[victim]
                computed[victim] = 0
                list_prepend(waiting_after, waiting_before, victim)
                n_waiting += 1
                a = adapter[victim]
                running_of[a] -= 1
                if running_of[a] == 0:
                    left_at[a] = departures
                    departures += 1
                if victim == i:
                    fits = False
                    break
            if not fits:
                break
            if shared is not None:
                # What is on its way is not known yet.
                known = tokens[i] - (1 if asynchronous and sampled_in[i] == step - 1 else 0)
                block_pool.take(pool, i, held[i], need)
                block_pool.remember(pool, i, min(computed[i] + new, known), block_size)
            free -= need
            held[i] += need
            scheduled[i] = new
            budget -= new
            n_scheduled += 1
            if latest_step[adapter[i]] != step:
                latest_step[adapter[i]] = step
                n_active += 1
            position += 1
        counted[:] = False
        for position in range(n_running):
            i = running[position]
            if finished_in[i] < 0 or limits[engine.COUNT_RUNNING]:
                counted[adapter[i]] = True
            if in_prefill[i]:
                prefilled += scheduled[i]
                _log(events, totals, engine.CHUNK, i, scheduled[i])
            else:
                decoded += scheduled[i]

        # Waiting requests, first come first served, over the heads of those whose adapter finds no slot.
        load_time = 0.0
        n_loads = 0
        n_skipped = 0
        i = waiting_after[n_requests]
        while n_preempted == 0 and budget > 0 and i != n_requests and n_running < max_seqs:
            following = waiting_after[i]
            a = adapter[i]
            if not counted[a] and np.sum(counted) == max_loras:
                n_skipped += 1
                i = following
                continue
            found = 0
            spare = free - (limits[engine.WATERMARK] if n_running > 0 else 0)
            if shared is not None:
                found = block_pool.cached_blocks(pool, i, tokens[i], block_size)
                spare -= block_pool.free_among(pool, i, found)
            new = tokens[i] - found * block_size
            if 0 < longest < new:
                new = longest
            new = min(new, budget)
            if limits[engine.RESERVE_FULL] and _blocks(tokens[i], block_size) - found > spare:
                break
            need = _blocks(found * block_size + new, block_size) - found
            if need > spare:
                break
            if shared is not None:
                free -= block_pool.touch(pool, i, found)
                block_pool.take(pool, i, found, need)
                block_pool.remember(pool, i, found * block_size + new, block_size)
            free -= need
            held[i] = found + need
            computed[i] = found * block_size
            kv_tokens += computed[i]
            scheduled[i] = new
            in_prefill[i] = True
            budget -= new
            prefilled += new
            n_scheduled += 1
            list_remove(waiting_after, waiting_before, i)
            n_waiting -= 1
            running[n_running] = i
            n_running += 1
            _log(events, totals, engine.ADMIT, i, new)
            counted[a] = True
            if latest_step[a] != step:
                latest_step[a] = step
                n_active += 1
            running_of[a] += 1
            if running_of[a] == 1:
                if not on_host[a]:
                    totals[engine.DISK_LOADS] += 1
                    load_time += disk_s[a]
                    if np.sum(on_host) == limits[engine.HOST_SLOTS]:
                        oldest = _least_recently_used(on_host, running_of, left_at)
                        on_host[oldest] = False
                        on_gpu[oldest] = False
                    on_host[a] = True
                if not on_gpu[a]:
                    n_loads += 1
                    load_time += load_s[a]
                    if np.sum(on_gpu) == max_loras:
                        on_gpu[_least_recently_used(on_gpu, running_of, left_at)] = False
                    on_gpu[a] = True
            i = following
        if i != n_requests or budget == 0 or n_running == max_seqs:
            # Only a scan of the whole queue counts as skipping: the fast engine knows no other.
            n_skipped = 0

        if n_scheduled > 0 or n_preempted > 0:
            n_tokens = decoded + prefilled
            kv_tokens += n_tokens
            n_queued = n_waiting + n_passing
            paid = min(n_active, limits[engine.PRICED])
            seconds = step_seconds(step_s, n_scheduled, paid, n_tokens, kv_tokens, n_loads, limits[engine.EAGER_ABOVE])
            seconds = max(min_step_s, seconds)
            scheduling = max(
                0.0,
                scheduler_s[0] + scheduler_s[1] * n_running + scheduler_s[2] * n_skipped + scheduler_s[3] * n_queued,
            )
            seconds = (max(seconds, scheduling) if asynchronous else seconds + scheduling) + load_time
            if start >= next_sample_s and totals[engine.N_SAMPLES] < len(samples):
                row = samples[int(totals[engine.N_SAMPLES])]
                row[engine.SAMPLE_START], row[engine.SAMPLE_SECONDS], row[engine.SAMPLE_DECIDED] = start, seconds, now
                row[engine.SAMPLE_RUNNING], row[engine.SAMPLE_WAITING] = n_running, n_queued
                row[engine.SAMPLE_BLOCKS], row[engine.SAMPLE_KV] = limits[engine.BLOCKS] - free, kv_tokens
                row[engine.SAMPLE_ADAPTERS], row[engine.SAMPLE_TOKENS], row[engine.SAMPLE_SKIPPED] = (
                    n_active,
                    n_tokens,
                    n_skipped,
                )
                row[engine.SAMPLE_LOADS], row[engine.SAMPLE_LOAD_S] = n_loads, load_time
                totals[engine.N_SAMPLES] += 1
                if sample_every_s > 0:
                    next_sample_s = (math.floor(start / sample_every_s) + 1) * sample_every_s
            totals[engine.BUSY_S] += seconds
            totals[engine.RUNNING_S] += seconds * n_running
            totals[engine.WAITING_S] += seconds * n_queued
            totals[engine.ADAPTERS_S] += seconds * n_active
            totals[engine.KV_TOKENS_S] += seconds * kv_tokens
            totals[engine.PREFILL_TOKENS] += prefilled
            totals[engine.LOADS] += n_loads
            totals[engine.LOAD_S] += load_time
            totals[engine.SCHEDULER_S] += scheduling
            totals[engine.MAX_WAITING] = max(totals[engine.MAX_WAITING], n_queued)
            totals[engine.MAX_RUNNING] = max(totals[engine.MAX_RUNNING], n_running)
            free_s = start + seconds
            now = start if asynchronous else free_s

            # Tokens come out at the end of the step.
            for position in range(n_running):
                i = running[position]
                computed[i] += scheduled[i]
                if scheduled[i] == 0 or computed[i] < tokens[i]:
                    scheduled[i] = 0
                    continue
                scheduled[i] = 0
                in_prefill[i] = False
                if tokens[i] == prompt[i]:
                    first_token_s[i] = free_s
                else:
                    itl_counts[itl_bin(seconds if token_s[i] == start else free_s - token_s[i])] += 1
                token_s[i] = free_s
                sampled_in[i] = step
                tokens[i] += 1
                if tokens[i] == prompt[i] + output[i]:
                    finish_s[i] = free_s
                    if i < limits[engine.JUDGED]:
                        n_unfinished -= 1
                    finished_in[i] = step
                    kv_tokens -= computed[i]
                    a = adapter[i]
                    running_of[a] -= 1
                    if running_of[a] == 0:
                        left_at[a] = departures
                        departures += 1
                    _log(events, totals, engine.FINISH, i, 0)
            totals[engine.STEPS] += 1
        elif n_running > 0:
            # Nothing to run until the tokens on their way have come.
            now = start
        else:
            totals[engine.STALLED] = 1
            break

        # The scheduler learns of last tokens at the end of their step; with asynchronous scheduling it has decided
        # the next step by then.
        n_kept = 0
        for position in range(n_running):
            i = running[position]
            if shared is not None and not in_prefill[i]:
                block_pool.remember(
                    pool, i, tokens[i] - (2 if asynchronous and sampled_in[i] == step else 1), block_size
                )
            if 0 <= finished_in[i] <= (step - 1 if asynchronous else step):
                if shared is not None:
                    free += block_pool.release(pool, i, held[i])
                else:
                    free += held[i]
            else:
                running[n_kept] = i
                n_kept += 1
        n_running = n_kept

    if window_is_over:
        itl_counts[:] = itl_counts_of_window
        return totals_of_window
    totals[engine.END_S] = max(now, free_s)
    return totals
