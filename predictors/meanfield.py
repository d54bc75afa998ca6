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
from twin import INTERACTIVE
from twin.compiled import njit
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

#: What the trees of starvation, throughput, mean latency and feasible load split on, and how each may move a starvation probability:
#: +1 for inputs that grow and -1 for inputs that shrink when an adapter joins, 0 for inputs that the adapters do not change.
STARVATION_INPUTS = (
    ("load", 1),
    ("load_over_servable", 1),
    ("load_of_full_batch", 1),
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
#: What those of service levels and percentiles (`predictors.levels`) see besides, likewise: the estimated time of a step, that of
#: a step with the batch full, from arrival to the first token on an idle GPU, the wait for a slot, and how many adapters are
#: expected to have requests enough to be judged by themselves.
LEVEL_INPUTS = (
    ("step_ms", 1), ("full_step_ms", 1), ("first_token_ms", 1), ("slot_wait_ms", 1), ("judged_alone", 1),
)  # fmt: skip
#: All of them; the first are those of starvation.
INPUTS = STARVATION_INPUTS + LEVEL_INPUTS
INPUT_NAMES = tuple(name for name, _ in INPUTS)
N_STARVATION_INPUTS = len(STARVATION_INPUTS)
MONOTONE = tuple(sign for _, sign in INPUTS)
N_INPUTS = len(INPUTS)
#: Share of the window in which an adapter with just enough requests to be judged by itself has one.
JUDGED_SHARE = (1.0 - INTERACTIVE.warm_up) / INTERACTIVE.least_judged
LOAD_INPUT, SERVABLE_INPUT = INPUT_NAMES.index("load"), INPUT_NAMES.index("servable_share")
SERVICE_INPUT = INPUT_NAMES.index("service_over_window")


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
        return float(content[ACTIVE] * relative)
    place = int(2.0 * math.log2(relative))
    if place >= N_SERVICE_TIMES - 1:
        return float(content[ACTIVE + N_SERVICE_TIMES - 1])
    share = (service_s - SERVICE_TIMES_S[place]) / (SERVICE_TIMES_S[place + 1] - SERVICE_TIMES_S[place])
    return float(content[ACTIVE + place] * (1.0 - share) + content[ACTIVE + place + 1] * share)


@njit(cache=True, nogil=True, inline="always")
def load_rate(content: NDArray[np.float64], max_loras: int) -> float:
    """Adapter loads per second while the slots suffice: the slope of the expected activity where it fills them."""
    before, before_s = 0.0, 0.0
    for place in range(N_SERVICE_TIMES):
        active = content[ACTIVE + place]
        if active > max_loras:
            return float((active - before) / (SERVICE_TIMES_S[place] - before_s))
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
def settle(  # noqa: C901  # one pass over the grid
    content: NDArray[np.float64],
    row: NDArray[np.float64],
    flags: NDArray[np.float64],
    batch: float,
    loads: float,
) -> tuple[float, float, float]:
    """Load and step time of a content at one rank.

    Parameters
    ----------
    content : array of shape (N_FEATURES,)
    row : array of shape (N_COLUMNS,)
        Of a profile table.
    flags : array of shape (N_FLAGS,)
    batch : float
        The most requests that can run at a time.
    loads : float
        `load_rate`.

    Returns
    -------
    load : float
        Offered rate over the highest rate at which some step time is long enough for what a step has to do.
    load_of_full_batch : float
        Offered rate over the rate that is served with the batch full: what a GPU that fell behind can do.
    step_s : float
        The smallest step time, in seconds, that is long enough at the offered rate.

    Notes
    -----
    All are found on the grid of service times, linearly between its points, and not by iteration: at each point a
    step has more to do with an adapter more, so no answer falls when an adapter joins. Loads get fewer as services
    get longer, which would spoil this for an iteration.
    """
    max_loras = content[MAX_LORAS]
    rate, output = content[RATE], content[OUTPUT]
    tokens = 1.0 + content[PROMPT] / output
    constant = max(flags[MIN_STEP], row[PER_STEP] + flags[SCHEDULER])
    per_request = (
        row[PER_RUNNING] + flags[SCHEDULER_RUNNING] + row[PER_TOKEN] * tokens + row[PER_KV_TOKEN] * content[HELD]
    )
    eager_above = flags[EAGER_ABOVE] / tokens
    capacity = 0.0
    step_s, full_s = -1.0, -1.0
    left_before, running_before, step_before = 0.0, 0.0, constant
    step = 0.0
    for place in range(N_SERVICE_TIMES):
        step = SERVICE_TIMES_S[place] / output
        if step <= constant:
            continue
        following = min(place, N_SERVICE_TIMES - 2)
        starts = (content[ACTIVE + following + 1] - content[ACTIVE + following]) / (
            SERVICE_TIMES_S[following + 1] - SERVICE_TIMES_S[following]
        )
        active = min(max_loras, content[ACTIVE + place])
        # No more loads than adapters that come back, and a slot changes hands once in a service at most.
        loaded = min(loads * step, starts * step, max_loras / output)
        per_load = row[LOAD] + row[PER_LOAD] + row[PER_LOAD_ADAPTER] * active
        spare = step - constant - row[PER_ADAPTER] * active - per_load * loaded
        each = per_request + row[PER_TOKEN_ADAPTER] * tokens * active
        # How many requests can run in this time.
        running = spare / each
        if step_s < 0.0:
            # What is missing for the requests that the offered rate keeps running.
            left = min(batch, rate * output * step) - running
            if left <= 0.0:
                step_s = step
                if left_before > 0.0:
                    step_s = step_before + (step - step_before) * left_before / (left_before - left)
            left_before = left
        if running > eager_above:
            # Beyond the CUDA graphs each request costs more, and all of them do.
            spare -= row[PER_EAGER_STEP] - row[PER_EAGER_TOKEN] * flags[EAGER_ABOVE]
            running = max(eager_above, spare / (each + row[PER_EAGER_TOKEN] * tokens))
        if running >= batch:
            # The batch is full somewhere since the point before: longer steps do not serve more.
            full_s = step_before + (step - step_before) * (batch - running_before) / (running - running_before)
            capacity = max(capacity, batch / (output * full_s))
            break
        if running > 0.0:
            capacity = max(capacity, running / (output * step))
        running_before, step_before = max(0.0, running), step
    if full_s < 0.0:
        full_s = step
    if step_s < 0.0:
        step_s = full_s
    return rate / max(capacity, 1e-9), rate * output * full_s / batch, step_s


@njit(cache=True, nogil=True)
def model_inputs(  # one formula after the other
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
    if top >= 0 and (max_loras < 1 or max_loras >= table.shape[1] or table[top, max_loras, KV_TOKENS] <= 0.0):
        return 2
    if top < 0 or rate <= 1e-12:
        return 1
    prompt, output, held = content[PROMPT], content[OUTPUT], content[HELD]
    budget_batch = flags[TOKEN_BUDGET] / (1.0 + prompt / output)
    loads = load_rate(content, max_loras)
    load = 0.0
    full = 0.0
    fill = 0.0
    service_s = 0.0
    stall = 0.0
    full_step = 0.0
    first_token = 0.0
    largest = math.inf
    for place in range(min(top, int(flags[FIRST_CLASS])), top + 1):
        row = table[place, max_loras]
        batch = max(1.0, min(flags[MAX_SEQS], budget_batch, row[KV_TOKENS] / held))
        at_rank, full_at_rank, step = settle(content, row, flags, batch, loads)
        load = max(load, at_rank)
        full = max(full, full_at_rank)
        fill = max(fill, min(1.0, rate * output * step / batch))
        service_s = max(service_s, output * step)
        active = min(float(max_loras), expected_active(content, output * step))
        stall = max(stall, loads * (row[LOAD] + row[PER_LOAD] + row[PER_LOAD_ADAPTER] * active))
        largest = min(largest, batch)
        full_step = max(full_step, full_at_rank * batch / (rate * output))
        first_token = max(first_token, step + row[PER_TOKEN] * prompt + row[LOAD])
    servable = (prompt + output) / (prompt + content[REQUESTED])
    wait = slot_wait(content, max_loras, service_s)
    values = (
        load,
        load / servable,
        full,
        fill,
        expected_active(content, service_s) / max_loras,
        expected_active(content, service_s / 4.0) / max_loras,
        expected_active(content, service_s * 4.0) / max_loras,
        n_adapters / max_loras,
        service_s / content[WINDOW],
        wait / content[WINDOW],
        stall,
        n_adapters,
        rate,
        float(RANK_CLASSES[top]),
        largest,
        float(max_loras),
        prompt,
        output,
        servable,
        content[WINDOW],
        1000.0 * service_s / output,
        1000.0 * full_step,
        1000.0 * first_token,
        1000.0 * wait,
        expected_active(content, JUDGED_SHARE * content[WINDOW]),
    )
    for place in range(N_INPUTS):
        inputs[place] = values[place]
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
    return float(inputs[SERVABLE_INPUT] / max(1.0, inputs[LOAD_INPUT]))
