"""Samples of counters from what people save: a page of metrics, or Prometheus' answer to a query."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from twin import UserError
from twin.inputs import parse_json, read_text

_log = logging.getLogger(__name__)

# Later times than this are no seconds.
_LATEST_S = 1e11
_SAMPLE = re.compile(
    r'^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>(?:[^"{}]|"(?:[^"\\]|\\.)*")*)\})?\s+(?P<value>[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|Inf|NaN))(?:\s+(?P<time>-?\d+(?:\.\d+)?))?(?:\s+#\s.*)?\s*$',
    re.ASCII,
)
_LABEL = re.compile(r'\s*([a-zA-Z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)', re.ASCII)
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


@dataclass(frozen=True)
class Sample:
    """One number of one series.

    Attributes
    ----------
    name : str
        Of the metric; empty in the answer to a query that computes.
    labels : mapping of str to str
    value : float
    time_s : float, optional
    """

    name: str
    labels: Mapping[str, str]
    value: float
    time_s: float | None = None


def read_samples(path: str) -> tuple[list[Sample], bool]:
    """Samples of a file, and whether they are rates already.

    Raises
    ------
    UserError
        Naming the file and what is wrong in it.
    """
    text = read_text(path, "a page of metrics or a JSON answer of Prometheus", key="counters")
    if not text.lstrip().startswith(("{", "[")):
        return list(_page(text, path)), False
    answer = parse_json(text, f"counters={path}", "the JSON of Prometheus' /api/v1/query")
    try:
        samples = list(_answer(answer))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            f"counters={path}: not the JSON of Prometheus' /api/v1/query with a vector in it ({type(error).__name__}: {error})"
        ) from None
    if not samples:
        raise UserError(f"counters={path}: the query found no series")
    return samples, not any(sample.name for sample in samples)


def _page(text: str, path: str) -> Iterator[Sample]:
    """Samples of a metrics page in the text format, https://prometheus.io/docs/instrumenting/exposition_formats/."""
    # OpenMetrics, which ends in this way, has its times in seconds.
    unit_s = 1.0 if text.rstrip().endswith("# EOF") else 0.001
    if not text.endswith(("\n", "\r")):
        _log.info("counters=%s: the last line has no end, so the page may have been cut short there", path)
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _SAMPLE.match(line.strip())
        if match is None:
            raise UserError(
                f"counters={path}: line {number} is no sample of Prometheus' text format: {line.strip()[:60]!r}"
            )
        labels = {
            key: re.sub(r"\\[\\\"n]", lambda found: _ESCAPES[found[0]], text)
            for key, text in _LABEL.findall(match["labels"] or "")
        }
        yield Sample(
            match["name"], labels, float(match["value"]), float(match["time"]) * unit_s if match["time"] else None
        )


def _answer(answer: Any) -> Iterator[Sample]:  # noqa: ANN401  # whatever JSON holds
    """Samples of the answer of `/api/v1/query`, https://prometheus.io/docs/prometheus/latest/querying/api/."""
    if answer.get("status") != "success":
        raise ValueError(answer.get("error", f"status {answer.get('status')!r}"))
    data = answer["data"]
    if data["resultType"] != "vector":
        raise ValueError(f"resultType {data['resultType']!r} is not vector: ask /api/v1/query for one moment")
    for series in data["result"]:
        (time_s, value), labels = series["value"], dict(series["metric"])
        if not all(isinstance(text, str) for text in labels.values()):
            raise ValueError(f"the labels {labels} are not all text")
        if not float(time_s) < _LATEST_S:
            raise ValueError(f"the time {time_s} is no number of seconds")
        yield Sample(labels.get("__name__", ""), labels, float(value), float(time_s))
