"""The options of every command, checked before it begins: finite numbers within what makes sense, text that can be shown."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from twin import UserError
from twin.inputs import hidden
from twin.numbers import LARGEST_SEED, LONGEST_S, MOST_ADAPTERS, number, shown, whole


@dataclass(frozen=True)
class Span:
    """What a number may be.

    Attributes
    ----------
    at_least, at_most : float
    counts : bool
        Whether it must be whole.
    unit : str
        For the message.
    """

    at_least: float
    at_most: float
    counts: bool = False
    unit: str = ""

    def check(self, key: str, value: object) -> None:
        """Raise `UserError` for a number outside."""
        if self.counts:
            whole(key, value, at_least=int(self.at_least), at_most=int(self.at_most), unit=self.unit)
        else:
            number(key, value, at_least=self.at_least, at_most=self.at_most, unit=self.unit)


#: What the numbers of the commands may be, by the name of the option: it means the same in all of them. The ends are far from
#: what anybody wants; commands that need more than that check it themselves. 0 is left to them too. All
#: chosen by hand.
SPANS: dict[str, Span] = {
    "seed": Span(0, LARGEST_SEED, counts=True),
    "row_seed": Span(0, LARGEST_SEED, counts=True),
    "time_limit_s": Span(0, LONGEST_S, unit="seconds"),
    "duration_s": Span(0, LONGEST_S, unit="seconds"),
    "margin_s": Span(0, LONGEST_S, unit="seconds"),
    "budget_s": Span(0, LONGEST_S, unit="seconds"),
    "seconds": Span(0, LONGEST_S, unit="seconds"),
    "window_s": Span(0, LONGEST_S, unit="seconds"),
    "scrape_window_s": Span(0.001, LONGEST_S, unit="seconds"),
    "counters_interval_s": Span(0, LONGEST_S, unit="seconds"),
    "reserve": Span(-100, 100),
    "scale": Span(0, 1e6),
    "time_margin": Span(0, 1000),
    "time_floor_ms": Span(0, 1e9, unit="milliseconds"),
    "error_pct": Span(0, 99, unit="per cent"),
    "gpus": Span(0, MOST_ADAPTERS, counts=True),
    "fleets": Span(0, MOST_ADAPTERS, counts=True, unit="GPUs"),
    "gpus_per_host": Span(0, 1024, counts=True),
    "threads": Span(0, 1024, counts=True),
    "processes": Span(0, 1024, counts=True),
    "workers": Span(0, 1024, counts=True),
    "parallel": Span(0, 1024, counts=True),
    "repeats": Span(0, 10_000, counts=True),
    "retries": Span(0, 10_000, counts=True),
    "samples": Span(0, 100_000, counts=True),
    "exchanges": Span(0, 1_000_000, counts=True),
    "rounds": Span(0, 1000, counts=True),
    "noise_seeds": Span(0, 1000, counts=True),
    "most_adapters": Span(0, MOST_ADAPTERS, counts=True),
    "n_adapters": Span(0, MOST_ADAPTERS, counts=True),
    "max_loras": Span(0, 100_000, counts=True),
    "max_lora_rank": Span(1, 65_536, counts=True),
    "kv_cache_tokens": Span(1, 10**10, counts=True, unit="tokens"),
    "guide": Span(1, 10**9, counts=True, unit="contents"),
    "micro_weight": Span(0, 1e6),
    "depth": Span(1, 100, counts=True),
    "points": Span(0, 10_000_000, counts=True, unit="contents"),
    "piece": Span(0, 1_000_000, counts=True, unit="contents"),
    "job": Span(0, 100_000, counts=True),
    "jobs": Span(0, 100_000, counts=True),
    "placements": Span(0, 100_000, counts=True),
}


def check_known(given: Mapping[str, Any], schema: type, inside: str = "") -> None:
    """Refuse keys that a command has not: `+key=value` adds any, which nothing would read.

    Parameters
    ----------
    given : mapping
        The options, data classes among them as mappings.
    schema : type
        Their data class.
    inside : str
        Key of the option that they are of.

    Raises
    ------
    UserError
        Naming the key, and those that there are.
    """
    known = get_type_hints(schema)
    for key in given:
        name = f"{inside}{key}"
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f" (did you mean {inside}{close[0]}?)" if close else ""
            raise UserError(f"{shown(name)[1:-1]}: no such option{hint}; the options are {', '.join(sorted(known))}")
        kind = known[str(key)]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(given[key], Mapping):
            check_known(given[key], kind, f"{name}.")


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse numbers that are not finite or out of all reason, and text with characters that cannot be shown.

    Parameters
    ----------
    options : mapping
        Of a command, as plain data; nested ones are looked into.

    Raises
    ------
    UserError
        Naming the option, its value and what it may be.
    """
    for key, name, value in _leaves(options, "", ""):
        if isinstance(value, str):
            _check_text(key, value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            # Options of a solver or a workload are their own affair but for what they share with the commands.
            number(key, value)
            SPANS.get(name if "." not in key or name == "seed" else "", _ANY).check(key, value)


_ANY = Span(-1e300, 1e300)


def _leaves(value: Any, key: str, name: str) -> Iterator[tuple[str, str, Any]]:  # noqa: ANN401  # whatever options hold
    """Each value with its full key and the name of its option."""
    if isinstance(value, Mapping):
        for inner, item in value.items():
            _check_text("an option's name", str(inner))
            yield from _leaves(item, f"{key}.{inner}" if key else str(inner), str(inner))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _leaves(item, key, name)
    else:
        yield key, name, value


def _check_text(key: str, text: str) -> None:
    bad = next((mark for mark in text if hidden(mark) and mark not in "\t\n"), None)
    if bad is not None:
        raise UserError(f"{ascii(key)[1:-1]}={shown(text)!a} has the character U+{ord(bad):04X}, which cannot be shown")
