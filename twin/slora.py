"""The compiled event loop of one S-LoRA GPU (LightLLM's loop): steps that prefill a mini batch, or decode for all who run.

What it does was read off S-LoRA's `slora/server/router` (arXiv 2311.03285): a running batch decodes `WAIT_STEPS` steps after each
admission, then tries to admit before every step; whoever waits is admitted first come first served while the pool of memory holds
everybody to the end of their outputs, adapters included. Prefill and decode do not mix, nobody is preempted. An adapter is in
the pool as long as a running request uses it.

All requests that run get a token in each decode step, so that they stay in the order of their ends: the check of the pool is
one pass over them.
"""

from __future__ import annotations

import math

import numpy as np

from twin.compiled import njit
from twin.engine import (
    ADAPTERS_S,
    BLOCKS,
    BUSY_S,
    DROPPED,
    END_S,
    JUDGED,
    KV_TOKENS_S,
    LOAD_S,
    LOADS,
    MAX_RUNNING,
    MAX_SEQS,
    MAX_WAITING,
    N_SAMPLES,
    N_TOTALS,
    OPEN_CAP,
    PREFILL_TOKENS,
    RUNNING_S,
    SAMPLE_ADAPTERS,
    SAMPLE_BLOCKS,
    SAMPLE_DECIDED,
    SAMPLE_KV,
    SAMPLE_LOAD_S,
    SAMPLE_LOADS,
    SAMPLE_RUNNING,
    SAMPLE_SECONDS,
    SAMPLE_START,
    SAMPLE_TOKENS,
    SAMPLE_WAITING,
    STALLED,
    STEPS,
    TOKEN_BUDGET,
    WAITING_S,
    Floats,
    itl_bin,
    step_seconds,
)
from twin.queues import Ints

#: A running batch decodes so many steps after an admission before it tries the next one (`max_wait_tokens`).
WAIT_STEPS = 10
#: With nobody to serve the loop sleeps so long between two looks at the queue, in seconds.
SLEEP_S = 0.01
#: KV-cache tokens of the pool that an adapter takes for each of its rank: four projections of the model's width.
TOKENS_PER_RANK = 4


@njit(cache=True, nogil=True)
def fits(  # noqa: PLR0913  # the running requests, one more, and the pool
    order: Ints, n_running: int, sequence: Ints, last_step: Ints, step: int, length: int, left: int, room: int
) -> bool:
    """Whether the pool holds all who run, and one more of `length` tokens with `left` to come, until their ends.

    Parameters
    ----------
    order : array of int
        Running requests, those that end last first.
    sequence, last_step : arrays of shape (n_requests,)
        At step s a request holds `sequence + s` tokens, and its last one comes at the end of `last_step`.
    room : int
        Tokens of the pool that no adapter takes.
    """
    total, placed, count = 0, False, 0
    for k in range(n_running + 1):
        mine = -1 if k == n_running else order[k]
        own_left = -1 if mine < 0 else last_step[mine] - step - 1
        if not placed and own_left < left:
            placed = True
            total += length
            count += 1
            if left * count + total >= room:
                return False
        if mine >= 0:
            total += sequence[mine] + step
            count += 1
            if own_left * count + total >= room:
                return False
    return True


@njit(cache=True, nogil=True)
def run_slora(  # noqa: C901, PLR0912, PLR0913, PLR0915  # takes what `run_engine` takes; one loop, one state
    arrival_s: Floats,
    adapter: Ints,
    prompt: Ints,
    output: Ints,
    n_adapters: int,
    load_s: Floats,
    adapter_tokens: Ints,
    step_s: Floats,
    min_step_s: float,
    limits: Ints,
    duration_s: float,
    horizon_s: float,
    first_token_s: Floats,
    finish_s: Floats,
    itl_counts: Ints,
    samples: Floats,
    sample_every_s: float,
) -> Floats:
    """Simulate one GPU; parameters and result are those of `twin.engine.run_engine`, but for these.

    Parameters
    ----------
    adapter_tokens : array of shape (n_adapters,)
        What each adapter takes of the pool.
    step_s
        The terms of a step above CUDA graphs, of which there are none, are those of a step that prefills.
    limits
        The pool has a token more than `limits[BLOCKS]`; `limits[TOKEN_BUDGET]` bounds the prompts of a mini batch.
    """
    n_requests = len(arrival_s)
    pool = limits[BLOCKS] + 1
    totals = np.zeros(N_TOTALS)
    totals_of_window = np.zeros(N_TOTALS)
    counting = len(itl_counts) > 0
    itl_counts_of_window = np.zeros(len(itl_counts), np.int64)
    sequence = np.zeros(n_requests, np.int64)
    last_step = np.zeros(n_requests, np.int64)
    order = np.empty(limits[MAX_SEQS] + 1, np.int64)
    new = np.empty(limits[MAX_SEQS] + 1, np.int64)
    in_use = np.zeros(n_adapters, np.int64)
    batch_of = np.full(n_adapters, -1, np.int64)
    # Decode steps done; `sequence` and `last_step` count in them.
    step, steps, waited = 0, 0, WAIT_STEPS
    n_running, n_active, used_by_adapters, kv_tokens = 0, 0, 0, 0
    head, upcoming, n_waiting = 0, 0, 0
    # Those who were there at the last decode step got their last token then, the others at the end of the prefill.
    n_old, old_token_s, new_token_s = 0, 0.0, 0.0
    now, idle_since_s, next_sample_s = 0.0, 0.0, 0.0
    n_samples, sample_room = 0, len(samples)
    n_unfinished = limits[JUDGED]
    window_is_over = False

    while True:
        if n_running == 0 and n_waiting == 0:
            if upcoming == n_requests:
                break
            if arrival_s[upcoming] > now:
                looks = math.ceil((arrival_s[upcoming] - idle_since_s) / SLEEP_S)
                now = max(arrival_s[upcoming], idle_since_s + looks * SLEEP_S)
        if now >= duration_s:
            if not window_is_over and horizon_s > duration_s:
                window_is_over = True
                totals[STEPS] = steps
                totals[END_S] = now
                totals[N_SAMPLES] = n_samples
                totals_of_window[:] = totals
                itl_counts_of_window[:] = itl_counts
                sample_room = 0
            if now >= horizon_s or n_unfinished == 0:
                break
        while upcoming < n_requests and arrival_s[upcoming] <= now:
            if limits[OPEN_CAP] > 0 and n_running + n_waiting >= limits[OPEN_CAP]:
                totals[DROPPED] += 1
                first_token_s[upcoming] = -1.0
                finish_s[upcoming] = -1.0
                if upcoming < limits[JUDGED]:
                    n_unfinished -= 1
            else:
                n_waiting += 1
            upcoming += 1

        # A mini batch, first come first served.
        n_new, n_new_adapters, prefill_tokens, loads, load_time = 0, 0, 0, 0, 0.0
        if waited >= WAIT_STEPS or n_running == 0:
            while n_waiting > 0 and n_running + n_new < limits[MAX_SEQS]:
                while finish_s[head] == -1.0:
                    head += 1
                a = adapter[head]
                more = adapter_tokens[a] if in_use[a] == 0 else 0
                room = pool - used_by_adapters - more
                if prefill_tokens + prompt[head] > limits[TOKEN_BUDGET]:
                    break
                left = output[head] - 1
                if not fits(order, n_running + n_new, sequence, last_step, step, prompt[head] + 1, left, room):
                    break
                # In its place already, since the next one is checked beside it.
                place = n_running + n_new
                last_step[head] = step + left + 1
                sequence[head] = prompt[head] + 1 - step
                while place > 0 and last_step[order[place - 1]] < last_step[head]:
                    order[place] = order[place - 1]
                    place -= 1
                order[place] = head
                if in_use[a] == 0:
                    n_active += 1
                    used_by_adapters += more
                    loads += 1
                    load_time += load_s[a]
                in_use[a] += 1
                if batch_of[a] != steps:
                    batch_of[a] = steps
                    n_new_adapters += 1
                new[n_new] = head
                n_new += 1
                prefill_tokens += prompt[head]
                n_waiting -= 1
                head += 1
        if n_running == 0 and n_new == 0:
            # The first in the queue does not fit into an empty pool.
            totals[STALLED] = 1
            break

        if n_new > 0:
            n_running += n_new
            kv_tokens += prefill_tokens
            seconds = step_seconds(step_s, n_new, n_new_adapters, prefill_tokens, prefill_tokens, loads, 0)
            tokens = prefill_tokens
        else:
            kv_tokens += n_running
            tokens = n_running
            seconds = step_seconds(step_s, n_running, n_active, n_running, kv_tokens, 0, n_running)
        seconds = max(min_step_s, seconds) + load_time
        if now >= next_sample_s and n_samples < sample_room:
            samples[n_samples, SAMPLE_START] = now
            samples[n_samples, SAMPLE_SECONDS] = seconds
            samples[n_samples, SAMPLE_RUNNING] = n_running
            samples[n_samples, SAMPLE_WAITING] = n_waiting
            samples[n_samples, SAMPLE_BLOCKS] = kv_tokens + used_by_adapters
            samples[n_samples, SAMPLE_ADAPTERS] = n_active
            samples[n_samples, SAMPLE_TOKENS] = tokens
            samples[n_samples, SAMPLE_LOADS] = loads
            samples[n_samples, SAMPLE_LOAD_S] = load_time
            samples[n_samples, SAMPLE_KV] = kv_tokens
            samples[n_samples, SAMPLE_DECIDED] = now
            n_samples += 1
            if sample_every_s > 0:
                next_sample_s = (math.floor(now / sample_every_s) + 1) * sample_every_s
        totals[BUSY_S] += seconds
        totals[RUNNING_S] += seconds * n_running
        totals[WAITING_S] += seconds * n_waiting
        totals[ADAPTERS_S] += seconds * n_active
        totals[KV_TOKENS_S] += seconds * kv_tokens
        totals[PREFILL_TOKENS] += prefill_tokens
        totals[LOADS] += loads
        totals[LOAD_S] += load_time
        totals[MAX_WAITING] = max(totals[MAX_WAITING], n_waiting)
        totals[MAX_RUNNING] = max(totals[MAX_RUNNING], n_running)
        now += seconds
        steps += 1
        if n_new > 0:
            waited = 0
            n_old = n_running - n_new
            new_token_s = now
            for k in range(n_new):
                # Beside those who run already, S-LoRA counts a token more to come of one who is admitted.
                last_step[new[k]] -= 1
                first_token_s[new[k]] = now
        else:
            waited += 1
            if counting:
                if n_old > 0:
                    itl_counts[itl_bin(now - old_token_s)] += n_old
                if n_running > n_old:
                    itl_counts[itl_bin(now - new_token_s)] += n_running - n_old
            old_token_s = now
            n_old = n_running
            step += 1
        # Those who have all their tokens leave, the adapters that nobody uses any more with them.
        while n_running > 0 and last_step[order[n_running - 1]] <= step:
            n_running -= 1
            done = order[n_running]
            finish_s[done] = now
            n_old = min(n_old, n_running)
            kv_tokens -= prompt[done] + output[done] - 1
            if done < limits[JUDGED]:
                n_unfinished -= 1
            a = adapter[done]
            in_use[a] -= 1
            if in_use[a] == 0:
                n_active -= 1
                used_by_adapters -= adapter_tokens[a]
        if n_running == 0:
            idle_since_s = now

    if window_is_over:
        itl_counts[:] = itl_counts_of_window
        return totals_of_window
    totals[STEPS] = steps
    totals[END_S] = now
    totals[N_SAMPLES] = n_samples
    return totals
