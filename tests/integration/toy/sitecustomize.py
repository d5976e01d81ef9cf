"""On the import path of a job's interpreter: the toy engine stands where megatron-core's would, or faults around that.

Everything else (trainer, saving, supervisor, ledger) is the product's. $TOY_ENGINE says which: `toy` or `megatron`.
"""

import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

_ENGINE = "trainwright.parallelism.megatron.engine"
_STAND_INS = {_ENGINE: "toy_engine.py", "trainwright.parallelism.compat": "toy_compat.py"}


class _StandIns(MetaPathFinder):
    """Our modules in place of the product's."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        name = _STAND_INS.get(fullname)
        return spec_from_file_location(fullname, Path(__file__).with_name(name)) if name else None


class _WithFaults(MetaPathFinder, Loader):
    """The product's own module, with faults around its engine."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname == _ENGINE else None
        if spec is not None:
            self._own, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        from real_engine import with_faults  # type: ignore[import-not-found]

        assert self._own is not None
        self._own.exec_module(module)
        module.MegatronEngine = with_faults(module.MegatronEngine)  # type: ignore[attr-defined]


sys.meta_path.insert(0, _WithFaults() if os.environ.get("TOY_ENGINE") == "megatron" else _StandIns())
