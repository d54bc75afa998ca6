"""Compiled kernels whose machine code, kept on disk, is that of the code they are made of.

Numba keeps machine code beside the source and looks at one file alone to tell whether it still holds: the one that the
kernel stands in. What a kernel calls is compiled into it and may stand anywhere. So machine code is kept here by all that
the compiler takes in: the byte code of every kernel reached, and the values of the globals that Numba freezes.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Literal, TypeVar

import numba
import numpy as np
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.extending import is_jitted

#: Files that are kept of one kernel: a few signatures and the last edits, of up to a megabyte each.
_MOST_FILES = 32

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def njit(
    *, cache: bool = False, nogil: bool = False, inline: Literal["always", "never"] = "never"
) -> Callable[[Kernel], Kernel]:
    """`numba.njit` for the kernels of this repository.

    Parameters
    ----------
    cache : bool
        Keep the machine code on disk, for as long as nothing that it was made of changes. Where nothing can be written, it
        is compiled in each process.
    nogil : bool
        Other threads go on meanwhile.
    inline : {"always", "never"}
        Whether a kernel becomes part of its callers before they are compiled.
    """

    def compiled(function: Kernel) -> Kernel:
        kernel: Any = numba.njit(nogil=nogil, inline=inline)(function)  # noqa: TID251  # this is the one place
        # With NUMBA_DISABLE_JIT set it is the function itself. Numba finds no place for its files where nothing can be written.
        has_a_cache = is_jitted(kernel)
        if cache and has_a_cache:
            with contextlib.suppress(RuntimeError):
                # What Numba's own `cache=True` sets.
                kernel._cache = _Cache(function)  # noqa: SLF001
        return kernel  # type: ignore[no-any-return]

    return compiled


class _Cache(FunctionCache):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, None)  # type: ignore[no-untyped-call]

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:  # noqa: ANN401  # Numba's own types
        # Asked for when the kernel is first called: all that it names is there by then.
        return sig, codegen.magic_tuple(), contents(self._py_func)


class _Files(IndexDataCacheFile):
    """A file for each key, named by it, in place of Numba's numbered files and their index.

    Two processes that compile at the same time, one of them with older code, can give the same number to different code.
    """

    def save(self, key: tuple[Any, ...], data: Any) -> None:  # noqa: ANN401  # Numba's own types
        self._save_data(self._name(key), data)  # type: ignore[no-untyped-call]
        for path in self._paths()[:-_MOST_FILES]:
            path.unlink(missing_ok=True)

    def load(self, key: tuple[Any, ...]) -> Any:  # noqa: ANN401  # Numba's own types
        try:
            return self._load_data(self._name(key))  # type: ignore[no-untyped-call]
        except OSError:
            return None

    def flush(self) -> None:
        for path in self._paths():
            path.unlink(missing_ok=True)

    def _name(self, key: tuple[Any, ...]) -> str:
        return f"{self._base}.{hashlib.sha256(repr((numba.__version__, key)).encode()).hexdigest()[:24]}.nbc"

    def _paths(self) -> list[Path]:
        """Files of this kernel, the oldest first."""
        found = []
        for path in Path(self._cache_path).glob(f"{glob.escape(self._base)}.*.nbc"):
            with contextlib.suppress(FileNotFoundError):  # another process tidies up as well
                found.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(found)]

    @property
    def _base(self) -> str:
        return self._index_name.removesuffix(".nbi")


def contents(function: Any) -> str:  # noqa: ANN401  # a kernel, or the function that it was made of
    """Hash of what Numba compiles a function from: its own code, that of all it calls, and the globals in them."""
    total = hashlib.sha256()
    for part in _parts(getattr(function, "py_func", function), set()):
        total.update(part.encode() + b"\n")
    return total.hexdigest()


def _parts(function: FunctionType, seen: set[object]) -> Iterator[str]:
    if function in seen:
        return
    seen.add(function)
    yield f"def {function.__module__}.{function.__qualname__}"
    for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield _plain(default)
    closure = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    scope = {**function.__globals__, **{name: cell.cell_contents for name, cell in closure}}
    for code in _codes(function.__code__):
        yield f"{code.co_code.hex()} {code.co_varnames} {code.co_names} {[_plain(value) for value in code.co_consts]}"
        for name in (*code.co_names, *code.co_freevars):
            if name in scope:
                yield f"{name}:"
                yield from _value(scope[name], code.co_names, seen)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _value(value: Any, names: tuple[str, ...], seen: set[object]) -> Iterator[str]:  # noqa: ANN401  # any global
    """What a global of a kernel adds to it; of a module what `names` picks out of it."""
    if is_jitted(value):
        yield f"kernel {sorted(value.targetoptions.items())}"
        yield from _parts(value.py_func, seen)  # type: ignore[arg-type]
    elif isinstance(value, ModuleType):
        if value in seen:
            return
        for name in names:
            if hasattr(value, name):
                yield f"{value.__name__}.{name}:"
                yield from _value(getattr(value, name), names, {*seen, value})
    elif isinstance(value, (tuple, list)):
        yield f"{type(value).__name__} of {len(value)}"
        for entry in value:
            yield from _value(entry, (), seen)
    else:
        yield _plain(value)


def _plain(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"array {value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, frozenset):
        # The order of its elements differs between processes.
        return f"set {sorted(map(_plain, value))}"
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, tuple, np.generic)):
        return f"{type(value).__name__} {value!r}"
    # Whatever has no value of its own: a class, a type of Numba, a function of a library, which Numba's version stands for.
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
