"""Pickles of other people, without running what they say: only classes of a list are made, all others are refused."""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...config.errors import FoundBad

_REMEDY = "copy it again, or convert it with its own tools"


class Stub:
    """Stands where a class of another package would: it holds that one's state, and does nothing."""

    def __init__(self, *args: Any, **_: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BufferedIOBase, allowed: Mapping[str, Any], packages: tuple[str, ...]) -> None:
        super().__init__(file)
        self._allowed, self._packages = allowed, packages

    def find_class(self, module: str, name: str) -> Any:
        found = self._allowed.get(f"{module}.{name}")
        if found is None and module.startswith(self._packages):
            return Stub
        if found is None:
            raise pickle.UnpicklingError(f"names {module}.{name}, which is not loaded")
        return found


def load_pickle(path: Path, allowed: Mapping[str, Any], packages: tuple[str, ...]) -> Any:
    """What a pickle holds, of the classes `allowed` by their full names, and of Stubs for others of `packages`.

    Raises FoundBad if it is damaged, or names anything else.
    """
    try:
        with path.open("rb") as file:
            return _Unpickler(file, allowed, packages).load()
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise FoundBad(str(path), f"cannot be read safely ({error})", _REMEDY) from None


def load_torch(file: Path | io.BytesIO, where: str, stubs: tuple[str, ...] = ()) -> Any:
    """What torch.save wrote: tensors, numbers, texts and containers, and a Stub for each class named in `stubs`.

    Files are mapped, so that only what is used is read. Raises FoundBad if it is damaged or holds another class.
    """
    import torch

    named: list[Any] = [(type(name.rpartition(".")[2], (Stub,), {}), name) for name in stubs]
    try:
        with torch.serialization.safe_globals(named):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=isinstance(file, Path) or None)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        words = " ".join(str(error).split())[:200]
        raise FoundBad(where, f"cannot be read safely ({words})", _REMEDY) from None
