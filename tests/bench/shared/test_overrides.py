"""Options of the wrong kind and names that there are not: one line that says what would be right."""

from importlib import import_module

import pytest


def refused(command: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        import_module(command).main(arguments)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "ListConfig" not in said
    assert "search path" not in said
    return said.removeprefix("error: ").strip()


@pytest.mark.usefixtures("_in_tmp_path")
@pytest.mark.parametrize(
    ("command", "option", "line"),
    [
        ("bench.max_pack", "ranks=8", "ranks=8 must be a list in square brackets: ranks=[8]"),
        ("bench.max_pack", "ranks={a: 1}", "ranks={a: 1} must be a list in square brackets"),
        ("bench.max_pack", "ranks=[8,x]", "ranks=[8,x] (ranks[1]) must be a whole number"),
        ("bench.max_pack", "rates=[x]", "rates=[x] (rates[0]) must be a number"),
        ("bench.max_pack", "ranks=null", "ranks=null must be given, not null"),
        ("bench.robustness", "solvers=ffd", "solvers=ffd must be a list in square brackets: solvers=[ffd]"),
        ("bench.suite", "ids=3", "ids=3 must be a list in square brackets: ids=[3]"),
        ("bench.plan", "lengths=4", "lengths=4 must be options in braces, or single ones as lengths.NAME=VALUE"),
        (
            "bench.plan",
            "kubernetes=[4]",
            "kubernetes=[4] must be options in braces, or single ones as kubernetes.NAME=VALUE",
        ),
        ("bench.__main__", "workload.ranks={a: 8}", "workload.ranks={a: 8} must be a list in square brackets"),
        ("bench.__main__", "service.ttft_ms=[1]", "service.ttft_ms=[1] must be a number"),
        ("bench.__main__", "seed=1:30", "seed=1:30 must be a whole number"),
        ("bench.__main__", "isolated=maybe", "isolated=maybe must be true or false"),
        ("bench.__main__", "profile=[a]", "profile=[a] must be text"),
    ],
)
def test_a_value_of_the_wrong_kind(command: str, option: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(command, capsys, option) == line


@pytest.mark.usefixtures("_in_tmp_path")
@pytest.mark.parametrize("option", ["suite.tags=3", "suite.ids=paper_1gpu"])
def test_lists_of_the_suite(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A word taken for the list of its letters would be a tag that no instance has."""
    key, _, value = option.partition("=")
    line = refused("bench.__main__", capsys, "suite=benchmark", option)
    assert line == f"{option} must be a list in square brackets: {key}=[{value}]"


@pytest.mark.usefixtures("_in_tmp_path")
@pytest.mark.parametrize(
    ("option", "start"),
    [
        ("solver=[nope]", "solver=nope: no such solver; available are balance, "),
        ("solver=[ffd,exakt]", "solver=exakt: no such solver; available are balance, "),
        ("objective=[nope]", "objective=nope: no such objective; available are min_cost, min_gpus, min_latency"),
        ("workload/lengths=[nope]", "workload/lengths=nope: no such workload/lengths; available are fixed, sharegpt"),
        ("+case=[nope]", "case=nope: no such case; available are bursts, "),
        ("solver=5", "solver=5 must be one of balance, "),
        ("solver=[5]", "solver=[5] must be one of balance, "),
        ("solver=[ffd,[exact]]", "solver=[ffd,[exact]] must be one of balance, "),
        ("service=null", "service=null must be one of batch, interactive, published"),
        ("workload=[tiny,small]", "workload=[tiny,small]: one workload at a time, of azure_code, "),
        ("objective=[]", "objective=[]: one objective at a time, of min_cost, min_gpus, min_latency"),
        ("suite=[benchmark,paper]", "suite=[benchmark,paper]: one suite at a time, of benchmark, "),
    ],
)
def test_a_name_that_there_is_not(option: str, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused("bench.__main__", capsys, option).startswith(start)


@pytest.mark.usefixtures("_in_tmp_path")
def test_names_that_are_near_are_told_in_lists_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused("bench.__main__", capsys, "solver=[exakt]").endswith("(did you mean exact?)")


@pytest.mark.usefixtures("_in_tmp_path")
def test_choices_of_a_sweep_are_looked_into(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused("bench.__main__", capsys, "-m", "service=[interactive,batch],published")
    assert line.startswith("service=[interactive,batch],published: one service at a time")
