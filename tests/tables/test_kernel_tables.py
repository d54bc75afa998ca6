"""With the kernel tables installed: `make profile-test`."""

import importlib.util
from pathlib import Path

import pytest

from bench import profile as command
from twin import load_profile
from twin.profile import STEP_TERMS

pytestmark = [
    pytest.mark.tables,
    pytest.mark.skipif(
        importlib.util.find_spec("aiconfigurator_core") is None, reason="make profile-test installs the tables"
    ),
]


@pytest.mark.parametrize("name", ["mistral-7b/a100-80gb", "llama-3.1-70b/h100-80gb-tp4", "qwen-3-30b-a3b/h200-141gb"])
def test_the_command_of_a_shipped_estimate_makes_it_again(name: str, tmp_path: Path) -> None:
    shipped = load_profile(name)
    command.main([*shipped.provenance["command"].split()[3:], f"out={tmp_path}"])
    made = load_profile(str(tmp_path / f"{name.replace('/', '__')}.json"))
    assert made == shipped


def test_times_are_near_those_of_the_measured_server(tmp_path: Path) -> None:
    """Llama on the card of the published runs, estimated with constants of both models, against its own measured profile."""
    command.main(["model=llama-3.1-8b", "gpu=h100-64gb", "vllm=0.8.5", f"out={tmp_path}"])
    guess, known = load_profile(str(tmp_path / "llama-3.1-8b__h100-64gb.json")), load_profile("llama-3.1-8b")
    for decodes in (1, 64, 256):
        state = {"constant": 1, "running": decodes, "tokens": decodes, "kv_tokens": 400 * decodes}
        values = [
            sum(p.step_ms[STEP_TERMS.index(term)] * count for term, count in state.items()) for p in (guess, known)
        ]
        assert values[0] == pytest.approx(values[1], rel=0.2)
