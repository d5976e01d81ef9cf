"""Every path of a run directory, and how a run is found."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trainwright.config.errors import UserError
from trainwright.config.rundir import RunDir, create_run_dir, find_run, split_step, step_of


def test_every_path_lies_in_the_run_directory(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    names = [name for name, value in vars(RunDir).items() if isinstance(value, property)]
    paths = [value for name in names if isinstance(value := getattr(run_dir, name), Path)]
    assert len(paths) >= 12
    assert all(path.is_relative_to(run_dir.path) for path in paths)
    assert len(set(paths)) == len(paths)


def test_run_directories_are_private_and_never_reused(tmp_path: Path) -> None:
    made = [create_run_dir(tmp_path / "runs", "a") for _ in range(3)]
    assert [run_dir.name for run_dir in made] == ["a", "a-2", "a-3"]
    assert {stat.S_IMODE(run_dir.path.stat().st_mode) for run_dir in made} == {0o700}


def test_runs_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="is not a folder"):
        create_run_dir(tmp_path / "runs", "a")


def test_two_callers_never_get_the_same_attempt(tmp_path: Path) -> None:
    run_dir = create_run_dir(tmp_path, "a")
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: run_dir.next_attempt(), range(40)))
    assert sorted(numbers) == list(range(1, 41)) == run_dir.attempts()
    assert run_dir.attempt_logs(40).is_dir()


def test_a_run_is_found_by_folder_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = create_run_dir(tmp_path / "runs", "a")
    run_dir.run_yaml.write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRAINWRIGHT_RUNS", raising=False)
    assert find_run(str(run_dir.path)) == find_run("a") == run_dir
    monkeypatch.chdir("/")
    with pytest.raises(UserError, match="no run 'a'"):
        find_run("a")
    monkeypatch.setenv("TRAINWRIGHT_RUNS", str(tmp_path / "runs"))
    assert find_run("a") == run_dir


def test_steps_in_names() -> None:
    assert split_step("run@120") == ("run", 120)
    assert split_step("run") == ("run", None)
    assert split_step("a@b@3") == ("a@b", 3)
    with pytest.raises(UserError, match="'last' is not a step"):
        split_step("run@last")
    assert step_of(RunDir(Path("x")).checkpoint(1000)) == 1000
    assert step_of(Path("step-1000")) is None
