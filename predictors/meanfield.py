"""A queueing estimate of one GPU, in closed form up to a fixed point: what the learned models start from.

By Little's law a GPU that takes `rate` requests per second and makes `output` tokens of each, one per
step, runs `B = rate * output * step` requests at a time; the step time in turn depends on `B`, on the
distinct adapters among them and on the prompt tokens that come in (the step-time model of the serving
profile). Two fixed points of this are useful: the *light* one at the offered rate, and the *saturated*
one, at the largest batch that the KV cache holds, whose rate is the GPU's capacity. The trees only
have to learn where the twin departs from them, which takes far fewer of them than learning the whole.

With more adapters than slots, adapters are loaded again and again. An idle adapter keeps its slot until the
least-recently-used order takes it away; in Che's approximation of such a cache (2002) that is after a fixed time,
here the time `t` at which the expected number of adapters active within `t` fills the slots, and the load rate is the
slope of that number at `t`. If the adapters in service alone fill the slots, the others wait for a turn.

Everything here grows (or does not change) when an adapter joins the GPU: each step of the iterations
is monotone in the sums of the content, and over ranks the worst of all ranks up to the largest present is
taken. Trees that are monotone in these inputs therefore accept every subset of what they accept.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from predictors.features import (
    ACTIVE,
    FIRST_SERVICE_S,
    HELD,
    MAX_LORAS,
    N_CLASSES,
    N_SERVICE_TIMES,
    OUTPUT,
    PROMPT,
    RANK_CLASSES,
    RATE,
    REQUESTED,
    SERVICE_TIMES_S,
    WINDOW,
)

from twin.engine import (
    PER_ADAPTER,
    PER_EAGER_STEP,
    PER_EAGER_TOKEN,
    PER_KV_TOKEN,
    PER_LOAD,
    PER_LOAD_ADAPTER,
    PER_RUNNING,
    PER_STEP,
    PER_TOKEN,
    PER_TOKEN_ADAPTER,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from twin import ServingProfile

# Columns of a profile table: the step coefficients of `ServingProfile.step_coefficients` in seconds (places as in
# `twin.engine`), then the KV cache in tokens and the load time of an adapter in seconds.
N_STEP_COLUMNS = 10
KV_TOKENS, LOAD = N_STEP_COLUMNS, N_STEP_COLUMNS + 1
N_COLUMNS = N_STEP_COLUMNS + 2

# Places in the flags of a profile table.
SCHEDULER, SCHEDULER_RUNNING, TOKEN_BUDGET, MAX_SEQS, EAGER_ABOVE, MIN_STEP, FIRST_CLASS = range(7)
N_FLAGS = 7

#: What the trees split on, and how each may move a starvation probability: +1 for inputs that grow and
#: -1 for inputs that shrink when an adapter joins, 0 for inputs that the adapters do not change.
INPUTS = (
    ("load", 1),
    ("load_over_servable", 1),
    ("batch_fill", 1),
    ("active_per_slot", 1),
    ("hot_per_slot", 1),
    ("warm_per_slot", 1),
    ("adapters_per_slot", 1),
    ("service_over_window", 1),
    ("slot_wait_over_window", 1),
    ("load_stall", 1),
    ("adapters", 1),
    ("sum_rate", 1),
    ("max_lora_rank", 1),
    ("largest_batch", -1),
    ("max_loras", 0),
    ("mean_prompt_tokens", 0),
    ("mean_output_tokens", 0),
    ("servable_share", 0),
    ("window_s", 0),
)
INPUT_NAMES = tuple(name for name, _ in INPUTS)
MONOTONE = tuple(sign for _, sign in INPUTS)
N_INPUTS = len(INPUTS)
LOAD_INPUT, SERVABLE_INPUT = INPUT_NAMES.index("load"), INPUT_NAMES.index("servable_share")

ITERATIONS = 6


def profile_table(profile: ServingProfile) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the estimate needs of a serving profile, as arrays.

    Returns
    -------
    table : array of shape (N_CLASSES, largest max_loras + 1, N_COLUMNS)
        By rank class and `max_loras`; a KV cache of 0 tokens is a memory error.
    flags : array of shape (N_FLAGS,)
    """
    table = np.zeros((N_CLASSES, profile.kv.max_loras[-1] + 1, N_COLUMNS))
    known = [rank for rank in RANK_CLASSES if rank <= profile.ranks[-1]]
    for place, rank in enumerate(known):
        server = profile.server_rank(rank)
        load_ms = max(profile.load_time_ms(server, own) for own in profile.ranks if own <= server)
        for max_loras in range(1, table.shape[1]):
            table[place, max_loras, :N_STEP_COLUMNS] = profile.step_coefficients(max_loras, rank) / 1000
            table[place, max_loras, KV_TOKENS] = profile.kv_tokens(max_loras, rank)
            table[place, max_loras, LOAD] = load_ms / 1000
    flags = np.array(
        [
            profile.scheduler_ms[0] / 1000,
            profile.scheduler_ms[1] / 1000,
            profile.max_num_batched_tokens,
            profile.max_num_seqs,
            profile.eager_above_tokens,
            profile.min_step_ms / 1000,
            # Classes below the smallest known rank have its rows.
            sum(rank < profile.ranks[0] for rank in RANK_CLASSES),
        ]
    )
    return table, flags


@njit(cache=True, nogil=True, inline="always")
def expected_active(content: NDArray[np.float64], service_s: float) -> float:
    """Expected distinct adapters with a request in service for a mean time in service, interpolated."""
    relative = service_s / FIRST_SERVICE_S
    if relative <= 1.0:
        return content[ACTIVE] * relative
    place = int(2.0 * math.log2(relative))
    if place >= N_SERVICE_TIMES - 1:
        return content[ACTIVE + N_SERVICE_TIMES - 1]
    share = (service_s - SERVICE_TIMES_S[place]) / (SERVICE_TIMES_S[place + 1] - SERVICE_TIMES_S[place])
    return content[ACTIVE + place] * (1.0 - share) + content[ACTIVE + place + 1] * share


@njit(cache=True, nogil=True, inline="always")
def load_rate(content: NDArray[np.float64], max_loras: int) -> float:
    """Adapter loads per second while the slots suffice: the slope of the expected activity where it fills them."""
    before, before_s = 0.0, 0.0
    for place in range(N_SERVICE_TIMES):
        active = content[ACTIVE + place]
        if active > max_loras:
            return (active - before) / (SERVICE_TIMES_S[place] - before_s)
        before, before_s = active, SERVICE_TIMES_S[place]
    return 0.0


@njit(cache=True, nogil=True, inline="always")
def slot_wait(content: NDArray[np.float64], max_loras: int, service_s: float) -> float:
    """How long an idle adapter's first request waits for a slot, in seconds.

    In the time `turn` between two turns of an adapter, `expected_active(turn)` adapters have had one, each
    for a service: `expected_active(turn) * service = max_loras * turn`. The wait is the turn less the service.
    """
    before, before_s = 0.0, 0.0
    turn_s = 0.0
    for place in range(N_SERVICE_TIMES):
        active, active_s = content[ACTIVE + place], SERVICE_TIMES_S[place]
        # The turn is the last time up to which demand (active * service) exceeds supply (slots * time).
        surplus = active * service_s - max_loras * active_s
        if surplus <= 0.0:
            surplus_before = before * service_s - max_loras * before_s
            if surplus_before > 0.0:
                turn_s = before_s + (active_s - before_s) * surplus_before / (surplus_before - surplus)
            break
        before, before_s = active, active_s
        turn_s = active * service_s / max_loras
    return max(0.0, turn_s - service_s)


@njit(cache=True, nogil=True)
def model_inputs(  # noqa: PLR0915  # one formula after the other
    content: NDArray[np.float64],
    table: NDArray[np.float64],
    flags: NDArray[np.float64],
    inputs: NDArray[np.float32],
) -> int:
    """Fill in what the trees split on.

    Parameters
    ----------
    content : array of shape (N_FEATURES,)
        From `content_features`, or kept up to date by adding and subtracting contributions.
    table, flags : arrays
        From `profile_table`.
    inputs : array of shape (N_INPUTS,), float32, filled in

    Returns
    -------
    int
        0; or 1 if nothing is asked of the GPU (it serves all of it); or 2 if the engine would not start.
    """
    n_adapters = 0.0
    top = -1
    for place in range(N_CLASSES):
        n_adapters += content[place]
        # Sums that adapters left again may be off by a rounding error, counts are whole.
        if content[place] > 0.5:
            top = place
    rate = content[RATE]
    max_loras = int(content[MAX_LORAS])
    if top >= 0 and (
        max_loras < 1 or max_loras >= table.shape[1] or table[top, max_loras, KV_TOKENS] <= 0.0
    ):
        return 2
    if top < 0 or rate <= 1e-12:
        return 1
    prompt, output, held = content[PROMPT], content[OUTPUT], content[HELD]
    budget_batch = flags[TOKEN_BUDGET] / (1.0 + prompt / output)
    loads = load_rate(content, max_loras)
    # A slot changes hands once in a service at most, so in one of `output` steps.
    most_loads = max_loras / output
    load = 0.0
    fill = 0.0
    service_s = 0.0
    stall = 0.0
    largest = math.inf
    for place in range(min(top, int(flags[FIRST_CLASS])), top + 1):
        row = table[place, max_loras]
        batch = max(1.0, min(min(flags[MAX_SEQS], budget_batch), row[KV_TOKENS] / held))
        tokens = 1.0 + prompt / output
        constant = row[PER_STEP] + flags[SCHEDULER]
        per_request = (
            row[PER_RUNNING] + flags[SCHEDULER_RUNNING] + row[PER_TOKEN] * tokens + row[PER_KV_TOKEN] * held
        )
        per_adapter = row[PER_ADAPTER]
        per_load = row[LOAD] + row[PER_LOAD]
        per_pair = row[PER_TOKEN_ADAPTER] * tokens
        beyond = batch * tokens - flags[EAGER_ABOVE]
        eager = row[PER_EAGER_STEP] + row[PER_EAGER_TOKEN] * beyond if beyond > 0.0 else 0.0
        step = flags[MIN_STEP]
        for _ in range(ITERATIONS):
            active = min(float(max_loras), expected_active(content, output * step))
            loaded = min(loads * step, most_loads)
            step = max(
                flags[MIN_STEP],
                constant
                + eager
                + per_request * batch
                + (per_adapter + per_pair * batch) * active
                + (per_load + row[PER_LOAD_ADAPTER] * active) * loaded,
            )
        load = max(load, rate * output * step / batch)
        step = flags[MIN_STEP]
        running = 0.0
        for _ in range(ITERATIONS):
            running = min(batch, rate * output * step)
            active = min(float(max_loras), expected_active(content, output * step))
            loaded = min(loads * step, most_loads)
            step = max(
                flags[MIN_STEP],
                constant
                + per_request * running
                + (per_adapter + per_pair * running) * active
                + (per_load + row[PER_LOAD_ADAPTER] * active) * loaded,
            )
        stall = max(stall, loads * (per_load + row[PER_LOAD_ADAPTER] * active))
        fill = max(fill, running / batch)
        service_s = max(service_s, output * step)
        largest = min(largest, batch)
    servable = (prompt + output) / (prompt + content[REQUESTED])
    inputs[0] = load
    inputs[1] = load / servable
    inputs[2] = fill
    inputs[3] = expected_active(content, service_s) / max_loras
    inputs[4] = expected_active(content, service_s / 4.0) / max_loras
    inputs[5] = expected_active(content, service_s * 4.0) / max_loras
    inputs[6] = n_adapters / max_loras
    inputs[7] = service_s / content[WINDOW]
    inputs[8] = slot_wait(content, max_loras, service_s) / content[WINDOW]
    inputs[9] = stall
    inputs[10] = n_adapters
    inputs[11] = rate
    inputs[12] = RANK_CLASSES[top]
    inputs[13] = largest
    inputs[14] = max_loras
    inputs[15] = prompt
    inputs[16] = output
    inputs[17] = servable
    inputs[18] = content[WINDOW]
    return 0


@njit(cache=True, nogil=True)
def model_inputs_batch(
    contents: NDArray[np.float64],
    table: NDArray[np.float64],
    flags: NDArray[np.float64],
    inputs: NDArray[np.float32],
    state: NDArray[np.int64],
) -> None:
    """`model_inputs` of each row of `contents`, shape (n, N_FEATURES), into `inputs` and `state`."""
    for i in range(len(contents)):
        state[i] = model_inputs(contents[i], table, flags, inputs[i])


@njit(cache=True, nogil=True, inline="always")
def estimated_share(inputs: NDArray[np.float32]) -> float:
    """Throughput over offered throughput as the estimate has it, before the trees correct it."""
    return inputs[SERVABLE_INPUT] / max(1.0, inputs[LOAD_INPUT])
