"""What is wrong with an option of the command line that Hydra would not take, and what would be right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlparse

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from twin.errors import UserError
from twin.numbers import shown

#: The folder of the YAML files. Absolute, so that a command works from any working directory.
CONF = Path(__file__).resolve().parents[2] / "conf"

#: Groups of configurations of which several can be taken together; of the others the last one would win.
SEVERAL = frozenset({"solver", "controller"})

#: What OmegaConf says of a value of the wrong kind, and what would be right. `KEY` stands for the option's name.
_WANTED = (
    (r"is not a ListConfig, list or tuple", "a list in square brackets"),
    (r"Cannot assign \w+ to (?:Dict|List)\b", "options in braces, or single ones as KEY.NAME=VALUE"),
    (r"is not a subclass of", "options in braces, or single ones as KEY.NAME=VALUE"),
    (r"could not be converted to Integer", "a whole number"),
    (r"could not be converted to Float", "a number"),
    (r"is not a valid bool", "true or false"),
    (r"Cannot convert .* to string", "text"),
    (r"is not Optional", "given, not null"),
)
_VALUE = re.compile(r"Value '(.*?)' of type")
_OVERRIDE = re.compile(r"Error merging override (.*)", re.DOTALL)
_GROUP = "Config group override must be a string or a list"
_ONE = "one {key} at a time, of {names}; a sweep (-m) takes several, with commas between them and without brackets"


def explain_value(cause: OmegaConfBaseException, said: str) -> str | None:
    """One line on a value of the wrong kind; None if that is not what is wrong.

    Parameters
    ----------
    cause : OmegaConfBaseException
        What OmegaConf says, with its own words for kinds of values.
    said : str
        What Hydra says around it, which names the option as it was given.
    """
    key = str(cause.full_key or cause.key or "")
    reason = str(cause.msg or cause)
    found = _OVERRIDE.search(said)
    value = found[1].partition("=")[2] if found else (_VALUE.search(reason) or ("", ""))[1]
    given = shown(value)[1:-1]
    wanted = next((right for pattern, right in _WANTED if re.search(pattern, reason)), None)
    if "Cannot merge DictConfig with ListConfig" in reason:
        wanted = "a list in square brackets" if given.startswith("{") else _WANTED[1][1]
    if wanted is None or not key:
        return None
    option = found[1].partition("=")[0].lstrip("+") if found else key
    if key != option and not given:
        given = shown(getattr(cause, "value", ""))
    inside = f" ({key})" if found and key != option else ""
    example = ""
    if wanted.startswith("a list") and given and not given.startswith("{"):
        example = f": {option}=[{given}]"
    subject = f"{option}={given}" if given else key
    return f"{subject}{inside} must be {wanted.replace('KEY', option)}{example}"


def explain_group(error: BaseException, arguments: Sequence[str]) -> str | None:
    """One line on a group of configurations that was given something else than names; None if that is not what is wrong.

    Parameters
    ----------
    error : BaseException
        From Hydra; for a list with something else than text in it, its own code stumbles.
    arguments : sequence of str
        Of the command line.
    """
    if _GROUP not in str(error) and not isinstance(error, TypeError):
        return None
    for override in _parsed(arguments):
        key, value = override.key_or_group, override.value()
        if "." not in key and not isinstance(value, ChoiceSweep) and not _names(value):
            names = ", ".join(available(key))
            if names:
                several = ", or several in square brackets" if key in SEVERAL else ""
                return f"{override.input_line} must be one of {names}{several}"
    return None


def check_groups(arguments: Sequence[str]) -> None:
    """Refuse several names for a group of which the last would win in silence, and none.

    Parameters
    ----------
    arguments : sequence of str
        Of the command line; a sweep's list of choices is looked into.

    Raises
    ------
    UserError
        Naming the option.
    """
    for override in _parsed(arguments):
        key, value = override.key_or_group, override.value()
        for choice in value.list if isinstance(value, ChoiceSweep) else [value]:
            if isinstance(choice, list) and key not in SEVERAL and len(choice) != 1 and available(key):
                raise UserError(f"{override.input_line}: {_ONE.format(key=key, names=', '.join(available(key)))}")


def missing_name(error: MissingConfigException) -> tuple[str, str, list[str]] | None:
    """The group and the name in which nothing was found, and the names that there are; None for another file.

    Parameters
    ----------
    error : MissingConfigException
        Its `options` are None where the name stood in a list.
    """
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return None
    # A folder of the configuration can hold groups of its own, which are no choices.
    names = available(group, str(error)) if error.options is None else sorted(error.options)
    return group, name, [option for option in names if not option.startswith("_")]


def available(group: str, search_path: str = "") -> list[str]:
    """Names of the configurations of a group.

    Parameters
    ----------
    group : str
    search_path : str
        Text that names folders as `path=file:///...`, as Hydra's messages do; by default those of this project are searched.
    """
    folders = [Path(unquote(urlparse(found).path)) for found in re.findall(r"path=(file://\S+)", search_path)] or [CONF]
    names = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
    node: object = ConfigStore.instance().repo
    for part in group.split("/"):
        node = node.get(part, {}) if isinstance(node, Mapping) else {}
    if isinstance(node, Mapping):
        names |= {str(name).removesuffix(".yaml") for name in node if str(name).endswith(".yaml")}
    return sorted(names)


def _names(value: object) -> bool:
    """Whether Hydra takes a value as the name of a configuration, or as several."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _parsed(arguments: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create()
    found = []
    for argument in arguments:
        if argument.startswith("-") or "=" not in argument:
            continue
        try:
            override = parser.parse_override(argument)
        except HydraException:
            continue
        if not override.is_hydra_override():
            found.append(override)
    return found
