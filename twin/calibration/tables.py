"""The parts of a serving profile that are looked up, not fitted: KV capacity and load times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from twin.errors import UserError
from twin.profile import KvCapacity


def kv_capacity_from_rows(rows: Iterable[tuple[int, int, int]], without_lora_tokens: int) -> KvCapacity:
    """KV capacity table from single measurements.

    Parameters
    ----------
    rows : iterable of (max_loras, max_lora_rank, tokens)
        `tokens` is 0 where the engine did not start.
    without_lora_tokens : int

    Returns
    -------
    KvCapacity
        On the full grid of the values seen. A pair that was not measured is interpolated over `max_loras` between
        measured ones that started; beyond the last of these it counts as a memory error, because nothing is known.

    Raises
    ------
    UserError
        If no row started.
    """
    measured = {(slots, rank): tokens for slots, rank, tokens in rows}
    if not any(measured.values()):
        raise UserError("KV capacity: no measured server started; at least one pair of flags must")
    all_slots = sorted({slots for slots, _ in measured})
    ranks = sorted({rank for _, rank in measured})
    table = []
    for rank in ranks:
        known = [slots for slots in all_slots if (slots, rank) in measured]
        started = [slots for slots in known if measured[slots, rank] > 0]
        failed_from = min((slots for slots in known if measured[slots, rank] == 0), default=None)
        line = []
        for slots in all_slots:
            if (slots, rank) in measured:
                line.append(measured[slots, rank])
            elif not started or slots > started[-1] or (failed_from is not None and slots >= failed_from):
                line.append(0)
            else:
                values = [measured[s, rank] for s in started]
                line.append(int(np.interp(slots, started, values)))
        table.append(tuple(line))
    return KvCapacity(tuple(all_slots), tuple(ranks), tuple(table), without_lora_tokens)


def load_times_from_rows(
    host_to_gpu: Mapping[tuple[int, int], float], disk_to_host: Mapping[int, float]
) -> tuple[tuple[tuple[int, int, float], ...], tuple[tuple[int, float], ...]]:
    """Load times of a profile from measured means.

    Parameters
    ----------
    host_to_gpu : mapping of (max_lora_rank, rank) to ms
    disk_to_host : mapping of rank to ms

    Returns
    -------
    load_ms, disk_load_ms
        As `ServingProfile` holds them, rounded to microseconds.
    """
    load = tuple((server, rank, round(ms, 3)) for (server, rank), ms in sorted(host_to_gpu.items()))
    disk = tuple((rank, round(ms, 3)) for rank, ms in sorted(disk_to_host.items()))
    return load, disk
