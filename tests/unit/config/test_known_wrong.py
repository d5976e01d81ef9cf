"""Combinations that are known to be wrong: refused in those versions of the engine, and in no others."""

from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from trainwright.config import known_wrong
from trainwright.config.errors import UserError
from trainwright.config.known_wrong import KNOWN_WRONG
from trainwright.config.layout import Layout
from trainwright.config.layout_rules import layout_of
from trainwright.config.loading import load_run
from trainwright.config.model_reader import read_model

# Fields; a version of DeepSpeed that gets them wrong; one that does not; whose report it is.
CASES = [
    ("parallelism.zero=2 parallelism.offload=cpu", "0.18.9", "0.19.0", "pull/7967"),
    ("parallelism.zero=1 parallelism.offload=cpu train.precision=fp32", "0.15.1", "0.19.8", "pull/6550"),
    ("parallelism.zero=1", "0.18.9", "0.19.0", "pull/7985"),
    ("parallelism.zero=2", "0.17.6", "0.17.5", "issues/7718"),
    ("parallelism.zero=2", "0.18.2+cu128", "0.18.3", "issues/7718"),
    ("parallelism.zero=2 parallelism.overlap=true", "0.16.4", "0.17.0", "issues/5347"),
]
_ENGINE = ["parallelism.engine=deepspeed", "train.global_batch_size=8"]


def _layout(run_file: Path, fields: str, version: str | None, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setattr(known_wrong, "_version", lambda package: version)
    run = load_run(run_file, [*_ENGINE, *fields.split()])
    return layout_of(run, read_model(Path(run.model)))


@pytest.mark.parametrize(("fields", "bad", "good", "source"), CASES)
def test_refused_in_its_versions_alone(
    run_file: Path, monkeypatch: pytest.MonkeyPatch, fields: str, bad: str, good: str, source: str
) -> None:
    with pytest.raises(UserError) as caught:
        _layout(run_file, fields, bad, monkeypatch)
    assert f"in deepspeed {bad} " in str(caught.value)
    assert source in str(caught.value)
    shown = str(caught.value).partition("nearest that work: ")[2].split(" | ")
    assert any("zero=3" in one for one in shown), caught.value
    for one in shown:
        _layout(run_file, f"{fields} {one}", bad, monkeypatch)
    _layout(run_file, fields, good, monkeypatch)


def test_one_micro_batch_has_none_to_lose(run_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _layout(run_file, "parallelism.zero=1 train.micro_batch_size=8", "0.18.9", monkeypatch)


def test_nothing_is_known_of_an_engine_that_is_not_here(run_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _layout(run_file, "parallelism.zero=1", None, monkeypatch)


@pytest.mark.parametrize("known", KNOWN_WRONG, ids=lambda known: known.source)
def test_each_is_whole(known: known_wrong.KnownWrong) -> None:
    assert len(SpecifierSet(known.versions)) >= 1
    assert known.source.startswith("https://")
    assert any(known.source.rpartition("/")[2] in source or source in known.source for *_, source in CASES)
