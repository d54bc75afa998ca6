"""What a run of the engine comes to, counted in one pass over its requests: all that a verdict under the published rule needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.compiled import njit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@njit(cache=True, nogil=True)
def tallied(  # noqa: PLR0913  # a kernel takes arrays and scalars only
    finish_s: Floats,
    adapter: Ints,
    prompt: Ints,
    output: Ints,
    requested: Ints,
    arrived: int,
    duration_s: float,
    n_adapters: int,
) -> tuple[Ints, Ints, int, int]:
    """Tokens served and offered in the window.

    Parameters
    ----------
    finish_s, adapter, prompt, output, requested : arrays of shape (n_requests,)
        In order of arrival; NaN or -1 for a request that did not finish.
    arrived : int
        So many came in the window.
    duration_s : float
    n_adapters : int

    Returns
    -------
    served, offered : arrays of shape (n_adapters,)
        Prompt and output tokens of what finished in the window; prompt and requested tokens of what arrived in it.
    finished : int
    output_tokens : int
        Of what finished.
    """
    served = np.zeros(n_adapters, np.int64)
    offered = np.zeros(n_adapters, np.int64)
    finished = 0
    output_tokens = 0
    for i in range(len(finish_s)):
        if i < arrived:
            offered[adapter[i]] += prompt[i] + requested[i]
        if 0 <= finish_s[i] <= duration_s:
            served[adapter[i]] += prompt[i] + output[i]
            output_tokens += output[i]
            finished += 1
    return served, offered, finished, output_tokens


@njit(cache=True, nogil=True)
def waited(token_s: Floats, arrival_s: Floats, duration_s: float) -> Floats:
    """Seconds from arrival to a token, or to the end of the window where none came (NaN or -1) or came later.

    Parameters
    ----------
    token_s, arrival_s : arrays of shape (n_requests,)
    duration_s : float

    Returns
    -------
    array of shape (n_requests,)
    """
    seconds = np.empty(len(token_s))
    for i in range(len(token_s)):
        until_s = min(token_s[i], duration_s) if token_s[i] >= 0 else duration_s
        seconds[i] = until_s - arrival_s[i]
    return seconds
