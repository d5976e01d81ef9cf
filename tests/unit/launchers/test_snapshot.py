"""The snapshot: it runs by itself, runs with the same code share it, and a file that is not as it was is named."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trainwright.config.errors import FoundBad
from trainwright.config.rundir import RunDir, create_run_dir, shared_code
from trainwright.launchers.frozen import digest_of, listing
from trainwright.launchers.snapshot import forget_run, require_intact, take_snapshot
from trainwright.tracking.ledger import read_ledger

_ONE = "trainwright/launchers/rank.py"


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, Path]:
    """A model and a tokenizer."""
    model, tokenizer = tmp_path / "config.json", tmp_path / "tokenizer"
    model.write_text('{"model_type": "llama"}')
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text("{}")
    return model, tokenizer


@pytest.fixture
def run(tmp_path: Path, parts: tuple[Path, Path]) -> RunDir:
    """A run directory with a snapshot and a ledger."""
    made = create_run_dir(tmp_path / "runs", "one")
    made.next_attempt()
    take_snapshot(made, *parts)
    return made


def _verify(run: RunDir, digest: str, restarts: int = 0) -> "subprocess.CompletedProcess[str]":
    """What the batch script does."""
    script = run.code / "trainwright" / "launchers" / "frozen.py"
    command = [sys.executable, "-I", "-S", str(script), str(run.path), "1", digest]
    environment = {"SLURM_RESTART_COUNT": str(restarts)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_snapshot_runs_by_itself_and_its_digest_names_every_file(run: RunDir, parts: tuple[Path, Path]) -> None:
    assert run.model_config.read_text() == parts[0].read_text()
    assert (run.tokenizer / "tokenizer.json").read_text() == "{}"
    record = json.loads(run.code_digest.read_text())
    assert record["files"] == listing(run.snapshot)
    assert record["sha256"] == digest_of(record["files"]) == require_intact(run)
    assert {f"code/{_ONE}", "code/trainwright/sbatch_templates/train.sbatch", "model/config.json"} <= set(
        record["files"]
    )
    assert not any(path.stat().st_mode & 0o222 for path in run.snapshot.rglob("*") if path.is_file())
    modules = ["launchers.rank", "config.run", "storage.tokens._gather", "storage.loading._order"]  # compiled ones too
    ask = "import importlib as i; " + "; ".join(
        f"print(i.import_module('trainwright.{name}').__file__)" for name in modules
    )
    environment = {"PYTHONPATH": str(run.code), "PYTHONSAFEPATH": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True)
    assert len(done.stdout.split()) == 4
    assert all(path.startswith(str(run.code)) for path in done.stdout.split())
    assert _verify(run, record["sha256"]).returncode == 0, "what Python's caches add counts for nothing"


def test_runs_with_the_same_code_share_it_also_if_they_are_made_at_once(
    tmp_path: Path, parts: tuple[Path, Path]
) -> None:
    runs = [create_run_dir(tmp_path / "runs", "many") for _ in range(8)]
    with ThreadPoolExecutor(len(runs)) as pool:
        digests = set(pool.map(lambda run: take_snapshot(run, *parts), runs))
    assert len(digests) == 1
    [place] = shared_code(tmp_path / "runs").iterdir()
    assert {run.code.resolve() for run in runs} == {place}
    parts[0].write_text("{}")
    other = create_run_dir(tmp_path / "runs", "other")
    assert take_snapshot(other, *parts) not in digests
    assert other.code.resolve() == place
    for run in runs:
        forget_run(run, had_runs=True)
        assert require_intact(other)
    forget_run(other, had_runs=False)
    assert not (tmp_path / "runs").exists()


def test_damaged_shared_code_gives_way_to_whole(tmp_path: Path, run: RunDir, parts: tuple[Path, Path]) -> None:
    (run.code / _ONE).unlink()
    another = create_run_dir(tmp_path / "runs", "another")
    take_snapshot(another, *parts)
    assert require_intact(run) == require_intact(another)
    assert len(list(shared_code(tmp_path / "runs").iterdir())) == 1


def _edit(path: Path) -> None:
    path.chmod(0o644)
    path.write_text(path.read_text() + "\n")


def _break(path: Path) -> None:
    path.chmod(0o644)
    path.write_text("this is no Python")


def _swap(path: Path) -> None:
    other = path.with_suffix(".other")
    path.rename(other)
    path.symlink_to(other.name)


_ADDED = "code/json.py"
_CHANGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "edited": (f"code/{_ONE}", _edit, "was changed"),
    "verifier edited": ("code/trainwright/launchers/frozen.py", _edit, "was changed"),
    "no Python": ("code/trainwright/config/errors.py", _break, "was changed"),
    "model": ("model/config.json", _edit, "was changed"),
    "mode": (f"code/{_ONE}", lambda path: path.chmod(0o755), "was changed"),
    "link": ("model/config.json", _swap, "was changed"),
    "gone": ("code/trainwright/launchers/worker.py", Path.unlink, "is missing"),
    "added": (_ADDED, lambda path: path.write_text("raise SystemExit('shadowed')"), "was added"),
    "list": ("digest.json", _break, "is not that of what was submitted"),
}


@pytest.mark.parametrize("name", _CHANGES)
def test_a_file_that_is_not_as_it_was_is_named_and_nothing_runs(run: RunDir, name: str) -> None:
    file, change, how = _CHANGES[name]
    digest = require_intact(run)
    change(run.snapshot / file)
    done = _verify(run, digest)
    if file != "digest.json":
        assert done.returncode == 3
        [line] = done.stderr.splitlines()
        assert line.startswith(f"trainwright: {run.snapshot / file} {how}")
        events = {event.event: event for event in read_ledger(run)}
        assert events["cause"].fields["cause"] == "mistake"
        assert (events["verdict"].fields["code"], events["exit"].fields["code"]) == (93, 3)
        assert line.endswith(str(events["exit"].fields["message"]))
        with pytest.raises(FoundBad, match=how):
            require_intact(run)
    else:  # it is only asked when something else is wrong
        assert done.returncode == 0
        (run.code / _ONE).unlink()
        assert how in _verify(run, digest).stderr


def test_a_job_that_slurm_starts_again_ends_as_an_attempt_of_its_own(run: RunDir) -> None:
    digest = require_intact(run)
    shutil.rmtree(run.code.resolve() / "trainwright" / "config")
    assert _verify(run, digest, restarts=1).returncode == 3
    assert {event.attempt for event in read_ledger(run)} == {2}
    assert run.attempts() == [1, 2]


def test_code_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared_code(tmp_path).mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 1 + tmp_path.stat().st_uid)
    assert shared_code(tmp_path).name == f".snapshots-{1 + tmp_path.stat().st_uid}"
