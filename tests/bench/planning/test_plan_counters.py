"""Request counters: which series are read, from which formats, and what is said of the others."""

import json
from pathlib import Path

import pytest

from bench.planning.counters import Measured, read_counters
from twin import UserError

# As the router of the production-stack writes it (prometheus_client's text format).
ROUTER = """\
# HELP vllm:num_incoming_requests_total Total valid incoming requests to router.
# TYPE vllm:num_incoming_requests_total counter
vllm:num_incoming_requests_total{{model="billing"}} {billing}
vllm:num_incoming_requests_total{{model="a \\"b\\", \\\\c"}} 5e0
vllm:num_incoming_requests_created{{model="billing"}} 1.7395575657589855e+09
vllm:input_tokens_total{{model="billing",server="http://a"}} {tokens}
vllm:input_tokens_total{{model="billing",server="http://b"}} {tokens}
vllm:avg_latency{{server="http://a"}} NaN
process_start_time_seconds 1.7e+09
"""
# As the endpoint picker writes it (its own test data: pkg/epp/metrics/testdata/request_total_metric).
PICKER = """\
# TYPE inference_objective_request_total counter
inference_objective_request_total{model_name="chat", target_model_name="billing"} 120
inference_objective_request_total{model_name="chat", target_model_name="search"} 60
inference_objective_input_tokens_bucket{model_name="chat", target_model_name="billing", le="8"} 0
inference_objective_input_tokens_sum{model_name="chat", target_model_name="billing"} 24000
inference_objective_input_tokens_count{model_name="chat", target_model_name="billing"} 120
inference_objective_output_tokens_sum{model_name="chat", target_model_name="billing"} 600
inference_objective_output_tokens_count{model_name="chat", target_model_name="billing"} 60
"""


def saved(tmp_path: Path, name: str, text: str) -> str:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path / name)


def query(tmp_path: Path, name: str, *series: tuple[dict[str, str], float, str]) -> str:
    result = [{"metric": metric, "value": [time_s, value]} for metric, time_s, value in series]
    return saved(tmp_path, name, json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}))


def test_two_pages_of_the_stacks_router(tmp_path: Path) -> None:
    first = saved(tmp_path, "1", ROUTER.format(billing="10.0", tokens="1000.0"))
    last = saved(tmp_path, "2", ROUTER.format(billing="70.0", tokens="4000.0"))
    measured = read_counters([first, last], interval_s=30)
    assert measured.rates == {"billing": 2.0, 'a "b", \\c': 0.0}
    assert measured.prompt_tokens == {"billing": 100.0}
    assert measured.output_tokens == {}


def test_one_page_of_the_endpoint_picker(tmp_path: Path) -> None:
    measured = read_counters([saved(tmp_path, "1", PICKER)], interval_s=60)
    assert measured == Measured({"billing": 2.0, "search": 1.0}, {"billing": 200.0}, {"billing": 10.0})


def test_a_total_that_fell_is_that_of_a_server_that_started_anew(tmp_path: Path) -> None:
    pages = [saved(tmp_path, name, f'calls_total{{model="a"}} {total}\n') for name, total in (("1", 50), ("2", 20))]
    assert read_counters(pages, interval_s=10, metric="calls_total").rates == {"a": 2.0}


def test_rates_that_prometheus_computed(tmp_path: Path) -> None:
    """`sum by (model) (rate(vllm:num_incoming_requests_total[1h]))`: no name is left; servers are summed."""
    file = query(
        tmp_path, "q.json",
        ({"model": "a", "server": "1"}, 5.0, "0.25"), ({"model": "a", "server": "2"}, 5.0, "0.5"),
        ({"model": "b"}, 5.0, "NaN"), ({}, 5.0, "9"),
    )  # fmt: skip
    assert read_counters([file]).rates == {"a": 0.75}


def test_totals_that_prometheus_answered_have_their_times(tmp_path: Path) -> None:
    name = {"__name__": "vllm:num_incoming_requests_total", "model": "a"}
    files = [query(tmp_path, "1.json", (name, 100.0, "7")), query(tmp_path, "2.json", (name, 160.0, "67"))]
    assert read_counters(files).rates == {"a": 1.0}
    with pytest.raises(UserError, match="not later"):
        read_counters(files[::-1])


def test_a_label_of_ones_own(tmp_path: Path) -> None:
    page = saved(tmp_path, "1", 'gateway_requests_total{tenant="a",model="base"} 30\n')
    assert read_counters([page], interval_s=10, metric="gateway_requests_total", label="tenant").rates == {"a": 3.0}


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ('vllm:request_success_total{model_name="base"} 3\n', {}, "a vLLM server counts the requests of all its adapt"),
        ("up 1\n", {}, "none of vllm:num_incoming_requests_total, inference_objective_request_total"),
        ("up 1\n", {"metric": "down"}, "counters_metric=down: .* has no such series"),
        ('calls_total{who="a"} 1\n', {"metric": "calls_total"}, "which label .* counters_label=LABEL; .* have who"),
        ('calls_total{model="a"} 1\n', {"metric": "calls_total"}, "add counters_interval_s=SECONDS"),
        ('calls_total{model="a"} 1\n', {"metric": "calls_total", "label": "b", "interval_s": 1}, "has a label b"),
        ("<html>\n", {}, "line 1 is no sample of Prometheus' text format: '<html>'"),
        ("up 1.2.3\n", {}, "line 1 is no sample"),
        ("{}", {}, "not the JSON of Prometheus"),
        ('{"status": "error", "error": "bad query"}', {}, "bad query"),
        ('{"status": "success", "data": {"resultType": "matrix", "result": []}}', {}, "ask /api/v1/query for one"),
        ('{"status": "success", "data": {"resultType": "vector", "result": []}}', {}, "the query found no series"),
        ("up 1\n", {"interval_s": 0}, "counters_interval_s=0 must be"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, text: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_counters([saved(tmp_path, "counters", text)], **options)  # type: ignore[arg-type]


def test_files_that_do_not_go_together(tmp_path: Path) -> None:
    rates = query(tmp_path, "r.json", ({"model": "a"}, 5.0, "1"))
    page = saved(tmp_path, "page", PICKER)
    for files in ([rates, page], [page, rates], [rates, rates]):
        with pytest.raises(UserError, match="both must hold totals"):
            read_counters(files, interval_s=1)
    with pytest.raises(UserError, match="one file, or two"):
        read_counters([page] * 3)
    with pytest.raises(UserError, match="no such file"):
        read_counters(["nowhere"])


def test_totals_are_not_taken_for_rates(tmp_path: Path) -> None:
    """`sum by (model) (vllm:num_incoming_requests_total)` has no name left, as rates have none."""
    for value in ("7300", "123456.5"):
        file = query(tmp_path, "q.json", ({"model": "a"}, 5.0, value), ({"model": "b"}, 5.0, "12"))
        with pytest.raises(UserError, match="looks like a total of requests"):
            read_counters([file])
    page = saved(tmp_path, "page", 'calls_total{model="a"} 5000000\n')
    with pytest.raises(UserError, match="more than a router sees; counters_interval_s must be in seconds"):
        read_counters([page], interval_s=60, metric="calls_total")


def test_tokens_of_another_router_are_read_or_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    page = saved(
        tmp_path, "page",
        'gw_request_total{model="a"} 60\ngw_request_input_tokens_sum{model="a"} 6000\n'
        'gw_request_input_tokens_count{model="a"} 60\nother_tokens_seen{model="a"} 1\n',
    )  # fmt: skip
    with caplog.at_level("INFO", "bench"):
        measured = read_counters([page], interval_s=60, metric="gw_request_total")
    assert measured == Measured({"a": 1.0}, {"a": 100.0})
    assert "lengths come from gw_request_input_tokens_sum; not read: other_tokens_seen" in caplog.text
    assert "1 names, 1 requests/s, 1 with prompt lengths" in caplog.text


def test_negative_totals_and_odd_lengths_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="a has -3"):
        read_counters([saved(tmp_path, "1", 'c_total{model="a"} -3\n')], interval_s=1, metric="c_total")
    page = 'c_total{model="a"} 100\nc_input_tokens_total{model="a"} 5\n'
    with pytest.raises(UserError, match=r"gives 0.05 tokens a request"):
        read_counters([saved(tmp_path, "1", page)], interval_s=1, metric="c_total")
    with caplog.at_level("INFO", "bench"):
        read_counters(
            [saved(tmp_path, "1", 'c_total{model="a"} NaN\nc_total{model="b"} 1\n')], interval_s=1, metric="c_total"
        )
    assert "of a is nan, which counts as nothing" in caplog.text


ROUTED = 'calls_total{{model="a",server="1"}} {}\ncalls_total{{model="a",server="2"}} {}\n'


def test_a_server_that_started_anew_does_not_hide_in_the_sum_of_all(tmp_path: Path) -> None:
    first, last = saved(tmp_path, "1", ROUTED.format(1000, 1000)), saved(tmp_path, "2", ROUTED.format(10, 2000))
    assert read_counters([first, last], interval_s=10, metric="calls_total").rates == {"a": 101.0}


def test_series_that_went_away_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = saved(tmp_path, "1", ROUTED.format(5, 7))
    last = saved(tmp_path, "2", 'calls_total{model="a",server="2"} 17\n')
    with caplog.at_level("INFO", "bench"):
        assert read_counters([first, last], interval_s=10, metric="calls_total").rates == {"a": 1.0}
    assert "a series of calls_total of a is in the first file alone" in caplog.text
    other = saved(tmp_path, "3", 'calls_total{model="a",server="3"} 17\n')
    with pytest.raises(UserError, match="no series of calls_total is in both files"):
        read_counters([first, other], interval_s=10, metric="calls_total")


def test_two_times_the_same_page_is_no_plan_for_nothing(tmp_path: Path) -> None:
    page = saved(tmp_path, "1", ROUTED.format(5, 7))
    with pytest.raises(UserError, match="calls_total counts no request"):
        read_counters([page, page], interval_s=10, metric="calls_total")


def test_an_interval_that_the_times_contradict_is_refused(tmp_path: Path) -> None:
    pages = [saved(tmp_path, str(n), f'c_total{{model="a"}} {n}0 {n}000000\n') for n in (1, 2)]
    assert read_counters(pages, metric="c_total", interval_s=1001).rates == {"a": 0.01}
    with pytest.raises(UserError, match=r"counters_interval_s=60, but by the times in them .* is 1000 s after"):
        read_counters(pages, metric="c_total", interval_s=60)


def test_openmetrics_has_times_in_seconds_and_exemplars(tmp_path: Path) -> None:
    line = 'c_total{{model="a"}} {} {} # {{trace_id="x"}} 0.5\n# EOF\n'
    pages = [saved(tmp_path, "1", line.format(10, 100.5)), saved(tmp_path, "2", line.format(30, 110.5))]
    assert read_counters(pages, metric="c_total").rates == {"a": 2.0}


def test_a_page_that_was_cut_short_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    page = saved(tmp_path, "1", 'c_total{model="a"} 10')
    with caplog.at_level("INFO", "bench"):
        read_counters([page], metric="c_total", interval_s=1)
    assert "may have been cut short" in caplog.text


@pytest.mark.parametrize(
    ("series", "said"),
    [(({"model": 5}, 1.0, "1"), "are not all text"), (({"model": "a"}, 1.7e12, "1"), "is no number of seconds")],
)
def test_labels_and_times_of_an_answer_are_checked(
    tmp_path: Path, series: tuple[dict[str, str], float, str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        read_counters([query(tmp_path, "q.json", series)])
