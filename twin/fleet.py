"""A fleet: GPU types with a serving profile, a price and a count."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from twin.errors import UserError
from twin.inputs import plain_text, read_text
from twin.numbers import number, shown, whole
from twin.placement import Placement
from twin.profile_files import load_profile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from twin.placement import GpuPlan
    from twin.profile import ServingProfile

#: Keys of a type, in a list of the command line, a YAML file or the header of a CSV file; `profile` is needed.
KEYS = ("name", "profile", "price", "count")
#: Types of one fleet: a mix is a number for each of them, and every bound is asked of each.
MOST_TYPES = 12
#: GPUs of one type, and the dearest one. By hand: nobody has more, and sums of prices keep their digits.
MOST_GPUS, DEAREST = 1_000_000, 1e9
_WHAT = f"a fleet: a list of {{{', '.join(KEYS)}}} in YAML, or a CSV file with these columns"


@dataclass(frozen=True)
class GpuType:
    """One type of a fleet: a GPU, or a server of several where the profile is of one.

    Attributes
    ----------
    name : str
        By which placements name it.
    profile : ServingProfile
    price : float
        Of one, in any unit, per hour for instance.
    count : int, optional
        How many there are; None for as many as anybody wants.
    """

    name: str
    profile: ServingProfile
    price: float = 1.0
    count: int | None = None

    def __post_init__(self) -> None:
        plain_text("fleet: name", self.name, at_most=60)
        number(f"fleet: type {self.name}: price", self.price, above=0.0, at_most=DEAREST)
        if self.count is not None:
            whole(f"fleet: type {self.name}: count", self.count, at_least=1, at_most=MOST_GPUS, unit="GPUs")


@dataclass(frozen=True)
class Fleet:
    """GPU types that serve one model.

    Attributes
    ----------
    types : tuple of GpuType
        One or more, of different names.
    """

    types: tuple[GpuType, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.types) <= MOST_TYPES:
            raise UserError(f"fleet: has {len(self.types)} types; there must be 1 to {MOST_TYPES}")
        name, times = Counter(kind.name for kind in self.types).most_common(1)[0]
        if times > 1:
            raise UserError(f"fleet: two types are called {name}; give each a name of its own (name: ...)")
        first = self.types[0]
        for kind in self.types:
            if _model(kind.profile) != _model(first.profile):
                raise UserError(
                    f"fleet: type {kind.name} serves {kind.profile.model} and type {first.name} {first.profile.model}; "
                    "adapters are of one base model, so all types must serve the same"
                )

    @property
    def is_mixed(self) -> bool:
        """Whether there are several types."""
        return len(self.types) > 1

    @property
    def max_gpus(self) -> int | None:
        """GPUs of all types together; None without a limit."""
        counts = [kind.count for kind in self.types]
        return None if None in counts else sum(count for count in counts if count is not None)

    def type_of(self, plan: GpuPlan) -> GpuType:
        """The type of a GPU; the only one there is, where its plan names none.

        Raises
        ------
        ValueError
            For a name that no type has, or none where there are several types.
        """
        if plan.gpu_type is None and not self.is_mixed:
            return self.types[0]
        for kind in self.types:
            if kind.name == plan.gpu_type:
                return kind
        known = ", ".join(kind.name for kind in self.types)
        raise ValueError(f"type {shown(plan.gpu_type)}: must be one of {known}")

    def cost(self, placement: Placement) -> float:
        """Sum of the prices of the GPUs used."""
        return math.fsum(self.type_of(plan).price for plan in placement.gpus)

    def mix(self, placement: Placement) -> tuple[int, ...]:
        """GPUs used of each type."""
        used = Counter(self.type_of(plan).name for plan in placement.gpus)
        return tuple(used[kind.name] for kind in self.types)

    def named(self, placement: Placement) -> Placement:
        """The placement with the name of its type in every plan."""
        return Placement(tuple(replace(plan, gpu_type=self.type_of(plan).name) for plan in placement.gpus))

    def check(self, placement: Placement) -> None:
        """Raise `ValueError` unless every GPU is of a type of the fleet and no type is used more often than it is there."""
        for number_, plan in enumerate(placement.gpus):
            try:
                self.type_of(plan)
            except ValueError as error:
                raise ValueError(f"GPU {number_}: {error}") from None
        for kind, used in zip(self.types, self.mix(placement), strict=True):
            if kind.count is not None and used > kind.count:
                raise ValueError(f"uses {used} GPUs of type {kind.name}, of which there are {kind.count}")

    def check_ranks(self, ranks: NDArray[Any]) -> None:
        """Raise `UserError` unless the profile of every type knows the ranks."""
        for kind in self.types:
            kind.profile.check_ranks(ranks)


def fleet_of(rows: Any, origin: str = "fleet") -> Fleet:  # noqa: ANN401  # whatever a user has typed
    """The fleet of a list of types, as the command line, YAML or CSV has them.

    Parameters
    ----------
    rows : sequence of mapping
        Each with the keys `KEYS`: `profile` (a shipped name or a JSON file) is needed; `price` is 1 by default, `count`
        unlimited, `name` what the profile's name says of the GPU.
    origin : str
        For messages.

    Raises
    ------
    UserError
        Naming the entry, the key and what would be right.
    """
    if isinstance(rows, str) or not isinstance(rows, Sequence) or not rows:
        raise UserError(
            f"{origin}={shown(rows)} must be a list of types, such as [{{profile: NAME, price: 2, count: 4}}]"
        )
    return Fleet(tuple(_type(row, f"{origin}: entry {place}") for place, row in enumerate(rows, 1)))


def read_fleet(path: str | Path) -> list[dict[str, Any]]:
    """The types that a YAML or CSV file lists, as `fleet_of` takes them.

    Raises
    ------
    UserError
        If the file cannot be read or holds no such list.
    """
    text = read_text(path, _WHAT, key="fleet")
    if str(path).endswith(".csv"):
        return _csv_rows(text, str(path))
    try:
        rows = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"fleet={path}: not YAML ({' '.join(str(error).split())[:200]})") from None
    rows = rows.get("fleet") if isinstance(rows, dict) and set(rows) == {"fleet"} else rows
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"fleet={path}: must hold {_WHAT}")
    return rows


def _csv_rows(text: str, path: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    unknown = [name for name in reader.fieldnames or () if name not in KEYS]
    if unknown or "profile" not in (reader.fieldnames or ()):
        wrong = f"column {shown(unknown[0])} is not known" if unknown else "column profile is missing"
        raise UserError(f"fleet={path}: {wrong}; the columns are {', '.join(KEYS)}")
    rows = []
    for place, line in enumerate(reader, 2):
        if None in line or None in line.values():
            raise UserError(f"fleet={path}: line {place}: must have a value, or nothing, for each column")
        row: dict[str, Any] = {name: value.strip() for name, value in line.items() if value.strip()}
        for key, kind in (("price", float), ("count", int)):
            try:
                row |= {key: kind(row[key])} if key in row else {}
            except ValueError:
                raise UserError(f"fleet={path}: line {place}: {key}={shown(row[key])} must be a number") from None
        rows.append(row)
    return rows


def _type(row: Any, where: str) -> GpuType:  # noqa: ANN401  # whatever a user has typed
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: {shown(row)} must have the keys {', '.join(KEYS)}")
    unknown = [key for key in row if key not in KEYS]
    if unknown or "profile" not in row:
        wrong = f"key {shown(unknown[0])} is not known" if unknown else "key profile is missing"
        raise UserError(f"{where}: {wrong}; the keys are {', '.join(KEYS)}")
    if not isinstance(row["profile"], str):
        raise UserError(
            f"{where}: profile={shown(row['profile'])} must be the name of a serving profile, or a JSON file"
        )
    try:
        profile = load_profile(row["profile"])
        name = row.get("name")
        name = profile.name.rpartition("/")[2] if name is None else name
        price = 1.0 if row.get("price") is None else row["price"]
        return GpuType(name, profile, number("price", price, above=0.0, at_most=DEAREST), row.get("count"))
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix('fleet: ')}") from None


def _model(profile: ServingProfile) -> str:
    return profile.model.rstrip("/").rpartition("/")[2].lower()
