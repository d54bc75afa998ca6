"""Service levels: the rule by which a GPU serves its adapters or fails them.

`PUBLISHED` is the rule of arXiv 2602.24044 and arXiv 2508.08343: a GPU fails when its throughput is below 90 % of what it is
offered. It says nothing of latency: requests may wait for minutes. A goodput rule judges single requests, as
`vllm bench serve --goodput` does: each has met its limits or missed them, and a share of those that arrive in the window must
have met them, on each GPU and for each adapter that has enough requests to tell.

A request whose limit has passed unserved has missed it. So that the end of the window favours nobody, requests go on arriving
while the last judged ones are served, and those of a warm-up at the start, which meet an idle GPU, are not judged.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from twin.errors import UserError
from twin.numbers import MOST_REQUESTS, number, whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from twin.requests import Requests

#: A GPU fails the published rule when its throughput is below this share of the offered throughput
#: (arXiv 2602.24044 and arXiv 2508.08343).
STARVATION_SHARE = 0.9
#: The longest limit and tail, in seconds: a day. By hand; who waits longer asks for a batch, of which throughput says all.
LONGEST_PROMISE_S = 86_400.0
_MS = "milliseconds (null for no limit)"


@dataclass(frozen=True)
class ServiceLevel:
    """What is promised of every GPU; with no limit on latency, the published rule.

    Parameters
    ----------
    name : str
        For tables and rows.
    ttft_ms, tpot_ms, e2el_ms : float, optional
        Most time to the first token, mean time of each later one ((last token - first token) / (output tokens - 1)), and
        time of the whole request, in milliseconds; the names are those of `vllm bench serve --goodput`.
    share : float
        Of the judged requests so many must meet all limits; under the published rule, of the offered throughput so much must
        be served.
    warm_up : float
        Share of the window at its start whose requests are not judged.
    least_judged : int
        Adapters with fewer judged requests are judged together.
    tail_s : float
        For so long at most do requests go on arriving after the window, in seconds.

    Raises
    ------
    UserError
        For a number out of range, or a limit on `tpot_ms` alone, which a request that waits for ever does not miss.
    """

    name: str = "published"
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2el_ms: float | None = None
    share: float = STARVATION_SHARE
    warm_up: float = 0.0
    least_judged: int = 20
    tail_s: float = 120.0

    def __post_init__(self) -> None:
        for limit in ("ttft_ms", "tpot_ms", "e2el_ms"):
            value = getattr(self, limit)
            if value is not None:
                number(f"service.{limit}", value, above=0.0, at_most=1000.0 * LONGEST_PROMISE_S, unit=_MS)
        if self.tpot_ms is not None and self.ttft_ms is None and self.e2el_ms is None:
            raise UserError(
                "service.tpot_ms alone promises nothing to a request that waits: give ttft_ms or e2el_ms too"
            )
        number("service.share", self.share, above=0.0, at_most=1.0)
        if not 0 <= self.warm_up < 1:
            raise UserError(f"service.warm_up={self.warm_up} must be at least 0 and below 1: a share of the window")
        whole("service.least_judged", self.least_judged, at_least=1, at_most=MOST_REQUESTS, unit="requests")
        number("service.tail_s", self.tail_s, at_least=0.0, at_most=LONGEST_PROMISE_S, unit="seconds")

    @property
    def judges_requests(self) -> bool:
        """Whether single requests are judged by their latency; otherwise the published rule holds."""
        return not (self.ttft_ms is self.tpot_ms is self.e2el_ms is None)

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, in milliseconds, by their names."""
        found = {field.name: getattr(self, field.name) for field in fields(self) if field.name.endswith("_ms")}
        return {name: value for name, value in found.items() if value is not None}

    def in_words(self) -> str:
        """The promise in a phrase, such as "95 % of the requests with TTFT <= 2 s and TPOT <= 100 ms"."""
        if not self.judges_requests:
            return f"throughput of at least {100 * self.share:g}% of the offered throughput on each GPU"
        names = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "e2el_ms": "E2E"}
        limits = " and ".join(
            f"{names[name]} <= {value / 1000:g} s" if value >= 1000 else f"{names[name]} <= {value:g} ms"
            for name, value in self.limits.items()
        )
        return f"{100 * self.share:g}% of the requests with {limits}, on each GPU and for each adapter"

    def judged(self, requests: Requests, duration_s: float) -> slice:
        """The requests that are judged: those that arrive in the window, after its warm-up.

        Parameters
        ----------
        requests : Requests
            In order of arrival; they may go on after the window.
        duration_s : float
            End of the window.
        """
        first, last = np.searchsorted(requests.arrival_s, [self.warm_up * duration_s, duration_s])
        return slice(int(first), int(last))

    def horizon_s(self, requests: Requests, duration_s: float) -> float:
        """When the last judged request has met its limits or missed them, at the latest."""
        if not self.judges_requests:
            return duration_s
        judged = self.judged(requests, duration_s)
        if judged.start >= judged.stop:
            return duration_s
        allowed_s = np.full(judged.stop - judged.start, np.inf)
        if self.e2el_ms is not None:
            allowed_s[:] = self.e2el_ms / 1000
        # A request with its first token in time has yet to end in time, where only that is asked.
        if self.ttft_ms is not None and (self.tpot_ms is not None or self.e2el_ms is None):
            later = 0 if self.tpot_ms is None else (requests.output_tokens[judged] - 1) * self.tpot_ms
            allowed_s = np.minimum(allowed_s, (self.ttft_ms + later) / 1000)
        return float(max(duration_s, np.max(requests.arrival_s[judged] + allowed_s)))

    def met(
        self, requests: Requests, first_token_s: NDArray[np.float64], finish_s: NDArray[np.float64], overhead_s: float
    ) -> NDArray[np.bool_]:
        """Which requests meet every limit, shape (n_requests,).

        Parameters
        ----------
        requests : Requests
        first_token_s, finish_s : arrays of shape (n_requests,)
            As the engine leaves them: NaN where a request did not come that far, -1 where it was turned away.
        overhead_s : float
            What the server adds to the latency of a request.
        """
        with np.errstate(invalid="ignore"):
            good = first_token_s >= 0
            if self.ttft_ms is not None:
                good &= (first_token_s - requests.arrival_s + overhead_s) * 1000 <= self.ttft_ms
            if self.tpot_ms is not None:
                later = requests.output_tokens - 1
                good &= (later == 0) | ((finish_s - first_token_s) * 1000 <= self.tpot_ms * later)
            if self.e2el_ms is not None:
                good &= (finish_s - requests.arrival_s + overhead_s) * 1000 <= self.e2el_ms
        return good


@dataclass(frozen=True)
class Judgement:
    """The judged requests of one GPU.

    Attributes
    ----------
    level : ServiceLevel
    judged, met : arrays of shape (n_adapters,)
        Per adapter, requests that were judged and those of them that met every limit.
    """

    level: ServiceLevel
    judged: NDArray[np.int64]
    met: NDArray[np.int64]

    @property
    def goodput(self) -> float:
        """Requests that meet their limits over requests that arrived; 1 where none did."""
        total = int(self.judged.sum())
        return int(self.met.sum()) / total if total else 1.0

    @property
    def adapter_goodput(self) -> NDArray[np.float64]:
        """Goodput of each adapter by itself, shape (n_adapters,); 1 where no request was judged."""
        return np.where(self.judged > 0, self.met / np.maximum(self.judged, 1), 1.0)

    @property
    def failing(self) -> NDArray[np.int64]:
        """Adapters that fail the level, by their place on the GPU; of those judged together, all or none."""
        alone = self.judged >= self.level.least_judged
        fails = alone & (self.adapter_goodput < self.level.share)
        if self._together < self.level.share:
            fails |= ~alone & (self.met < self.judged)
        return np.flatnonzero(fails)

    @property
    def worst(self) -> float:
        """The least goodput among the GPU as a whole, the adapters judged by themselves, and the others together."""
        alone = self.judged >= self.level.least_judged
        return float(min([self.goodput, self._together, *self.adapter_goodput[alone]]))

    @property
    def worst_adapter(self) -> float:
        """The least goodput of an adapter with enough judged requests to tell; 1 where none has."""
        return float(min(self.adapter_goodput[self.judged >= self.level.least_judged], default=1.0))

    @property
    def _together(self) -> float:
        """Goodput of the adapters with few requests; 1 where they have too few together."""
        few = self.judged < self.level.least_judged
        total = int(self.judged[few].sum())
        return int(self.met[few].sum()) / total if total >= self.level.least_judged else 1.0


#: The rule of arXiv 2602.24044 and arXiv 2508.08343.
PUBLISHED = ServiceLevel()
#: Somebody waits for the answer: 95 % of the requests start within 2 s and go on at 10 tokens a second or more.
INTERACTIVE = ServiceLevel("interactive", ttft_ms=2000.0, tpot_ms=100.0, share=0.95, warm_up=0.1)
#: Nobody waits: 95 % of the requests are answered within two minutes.
BATCH = ServiceLevel("batch", e2el_ms=120_000.0, share=0.95, warm_up=0.1)
#: The levels that are known by name.
NAMED = {level.name: level for level in (PUBLISHED, INTERACTIVE, BATCH)}
