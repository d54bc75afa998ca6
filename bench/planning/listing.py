"""The list of adapters that an operator gives: read, checked, and changed for a question "what if"."""

from __future__ import annotations

import csv
import difflib
import io
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.planning.adapters import Adapter
from bench.planning.counters import Measured
from twin import ServingProfile, UserError
from twin.inputs import plain_text, read_text
from twin.numbers import shown
from twin.workload import LONGEST_PROMPT

_log = logging.getLogger(__name__)

#: Columns that are read, and what each holds; `rate` may be left to request counters.
COLUMNS = {
    "name": "the name that requests give as their model",
    "rank": "LoRA rank",
    "rate": "requests per second",
    "prompt_tokens": "mean prompt length in tokens",
    "shared_prompt_tokens": "tokens with which all prompts begin (a system prompt), part of prompt_tokens",
    "output_tokens": "mean output length in tokens",
    "path": "where vLLM finds the adapter: a folder or a Hugging Face repository",
}
REQUIRED = ("name", "rank")
#: Adapters of one plan, and requests per second of one of them: ten times what anybody serves.
MOST_LISTED, MOST_PER_S = 200_000, 1e5
# Of a name or a path, in characters; by hand.
_LONGEST_WORD = 500
_OTHER_SEPARATORS = ";\t|"


def read_adapters(path: Path, rates: Mapping[str, float] | None = None) -> list[Adapter]:
    """Read a CSV file with a header; `COLUMNS` are its columns, in any order, others are passed over.

    Parameters
    ----------
    path : Path
    rates : mapping of str to float, optional
        Requests per second by name, where request counters give them; the column `rate` is not needed then, and
        an adapter that no counter names has rate 0.

    Raises
    ------
    UserError
        Naming file, row (as a text editor counts lines), column, and what would be right.
    """
    wanted = f"a CSV file with the columns {', '.join(REQUIRED)} and rate"
    text = read_text(path, wanted, key="adapters")
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        header = [name.strip() for name in reader.fieldnames or []]
        _check_header(path, header, REQUIRED if rates is not None else (*REQUIRED, "rate"))
        reader.fieldnames = header
        return _listed(path, reader, rates)
    except csv.Error as error:
        raise UserError(f"{path}: row {reader.line_num + 1}: not a row of a CSV file ({error})") from None


def _listed(path: Path, reader: csv.DictReader[str], rates: Mapping[str, float] | None) -> list[Adapter]:
    unused = [name for name in reader.fieldnames or [] if name and name not in COLUMNS]
    if rates is not None and "rate" in (reader.fieldnames or []):
        unused.append("rate (the counters say it)")
    if unused:
        _log.info("%s: columns that are not used: %s; those that are: %s", path, ", ".join(unused), ", ".join(COLUMNS))
    adapters: list[Adapter] = []
    seen: dict[str, int] = {}
    for row in reader:
        where = f"{path}: row {reader.line_num}"
        if len(adapters) == MOST_LISTED:
            raise UserError(f"{path}: more than {MOST_LISTED:,} adapters; plan for parts of the list")
        adapter = _adapter(where, row, rates)
        if adapter.name in seen:
            raise UserError(
                f"{where}, column name: {adapter.name!r} is in row {seen[adapter.name]} already; names must differ"
            )
        seen[adapter.name] = reader.line_num
        adapters.append(adapter)
    if not adapters:
        raise UserError(f"{path}: no adapter in it; a row for each is needed below the header")
    return adapters


def changed(
    adapters: Sequence[Adapter], *, scale: float, rates: Mapping[str, float], ranks: Mapping[str, int]
) -> list[Adapter]:
    """The adapters of a question "what if".

    Parameters
    ----------
    adapters : sequence of Adapter
    scale : float
        Factor of all rates.
    rates, ranks : mapping by name
        Rates (not scaled) and ranks that replace those of single adapters.

    Raises
    ------
    UserError
        For a name that is not in the list, or a value out of range.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise UserError(f"scale={scale} must be a number above 0")
    known = {adapter.name for adapter in adapters}
    for option, values in (("rate", rates), ("rank", ranks)):
        for name, value in values.items():
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f" (did you mean {close[0]}?)" if close else ""
                raise UserError(f"what_if.{option}.{name}: no adapter of this name{hint}")
            if not (1 if option == "rank" else 0) <= value <= (2**16 if option == "rank" else MOST_PER_S):
                raise UserError(f"what_if.{option}.{name}={value} must be {'1' if option == 'rank' else '0'} or more")
    return [
        replace(
            adapter,
            rate=rates.get(adapter.name, adapter.rate * scale),
            rank=ranks.get(adapter.name, adapter.rank),
        )
        for adapter in adapters
    ]


def check_ranks(
    adapters: Sequence[Adapter], profile: ServingProfile, path: Path, changed_ranks: Mapping[str, int]
) -> None:
    """Refuse an adapter whose rank the profile does not know.

    Parameters
    ----------
    adapters : sequence of Adapter
    profile : ServingProfile
    path : Path
        The list that they are in.
    changed_ranks : mapping of str to int
        Ranks of `what_if`.

    Raises
    ------
    UserError
        Naming the adapter, where its rank stands, and what to do.
    """
    most = profile.ranks[-1]
    for adapter in adapters:
        if adapter.rank > most:
            where = f"what_if.rank.{adapter.name}" if adapter.name in changed_ranks else _row_of(path, adapter.name)
            raise UserError(
                f"{where}: rank {adapter.rank} of adapter {adapter.name} is above {most}, the largest that profile "
                f"{profile.name} knows: leave it out of the list, ask what_if.rank.{adapter.name}={most}, or measure a profile "
                "with larger ranks (docs/twin.md)"
            )


def _row_of(path: Path, name: str) -> str:
    reader = csv.DictReader(
        io.StringIO(read_text(path, "a CSV file", key="adapters"), newline=""), skipinitialspace=True
    )
    reader.fieldnames = [column.strip() for column in reader.fieldnames or []]
    for row in reader:
        if (row.get("name") or "").strip() == name:
            return f"{path}: row {reader.line_num}"
    return str(path)


def _check_header(path: Path, header: Sequence[str], required: Iterable[str]) -> None:
    for name in required:
        if name not in header:
            close = difflib.get_close_matches(name, header, n=1)
            hint = f"; {close[0]!r} looks like it" if close else ""
            if len(header) == 1 and any(mark in header[0] for mark in _OTHER_SEPARATORS):
                hint = "; the columns must be separated by commas"
            raise UserError(
                f"{path}: row 1: no column {name!r} ({COLUMNS[name]}) among {', '.join(header) or 'nothing'}{hint}"
            )
    for name in header:
        if name in COLUMNS and header.count(name) > 1:
            raise UserError(f"{path}: row 1: column {name!r} is there twice")


def _adapter(where: str, row: Mapping[str, str | None], rates: Mapping[str, float] | None) -> Adapter:
    if None in row:
        raise UserError(f"{where}: more values than the header has columns; a value with a comma needs quotes")
    name = _word(where, "name", row["name"])
    if not name:
        raise UserError(f"{where}, column name: empty; {COLUMNS['name']} is needed")
    rank = _number(where, "rank", row["rank"], at_least=1, at_most=2**16)
    if rank is None or rank != int(rank):
        raise UserError(f"{where}, column rank: {row['rank']!r} must be a whole number, 1 or more")
    if rates is None:
        rate = _number(where, "rate", row["rate"], at_least=0, at_most=MOST_PER_S)
        if rate is None:
            raise UserError(f"{where}, column rate: empty; requests per second are needed, 0 or more")
    else:
        rate = rates.get(name, 0.0)
    prompt = _number(where, "prompt_tokens", row.get("prompt_tokens"), at_least=1, at_most=1e9)
    shared = _number(where, "shared_prompt_tokens", row.get("shared_prompt_tokens"), at_least=0, at_most=LONGEST_PROMPT)
    if shared is not None and (shared != int(shared) or (prompt is not None and shared >= prompt)):
        raise UserError(
            f"{where}, column shared_prompt_tokens: {row['shared_prompt_tokens']!r} must be a whole number below prompt_tokens, which "
            "counts them too"
        )
    return Adapter(
        name=name,
        rank=int(rank),
        rate=rate,
        prompt_tokens=prompt,
        shared_prompt_tokens=int(shared) if shared else None,
        output_tokens=_number(where, "output_tokens", row.get("output_tokens"), at_least=1, at_most=1e9),
        path=_word(where, "path", row.get("path")),
    )


def _word(where: str, column: str, text: str | None) -> str:
    """A cell's text, which becomes an argument of `vllm serve` and part of files; empty for an empty cell."""
    word = (text or "").strip()
    if not word:
        return ""
    plain_text(f"{where}, column {column}: {column}", word, at_most=_LONGEST_WORD)
    if word.startswith("-"):
        raise UserError(f"{where}, column {column}: {word!r} begins with a hyphen; vLLM would take it for an option")
    return word


def _number(where: str, column: str, text: str | None, *, at_least: float, at_most: float) -> float | None:
    """A cell's number, None for an empty cell."""
    stripped = (text or "").strip()
    if not stripped:
        return None
    try:
        value = float(stripped)
    except ValueError:
        value = math.nan
    if not at_least <= value <= at_most:
        high = f" and at most {at_most:,.10g}" if value > at_most else ""
        raise UserError(f"{where}, column {column}: {shown(stripped)} must be a number, {at_least:g} or more{high}")
    return value


def check_counted(adapters: Sequence[Adapter], measured: Measured, path: str) -> None:
    """Refuse counters that know none of the adapters; a name that differs in a letter counts nothing."""
    names = [adapter.name for adapter in adapters]
    missing = [name for name in names if name not in measured.rates]
    near = []
    for name in missing[:5]:
        close = [other for other in measured.rates if other.lower() == name.lower()]
        close = close or difflib.get_close_matches(name, measured.rates, n=1)
        near.append(f"{name} (counted is {close[0]})" if close else name)
    listed = ", ".join(near) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    if len(missing) == len(names):
        others = ", ".join(sorted(measured.rates)[:5]) or "nothing"
        raise UserError(
            f"{path}: the counters count none of its adapters: {listed}; counted are {others}: names must be equal"
        )
    if missing:
        _log.info("%s: not counted, so without requests: %s", path, listed)


def with_lengths(adapter: Adapter, measured: Measured) -> Adapter:
    """The adapter with the lengths that were counted, where the list has none."""
    prompt, output = measured.prompt_tokens.get(adapter.name), measured.output_tokens.get(adapter.name)
    if prompt is not None and prompt <= (adapter.shared_prompt_tokens or 0):
        # Its counted prompts are shorter than what they are said to begin with.
        prompt = None
    return replace(
        adapter,
        prompt_tokens=adapter.prompt_tokens or prompt,
        output_tokens=adapter.output_tokens or output,
    )
