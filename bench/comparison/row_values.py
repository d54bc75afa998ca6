"""Rows of a file, checked: whoever wrote it, no value is of another kind than its column, and its JSON is what it should be."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from twin import Placement, UserError
from twin.numbers import shown


def whole_again(table: Any, schema: Any) -> Any:  # noqa: ANN401  # pyarrow has no types
    """The table with whole numbers where another tool made fractions of them, as pandas does with a column that has gaps.

    Parameters
    ----------
    table : pyarrow.Table
    schema : pyarrow.Schema
        Of rows.

    Returns
    -------
    pyarrow.Table
        Columns with anything but whole numbers in them are as they were.
    """
    import pyarrow as pa

    for place, name in enumerate(table.column_names):
        wanted = schema.field(name).type
        if pa.types.is_integer(wanted) and pa.types.is_floating(table[name].type):
            with contextlib.suppress(pa.ArrowInvalid):
                table = table.set_column(place, name, table[name].cast(wanted))
    return table


def check_columns(table: Any, schema: Any, optional: Collection[str], path: str) -> None:  # noqa: ANN401  # pyarrow has no types
    """Refuse columns of other kinds than those of rows, and empty values where there must be one.

    Parameters
    ----------
    table : pyarrow.Table
    schema : pyarrow.Schema
        Of rows.
    optional : collection of str
        Columns that may have empty values.
    path : str
        For the message.

    Raises
    ------
    UserError
        Naming the column, a value of it and what it must be.
    """
    import pyarrow as pa
    from pyarrow import compute

    for name in table.column_names:
        column, wanted = table[name], schema.field(name).type
        if column.null_count and name not in optional:
            row = column.is_null().index(pa.scalar(value=True)).as_py() + 1
            raise UserError(f"{path}: row {row}: {name} is empty; it must be {_NAMES[str(wanted)]}")
        is_known = column.null_count == len(column) or column.type == wanted
        if not is_known and not _alike(column.type, wanted):
            value = next((value for value in column.to_pylist() if value is not None), None)
            raise UserError(f"{path}: {name}={shown(value)} must be {_NAMES[str(wanted)]}")
        if pa.types.is_floating(column.type):
            row = compute.is_nan(column).index(pa.scalar(value=True)).as_py() + 1
            if row:
                raise UserError(f"{path}: row {row}: {name}=nan must be a number, or empty")


def _alike(given: Any, wanted: Any) -> bool:  # noqa: ANN401  # pyarrow has no types
    """Whether values of one kind are values of the other as well: other widths, and whole numbers for numbers."""
    from pyarrow import types

    if types.is_list(wanted):
        return bool(types.is_list(given) or types.is_large_list(given)) and (
            types.is_null(given.value_type) or _alike(given.value_type, wanted.value_type)
        )
    if types.is_string(wanted):
        return bool(types.is_string(given) or types.is_large_string(given) or types.is_dictionary(given))
    if types.is_floating(wanted):
        return bool(types.is_floating(given) or types.is_integer(given))
    return bool(types.is_integer(wanted) and types.is_integer(given)) or given == wanted


def check_values(values: Mapping[str, Any], where: str) -> None:
    """Refuse a row whose JSON is not what it should be.

    Parameters
    ----------
    values : mapping
        By column.
    where : str
        File and row, for the message.

    Raises
    ------
    UserError
        Naming the column and what it must be.
    """
    details = values.get("details")
    if details is not None and not isinstance(_parsed(details, f"{where}: details"), dict):
        raise UserError(f"{where}: details={shown(details)} must be a JSON object")
    types = _parsed(values.get("fleet") or "[]", f"{where}: fleet")
    if not isinstance(types, list) or not all(isinstance(kind, dict) and set(kind) >= _TYPE for kind in types):
        raise UserError(
            f"{where}: fleet={shown(values['fleet'])} must be a JSON list of {{{', '.join(sorted(_TYPE))}}}"
        )
    results = _parsed(values.get("gpu_results") or "[]", f"{where}: gpu_results")
    if not isinstance(results, list) or not all(isinstance(each, dict) for each in results):
        raise UserError(f"{where}: gpu_results must be a JSON list with an object for each GPU")
    placement = values.get("placement")
    if placement is None:
        return
    try:
        plans = Placement.from_json(placement, f"{where}: placement")
    except (RecursionError, OverflowError):
        raise UserError(f"{where}: placement={shown(placement)} is no placement") from None
    if results and len(results) != plans.n_gpus:
        raise UserError(
            f"{where}: gpu_results has {len(results)} GPUs and placement {plans.n_gpus}; there is one for each"
        )
    if values.get("gpu_results") is not None and not results and plans.n_gpus:
        raise UserError(f"{where}: gpu_results=[] must have an object for each of the {plans.n_gpus} GPUs of placement")
    if values.get("gpus") not in (None, plans.n_gpus):
        raise UserError(f"{where}: gpus={values['gpus']}, but placement has {plans.n_gpus}")
    _check_placed(plans, values, where)


def _check_placed(placement: Placement, values: Mapping[str, Any], where: str) -> None:
    """Every adapter is placed once, or its shares sum to one."""
    count = values.get("n_adapters")
    for column in ("adapter_ranks", "adapter_rates"):
        given = values.get(column)
        if given is not None and count is not None and len(given) != count:
            raise UserError(f"{where}: {column} has {len(given)} adapters and n_adapters={count}; they must be as many")
    if count is None:
        return
    placed: list[int] = []
    parts: list[float] = []
    for number, plan in enumerate(placement.gpus):
        shares = plan.shares if plan.shares is not None else (1.0,) * len(plan.adapters)
        if len(shares) != len(plan.adapters) or (shares and not (min(shares) >= 0 and max(shares) <= 1)):
            raise UserError(f"{where}: placement: GPU {number} must have a share from 0 to 1 for each of its adapters")
        if plan.adapters and not (min(plan.adapters) >= 0 and max(plan.adapters) < count):
            adapter = next(adapter for adapter in plan.adapters if not 0 <= adapter < count)
            raise UserError(
                f"{where}: placement: GPU {number} has adapter {adapter}; there are {count}, counted from 0"
            )
        placed += plan.adapters
        parts += shares
    share = np.bincount(np.array(placed, dtype=np.int64), parts, minlength=count)
    wrong = np.flatnonzero(~(np.abs(share - 1) < 1e-6))
    if len(wrong):
        raise UserError(f"{where}: placement: adapter {wrong[0]} is placed {share[wrong[0]]:g} times; once is right")


def _parsed(text: str, where: str) -> Any:  # noqa: ANN401  # whatever JSON holds
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{where}={shown(text)} is not JSON") from None


_TYPE = {"name", "profile", "price", "count"}
_NAMES = {
    "string": "text",
    "int64": "a whole number",
    "double": "a number",
    "bool": "true or false",
    "list<item: int64>": "a list of whole numbers",
    "list<item: double>": "a list of numbers",
}
