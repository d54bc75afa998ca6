# ruff: noqa: INP001  # a script that MkDocs loads
"""What MkDocs does here beyond its pages: the reference of commands and options, made of the comments in `conf/`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave out of the navigation what has no page; a page that the navigation does not name fails the build."""
    pages = {path.relative_to(config.docs_dir).as_posix() for path in Path(config.docs_dir).rglob("*.md")}
    config.nav = _there(config.nav or [], pages | {"reference.md"})
    return config


def _there(entries: list[Any], pages: set[str]) -> list[Any]:
    kept = []
    for entry in entries:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            inner = _there(target, pages)
            if inner:
                kept.append({title: inner})
        elif target in pages:
            kept.append(entry)
    return kept


def on_page_markdown(markdown: str, **_: Any) -> str:  # noqa: ANN401  # what MkDocs hands over
    """Take from a fence what only the tests read, which MkDocs would not take for the start of a block of code."""
    return re.sub(r"^```console .*$", "```console", markdown, flags=re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference page."""
    files.append(File.generated(config, "reference.md", content=reference()))
    return files


def reference() -> str:
    """The page, in Markdown: each command with its options, then each group of choices."""
    commands = sorted(path for path in CONF.glob("*.yaml") if path.stem not in ("common", "config"))
    lines = [
        "# Commands and options",
        "",
        "Made of the comments in `conf/`. An option is given as `key=value` after the command; `--help` lists the choices of a",
        "command, `--cfg job` shows what a run would use. `???` marks what must be given, `null` means none.",
        "",
        *_section(CONF / "config.yaml", "python -m bench"),
    ]
    for path in commands:
        lines += _section(path, f"python -m bench.{path.stem}")
    groups = sorted(folder for folder in CONF.rglob("*") if folder.is_dir() and any(folder.glob("*.yaml")))
    for folder in groups:
        name = folder.relative_to(CONF).as_posix()
        lines += [f"## {name}=NAME", ""]
        for path in sorted(folder.glob("*.yaml")):
            lines += _section(path, path.stem, level="###")
    return "\n".join(lines)


def _section(path: Path, heading: str, level: str = "##") -> list[str]:
    text = path.read_text(encoding="utf-8")
    about = [line for line in _comment_at(text.splitlines(), 0) if not line.startswith("@package")]
    lines = [f"{level} {heading}", ""]
    if about:
        lines += [" ".join(about).removeprefix(f"{heading}: "), ""]
    rows = [f"| `{key}` | `{value}` | {why} |" for key, value, why in options(text)]
    if rows:
        lines += ["| option | default | what it is for |", "| --- | --- | --- |", *rows, ""]
    return lines


def options(text: str) -> Iterator[tuple[str, str, str]]:
    """Each option of a YAML file with its default and its comment.

    Parameters
    ----------
    text : str

    Yields
    ------
    key, default, comment : str
        The key dotted; the comment above it or behind it, in one line and safe in a table.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode):
        yield from _options(root, "", text.splitlines())


def _options(node: yaml.MappingNode, prefix: str, lines: list[str]) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        if (not prefix and key.value in ("defaults", "hydra")) or re.fullmatch(r"_\w+_", key.value):
            continue
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _options(value, f"{name}.", lines)
            continue
        first = key.start_mark.line
        above = first - 1
        while above >= 0 and lines[above].lstrip().startswith("#"):
            above -= 1
        comment = _comment_at(lines, above + 1) if above + 1 < first else []
        if not comment and "#" in lines[first]:
            comment = [lines[first].rpartition("#")[2].strip()]
        shown = " ".join(" ".join(lines[first : value.end_mark.line + (value.end_mark.column > 0)]).split())
        default = shown.partition(":")[2].strip() if value.start_mark.line == first else "(see the file)"
        default = default.partition(" #")[0].strip() or "null"
        yield name, default.replace("|", r"\|"), " ".join(comment).replace("|", r"\|").replace("<", "&lt;")


def _comment_at(lines: list[str], start: int) -> list[str]:
    """The comment lines that begin at a line, without their marks."""
    found = []
    for line in lines[start:]:
        if not line.lstrip().startswith("#"):
            break
        found.append(line.lstrip().removeprefix("#").strip())
    return found
