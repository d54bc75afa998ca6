"""The list of adapters: what is read, what is refused and how, and the workload that it makes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.comparison.build import build_workload
from bench.planning.adapters import Adapter, Traffic, workload_of
from bench.planning.listing import changed, check_ranks, read_adapters
from solvers.contents.adapter_types import adapter_types
from tests.examples import examples
from twin import PUBLISHED, UserError, load_profile, simulate_gpu

PROFILE = load_profile("llama-3.1-8b")
TRAFFIC = Traffic.of(PROFILE)


def listed(tmp_path: Path, text: str, **rates: float) -> list[Adapter]:
    file = tmp_path / "a.csv"
    file.write_text(text, encoding="utf-8")
    return read_adapters(file, rates or None)


def test_columns_come_in_any_order_and_others_are_passed_over(tmp_path: Path) -> None:
    text = 'rate, name,owner,rank,path,prompt_tokens\n1.5,"a, b",x,8,/w/a,100\n\n0,c,y,16,,\n'
    assert listed(tmp_path, text) == [
        Adapter("a, b", 8, 1.5, prompt_tokens=100.0, path="/w/a"),
        Adapter("c", 16, 0.0),
    ]


def test_the_mark_that_spreadsheets_write_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfname,rank,rate\r\na,8,1\r\n")
    assert read_adapters(tmp_path / "a.csv") == [Adapter("a", 8, 1.0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; it must be a CSV file with the columns name, rank and rate"),
        ("\n", "is empty"),
        ("name,rank,rate\na\0,8,1\n", "NUL bytes"),
        ("a,b\n1,2\n", "row 1: no column 'name'"),
        ("name,rank,rate\na,1e300,1\n", "column rank: '1e300' must be a number, 1 or more and at most 65,536"),
        ("name,rank,rate\na,8,1e300\n", "column rate: '1e300' must be a number, 0 or more and at most 100,000"),
        ("name,rank,rate\n--port=1,8,1\n", "column name: '--port=1' begins with a hyphen"),
        ("name,rank,rate,path\na,8,1,-x\n", "column path: '-x' begins with a hyphen"),
        ("name,rank,rate\na\u202eb,8,1\n", "has the character U+202E, which cannot be shown"),
        ("name,rank,rate\n" + "a" * 600 + ",8,1\n", "has 600 bytes; at most 500"),
        ("name,rank,rate\n" + "a" * 200_000 + ",8,1\n", "row 2: not a row of a CSV file"),
        ("name,rank,rates\na,8,1\n", "row 1: no column 'rate' (requests per second) among name, rank, rates; 'rates'"),
        ("name,rank,rate,rate\na,8,1,1\n", "row 1: column 'rate' is there twice"),
        ("name,rank,rate\n", "no adapter in it"),
        ("name,rank,rate\na,8,1\na,8,2\n", "row 3, column name: 'a' is in row 2 already"),
        ("name,rank,rate\n ,8,1\n", "row 2, column name: empty"),
        ("name,rank,rate\na,8\n", "row 2, column rate: empty"),
        ("name,rank,rate\na,8,1,2\n", "row 2: more values than the header has columns"),
        ("name,rank,rate\na,eight,1\n", "row 2, column rank: 'eight' must be a number, 1 or more"),
        ("name,rank,rate\na,8.5,1\n", "row 2, column rank: '8.5' must be a whole number"),
        ("name,rank,rate\na,0,1\n", "row 2, column rank: '0' must be a number, 1 or more"),
        ("name,rank,rate\na,8,-1\n", "row 2, column rate: '-1' must be a number, 0 or more"),
        ("name,rank,rate\na,8,nan\n", "row 2, column rate: 'nan'"),
        ("name,rank,rate,output_tokens\na,8,1,0\n", "row 2, column output_tokens: '0' must be a number, 1 or more"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        listed(tmp_path, text)
    assert said in str(refused.value)
    assert "a.csv" in str(refused.value)


def test_no_file_and_no_text_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_adapters(tmp_path / "none.csv")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        read_adapters(tmp_path / "a.csv")


def test_counted_rates_take_the_place_of_the_column(tmp_path: Path) -> None:
    assert [a.rate for a in listed(tmp_path, "name,rank\na,8\nb,8\n", a=2.0)] == [2.0, 0.0]


def test_what_if() -> None:
    adapters = [Adapter("a", 8, 1.0), Adapter("b", 8, 2.0)]
    what_if = changed(adapters, scale=1.5, rates={"b": 5.0}, ranks={"a": 16})
    assert what_if == [Adapter("a", 16, 1.5), Adapter("b", 8, 5.0)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scale": 0.0}, "scale=0.0 must be a number above 0"),
        ({"rates": {"billin": 1.0}}, r"what_if.rate.billin: no adapter of this name \(did you mean billing"),
        ({"rates": {"billing": -1.0}}, "what_if.rate.billing=-1.0 must be 0 or more"),
        ({"ranks": {"billing": 0}}, "what_if.rank.billing=0 must be 1 or more"),
    ],
)
def test_a_wrong_what_if_is_said(options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        changed([Adapter("billing", 8, 1.0)], **({"scale": 1.0, "rates": {}, "ranks": {}} | options))  # type: ignore[arg-type]


adapters = st.builds(
    Adapter,
    name=st.just("a"),
    rank=st.sampled_from([8, 16, 32]),
    rate=st.just(0.0) | st.floats(1e-9, 2),
    prompt_tokens=st.none() | st.floats(1, 4000),
    output_tokens=st.none() | st.floats(1, 4000),
)


@examples(30)
@given(st.lists(adapters, min_size=1, max_size=5), st.data())
def test_the_requests_of_an_adapter_are_its_own(listing: list[Adapter], data: st.DataObject) -> None:
    """Whoever is beside it: moving an adapter to another GPU moves its requests unchanged."""
    everything = workload_of(listing, TRAFFIC, PROFILE)
    chosen = data.draw(st.lists(st.sampled_from(range(len(listing))), min_size=1, unique=True))
    part = workload_of([listing[index] for index in chosen], TRAFFIC, PROFILE, ids=chosen)
    alone, among = part.requests, everything.requests_of(np.array(chosen))
    for name in ("arrival_s", "adapter", "prompt_tokens", "output_tokens", "requested_tokens"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(among, name))


@pytest.mark.parametrize("tokens", [1.0, np.nextafter(1.0, 2.0), 1.0 + 1e-12, 1.0 + 1e-7, 1.0001])
def test_a_mean_of_one_token_but_for_rounding_is_planned_for(tokens: float) -> None:
    requests = workload_of([Adapter("a", 8, 5.0, None, tokens), Adapter("b", 8, 1.0)], TRAFFIC, PROFILE).requests
    assert requests.requested_tokens[requests.adapter == 0].mean() == pytest.approx(tokens, abs=0.01)


@pytest.mark.parametrize(("prompt", "output"), [(20.0, 900.0), (3000.0, 1000.0), (1.0, 1.0), (60_000.0, 60_000.0)])
def test_the_mean_lengths_of_an_adapter_are_kept(prompt: float, output: float) -> None:
    listing = [Adapter("a", 8, 20.0, prompt, output), Adapter("b", 8, 20.0)]
    requests = workload_of(listing, TRAFFIC, PROFILE).requests
    own = requests.adapter == 0
    assert requests.prompt_tokens[own].mean() == pytest.approx(prompt, rel=0.06)
    # Prompt and output together are cut to what the server takes.
    assert requests.requested_tokens[own].mean() == pytest.approx(output, rel=0.08)
    assert (requests.prompt_tokens + requests.requested_tokens).max() <= PROFILE.max_model_len
    assert requests.prompt_tokens[~own].mean() == pytest.approx(222.8, rel=0.05)


def test_adapters_of_other_lengths_are_no_type_of_one_kind() -> None:
    """Or a proof that counts adapters of a type would take a short request for a long one."""
    listing = [Adapter("a", 8, 1.0, 20, 900), Adapter("b", 8, 1.0, 900, 20), Adapter("c", 8, 1.0, 20, 900)]
    types = adapter_types(workload_of(listing, TRAFFIC, PROFILE))
    assert sorted(tuple(members) for members in types.members) == [(0, 2), (1,)]


def test_lengths_beyond_the_server_are_said() -> None:
    with pytest.raises(UserError, match="adapter long: prompt_tokens=131000 and output_tokens=197 together"):
        workload_of([Adapter("long", 8, 1.0, 131_000)], TRAFFIC, PROFILE)
    with pytest.raises(UserError, match="rank=64"):
        workload_of([Adapter("a", 64, 1.0)], TRAFFIC, PROFILE)


def test_a_rank_above_the_profiles_is_said_with_its_row(tmp_path: Path) -> None:
    adapters = listed(tmp_path, "name,rank,rate\n\na,8,1\nlegal,64,1\n")
    path = tmp_path / "a.csv"
    check_ranks(adapters[:1], PROFILE, path, {})
    with pytest.raises(UserError, match=r"a.csv: row 4: rank 64 of adapter legal is above 32.*what_if.rank.legal=32"):
        check_ranks(adapters, PROFILE, path, {})
    asked = changed(adapters, scale=1.0, rates={}, ranks={"legal": 32, "a": 33})
    with pytest.raises(UserError, match=r"what_if.rank.a: rank 33 of adapter a is above 32"):
        check_ranks(asked, PROFILE, path, {"legal": 32, "a": 33})


def test_columns_that_look_like_wishes_are_not_passed_over_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "bench"):
        listed(tmp_path, "name,rank,rate,gpu,replicas\na,8,1,0,2\n")
    assert "columns that are not used: gpu, replicas" in caplog.text


@pytest.mark.parametrize("mark", ["\n", "\u2028", "\x1c", "\u200b", "\ufeff", "\u00ad"])
def test_a_name_with_a_mark_that_nobody_sees_is_refused(tmp_path: Path, mark: str) -> None:
    """A line's end inside quotes vanished from the name, so that nothing would ask for the adapter."""
    with pytest.raises(UserError, match=rf"column name: .* has the character U\+{ord(mark):04X}"):
        listed(tmp_path, f'name,rank,rate\n"a{mark}b",8,1\n')


def test_joiners_belong_to_names(tmp_path: Path) -> None:
    assert listed(tmp_path, "name,rank,rate\n\u0645\u06cc\u200c\u062e,8,1\n")[0].name == "\u0645\u06cc\u200c\u062e"


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_a_table_with_other_separators_is_told_so(tmp_path: Path, mark: str) -> None:
    with pytest.raises(UserError, match="the columns must be separated by commas"):
        listed(tmp_path, "name,rank,rate\na,8,1\n".replace(",", mark))


def test_a_cell_gets_the_requests_of_the_list() -> None:
    """Whatever its adapters are called there, and at the load with the reserve."""
    listing = [Adapter("a", 8, 1.0, 20, 900), Adapter("b", 16, 2.0), Adapter("${c}", 8, 0.5, path="/c")]
    scaled = [{"name": str(number), "rank": a.rank, "rate": a.rate * 1.2, "prompt_tokens": a.prompt_tokens,
               "output_tokens": a.output_tokens} for number, a in enumerate(listing)]  # fmt: skip
    options = {"_target_": "bench.planning.adapters.planned", "adapters": scaled, "duration_s": TRAFFIC.duration_s}
    built = build_workload({**options, "seed": TRAFFIC.seed}, PROFILE)
    expected = workload_of(listing, TRAFFIC, PROFILE, factor=1.2)
    np.testing.assert_array_equal(built.rates, expected.rates)
    for name in ("arrival_s", "adapter", "prompt_tokens", "output_tokens"):
        np.testing.assert_array_equal(getattr(built.requests, name), getattr(expected.requests, name))


def test_shared_prompts_are_a_part_of_the_prompts_of_a_list(tmp_path: Path) -> None:
    text = "name,rank,rate,prompt_tokens,shared_prompt_tokens\na,8,2,900,700\nb,8,2,900,\nc,8,2,,700\n"
    adapters = listed(tmp_path, text)
    assert [adapter.shared_prompt_tokens for adapter in adapters] == [700, None, 700]
    profile = load_profile("mistral-7b/h100-80gb")
    assert profile.prefix_caching
    traffic = Traffic.of(profile, duration_s=2000.0)
    workload = workload_of(adapters, traffic, profile)
    requests = workload.requests
    means = [requests.prompt_tokens[requests.adapter == k].mean() for k in range(3)]
    np.testing.assert_allclose(means, [900, 900, 700 + traffic.lengths.prompt.mean_tokens], rtol=0.05)
    np.testing.assert_array_equal(requests.shared(), np.array([700, 0, 700])[requests.adapter])
    assert (requests.prompt_tokens > requests.shared()).all()
    # Each is of a type of its own, and its requests are the same alone.
    assert len(adapter_types(workload)) == 3
    alone = workload_of(adapters[:1], traffic, profile).requests
    np.testing.assert_array_equal(alone.prompt_tokens, requests.prompt_tokens[requests.adapter == 0])
    np.testing.assert_array_equal(alone.shared(), 700)


@pytest.mark.parametrize("shared", ["900", "-1", "1.5", "x"])
def test_a_shared_prompt_that_no_prompt_has_is_said(tmp_path: Path, shared: str) -> None:
    with pytest.raises(UserError, match="row 2, column shared_prompt_tokens"):
        listed(tmp_path, f"name,rank,rate,prompt_tokens,shared_prompt_tokens\na,8,2,900,{shared}\n")


def test_a_shared_prompt_beyond_the_server_is_said() -> None:
    profile = load_profile("mistral-7b/h100-80gb")
    adapters = [Adapter("a", 8, 1.0, shared_prompt_tokens=profile.max_model_len)]
    with pytest.raises(UserError, match=r"adapter a: .* must be below max_model_len"):
        workload_of(adapters, Traffic.of(profile), profile)


def test_a_plan_is_of_the_server_that_finds_shared_prompts() -> None:
    profile = load_profile("mistral-7b/h100-80gb")
    traffic = Traffic.of(profile, duration_s=120.0)
    long = [Adapter(f"a{k}", 8, 2.0, prompt_tokens=3000) for k in range(8)]
    sharing = [Adapter(adapter.name, 8, 2.0, prompt_tokens=3000, shared_prompt_tokens=2800) for adapter in long]
    off, on = (
        simulate_gpu(workload_of(adapters, traffic, profile), tuple(range(8)), profile, 8, service=PUBLISHED)
        for adapters in (long, sharing)
    )
    assert on.ttft.mean_ms < off.ttft.mean_ms
    assert on.throughput > 1.3 * off.throughput
