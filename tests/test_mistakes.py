"""A user's mistake: one line on stderr that names field or file, value and remedy; the right code; nothing written."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainwright.cli.main import main
from trainwright.config.loading import dump_run, load_run
from trainwright.config.rundir import create_run_dir

from .conftest import MODEL, RUN_YAML
from .mistake_cases import MISTAKES, Mistake
from .unit.serving.small_run import make_run

_IN_A_PROCESS = [
    mistake for mistake in MISTAKES if mistake.words[0] in {"trian: unknown field", "truncated", "COMMAND"}
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every command of the table would work, were it not for the mistake."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps(MODEL))
    (folder / "run.yaml").write_text(
        RUN_YAML.replace("{steps", "{micro_batch_size: 2, steps") + "cluster: {profile: local}\n"
    )
    (folder / "text").mkdir()
    for name in ("a", "b", "c"):
        (folder / "text" / f"{name}.py").write_text(f"def {name}(first, second):\n    return first + second\n" * 200)
    (folder / "few.txt").write_text("too few")
    (folder / "exported").mkdir()
    (folder / "exported" / "notes.txt").write_text("mine")
    run_dir = make_run(folder / "runs")
    run_dir.run_yaml.write_text(dump_run(load_run(folder / "run.yaml")))
    started = create_run_dir(folder / "runs", "started")
    for path in (started.run_yaml, started.attempt_yaml(started.next_attempt())):
        path.write_text(run_dir.run_yaml.read_text())
    for store, source, size in (("store", "text", 300), ("other", "text", 280), ("few", "few.txt", 280)):
        _build(folder, source, f"{store}.zarr", "--vocab-size", str(size))
    _add_features(folder)
    return folder


def _add_features(folder: Path) -> None:
    texts = [(folder / "text" / f"{name}.py").read_text() for name in ("a", "b")]
    records = [
        {"text": texts[0], "event_time": "2026-01-01", "language": "english"},
        {"text": texts[0], "event_time": "2026-01-02", "quality": 0.9},
        {"text": texts[1], "event_time": "2026-01-03", "language": "english", "quality": 0.2},
    ]
    (folder / "values.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    files = [str(folder / name) for name in ("values.jsonl", "features.db")]
    assert main(["data", "features", "import", "--store", str(folder / "store.zarr"), *files]) == 0


def _build(folder: Path, source: str, store: str, *options: str) -> None:
    assert main(["data", "build", str(folder / source), str(folder / store), *options]) == 0


@pytest.fixture
def folder(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the good folder to make a mistake in; the user's own settings are out of the way."""
    copy = tmp_path / "project"
    shutil.copytree(good, copy)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRAINWRIGHT_DEV_CLUSTER", str(tmp_path / "no-cluster"))
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "TRAINWRIGHT_RUNS", "SLURM_CONF"):
        monkeypatch.delenv(name, raising=False)
    return copy


def test_the_folder_is_good(folder: Path) -> None:
    for command in ("plan run.yaml", "data verify store.zarr", "data inspect other.zarr", "export small out"):
        assert main(shlex.split(command)) == 0


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_one_line_the_right_code_and_nothing_written(
    mistake: Mistake, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mistake.change(folder)
    before = tree(folder.parent)
    code = run_here(mistake.command)
    out, err = capfd.readouterr()
    check(mistake, code, out, err)
    assert tree(folder.parent) == before


@pytest.mark.parametrize("mistake", _IN_A_PROCESS, ids=[mistake.name for mistake in _IN_A_PROCESS])
def test_the_same_in_a_process_of_its_own(mistake: Mistake, folder: Path) -> None:
    mistake.change(folder)
    before = tree(folder.parent)
    command = [sys.executable, "-m", "trainwright.cli.main", *shlex.split(mistake.command)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    check(mistake, done.returncode, done.stdout, done.stderr)
    assert tree(folder.parent) == before


def test_the_table_is_long_enough() -> None:
    assert len(MISTAKES) >= 40


def run_here(command: str) -> int:
    """Exit code of a command line in this process."""
    try:
        return main(shlex.split(command))
    except SystemExit as end:
        return int(end.code or 0)


def check(mistake: Mistake, code: int, out: str, err: str) -> None:
    """One line with the words, the code, and nothing on stdout."""
    assert code == mistake.code, err
    assert len(err.splitlines()) == 1, err
    for word in ("trainwright: ", *mistake.words):
        assert word in err
    assert "Traceback" not in err
    assert out == ""


def tree(folder: Path) -> dict[str, str]:
    """Every path below a folder with its mode and content's digest."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = f"{path.lstat().st_mode:o} {hashlib.sha256(content).hexdigest()}"
    return found


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 64 KiB at `disk` in the project, mounted for real."""
    disk = folder / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


_WRITERS = (
    "data build text disk/new.zarr --vocab-size 300",
    "data export store.zarr disk/store.h5",
    "export small disk/out",
    "submit run.yaml runs=disk/runs",
    "data features import --store store.zarr values.jsonl disk/new.db",
    "data features select store.zarr features.db out.npz --as-of 2027-01-01 --where True --into disk/new.zarr",
    "data features export features.db disk/feast",
)


@pytest.mark.parametrize("command", _WRITERS)
def test_a_full_disk(command: str, small_disk: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        file.write(bytes(56 * 1024))
    before = tree(folder.parent)
    code = run_here(command)
    out, err = capfd.readouterr()
    check(Mistake(command, ("disk", "No space left on device", "free some space")), code, out, err)
    assert tree(folder.parent) == before


@pytest.mark.parametrize("command", _WRITERS)
def test_a_read_only_disk(command: str, small_disk: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    before = tree(folder.parent)
    code = run_here(command)
    out, err = capfd.readouterr()
    check(Mistake(command, ("disk", "Read-only file system", "can be written")), code, out, err)
    assert tree(folder.parent) == before
