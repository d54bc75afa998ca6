"""A certificate as it stands in a row: read, and proven again."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.certificates.adding_up import RefusedError, Zone, check_cover, exact_bound
from bench.certificates.shortfalls import MARGINS, Content, Shortfalls
from twin import ServiceLevel, ServingProfile, Workload

#: Up to so many values of `max_loras` one GPU for all is simulated at each, so that nothing is taken for granted.
FEW_SLOTS = 128


def checksum_of(certificate: Mapping[str, Any]) -> str:
    """Hash of all that stands in a certificate but the checksum itself."""
    content = {name: value for name, value in certificate.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def requests_hash(workload: Workload) -> str:
    """Hash of a workload's adapters and requests: whose bound it is."""
    digest = hashlib.sha256(workload.ranks.tobytes() + np.float64(workload.duration_s).tobytes())
    requests = workload.requests
    for column in (requests.arrival_s, requests.adapter, requests.prompt_tokens, requests.output_tokens):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def prove(text: str, workload: Workload, profile: ServingProfile, service: ServiceLevel) -> tuple[int, str]:
    """GPUs that are needed at least and how that was proven again, from a certificate (JSON) of the row's question; or `RefusedError`."""
    try:
        certificate = json.loads(text)
        if certificate["format"] != 1 or certificate["checksum"] != checksum_of(certificate):
            raise RefusedError("it is of another format, or was changed after it was written")
        asked = (certificate["requests"], certificate["profile"], certificate["service"])
        if asked != (requests_hash(workload), profile.name, service.name):
            raise RefusedError("it is of other requests, another profile or another service level")
        if any(not certificate["margins"][name] >= least for name, least in MARGINS.items()):
            raise RefusedError("its margins are smaller than those that are known to suffice")
        twin = Shortfalls(workload, profile, service, certificate["times_s"])
        bound, how = (_by_one_gpu if certificate["every_value"] else _by_prices)(certificate, twin)
        if bound < int(certificate["bound"]):
            raise RefusedError(f"it says {certificate['bound']} GPUs and adds up to {bound}")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, IndexError) as error:
        raise RefusedError(f"it is no certificate ({type(error).__name__}: {str(error)[:100]})") from None
    return bound, how


def _by_one_gpu(_: Mapping[str, Any], twin: Shortfalls) -> tuple[int, str]:
    """One GPU does not serve all adapters, whatever its `max_loras`: value by value where there are few, otherwise span by span."""
    workload, rank = twin.workload, int(twin.workload.ranks.max())
    most = min(workload.n_adapters, twin.profile.largest_max_loras(rank))
    low, step = 1, 1
    while low <= most:
        twin.all_fail(low, min(low + step, most + 1) - 1)
        low, step = low + step, 2 * step if most > FEW_SLOTS and twin.spans_hold(rank) else 1
    return 2, f"one GPU for all fails at every max_loras ({twin.simulated} simulated)"


def _by_prices(certificate: Mapping[str, Any], twin: Shortfalls) -> tuple[int, str]:
    """Contents fall short, zones hold what they leave, and prices add up."""
    contents = [Content(**content) for content in certificate["contents"]]
    zones = [
        Zone(zone["rank"], [math.inf if limit is None else limit for limit in zone["limits"]], zone["multipliers"])
        for zone in certificate["zones"]
    ]
    twin.check_times()
    cuts = [(content.rank, np.array(content.sums)) for content in contents if content.cut]
    ranks = twin.workload.ranks
    check_cover(cuts, zones, set(ranks.tolist()))
    value = exact_bound(certificate["prices"], twin.sums, ranks, zones)
    if not float(value) >= certificate["value"] * (1 - 1e-6) or len(certificate["prices"]) != len(ranks):
        raise RefusedError(f"it says {certificate['value']} GPUs in fractions and adds up to {float(value):.6g}")
    for content in contents:
        twin.check(content, contents)
    how = f"{len(cuts)} contents fall short ({twin.simulated} simulated), {len(zones)} zones"
    return math.ceil(value), f"{float(value):.4f}: {how}"
