"""What the client of the published runs saw of the engine: monitoring stalls, merged chunks, slow output.

The servers of these runs were polled for `/metrics` every 2 s. vLLM 0.8.5 exports `vllm:lora_requests_info` with the *sets* of
running and of waiting adapters as labels, and keeps every combination ever seen: with some hundred adapters the page grows to
tens of thousands of lines, and the API server, one event loop, stands still while it writes them. The polls themselves
show it: they come 2 s plus the stall apart. Three effects follow on what a client measures, none on what the engine does:

- tokens that come out of the engine during a stall reach the client as one chunk, so fewer and longer gaps are counted. Above
  128 running requests vLLM hands its outputs over in slices and yields between them: nothing is merged then;
- a request that arrives in a stall waits for its end, and a first token that is ready in one does too;
- writing a step's outputs takes the event loop time for each running request, and the first token of a new one comes last.

All of it is computed from the simulated run; the coefficients are fitted with the profile, on the same runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from twin import GpuResult, Requests, engine

Floats = NDArray[np.float64]

#: Pause between two polls of the published runs.
POLL_S = 2.0
#: `VLLM_V1_OUTPUT_PROC_CHUNK_SIZE`, by vLLM's default: outputs of more requests than this are handed over in slices.
SLICE_REQUESTS = 128
#: Interval of the samples that the model needs of a simulated run. By hand: two for each poll.
SAMPLE_EVERY_S = 1.0


@dataclass(frozen=True)
class ClientModel:
    """Coefficients of the effects.

    Attributes
    ----------
    line_s : float
        Time that one line of the metrics page takes.
    name_s : float
        Time that one adapter name in the labels takes.
    stall_share : float
        Mean delays of a first token, in units of stall^2 / (2 x poll interval): 1 for the arrival, 1 for the token.
    running_ms : float
        Delay of a first token per running request.
    step_share : float
        Delay of a first token in steps.
    """

    line_s: float
    name_s: float
    stall_share: float
    running_ms: float
    step_share: float


@dataclass(frozen=True)
class Stalls:
    """Course of the metrics page over a simulated run.

    Attributes
    ----------
    time_s : array of shape (n_polls,)
    lines, names : arrays of shape (n_polls,)
        Label sets seen so far, and adapter names in them.
    running : array of shape (n_polls,)
        Running requests.
    """

    time_s: Floats
    lines: Floats
    names: Floats
    running: Floats

    def seconds(self, model: ClientModel) -> Floats:
        """Length of the stall at each poll."""
        return model.line_s * self.lines + model.name_s * self.names


def stalls_of(result: GpuResult, requests: Requests, duration_s: float) -> Stalls:
    """Count the label sets of a simulated run (made with samples every `SAMPLE_EVERY_S`).

    A set is told by the XOR of random keys of its members, which changes as an adapter enters or leaves it.
    """
    n_adapters = len(result.adapter_ids)
    step_s = result.busy_s / max(result.steps, 1)
    served = np.isfinite(result.first_token_s) & (result.first_token_s >= 0)
    begin = np.where(served, result.first_token_s - step_s, duration_s)
    end = np.where(np.isfinite(result.finish_s) & (result.finish_s >= 0), result.finish_s, duration_s)
    # The engine reports its sets once per step, so a request that is taken up by the next step never counts as waiting.
    waited = (begin - requests.arrival_s > step_s) & ~(result.first_token_s < 0)
    keys = np.random.Generator(np.random.Philox(key=[0, n_adapters])).integers(1, 2**62, (2, n_adapters))
    running = _set_changes(requests.adapter[served], begin[served], end[served], step_s)
    waiting = _set_changes(requests.adapter[waited], requests.arrival_s[waited], begin[waited], step_s)
    step = np.concatenate([running[0], waiting[0]])
    key = np.concatenate([keys[0][running[1]], keys[1][waiting[1]]])
    change = np.concatenate([running[2], waiting[2]])
    order = np.argsort(step, kind="stable")
    step, label, size = step[order], np.bitwise_xor.accumulate(key[order]), np.cumsum(change[order])
    polls = np.arange(POLL_S, duration_s, POLL_S)
    if len(step):
        last = np.append(step[1:] != step[:-1], True)  # an array's last element
        step, label, size = step[last], label[last], size[last]
        new = np.sort(np.unique(label, return_index=True)[1])
        seen = np.searchsorted(step[new] * step_s, polls)
        lines = seen.astype(float)
        names = np.concatenate([[0.0], np.cumsum(size[new])])[seen]
    else:
        lines = names = np.zeros(len(polls))
    samples = result.samples
    if not len(samples):
        return Stalls(polls, lines, names, np.zeros(len(polls)))
    course = np.interp(polls, samples[:, engine.SAMPLE_START], samples[:, engine.SAMPLE_RUNNING])
    return Stalls(polls, lines, names, course)


def _set_changes(
    adapter: NDArray[np.int64], begin: Floats, end: Floats, step_s: float
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Steps at which an adapter enters (+1) or leaves (-1) a set, given the intervals of its requests."""
    step = np.ceil(np.concatenate([begin, end]) / step_s)
    change = np.repeat([1, -1], len(begin))
    member = np.concatenate([adapter, adapter])
    order = np.lexsort((step, member))
    step, change, member = step[order], change[order], member[order]
    # Over an adapter's own events the count returns to zero, so one running sum serves all adapters.
    count = np.cumsum(change)
    last = np.ones(len(step), dtype=bool)
    last[:-1] = (step[1:] != step[:-1]) | (member[1:] != member[:-1])
    step, member, inside = step[last], member[last], count[last] > 0
    before = np.zeros(len(step), dtype=bool)
    before[1:] = inside[:-1] & (member[1:] == member[:-1])
    changed = inside != before
    return step[changed], member[changed], np.where(inside[changed], 1, -1)


def observed_itl_ms(result: GpuResult, stalls: Stalls, model: ClientModel) -> float:
    """Mean gap between chunks, as the client counts them."""
    itl_ms = result.itl.mean_ms
    length_s = stalls.seconds(model)
    merged = np.where(
        stalls.running <= SLICE_REQUESTS, np.maximum(0.0, length_s - itl_ms / 1000) / (POLL_S + length_s), 0.0
    )
    weight = stalls.running.sum()
    return float(itl_ms / (1 - (merged * stalls.running).sum() / weight)) if weight > 0 else itl_ms


def first_token_terms(result: GpuResult, stalls: Stalls, model: ClientModel) -> tuple[float, float, float]:
    """What the delay of a first token is made of: stall delay (ms), running requests, step time (ms)."""
    length_s = stalls.seconds(model)
    delay_ms = float((length_s**2 / (2 * (POLL_S + length_s))).mean() * 1000)
    return delay_ms, result.mean_running, result.busy_s / max(result.steps, 1) * 1000


def observed_ttft_ms(result: GpuResult, stalls: Stalls, model: ClientModel) -> float:
    """Mean time to first token as the client measures it."""
    stall_ms, running, step_ms = first_token_terms(result, stalls, model)
    return result.ttft.mean_ms + model.stall_share * stall_ms + model.running_ms * running + model.step_share * step_ms


def fit_client_model(
    polled_s: Floats,
    ttft_ms: Floats,
    simulated: list[GpuResult],
    stalls: list[Stalls],
) -> ClientModel:
    """Fit the coefficients to measured runs whose queues are short.

    Parameters
    ----------
    polled_s : array of shape (n_runs,)
        Mean time between two polls.
    ttft_ms : array of shape (n_runs,)
        Measured mean time to first token.
    simulated, stalls : lists of length n_runs
        The same runs, simulated.
    """
    page = np.array([[s.lines.mean(), s.names.mean(), s.running.mean(), 1.0] for s in stalls])
    (line_s, name_s, _, _), _ = nnls(page, np.maximum(polled_s - POLL_S, 0.0))
    partial = ClientModel(float(line_s), float(name_s), 0.0, 0.0, 0.0)
    terms = np.array([first_token_terms(r, s, partial) for r, s in zip(simulated, stalls, strict=True)])
    missing = ttft_ms - np.array([r.ttft.mean_ms for r in simulated])
    (stall_share, running_ms, step_share), _ = nnls(terms / ttft_ms[:, None], missing / ttft_ms)
    return replace(partial, stall_share=float(stall_share), running_ms=float(running_ms), step_share=float(step_share))
