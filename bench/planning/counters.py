"""Request rates (and mean lengths) of adapters from request counters, in the formats that Prometheus has.

vLLM itself counts the requests of all its adapters together: the label `model_name` of `vllm:request_success_total` is
the served base model, and `vllm:lora_requests_info` names the adapters at work without counting (vLLM 0.32,
`vllm/v1/metrics/loggers.py`). What stands before vLLM sees which adapter a request asks for, and counts:

- the router of the vLLM production-stack, `vllm:num_incoming_requests_total{model}`, with the tokens in
  `vllm:input_tokens_total` and `vllm:output_tokens_total` (`src/vllm_router/services/metrics_service`, commit 0c740a2);
- the endpoint picker of the Gateway API Inference Extension, `inference_objective_request_total{target_model_name}`
  (`inference_model_request_total` in its first releases), with the tokens in the histograms `inference_objective_input_tokens`
  and `inference_objective_output_tokens` (`pkg/epp/metrics/metrics.go`, commit 04a97e6).

Any other counter with a label for the adapter's name is read as well, if it is named.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.planning.samples import Sample, read_samples
from twin import UserError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Series:
    """Names of the counters of one kind of router.

    Attributes
    ----------
    requests, label : str
        The counter of requests, and its label that names the adapter.
    prompt, output : tuple of str
        Sum and number of prompt and of output tokens; empty where nobody counts them.
    """

    requests: str
    label: str
    prompt: tuple[str, ...] = ()
    output: tuple[str, ...] = ()


KNOWN = (
    Series(
        "vllm:num_incoming_requests_total",
        "model",
        ("vllm:input_tokens_total", "vllm:num_incoming_requests_total"),
        ("vllm:output_tokens_total", "vllm:num_incoming_requests_total"),
    ),
    *(
        Series(
            f"inference_{what}_request_total",
            "target_model_name",
            (f"inference_{what}_input_tokens_sum", f"inference_{what}_input_tokens_count"),
            (f"inference_{what}_output_tokens_sum", f"inference_{what}_output_tokens_count"),
        )
        for what in ("objective", "model")
    ),
)
#: Labels that name an adapter in the result of a query, which may have no name of a metric.
LABELS = ("target_model_name", "model", "lora_name", "adapter", "adapter_name", "requested_model", "model_name")
# No adapter of one router has more requests per second; whole numbers from here on are totals. Both by hand.
_MOST_PER_S, _WHOLE_FROM = 1000.0, 100.0
# Two ways to tell an interval may differ by so much.
_SAME_INTERVAL = 0.1
#: What counts the requests of all adapters together, under the name of the base model.
_OF_THE_SERVER = "vllm:request_success_total"


@dataclass(frozen=True)
class Measured:
    """What counters say.

    Attributes
    ----------
    rates : dict of str to float
        Requests per second by adapter.
    prompt_tokens, output_tokens : dict of str to float
        Mean lengths by adapter, where tokens are counted too.
    """

    rates: dict[str, float]
    prompt_tokens: dict[str, float] = field(default_factory=dict)
    output_tokens: dict[str, float] = field(default_factory=dict)


def read_counters(
    files: Sequence[str], *, interval_s: float | None = None, metric: str | None = None, label: str | None = None
) -> Measured:
    """Rates of adapters from saved metrics pages or query results.

    Parameters
    ----------
    files : sequence of str
        One or two files. A metrics page (text format) holds totals: two pages are subtracted, a single one is the
        total since the server's start. A JSON answer of `/api/v1/query` holds rates if its series have no name (what
        `rate()` gives), otherwise totals with a time.
    interval_s : float, optional
        Seconds between the two files (or since the start); not needed where the files have times.
    metric, label : str, optional
        Counter and label, where they are none of `KNOWN`.

    Raises
    ------
    UserError
        Naming the file and what is wrong in it.
    """
    if not 1 <= len(files) <= 2:
        raise UserError(f"counters={list(files)}: give one file, or two of which the second is the later one")
    if interval_s is not None and not (math.isfinite(interval_s) and interval_s > 0):
        raise UserError(f"counters_interval_s={interval_s} must be a number of seconds above 0")
    *earlier, (last, are_rates) = [read_samples(path) for path in files]
    if any(rates != are_rates or rates for _, rates in earlier):
        raise UserError(f"counters={list(files)}: of two files both must hold totals; one with rates is given alone")
    if are_rates:
        rates = _sum(last, "", label or _label_of(last, files[-1]), files[-1])
        _check_rates(rates, f"counters={files[-1]}", of_query=True)
        return _told(Measured(rates), files)
    first = earlier[0][0] if earlier else []
    series = _series(last, files[-1], metric, label)
    _tell(series, last, files[-1])
    return _told(_counted(first, last, series, _elapsed(first, last, series, files, interval_s), files), files)


def _counted(
    first: Sequence[Sample], last: Sequence[Sample], series: Series, elapsed_s: float, files: Sequence[str]
) -> Measured:
    """Rates and mean lengths of totals that grew."""

    def grown(name: str) -> dict[str, float]:
        return _grown(first, last, name, series.label)

    requests = grown(series.requests)
    if not requests:
        raise UserError(f"counters: {files[-1]}: no series of {series.requests} has a label {series.label}")
    if not any(requests.values()):
        raise UserError(f"counters={' and '.join(files)}: {series.requests} counts no request; another time is needed")

    def mean(names: tuple[str, ...]) -> dict[str, float]:
        if not names:
            return {}
        tokens, number = grown(names[0]), grown(names[1])
        means = {name: total / number[name] for name, total in tokens.items() if number.get(name) and total > 0}
        if (least := min(means.values(), default=1.0)) < 1:
            raise UserError(
                f"counters={files[-1]}: {names[0]} gives {least:.3g} tokens a request; it must be 1 or more"
            )
        return means

    rates = {name: count / elapsed_s for name, count in requests.items()}
    _check_rates(rates, f"counters={files[-1]} over {elapsed_s:g} s", of_query=False)
    return Measured(rates, mean(series.prompt), mean(series.output))


def _grown(first: Sequence[Sample], last: Sequence[Sample], name: str, label: str) -> dict[str, float]:
    """What the totals of each adapter grew by, each series by itself: one server that starts anew hides in a sum."""
    before, after = (_by_series(samples, name, label) for samples in (first, last))
    if before and after and before.keys().isdisjoint(after):
        raise UserError(f"counters: no series of {name} is in both files; they must be two pages of one router")
    total: dict[str, float] = defaultdict(float)
    for series, value in after.items():
        earlier = before.get(series, 0.0)
        adapter = dict(series)[label]
        if value < earlier:
            _log.info(
                "counters: %s of %s fell, so its server started anew: all of the later total counts", name, adapter
            )
        total[adapter] += value - earlier if value >= earlier else value
    for series in before.keys() - after.keys():
        adapter = dict(series)[label]
        total[adapter] += 0.0
        _log.info("counters: a series of %s of %s is in the first file alone, and counts as nothing", name, adapter)
    return dict(total)


def _check_rates(rates: Mapping[str, float], where: str, *, of_query: bool) -> None:
    """Refuse totals that are taken for rates, and rates that no router sees."""
    if not rates:
        return
    name, most = max(rates.items(), key=lambda pair: pair[1])
    if of_query and (most > _MOST_PER_S or (most >= _WHOLE_FROM and all(rate.is_integer() for rate in rates.values()))):
        raise UserError(
            f"{where}: {most:,.6g} for {name} looks like a total of requests, not a rate; ask for sum by (LABEL) (rate(NAME[1h])), "
            "or give two answers that keep the counter's name"
        )
    if most > _MOST_PER_S:
        raise UserError(
            f"{where}: {most:,.6g} requests/s of {name} are more than a router sees; counters_interval_s must be in seconds"
        )


def _told(measured: Measured, files: Sequence[str]) -> Measured:
    parts = ((measured.prompt_tokens, "prompt"), (measured.output_tokens, "output"))
    lengths = [f"{len(part)} with {what} lengths" for part, what in parts if part]
    _log.info(
        "counters=%s: %d names, %.4g requests/s%s",
        " and ".join(files), len(measured.rates), sum(measured.rates.values()), "".join(f", {part}" for part in lengths),
    )  # fmt: skip
    return measured


def _series(samples: Sequence[Sample], path: str, metric: str | None, label: str | None) -> Series:
    names = {sample.name for sample in samples}
    if metric is not None:
        if metric not in names:
            raise UserError(f"counters_metric={metric}: {path} has no such series")
        known = next((series for series in KNOWN if series.requests == metric), None)
        if label is not None or known is None:
            own = label or _label_of([sample for sample in samples if sample.name == metric], path)
            return Series(metric, own, *_tokens_beside(metric, names))
        return known
    for series in KNOWN:
        if series.requests in names:
            return Series(series.requests, label or series.label, series.prompt, series.output)
    known_names = ", ".join(series.requests for series in KNOWN)
    reason = f"none of {known_names} is in it; name another counter: counters_metric=NAME counters_label=LABEL"
    if _OF_THE_SERVER in names:
        reason = (
            "a vLLM server counts the requests of all its adapters together; save the metrics of the router before it "
            f"({known_names})"
        )
    raise UserError(f"counters={path}: {reason}")


def _tokens_beside(metric: str, names: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Series of prompt and of output tokens of a router that is not known, found by the name of its counter of requests."""
    base = metric.removesuffix("_total")
    stems = dict.fromkeys((base, base.removesuffix("_requests"), base.removesuffix("_request")))

    def found(words: Sequence[str]) -> tuple[str, ...]:
        for stem in stems:
            for word in words:
                histogram = (f"{stem}_{word}_tokens_sum", f"{stem}_{word}_tokens_count")
                if names.issuperset(histogram):
                    return histogram
                if f"{stem}_{word}_tokens_total" in names:
                    return (f"{stem}_{word}_tokens_total", metric)
        return ()

    return found(("input", "prompt")), found(("output", "generation", "completion"))


def _tell(series: Series, samples: Sequence[Sample], path: str) -> None:
    """Say which lengths are read, and which series about tokens are not."""
    read = [part[0] for part in (series.prompt, series.output) if part]
    used = {*series.prompt, *series.output}
    names = {sample.name for sample in samples}
    others = sorted(
        name for name in names if "token" in name and name not in used and not name.endswith(("_bucket", "_created"))
    )
    present = [name for name in read if name in names]
    if others or len(present) < len(read):
        lengths = (
            f"lengths come from {' and '.join(present)}"
            if present
            else "no lengths are read: those of the option lengths hold"
        )
        unread = f"; not read: {', '.join(others[:6])}{', ...' if len(others) > 6 else ''}" if others else ""
        _log.info("counters=%s: %s%s", path, lengths, unread)


def _label_of(samples: Sequence[Sample], path: str) -> str:
    for label in LABELS:
        if any(label in sample.labels for sample in samples):
            return label
    found = sorted({key for sample in samples for key in sample.labels} - {"__name__"})
    raise UserError(
        f"counters={path}: which label names the adapter? counters_label=LABEL; the series have {', '.join(found) or 'none'}"
    )


def _sum(samples: Sequence[Sample], name: str, label: str, path: str) -> dict[str, float]:
    """Values by adapter, summed over the other labels (servers, status codes)."""
    total: dict[str, float] = defaultdict(float)
    for series, value in _by_series(samples, name, label, path).items():
        total[dict(series)[label]] += value
    if not total:
        raise UserError(f"counters={path}: no series has a label {label} with a number")
    return dict(total)


def _by_series(
    samples: Sequence[Sample], name: str, label: str, path: str = ""
) -> dict[tuple[tuple[str, str], ...], float]:
    """Values of the series of a metric that name an adapter, by all their labels."""
    values: dict[tuple[tuple[str, str], ...], float] = defaultdict(float)
    for sample in samples:
        adapter = sample.labels.get(label)
        if sample.name != name or not adapter:
            continue
        if sample.value < 0:
            raise UserError(
                f"counters={path or name}: {adapter} has {sample.value:g}; a counter or a rate is 0 or more"
            )
        # NaN is what a query gives for a quotient of nothing.
        if math.isfinite(sample.value):
            values[tuple(sorted(sample.labels.items()))] += sample.value
        else:
            _log.info("counters: %s of %s is %s, which counts as nothing", name or "the value", adapter, sample.value)
    return dict(values)


def _elapsed(
    first: Sequence[Sample], last: Sequence[Sample], series: Series, files: Sequence[str], interval_s: float | None
) -> float:
    """Seconds that the totals grew: from the times of the samples, or as given where they have none."""

    def time_of(samples: Sequence[Sample]) -> float | None:
        return max(
            (sample.time_s for sample in samples if sample.name == series.requests and sample.time_s is not None),
            default=None,
        )

    before, after = time_of(first), time_of(last)
    if before is None or after is None:
        if interval_s is not None:
            return interval_s
        what = "between the two" if len(files) == 2 else "since the server started; or give two files"
        raise UserError(f"counters: {files[-1]} holds totals: add counters_interval_s=SECONDS, the time {what}")
    if after <= before:
        raise UserError(f"counters: {files[1]} is not later than {files[0]}; the later one comes second")
    if interval_s is not None and not math.isclose(interval_s, after - before, rel_tol=_SAME_INTERVAL):
        raise UserError(
            f"counters_interval_s={interval_s:g}, but by the times in them {files[1]} is {after - before:g} s after {files[0]}: "
            "leave the option out"
        )
    return after - before
