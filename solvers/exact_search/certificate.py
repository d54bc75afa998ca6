"""What a bound of an exact search rests on, written so that a program that shares no code with it can prove it again.

Contents of a GPU that fall short of the service level at every `max_loras`, beyond doubt; zones that hold all that they leave, with
multipliers of their limits; and a price for each adapter (`solvers.zones.bound`). docs/certificates.md says what each key means.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.exact_search.progress import Progress
from solvers.limits import Deadline
from solvers.oracles.base import MadeUp
from solvers.oracles.grounds import RealContent
from solvers.oracles.spans import SlotSpan
from solvers.oracles.twin import LEAST_DEVIATION, LEAST_UNFINISHED, SIGMAS, TURNS, TwinOracle
from solvers.zones.bound import ZoneBound
from twin import Workload

FORMAT = 1
#: A certificate that would be longer is not written: the details of a solution have a limit (`solvers.base.LONGEST_DETAILS`).
LONGEST = 3_000_000
#: Adapters up to which one is written. By hand: finding the multipliers of all zones takes a second with so many.
MOST_ADAPTERS = 3000
#: Seconds for the zones' multipliers, beyond the time limit. By hand: a solver has a second more.
WRITTEN_S = 0.5


def certificate(oracle: TwinOracle, zones: ZoneBound | None, progress: Progress) -> str | None:
    """The certificate of a bound, as JSON; None where there is none to write.

    It is for as many GPUs of the bound as zones and prices prove, or one GPU for all that was rejected at every `max_loras`.

    Parameters
    ----------
    oracle : TwinOracle
        That was asked.
    zones : ZoneBound, optional
    progress : Progress
    """
    if progress.refuted or oracle.workload.n_adapters > MOST_ADAPTERS:
        return None
    by_prices = zones is not None and min(zones.gpus, progress.lower_bound) > progress.certain
    values = _head(oracle)
    if zones is not None and by_prices:
        values |= _of_zones(oracle, zones, progress.lower_bound)
    elif progress.one_gpu_fails:
        values |= {"bound": 2, "every_value": True}
    if values["bound"] < 2:
        return None
    text = _with_checksum(values)
    return text if len(text) <= LONGEST else None


def _head(oracle: TwinOracle) -> dict[str, Any]:
    """What the certificate is of."""
    return {
        "format": FORMAT,
        "bound": 1,
        "requests": requests_hash(oracle.workload),
        "profile": oracle.profile.name,
        "service": oracle.service.name,
        "margins": {
            "margin": oracle.margin, "turns": TURNS, "sigmas": SIGMAS, "least_deviation": LEAST_DEVIATION,
            "least_missed": LEAST_UNFINISHED,
        },
        "every_value": False, "value": 1.0, "times_s": [], "prices": [], "zones": [], "contents": [],
    }  # fmt: skip


def _of_zones(oracle: TwinOracle, zones: ZoneBound, bound: int) -> dict[str, Any]:
    """Prices, zones with multipliers that fit the prices, and the contents that leave these zones."""
    value, table = zones.proof(Deadline.after(WRITTEN_S))
    return {
        "bound": min(bound, math.ceil(value - 1e-6)),
        "value": value,
        "times_s": oracle.service_times_s.tolist(),
        "prices": zones.prices.tolist(),
        "zones": [
            {
                "rank": int(rank),
                "limits": [None if math.isinf(limit) else limit for limit in row.tolist()],
                "multipliers": factors.tolist(),
            }
            for rank, row, factors in zip(table.ranks, table.limits, table.multipliers, strict=True)
        ],
        "contents": _contents(oracle, _needed(zones.cuts)),
    }


def _needed(cuts: Sequence[tuple[int, NDArray[np.float64]]]) -> list[tuple[int, NDArray[np.float64]]]:
    """Cuts that no other makes superfluous, in their order."""
    distinct = list({(rank, sums.tobytes()): (rank, sums) for rank, sums in cuts}.values())
    ranks, points = np.array([rank for rank, _ in distinct]), np.array([sums for _, sums in distinct])
    return [(rank, sums) for rank, sums in distinct if ((ranks <= rank) & (points <= sums).all(axis=1)).sum() == 1]


def _contents(oracle: TwinOracle, cuts: Sequence[tuple[int, NDArray[np.float64]]]) -> list[dict[str, Any]]:
    """The contents behind cuts, and those that they rest on in turn."""
    sums = {content: _sums(oracle, content) for content in oracle.grounds}
    of_cut = {(content.rank, asked.tobytes()): content for content, asked in sums.items()}
    written: dict[MadeUp | RealContent, dict[str, Any]] = {}
    waiting = [(of_cut[rank, point.tobytes()], True) for rank, point in cuts]
    while waiting:
        content, is_cut = waiting.pop()
        others = oracle.grounds.others(content)
        if others and isinstance(content, RealContent):
            # What the other rules out holds this one: it does so by itself.
            waiting.append((others[0], is_cut))
            continue
        if content in written:
            written[content]["cut"] |= is_cut
            continue
        written[content] = {
            "rank": content.rank,
            "adapters": list(content.adapters) if isinstance(content, RealContent) else [],
            "made_up": content.n_adapters if isinstance(content, MadeUp) else 0,
            "load": content.load if isinstance(content, MadeUp) else 0.0,
            "spans": [[span.low, span.high] for span in _widest(oracle.grounds.spans(content))],
            "sums": sums[content].tolist(),
            "cut": is_cut,
        }
        waiting += [(other, False) for other in others]
    return list(written.values())


def _widest(spans: Sequence[SlotSpan]) -> list[SlotSpan]:
    """Spans that no other holds: what they rule out is ruled out with it."""
    return [span for span in spans if not any(other != span and other.holds(span) for other in spans)]


def _sums(oracle: TwinOracle, content: MadeUp | RealContent) -> NDArray[np.float64]:
    """What a content asks for, as zones compare it."""
    if isinstance(content, RealContent):
        asked: NDArray[np.float64] = oracle.asks[list(content.adapters)].sum(axis=0)
        return asked
    return oracle.made_up_sums(content)[len(np.unique(oracle.workload.ranks)) - 1 :]


def requests_hash(workload: Workload) -> str:
    """Hash of a workload's adapters and requests."""
    digest = hashlib.sha256(workload.ranks.tobytes())
    digest.update(np.float64(workload.duration_s).tobytes())
    requests = workload.requests
    for column in (requests.arrival_s, requests.adapter, requests.prompt_tokens, requests.output_tokens):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def _with_checksum(values: Mapping[str, Any]) -> str:
    """The certificate with a hash of all that stands in it."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return json.dumps({**values, "checksum": hashlib.sha256(text.encode()).hexdigest()})
