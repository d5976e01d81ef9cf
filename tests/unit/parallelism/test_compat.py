"""What the compat module hides from megatron-core while it is imported."""

import importlib
import sys

import pytest

from trainwright.parallelism.compat import _absent


def test_a_hidden_package_is_there_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with _absent("colorsys"), pytest.raises(ImportError):
        importlib.import_module("colorsys")
    assert importlib.import_module("colorsys").rgb_to_hls
    with _absent("colorsys"):  # somebody has it: it stays
        assert sys.modules["colorsys"] is not None
