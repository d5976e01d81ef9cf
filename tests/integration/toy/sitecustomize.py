"""On the import path of a job's interpreter: the toy engine stands where megatron-core's would.

Everything else (trainer, saving, supervisor, ledger) is the product's.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

_STAND_INS = {
    "trainwright.parallelism.megatron": "toy_engine.py",
    "trainwright.parallelism.compat": "toy_compat.py",
}


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        name = _STAND_INS.get(fullname)
        return spec_from_file_location(fullname, Path(__file__).with_name(name)) if name else None


sys.meta_path.insert(0, _Finder())
