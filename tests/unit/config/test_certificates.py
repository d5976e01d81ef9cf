"""A certificate holds for what was verified, and for nothing else."""

from pathlib import Path

import pytest

from trainwright.config import certificates
from trainwright.config.certificates import (
    NOT_VERIFIED,
    Certificate,
    certificate_key,
    find_certificate,
    proof,
    write_certificate,
)
from trainwright.config.loading import load_run
from trainwright.config.model_reader import read_model

TWO = ["cluster.ranks_per_node=2", "parallelism.tensor=2"]


def certify(run_file: Path, *overrides: str) -> None:
    run = load_run(run_file, [*TWO, *overrides])
    key = certificate_key(run, read_model(Path(run.model)))
    largest = {"gradients, step 1": 1.2e-6}
    facts = {"layout": {"tensor": 2}, "largest": largest, "seconds": 1.0, "versions": {}, "code": "x"}
    write_certificate(run, Certificate(key=key, created="2026-01-01T00:00:00+00:00", **facts))  # type: ignore[arg-type]


def is_certified(run_file: Path, *overrides: str) -> bool:
    run = load_run(run_file, [*TWO, *overrides])
    return find_certificate(run, read_model(Path(run.model))) is not None


def test_what_changes_the_computation_needs_a_new_one(run_file: Path) -> None:
    assert not is_certified(run_file)
    certify(run_file)
    assert is_certified(run_file)
    for same in ("train.steps=99", "train.optimizer.lr=1e-5", "data.seed=9", "name=other", "cluster.nodes=1"):
        assert is_certified(run_file, same), same
    for other in (
        "parallelism.sequence=true",
        "train.recompute=full",
        "data.document_mask=true",
        "parallelism.zero=0",
        "train.optimizer.clip_norm=0",
        "cluster.nodes=2",
    ):
        assert not is_certified(run_file, other), other


def test_larger_runs_of_the_same_kind_need_no_other(run_file: Path) -> None:
    certify(run_file, "cluster.nodes=2", "train.global_batch_size=32")
    assert is_certified(run_file, "cluster.nodes=4", "train.global_batch_size=64")


def test_other_code_and_versions_need_a_new_one(run_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certify(run_file)
    with monkeypatch.context() as patch:
        patch.setattr(certificates, "code_digest", lambda: "other")
        assert not is_certified(run_file)
    with monkeypatch.context() as patch:
        patch.setattr(certificates, "installed_versions", lambda: {"torch": "99"})
        assert not is_certified(run_file)
    assert is_certified(run_file)


def test_words(run_file: Path) -> None:
    alone = load_run(run_file)
    assert proof(alone, read_model(Path(alone.model))) is None
    run = load_run(run_file, TWO)
    model = read_model(Path(run.model))
    assert proof(run, model) == NOT_VERIFIED
    certify(run_file)
    assert proof(run, model) == "verified at 2026-01-01T00:00:00+00:00: every gradient within 1e-06 of one rank's"


def test_a_damaged_one_is_none(run_file: Path) -> None:
    certify(run_file)
    (found,) = (run_file.parent / "runs" / ".certificates").iterdir()
    found.write_text("{")
    assert not is_certified(run_file)
