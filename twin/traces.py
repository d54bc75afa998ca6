"""Recorded request traces: the columns of the public ones, from CSV or JSON lines, compressed by gzip or not."""

from __future__ import annotations

import codecs
import gzip
import json
import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from twin.errors import UserError
from twin.inputs import filled_size, plain_text
from twin.numbers import LONGEST_S, MOST_ADAPTERS, shown

_log = logging.getLogger(__name__)

#: Columns that say which adapter a request asks for; compared in small letters.
ADAPTER_COLUMNS = ("adapter", "adapter_name", "adapter_id", "lora", "lora_name", "lora_id", "lora_adapter")
#: Columns that may mean it, but name the base model in the public traces.
_MODEL_COLUMNS = ("model", "model_name")
#: Units of a column of numbers, by name.
UNITS_S = {"s": 1.0, "ms": 0.001}
# Read in milliseconds, no trace of a server has so many requests per second.
_TOO_MANY_PER_S = 200.0
_MOST_TOKENS = 10**9
_LONGEST_LINE = 10_000_000
_LONGEST_NAME = 500


@dataclass(frozen=True)
class TraceFormat:
    """The columns of a published trace.

    Attributes
    ----------
    name : str
    time, prompt, output : str
        Columns of the arrival time and of the prompt and output tokens; formats differ in the first.
    unit_s : float, optional
        Seconds in a unit of `time`; None where it is a date and time.
    zero_output_failed : bool
        A request without output tokens is one that failed, and is left out; otherwise it is kept.
    """

    name: str
    time: str
    prompt: str
    output: str
    unit_s: float | None = None
    zero_output_failed: bool = False

    @property
    def columns(self) -> tuple[str, str, str]:
        """The three columns that are read."""
        return self.time, self.prompt, self.output


FORMATS = (
    # AzurePublicDataset, LLM inference traces (Patel et al., "Splitwise", ISCA 2024); those of 2024 have a UTC offset.
    TraceFormat("Azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    # HPMLL/BurstGPT (Wang et al., arXiv 2401.17644).
    TraceFormat("BurstGPT", "Timestamp", "Request tokens", "Response tokens", unit_s=1.0, zero_output_failed=True),
    # kvcache-ai/Mooncake (Qin et al., FAST 2025).
    TraceFormat("Mooncake", "timestamp", "input_length", "output_length", unit_s=0.001),
)


class RecordedTrace(NamedTuple):
    """What a trace file holds, in order of arrival.

    Attributes
    ----------
    arrival_s : array of shape (n_requests,)
        Seconds since the first request.
    prompt_tokens, output_tokens : arrays of shape (n_requests,)
    adapter : array of shape (n_requests,), optional
        Number of the adapter in `adapter_names`, where a column says who is asked.
    adapter_names : tuple of str
        Sorted.
    """

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    adapter: NDArray[np.int64] | None = None
    adapter_names: tuple[str, ...] = ()


def read_trace(path: str, *, time_unit: str | None = None, adapter_column: str | None = None) -> RecordedTrace:
    """Read a trace file.

    Parameters
    ----------
    path : str
        A CSV file with a header, or JSON lines, with the columns of one of `FORMATS`; either may be compressed by gzip.
    time_unit : {"s", "ms"}, optional
        Of a column of numbers; by default the format's, unless the numbers say that it cannot be.
    adapter_column : str, optional
        Column that says which adapter a request asks for; by default one of `ADAPTER_COLUMNS`, if the file has one. An
        empty text passes it over.

    Returns
    -------
    RecordedTrace

    Raises
    ------
    UserError
        For a missing file, column or value, a value that is no number, a unit that cannot be told, or a trace that spans
        no time.
    """
    import pyarrow as pa

    path = str(path)
    filled_size(path, f"workload.path={path}", "a trace file")
    try:
        table, trace_format, column = (
            _json_table(path, adapter_column) if _is_json(path) else _csv_table(path, adapter_column)
        )
    except (pa.ArrowException, ValueError, OverflowError, OSError, EOFError, zlib.error, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:300]
        raise UserError(f"{path}: not a trace in CSV or JSON lines ({reason})") from None
    _check_nulls(path, table, [*trace_format.columns, *([column] if column else [])])
    time, prompt, output = (table[name].to_numpy() for name in trace_format.columns)
    names, owner = _owners(path, table, column)
    kept = output != 0 if trace_format.zero_output_failed else np.ones(len(time), dtype=bool)
    time, prompt, output = time[kept], prompt[kept], output[kept]
    if not len(time):
        raise UserError(f"{path}: there is no request in it")
    if min(prompt.min(), output.min()) < 0:
        raise UserError(f"{path}: {trace_format.prompt} and {trace_format.output} must not be negative")
    if max(prompt.max(), output.max()) > _MOST_TOKENS:
        raise UserError(
            f"{path}: {trace_format.prompt} and {trace_format.output} must be {_MOST_TOKENS:,} tokens or fewer"
        )
    seconds = _seconds(path, time, trace_format, time_unit)
    order = np.argsort(seconds, kind="stable")
    trace = RecordedTrace(
        seconds[order], prompt[order], output[order], None if owner is None else owner[kept][order], names
    )
    _log.info("%s", _summary(path, trace, trace_format))
    return trace


def _summary(path: str, trace: RecordedTrace, trace_format: TraceFormat) -> str:
    span_s = float(trace.arrival_s[-1])
    who = f", {len(trace.adapter_names)} adapters" if trace.adapter is not None else ""
    return (
        f"{path}: {len(trace.arrival_s):,} requests in the columns of {trace_format.name} traces over {span_s:,.0f} s "
        f"({len(trace.arrival_s) / span_s:.3g} requests/s{who}), {trace.prompt_tokens.mean():.0f} prompt and "
        f"{trace.output_tokens.mean():.0f} output tokens in the mean"
    )


def _seconds(path: str, time: NDArray[Any], trace_format: TraceFormat, unit: str | None) -> NDArray[np.float64]:
    """Seconds since the first request."""
    column = trace_format.time
    if unit is not None and unit not in UNITS_S:
        raise UserError(f"workload.time_unit={unit}: must be one of {', '.join(UNITS_S)}, or null")
    if trace_format.unit_s is None:
        if unit is not None:
            raise UserError(f"workload.time_unit={unit}: column {column} of {path} holds dates, which have no unit")
        seconds = (time - time.min()) / np.timedelta64(1, "s")
    else:
        wrong = np.flatnonzero(~np.isfinite(time))
        if len(wrong):
            raise UserError(
                f"{path}: column {column} holds {time[wrong[0]]}; it must be a number of {_unit_name(trace_format)}"
            )
        since = time - time.min()
        if unit is None:
            _check_unit(path, time, since, trace_format)
        seconds = since * (trace_format.unit_s if unit is None else UNITS_S[unit])
    if not seconds.max() > 0:
        raise UserError(f"{path}: all its requests have the same {column}; a trace spans some time")
    if seconds.max() > LONGEST_S:
        raise UserError(f"{path}: column {column} spans {seconds.max():.3g} s; at most {LONGEST_S:.0e} s are replayed")
    return np.asarray(seconds, dtype=np.float64)


def _unit_name(trace_format: TraceFormat) -> str:
    return "milliseconds" if trace_format.unit_s == UNITS_S["ms"] else "seconds"


def _check_unit(path: str, time: NDArray[np.float64], since: NDArray[np.float64], trace_format: TraceFormat) -> None:
    """Ask for the unit where the format's cannot be right; services write seconds under the name of Mooncake's column."""
    if trace_format.unit_s != UNITS_S["ms"]:
        return
    ask = "say which: workload.time_unit=s or workload.time_unit=ms"
    if (time != np.rint(time)).any():
        raise UserError(
            f"{path}: column {trace_format.time} has fractions; {trace_format.name} traces count whole milliseconds, most "
            f"others seconds: {ask}"
        )
    span_s = float(since.max()) * UNITS_S["ms"]
    if span_s and len(time) > _TOO_MANY_PER_S and len(time) / span_s > _TOO_MANY_PER_S:
        raise UserError(
            f"{path}: column {trace_format.time}, read in milliseconds, gives {len(time) / span_s:,.0f} requests/s for "
            f"{span_s:.3g} s: {ask}"
        )


def _owners(path: str, table: Any, column: str | None) -> tuple[tuple[str, ...], NDArray[np.int64] | None]:  # noqa: ANN401  # pyarrow has no types
    """Names in the column of adapters, sorted, and for each request its place among them."""
    if column is None:
        return (), None
    names, owner = np.unique(np.asarray(table[column].to_pylist(), dtype=str), return_inverse=True)
    for name in names[: MOST_ADAPTERS + 1]:
        plain_text(f"{path}: column {column}", str(name), at_most=_LONGEST_NAME)
    if len(names) > MOST_ADAPTERS:
        raise UserError(
            f"{path}: column {column} names {len(names):,} adapters; at most {MOST_ADAPTERS:,} are replayed"
        )
    return tuple(str(name) for name in names), owner.astype(np.int64)


def _check_nulls(path: str, table: Any, columns: list[str]) -> None:  # noqa: ANN401  # pyarrow has no types
    import pyarrow as pa

    for column in columns:
        if table[column].null_count:
            row = table[column].is_null().index(pa.scalar(value=True)).as_py()
            # A CSV file has its header in line 1.
            raise UserError(f"{path}: column {column} is empty in line {row + (1 if _is_json(path) else 2)}")


# --- which columns


def _format(path: str, header: list[str]) -> TraceFormat:
    for trace_format in FORMATS:
        if trace_format.time in header:
            for column in trace_format.columns:
                if column not in header:
                    raise UserError(
                        f"{path}: column {column} is missing; {trace_format.name} traces have the columns "
                        f"{', '.join(trace_format.columns)}"
                    )
                if header.count(column) > 1:
                    raise UserError(f"{path}: column {column} is there twice")
            return trace_format
    known = "; ".join(f"{', '.join(each.columns)} ({each.name})" for each in FORMATS)
    raise UserError(f"{path}: has the columns {shown_list(header)}; a trace has one of these sets: {known}")


def shown_list(names: list[str]) -> str:
    """Names as a message lists them: no control characters, a dozen at most."""
    listed = ", ".join(shown(name)[1:-1] for name in names[:12])
    return listed + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _adapter_column(path: str, header: list[str], asked: str | None) -> str | None:
    """The column that says who is asked."""
    if asked is not None:
        if asked and asked not in header:
            raise UserError(f"workload.adapter_column={asked}: {path} has the columns {shown_list(header)}")
        if header.count(asked) > 1:
            raise UserError(f"{path}: column {asked} is there twice")
        return asked or None
    found = [name for name in header if name.lower() in ADAPTER_COLUMNS]
    if len(found) > 1:
        raise UserError(
            f"{path}: columns {shown_list(found)} may say which adapter a request asks for; name one: workload.adapter_column=COLUMN"
        )
    return found[0] if found else None


def _tell_of_models(path: str, header: list[str], column: str | None) -> None:
    for name in header:
        if column is None and name.lower() in _MODEL_COLUMNS:
            _log.info(
                "%s: column %s is passed over, and adapters are drawn; workload.adapter_column='%s' takes them from it",
                path, name, name,
            )  # fmt: skip


# --- CSV


def _is_json(path: str) -> bool:
    with _opened(path) as file:
        first = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{path}: not a text file in UTF-8; it must be a trace, in CSV or JSON lines")
    if first[:1] == b"[":
        raise UserError(f"{path}: holds a JSON list; a trace has an object in each line (JSON lines), or is a CSV file")
    return first[:1] == b"{"


def _opened(path: str) -> IO[bytes]:
    with Path(path).open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path, "rb")) if compressed else Path(path).open("rb")


def _csv_table(path: str, asked: str | None) -> tuple[Any, TraceFormat, str | None]:
    import pyarrow as pa
    from pyarrow import csv

    with _opened(path) as file, csv.open_csv(file) as reader:
        schema = reader.schema
    header = list(schema.names)
    trace_format = _format(path, header)
    column = _adapter_column(path, header, asked)
    _tell_of_models(path, header, column)
    zone = getattr(schema.field(trace_format.time).type, "tz", None)
    time = pa.timestamp("ns", tz="UTC" if zone else None) if trace_format.unit_s is None else pa.float64()
    types = dict(zip(trace_format.columns, (time, pa.int64(), pa.int64()), strict=True))
    if column:
        types[column] = pa.string()
    convert = csv.ConvertOptions(column_types=types, include_columns=list(types), strings_can_be_null=True)
    with _opened(path) as file:
        return csv.read_csv(file, convert_options=convert), trace_format, column


# --- JSON lines


def _json_table(path: str, asked: str | None) -> tuple[Any, TraceFormat, str | None]:
    import pyarrow as pa

    trace_format: TraceFormat | None = None
    column: str | None = None
    values: dict[str, list[Any]] = {}
    for number, record in _records(path):
        if trace_format is None:
            header = list(record)
            trace_format = _format(path, header)
            column = _adapter_column(path, header, asked)
            _tell_of_models(path, header, column)
            values = {name: [] for name in (*trace_format.columns, *([column] if column else []))}
        for name, column_values in values.items():
            if record.get(name) is None:
                raise UserError(f"{path}: column {name} is empty in line {number}")
            column_values.append(record[name])
    if trace_format is None:
        raise UserError(f"{path}: there is no request in it")
    arrays = {name: _array(name, column_values, trace_format) for name, column_values in values.items()}
    return pa.table(arrays), trace_format, column


def _records(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines, with the numbers of their lines; blank lines are passed over."""
    with _opened(path) as file:
        number = 0
        while line := file.readline(_LONGEST_LINE):
            number += 1
            if len(line) == _LONGEST_LINE:
                raise UserError(
                    f"{path}: line {number} is longer than {_LONGEST_LINE / 1e6:.0f} MB; a trace has an object in each line"
                )
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if not text:
                continue
            try:
                record = json.loads(text, object_pairs_hook=_object)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: {error.msg}") from None
            if not isinstance(record, dict):
                raise ValueError(f"line {number}: {shown(text)} is no object")  # noqa: TRY004  # of the text, not of a caller
            yield number, record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {shown(next(name for name in names if names.count(name) > 1))} is there twice")
    return record


def _array(name: str, values: list[Any], trace_format: TraceFormat) -> Any:  # noqa: ANN401  # pyarrow has no types
    import pyarrow as pa

    if name not in trace_format.columns:
        for value in values:
            if isinstance(value, bool) or not isinstance(value, (str, int)):
                raise ValueError(f"column {name} holds {shown(value)}, which is no name")  # noqa: TRY004  # of the text, not of a caller
        return pa.array([str(value) for value in values], pa.string())
    if name == trace_format.time and trace_format.unit_s is None:
        zone = "UTC" if str(values[0]).rstrip().endswith("Z") or "+" in str(values[0]) else None
        return pa.array([str(value) for value in values], pa.string()).cast(pa.timestamp("ns", tz=zone))
    kind = pa.float64() if name == trace_format.time else pa.int64()
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"column {name} holds {shown(value)}, which is no number")  # noqa: TRY004  # of the text, not of a caller
    return pa.array(values, kind)
