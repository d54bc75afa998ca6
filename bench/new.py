"""`python -m bench.new solver NAME`: a small package of your own, with a test, that works as it stands."""

from __future__ import annotations

import keyword
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from omegaconf import MISSING
from rich.text import Text

from bench.shared.command import command
from bench.shared.files import check_folder
from bench.shared.overrides import CONF
from bench.shared.terminal import console
from twin import UserError

TEMPLATES = Path(__file__).parent / "new_templates"
KINDS = ("solver", "objective", "workload")


@dataclass
class NewConfig:
    """Options of `python -m bench.new`; `conf/new.yaml` says what each is for."""

    kind: str = MISSING
    name: str = MISSING
    out: str | None = None


@command("new", NewConfig)
def _run(config: NewConfig) -> None:
    """Write the package and say what to do with it."""
    folder = Path(config.out or config.name)
    files = write_package(config.kind, config.name, folder)
    out = console()
    out.print(Text(f"{folder}: {len(files)} files"))
    for path in files:
        out.print(Text(f"  {path.relative_to(folder)}"))
    out.print(Text("\nNext:"))
    for line in ("python -m pip install --no-deps -e .", "python -m pytest", *commands(config.kind, config.name)):
        out.print(Text(f"  {line}" if line != "python -m pip install --no-deps -e ." else f"  cd {folder}\n  {line}"))


def write_package(kind: str, name: str, folder: Path) -> list[Path]:
    """Write a package; all of its files or none.

    Parameters
    ----------
    kind : {"solver", "objective", "workload"}
    name : str
        Of the package and of what is in it.
    folder : Path
        Made; must not hold anything yet.

    Returns
    -------
    list of Path

    Raises
    ------
    UserError
        For a kind or a name that cannot be, or a folder that is in use.
    """
    _check(kind, name)
    check_folder("out", str(folder))
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"out={folder}: is there already; give another folder: out=DIR")
    environment = Environment(  # noqa: S701  # Python and YAML are made, no HTML
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    values = {
        "kind": kind,
        "name": name,
        "class_name": "".join(part.capitalize() for part in name.split("_")),
        "description": f"The {kind} {name}",
        "commands": commands(kind, name),
    }
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{name}/__init__.py": "init.py",
        f"{name}/{kind}.py": f"{kind}.py",
        f"conf/{kind}/{_yaml_name(kind, name)}.yaml": f"{kind}.yaml",
        f"tests/test_{name}.py": f"{kind}_test.py",
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            made = Path(temporary) / name
            for target, template in templates.items():
                path = made / target
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(environment.get_template(f"{template}.jinja").render(values), encoding="utf-8")
            shutil.copytree(made, folder, dirs_exist_ok=True)
    except OSError as error:
        raise UserError(f"out={folder}: cannot be written ({error.strerror or error})") from None
    return [folder / target for target in templates]


def commands(kind: str, name: str) -> list[str]:
    """Commands that use what was made, in the folder of the package."""
    if kind == "solver":
        return [
            f"python -m bench 'solver=[exact,{name}]'",
            f"python -m bench --config-dir conf 'solver=[{name},{_yaml_name(kind, name)}]'",
        ]
    return [f"python -m bench --config-dir conf {kind}={name}"]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; `solver NAME` is short for `kind=solver name=NAME`."""
    _run(spelled_out(list(sys.argv[1:] if arguments is None else arguments)))


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """Arguments with the keys of the two that need none."""
    given = {argument.partition("=")[0] for argument in arguments}
    keys = iter(key for key in ("kind", "name") if key not in given)
    return [
        f"{key}={argument}" if re.fullmatch(r"\w[\w-]*", argument) and (key := next(keys, None)) else argument
        for argument in arguments
    ]


def _yaml_name(kind: str, name: str) -> str:
    # A solver's own name is known by its entry point; the YAML shows a variant beside it.
    return f"{name}_small_steps" if kind == "solver" else name


def _check(kind: str, name: str) -> None:
    if kind not in KINDS:
        raise UserError(f"kind={kind} must be one of {', '.join(KINDS)}: python -m bench.new solver my_solver")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(f"name={name} must be a name of a Python package: small letters, digits and _, a letter first")
    if (CONF / kind / f"{name}.yaml").exists():
        raise UserError(f"name={name}: there is a {kind} of this name already")
    if find_spec(name) is not None:
        raise UserError(f"name={name}: Python has a module of this name already, which would hide the package")


if __name__ == "__main__":
    main()
