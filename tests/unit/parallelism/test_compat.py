"""What the compat module hides from megatron-core while it is imported."""

import importlib
import importlib.util
import sys

import pytest

from trainwright.config.errors import UserError
from trainwright.parallelism.compat import _absent, prepare, with_transformer_engine


def test_a_hidden_package_is_there_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with _absent("colorsys"), pytest.raises(ImportError):
        importlib.import_module("colorsys")
    assert importlib.import_module("colorsys").rgb_to_hls
    with _absent("colorsys"):  # somebody has it: it stays
        assert sys.modules["colorsys"] is not None


@pytest.mark.skipif(importlib.util.find_spec("transformer_engine") is not None, reason="it is installed")
def test_transformer_engine_where_it_is_not_installed() -> None:
    prepare()
    assert not with_transformer_engine("auto")
    assert not with_transformer_engine("never")
    with pytest.raises(UserError, match=r"^parallelism\.transformer_engine: always, and it cannot be imported"):
        with_transformer_engine("always")
