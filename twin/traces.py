"""Recorded request traces: the columns of the public ones, from CSV or JSON lines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import UserError


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
    # AzurePublicDataset, LLM inference traces (Patel et al., "Splitwise", ISCA 2024).
    TraceFormat("Azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    # HPMLL/BurstGPT (Wang et al., arXiv 2401.17644).
    TraceFormat("BurstGPT", "Timestamp", "Request tokens", "Response tokens", unit_s=1.0, zero_output_failed=True),
    # kvcache-ai/Mooncake (Qin et al., FAST 2025).
    TraceFormat("Mooncake", "timestamp", "input_length", "output_length", unit_s=0.001),
)


def read_trace(path: str) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Read a trace file.

    Parameters
    ----------
    path : str
        A CSV file with a header, or JSON lines, with the columns of one of `FORMATS`.

    Returns
    -------
    arrival_s, prompt_tokens, output_tokens : arrays of shape (n_requests,)
        In order of arrival, in seconds since the first request.

    Raises
    ------
    UserError
        For a missing file, column or value, a value that is no number, or a trace that spans no time.
    """
    import pyarrow as pa

    if not Path(path).is_file():
        raise UserError(f"workload.path={path}: no such file")
    try:
        columns = _header(path)
        trace_format = _format(path, columns)
        table = _table(path, trace_format)
    except (pa.ArrowInvalid, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a trace in CSV or JSON lines ({error})") from None
    for column in trace_format.columns:
        if table[column].null_count:
            row = table[column].is_null().index(pa.scalar(value=True)).as_py()
            # A CSV file has its header in line 1.
            raise UserError(f"{path}: column {column} is empty in line {row + (1 if _is_json(path) else 2)}")
    time, prompt, output = (table[column].to_numpy() for column in trace_format.columns)
    if trace_format.zero_output_failed:
        time, prompt, output = time[output != 0], prompt[output != 0], output[output != 0]
    if not len(time):
        raise UserError(f"{path}: there is no request in it")
    if min(prompt.min(), output.min()) < 0:
        raise UserError(f"{path}: {trace_format.prompt} and {trace_format.output} must not be negative")
    since = time - time.min()
    seconds = since / np.timedelta64(1, "s") if trace_format.unit_s is None else since * trace_format.unit_s
    if not seconds.max() > 0:
        raise UserError(f"{path}: all its requests have the same {trace_format.time}; a trace spans some time")
    order = np.argsort(seconds, kind="stable")
    return seconds[order], prompt[order], output[order]


def _is_json(path: str) -> bool:
    with Path(path).open("rb") as file:
        return file.read(1) == b"{"


def _header(path: str) -> list[str]:
    if _is_json(path):
        with Path(path).open(encoding="utf-8") as file:
            return list(json.loads(file.readline()))
    from pyarrow import csv

    with csv.open_csv(path) as reader:
        return list(reader.schema.names)


def _format(path: str, header: list[str]) -> TraceFormat:
    for trace_format in FORMATS:
        if trace_format.time in header:
            for column in trace_format.columns:
                if column not in header:
                    raise UserError(
                        f"{path}: column {column} is missing; {trace_format.name} traces have the columns "
                        f"{', '.join(trace_format.columns)}"
                    )
            return trace_format
    known = "; ".join(f"{', '.join(each.columns)} ({each.name})" for each in FORMATS)
    raise UserError(f"{path}: has the columns {', '.join(header)}; a trace has one of these sets: {known}")


def _table(path: str, trace_format: TraceFormat) -> Any:  # noqa: ANN401  # pyarrow has no types
    import pyarrow as pa
    from pyarrow import csv
    from pyarrow import json as json_lines

    time = pa.timestamp("ns") if trace_format.unit_s is None else pa.float64()
    types = dict(zip(trace_format.columns, (time, pa.int64(), pa.int64()), strict=True))
    if _is_json(path):
        options = json_lines.ParseOptions(explicit_schema=pa.schema(types), unexpected_field_behavior="ignore")
        return json_lines.read_json(path, parse_options=options)
    convert = csv.ConvertOptions(column_types=types, include_columns=list(trace_format.columns))
    return csv.read_csv(path, convert_options=convert)
