"""The instances that there are, the tiers, and the table of best known GPU counts."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from bench.comparison.rows import gap_of
from bench.shared.files import write_text
from bench.suites.instance import Instance, read_instance
from twin import UserError
from twin.inputs import read_text
from twin.numbers import MOST_ADAPTERS, whole
from twin.service import NAMED, PUBLISHED

#: Where the shipped suite lies.
FOLDER = Path(__file__).resolve().parent
TIERS = ("benchmark", "collection", "fleets")
_INSTANCES = "instances"
_FLEETS = "fleets"
_BENCHMARK = "benchmark.txt"
_BEST_KNOWN = "best_known.csv"


@dataclass(frozen=True)
class BestKnown:
    """What is known of an instance, with what gave it.

    Attributes
    ----------
    id : str
        The instance.
    lower_bound : int
        No placement that the twin accepts beyond doubt uses fewer GPUs.
    lower_bound_solver : str
        What proved it; "one GPU" where it is only that there are adapters.
    gpus : int, optional
        Fewest GPUs of a placement that the twin calls feasible.
    gpus_solver : str
    command : str
        What the figures come from.
    twin : str
        Fingerprint of twin and profile that the figures hold for.
    service : str
        Service level that the figures hold for, one of the named ones.
    """

    id: str
    lower_bound: int
    lower_bound_solver: str
    gpus: int | None
    gpus_solver: str
    command: str
    twin: str
    service: str = PUBLISHED.name

    @property
    def gap(self) -> float | None:
        """GPUs above the bound over the bound."""
        return gap_of(self.gpus, self.lower_bound)


def load_suite(
    tier: str, folder: Path = FOLDER, *, tags: Sequence[str] = (), ids: Sequence[str] = ()
) -> list[Instance]:
    """Instances of a tier, by id.

    Parameters
    ----------
    tier : {"benchmark", "collection", "fleets"}
        The collection holds all instances of one GPU type; those of fleets of several types are a tier of their own.
    folder : Path
        By default the shipped suite.
    tags : sequence of str
        Only instances that have all of these.
    ids : sequence of str
        Only these.

    Raises
    ------
    UserError
        For a tier, tag or id that there is not, or a file with a mistake.
    """
    if tier not in TIERS:
        raise UserError(f"tier={tier}: must be one of {', '.join(TIERS)}")
    place = folder / _INSTANCES / _FLEETS if tier == "fleets" else folder / _INSTANCES
    paths = {path.stem: path for path in sorted(place.glob("*.yaml"), key=lambda path: path.stem)}
    if not paths:
        raise UserError(f"{place}: holds no instances")
    names = read_benchmark(folder) if tier == "benchmark" else list(paths)
    for name in (*names, *ids):
        if name not in paths:
            raise UserError(f"no instance {name} in {place}")
    outside = [name for name in ids if name not in names]
    if outside:
        raise UserError(f"instance {outside[0]} is not in the {tier} tier")
    instances = [read_instance(paths[name]) for name in names if not ids or name in ids]
    known = {tag for instance in instances for tag in instance.tags}
    for tag in tags:
        if tag not in known:
            raise UserError(f"tag {tag}: no instance has it; known are {', '.join(sorted(known))}")
    return [instance for instance in instances if set(tags) <= set(instance.tags)]


def instance_path(name: str, folder: Path = FOLDER, *, fleet: bool = False) -> Path:
    """Where the file of an instance lies, one of a fleet of several types or not."""
    return folder / _INSTANCES / (_FLEETS if fleet else "") / f"{name}.yaml"


def write_instances(instances: Sequence[Instance], folder: Path = FOLDER) -> None:
    """Write the files of a collection; those of instances that are no longer in it are removed."""
    for of_fleets in (False, True):
        mine = {instance.id: instance for instance in instances if bool(instance.fleet) == of_fleets}
        target = instance_path("any", folder, fleet=of_fleets).parent
        if mine:
            target.mkdir(parents=True, exist_ok=True)
        for name, instance in mine.items():
            write_text(instance_path(name, folder, fleet=of_fleets), instance.to_yaml())
        for path in target.glob("*.yaml"):
            if path.stem not in mine:
                path.unlink()


def read_benchmark(folder: Path = FOLDER) -> list[str]:
    """Ids of the benchmark tier, sorted."""
    path = folder / _BENCHMARK
    lines = read_text(path, "a list of instances, one in a line").splitlines()
    return sorted(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def write_benchmark(ids: Sequence[str], folder: Path = FOLDER) -> None:
    """Write the list of the benchmark tier."""
    header = "# The benchmark tier, chosen by `python -m bench.suite action=select`; docs/suite.md says how.\n"
    write_text(folder / _BENCHMARK, header + "".join(f"{name}\n" for name in sorted(ids)))


def read_best_known(folder: Path = FOLDER, service: str = PUBLISHED.name) -> dict[str, BestKnown]:
    """What is known of each instance under a service level, by id; empty without the table.

    Parameters
    ----------
    folder : Path
    service : str
        Name of the level; the published rule by default.

    Raises
    ------
    UserError
        For a table with other columns or values.
    """
    return {name: best for (level, name), best in _all_best_known(folder).items() if level == service}


def _all_best_known(folder: Path) -> dict[tuple[str, str], BestKnown]:
    """The whole table, by service level and id."""
    path = folder / _BEST_KNOWN
    if not path.exists():
        return {}
    names = [field.name for field in fields(BestKnown)]
    found: dict[tuple[str, str], BestKnown] = {}
    text = read_text(path, f"a table with the columns {', '.join(names)}")
    reader = csv.DictReader(text.splitlines(keepends=True))
    try:
        lines = list(reader)
    except csv.Error as error:
        raise UserError(f"{path}: not a table in CSV ({error})") from None
    if reader.fieldnames != names:
        raise UserError(f"{path}: the columns must be {', '.join(names)}")
    for number, line in enumerate(lines, start=2):
        if None in line or None in line.values():
            raise UserError(f"{path}: line {number}: must have a value for each of the {len(names)} columns")
        if line["service"] not in NAMED:
            raise UserError(f"{path}: line {number}: service={line['service']} must be one of {', '.join(NAMED)}")
        if (line["service"], line["id"]) in found:
            raise UserError(f"{path}: line {number}: {line['id']} is there twice under {line['service']}")
        try:
            found[line["service"], line["id"]] = BestKnown(
                id=line["id"],
                lower_bound=whole("lower_bound", int(line["lower_bound"]), at_least=1, at_most=MOST_ADAPTERS),
                lower_bound_solver=line["lower_bound_solver"],
                gpus=whole("gpus", int(line["gpus"]), at_least=1, at_most=MOST_ADAPTERS) if line["gpus"] else None,
                gpus_solver=line["gpus_solver"],
                command=line["command"],
                twin=line["twin"],
                service=line["service"],
            )
        except ValueError as error:
            raise UserError(f"{path}: line {number}: {error}") from None
    return found


def write_best_known(known: Mapping[str, BestKnown], folder: Path = FOLDER, service: str = PUBLISHED.name) -> None:
    """Write what is known under a service level into the table, which keeps what it says of other levels.

    Parameters
    ----------
    known : mapping of str to BestKnown
        By id.
    folder : Path
    service : str
        Name of the level; the published rule by default.
    """
    import io

    levels = list(NAMED)
    kept = {key: best for key, best in _all_best_known(folder).items() if key[0] != service}
    kept |= {(service, name): best for name, best in known.items()}

    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(BestKnown)], lineterminator="\n")
    writer.writeheader()
    for key in sorted(kept, key=lambda key: (levels.index(key[0]), key[1])):
        writer.writerow(asdict(kept[key]))
    write_text(folder / _BEST_KNOWN, text.getvalue())
