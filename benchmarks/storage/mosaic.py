"""MosaicML streaming without its sets of pictures."""

import importlib
import importlib.util
import sys
import types
from typing import Any


def base() -> Any:
    """The module `streaming.base`.

    `import streaming` also imports data sets of pictures, which want torchvision, whose builds for CUDA do not go with
    a torch for CPU. Python is told that the package is loaded, so that it loads only the part below it.
    """
    if "streaming" not in sys.modules:
        spec = importlib.util.find_spec("streaming")
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError("mosaicml-streaming is not installed")
        package = types.ModuleType("streaming")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["streaming"] = package
    return importlib.import_module("streaming.base")
