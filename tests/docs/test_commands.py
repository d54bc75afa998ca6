"""Every command that a document names is there, with its options."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from bench.launchers.register import register_launchers
from bench.shared.overrides import CONF

ROOT = CONF.parent
DOCUMENTS = sorted(
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "results")
    for path in (folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))
    if "runs" not in path.relative_to(ROOT).parts
)
COMMAND = re.compile(r"python -m (?P<module>bench(?:\.\w+)?)(?P<rest>[^`\n|]*)")
# What stands for something of the reader's, or for more of the same.
STANDS_FOR = re.compile(r"\b[A-Z]{2,}\b|\.\.\.|\bDIR\b|\$\w")
# Solvers and options of the tutorials' own packages; tests/docs/test_tutorials.py runs those.
OWN = re.compile(r"what_if\.|eights|my_|night_shift|ttft_limit|their|_target_|%")


def commands() -> list[tuple[str, tuple[str, ...]]]:
    """Module and options of each command in a document, once."""
    found = set()
    for path in DOCUMENTS:
        for match in COMMAND.finditer(path.read_text(encoding="utf-8")):
            try:
                words = shlex.split(match["rest"], comments=True)
            except ValueError:
                continue
            found.add((match["module"], tuple(_options(words))))
    return sorted(found)


def _options(words: list[str]) -> list[str]:
    """The options as far as the command goes: what follows a word that is no option is text."""
    options: list[str] = []
    for word in words:
        if word == "-m" or re.match(r"[+~]*[\w./]+=\S", word):
            options.append(word)
        elif word.startswith("-"):
            continue
        else:
            break
    return options


def _first(option: str) -> str:
    """The option with the first of the values that it sweeps over."""
    parsed = OverridesParser.create().parse_override(option)
    if not parsed.is_sweep_override():
        return option
    if "glob(" in option:
        return ""
    return f"{parsed.key_or_group}={next(iter(parsed.sweep_string_iterator()))}"


@pytest.mark.parametrize(
    ("module", "options"), commands(), ids=lambda part: part if isinstance(part, str) else " ".join(part)
)
def test_a_command_named_in_a_document_can_be_composed(module: str, options: tuple[str, ...]) -> None:
    importlib.import_module("bench.__main__" if module == "bench" else module)
    register_launchers()
    name = "config" if module == "bench" else module.removeprefix("bench.")
    assert (CONF / f"{name}.yaml").exists()
    given = [
        option for option in options if option != "-m" and not STANDS_FOR.search(option) and not OWN.search(option)
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(name, [first for option in given if (first := _first(option))], return_hydra_config=True)
    assert OmegaConf.is_config(config)


def test_there_are_commands_in_the_documents_of_figures() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in DOCUMENTS} >= {"README.md", "docs", "results"}
    assert len(commands()) >= 20
    assert isinstance(DOCUMENTS[0], Path)
