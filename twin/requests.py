"""Requests as arrays: what an engine serves."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Requests:
    """One sampled trace of requests, in order of arrival.

    Attributes
    ----------
    arrival_s : array of shape (n_requests,), float64
        Seconds since the start of the window, ascending.
    adapter : array of shape (n_requests,), int64
        Index of the adapter in its workload.
    prompt_tokens, output_tokens, requested_tokens : arrays of shape (n_requests,), int64
        Prompt length, output tokens the model makes, output tokens asked for.
    shared_tokens : array of shape (n_requests,), int64, optional
        Tokens at the beginning of the prompt that are its adapter's shared prompt, 0 for a request without it and always fewer
        than the prompt has: those of an adapter that have it all have the same. None: nobody has any.
    """

    arrival_s: NDArray[np.float64]
    adapter: NDArray[np.int64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    requested_tokens: NDArray[np.int64]
    shared_tokens: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.arrival_s)

    def read_only(self) -> Requests:
        """The same requests in arrays that nobody can write to by mistake; they share the memory of these."""
        views = {name: column.view() for name, column in self.columns().items()}
        for view in views.values():
            view.flags.writeable = False
        return Requests(**views)

    def writeable(self) -> Requests:
        """The requests themselves, or copies of read-only arrays: Numba would compile each kernel once more for that kind."""
        columns = self.columns()
        if all(column.flags.writeable for column in columns.values()):
            return self
        return Requests(**{name: column.copy() for name, column in columns.items()})

    def columns(self) -> dict[str, NDArray[Any]]:
        """The arrays by name; without `shared_tokens` where nobody has any."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: column for name, column in found.items() if column is not None}

    def shared(self) -> NDArray[np.int64]:
        """`shared_tokens`, of zeros where nobody has any."""
        return np.zeros(len(self), dtype=np.int64) if self.shared_tokens is None else self.shared_tokens

    def sharing(self, shared_prompt_tokens: NDArray[np.int64] | None) -> Requests:
        """The same requests, of which those that are longer begin with the shared prompt of their adapter.

        Parameters
        ----------
        shared_prompt_tokens : array of shape (n_adapters,), optional
            Tokens of each adapter's shared prompt.
        """
        if shared_prompt_tokens is None:
            return self
        shared = shared_prompt_tokens[self.adapter]
        return replace(self, shared_tokens=np.where(shared < self.prompt_tokens, shared, 0))

    def of(self, adapters: NDArray[np.int64], n_adapters: int) -> Requests:
        """Requests of some adapters only, still in order of arrival."""
        wanted = np.zeros(n_adapters, dtype=bool)
        wanted[adapters] = True
        rows = np.flatnonzero(wanted[self.adapter])
        return self.take(rows)

    def take(self, rows: NDArray[np.int64]) -> Requests:
        """The requests at the given row numbers (which must ascend)."""
        return Requests(**{name: column[rows] for name, column in self.columns().items()})
