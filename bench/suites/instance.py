"""One instance of the suite: its file, the schema of the file, and the workload that it describes."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench.shared.mistakes import explain
from twin import ServingProfile, UserError, Workload, fleet_of, load_profile
from twin.inputs import plain_text, read_text
from twin.numbers import seed_number, shown

#: Of the files; a change that older files do not satisfy raises it.
SCHEMA_VERSION = 1

# An instance with a group for each of a thousand adapters has less; by hand.
_MOST_CHARACTERS = 1_000_000
_DEEPEST = 20

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: First line of each file.
HEADER = "# Made by `python -m bench.suite action=generate`; docs/suite.md says what each key means.\n"


# --- the schema: OmegaConf checks keys and types against these


@dataclass
class _Zipf:
    family: str = "zipf"
    n_adapters: int = MISSING
    total_rate: float = MISSING
    exponent: float = MISSING
    ranks: list[int] = MISSING


@dataclass
class _Dirichlet:
    family: str = "dirichlet"
    n_adapters: int = MISSING
    total_rate: float = MISSING
    concentration: float = MISSING
    ranks: list[int] = MISSING


@dataclass
class _Mixed:
    family: str = "mixed"
    n_adapters: int = MISSING
    ranks: list[int] = MISSING
    rates: list[float] = MISSING


@dataclass
class _Group:
    count: int = MISSING
    rank: int = MISSING
    rate: float = MISSING


@dataclass
class _Groups:
    family: str = "groups"
    groups: list[_Group] = MISSING


@dataclass
class _Poisson:
    process: str = "poisson"


@dataclass
class _Gamma:
    process: str = "gamma"
    cv: float = MISSING


@dataclass
class _Unpredictable:
    process: str = "unpredictable"
    period_s: float = MISSING
    factor: float = MISSING
    limit: float = MISSING


@dataclass
class _Tokens:
    mean_tokens: float = MISSING
    sigma: float = MISSING
    min_tokens: int = MISSING
    max_tokens: int = MISSING


@dataclass
class _Lengths:
    prompt: _Tokens = field(default_factory=_Tokens)
    output: _Tokens = field(default_factory=_Tokens)
    max_total_tokens: int = MISSING
    correlation: float = MISSING


@dataclass
class _Type:
    name: str = MISSING
    profile: str = MISSING
    price: float = MISSING
    count: int | None = None


@dataclass
class _File:
    schema_version: int = MISSING
    id: str = MISSING
    profile: str = MISSING
    seed: int = MISSING
    duration_s: float = MISSING
    adapters: dict[str, Any] = MISSING
    lengths: _Lengths = field(default_factory=_Lengths)
    arrivals: dict[str, Any] = MISSING
    tags: list[str] = MISSING
    fleet: list[_Type] = field(default_factory=list)


_FAMILIES: dict[str, tuple[type, str]] = {
    "zipf": (_Zipf, "twin.builders.zipf"),
    "dirichlet": (_Dirichlet, "twin.builders.dirichlet"),
    "mixed": (_Mixed, "twin.builders.mixed"),
    "groups": (_Groups, "twin.builders.groups"),
}
_PROCESSES: dict[str, tuple[type, str]] = {
    "poisson": (_Poisson, "twin.arrivals.PoissonArrivals"),
    "gamma": (_Gamma, "twin.arrivals.GammaArrivals"),
    "unpredictable": (_Unpredictable, "twin.arrivals.UnpredictableArrivals"),
}


@dataclass(frozen=True)
class Instance:
    """A placement problem with a name: everything that its requests follow from.

    Attributes
    ----------
    id : str
        Lower-case words with `-` or `_`; also the name of the file.
    profile : str
        Shipped serving profile.
    seed : int
        Of the workload's streams, and of solvers that draw.
    duration_s : float
        Window in seconds.
    adapters : dict
        `family` (zipf, dirichlet, mixed or groups) and the options of its builder.
    lengths : dict
        `prompt` and `output` as in `twin.LogNormalTokens`, `max_total_tokens`, `correlation`.
    arrivals : dict
        `process` (poisson, gamma or unpredictable) and its options.
    tags : tuple of str
        To choose instances by.
    fleet : tuple of dict
        GPU types to choose from, each with name, profile, price and count; `profile` is that of the first. Empty where there is one type.
    """

    id: str
    profile: str
    seed: int
    duration_s: float
    adapters: dict[str, Any]
    lengths: dict[str, Any]
    arrivals: dict[str, Any]
    tags: tuple[str, ...] = ()
    fleet: tuple[dict[str, Any], ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """The workload as the configuration of `python -m bench` has it: a `_target_` and its options."""
        adapters, arrivals, lengths = dict(self.adapters), dict(self.arrivals), dict(self.lengths)
        _, builder = _FAMILIES[adapters.pop("family")]
        _, process = _PROCESSES[arrivals.pop("process")]
        tokens = {"_target_": "twin.lengths.LogNormalTokens"}
        return {
            "_target_": builder,
            "name": self.id,
            **adapters,
            "duration_s": self.duration_s,
            "seed": self.seed,
            "arrivals": {"_target_": process, **arrivals},
            "lengths": {
                "_target_": "twin.lengths.Lengths",
                **lengths,
                "prompt": tokens | lengths["prompt"],
                "output": tokens | lengths["output"],
            },
        }

    def workload(self, profile: ServingProfile | None = None) -> Workload:
        """Build the workload, for another profile than the instance's own if one is given.

        Raises
        ------
        UserError
            For a value out of range, or a rank that the profile does not know.
        """
        from bench.comparison.build import build_workload

        return build_workload(self.options, profile or load_profile(self.profile))

    def to_yaml(self) -> str:
        """The text of the instance's file."""
        data = {"schema_version": SCHEMA_VERSION, **asdict(self), "tags": list(self.tags), "fleet": list(self.fleet)}
        if not self.fleet:
            del data["fleet"]
        return HEADER + yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=118)


def read_instance(path: Path) -> Instance:
    """Read and check an instance's file.

    Raises
    ------
    UserError
        One line with the file, the key and what is wrong with it.
    """
    text = read_text(path, "an instance of the suite (YAML)")
    if len(text) > _MOST_CHARACTERS:
        raise UserError(f"{path}: {len(text):,} characters are too many for one instance; at most {_MOST_CHARACTERS:,}")
    try:
        # The compiled reader is ten times faster, which matters with hundreds of files.
        _check_nesting(path, text)
        _check_values(path, yaml.compose(text, _Loader))
        values = yaml.load(text, _Loader)  # noqa: S506  # safe, whichever it is
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())[:300]})") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply for an instance") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold the keys of one instance")
    given = OmegaConf.create({str(key): value for key, value in values.items()})
    data = _checked(path, _File, given)
    if data["schema_version"] != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema_version: {data['schema_version']} is not known; this version reads {SCHEMA_VERSION}"
        )
    if data["id"] != path.stem or not re.fullmatch(r"[a-z0-9]+([-_.][a-z0-9]+)*", path.stem):
        raise UserError(
            f"{path}: id: {data['id']} must be the file's name without .yaml, lower-case words joined by - or _"
        )
    seed_number(f"{path}: seed", data["seed"])
    for tag in data["tags"]:
        plain_text(f"{path}: tags", tag)
    adapters = _choice(path, "adapters", "family", given.adapters, _FAMILIES)
    arrivals = _choice(path, "arrivals", "process", given.arrivals, _PROCESSES)
    return Instance(
        id=data["id"],
        profile=data["profile"],
        seed=data["seed"],
        duration_s=data["duration_s"],
        adapters=adapters,
        lengths=data["lengths"],
        arrivals=arrivals,
        tags=tuple(data["tags"]),
        fleet=_fleet(path, data),
    )


def _fleet(path: Path, data: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    types = tuple(data["fleet"])
    if types:
        fleet_of(types, f"{path}: fleet")
        if types[0]["profile"] != data["profile"]:
            raise UserError(f"{path}: profile: {data['profile']} must be that of the first type, {types[0]['profile']}")
    return types


def _check_nesting(path: Path, text: str) -> None:
    """Refuse references, which stand for more than is there, and towers of brackets."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"{path}: line {line}: YAML references (*{event.anchor}) are not read; write the value")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise UserError(f"{path}: line {line}: nested too deeply for an instance")


#: Numbers as everybody reads them. YAML 1.1 takes `1:30` for 90, `010` for 8.
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*|[0-9]*\.[0-9]*|[0-9]+\.)([eE][-+]?[0-9]+)?")
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def _check_values(path: Path, node: yaml.Node | None) -> None:
    """Refuse a key that is there twice, of whose two values one would be passed over, and numbers in a notation of YAML's own."""
    if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and not _NUMBER.fullmatch(node.value):
        raise UserError(
            f"{path}: line {node.start_mark.line + 1}: {shown(node.value)[1:-1]} must be a number in decimal digits"
        )
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_values(path, item)
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"{path}: the key {twice} is there twice; once is right")
        for _, value in node.value:
            _check_values(path, value)


def check_instance(instance: Instance, path: Path) -> Workload:
    """The workload of an instance; a value that its builder refuses is told with the file.

    Raises
    ------
    UserError
    """
    try:
        workload = instance.workload()
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        raise UserError(f"{path}: {line}") from None
    if not workload.n_adapters:
        raise UserError(f"{path}: adapters: there must be one or more")
    return workload


def _choice(path: Path, key: str, kind: str, given: Any, choices: dict[str, tuple[type, str]]) -> dict[str, Any]:  # noqa: ANN401  # a node of the file
    name = given.get(kind) if isinstance(given, DictConfig) else None
    if name not in choices:
        raise UserError(f"{path}: {key}.{kind}: {name} must be one of {', '.join(choices)}")
    return _checked(path, choices[name][0], given, f"{key}.")


def _checked(path: Path, schema: type, given: DictConfig, prefix: str = "") -> dict[str, Any]:
    """The values of a node with the types of its schema; every key is needed and no other is known."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), given)
        missing = sorted(OmegaConf.missing_keys(merged))
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {prefix}{explain(error)}") from None
    if missing:
        raise UserError(f"{path}: {prefix}{missing[0]}: is missing")
    values: dict[str, Any] = OmegaConf.to_container(merged)  # type: ignore[assignment]  # the node is a mapping
    return values
