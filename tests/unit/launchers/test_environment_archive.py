"""A real virtual environment, packed, unpacked elsewhere and run from there; what is damaged, in the way, or full."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainwright.config import verdicts
from trainwright.config.errors import UserError
from trainwright.launchers import environment_archive, staged
from trainwright.launchers.environment_archive import Environment, pack_environment

_ASK = "import json, sys, only_here; print(json.dumps([sys.prefix, sys.base_prefix, only_here.VALUE, sys.argv[1:]]))"


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("venv") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "only_here.py").write_text("VALUE = 7\n")
    return folder


@pytest.fixture(scope="module")
def packed(venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Without the installation that it belongs to, as where that is the system's: a small one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment_archive, "_SYSTEM", (sys.base_prefix,))
        return pack_environment(tmp_path_factory.mktemp("runs"), str(venv / "bin" / "python"))


def _run(packed: Environment, folder: Path, digest: str | None = None) -> "subprocess.CompletedProcess[str]":
    words = [str(folder), digest or packed.sha256, str(packed.archive), "-c", _ASK, "word"]
    command = [sys.executable, "-I", "-S", staged.__file__, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_it_runs_from_the_nodes_disk(venv: Path, tmp_path: Path) -> None:
    """Two ranks at once: one unpacks, both run; the installation that the environment belongs to came along."""
    packed = pack_environment(tmp_path / "runs", str(venv / "bin" / "python"))
    words = [str(tmp_path), packed.sha256, str(packed.archive), "-c", _ASK, "word"]
    command = [sys.executable, "-I", "-S", staged.__file__, *words]
    ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [rank.communicate(timeout=120)[0].splitlines() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert sorted(len(lines) for lines in said) == [1, 2], "one of them has unpacked it"
    (home,) = tmp_path.glob("trainwright-*")
    for lines in said:
        prefix, base, value, arguments = json.loads(lines[-1])
        assert (Path(prefix), value, arguments) == (home / "env", 7, ["word"])
        if not sys.base_prefix.startswith("/usr"):
            assert Path(base) == home / "base"
    assert [path.name for path in tmp_path.glob(".*partial*")] == []


def test_it_is_packed_again_only_if_it_changed(
    packed: Environment, venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment_archive, "_SYSTEM", (sys.base_prefix,))
    python, runs = str(venv / "bin" / "python"), packed.archive.parents[2]
    before = packed.archive.stat().st_mtime_ns
    assert pack_environment(runs, python) == packed
    assert packed.archive.stat().st_mtime_ns == before
    added = next(venv.glob("lib/python*/site-packages")) / "more.py"
    added.write_text("")
    try:
        assert pack_environment(runs, python).sha256 != packed.sha256
    finally:
        added.unlink()
    assert packed.archive.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("how", ["flipped", "cut", "missing", "another"])
def test_a_damaged_archive_is_not_used(packed: Environment, tmp_path: Path, how: str) -> None:
    archive = tmp_path / "environment.tar"
    data = bytearray(packed.archive.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
    elif how == "cut":
        del data[len(data) // 2 :]
    if how != "missing":
        archive.write_bytes(data)
    bad = Environment(archive=archive, sha256=packed.sha256, num_bytes=len(data))
    (tmp_path / "node").mkdir()
    done = _run(bad, tmp_path / "node", "0" * 64 if how == "another" else None)
    assert done.returncode == staged.DO_NOT_RESTART
    assert done.stderr.startswith(f"trainwright: {archive}: ")
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in (tmp_path / "node").iterdir() if not path.name.endswith(".lock")] == []


def test_somebody_elses_folder_is_not_used(packed: Environment, tmp_path: Path) -> None:
    home = tmp_path / f"trainwright-{os.getuid()}-{packed.sha256[:16]}"
    home.mkdir()
    home.chmod(0o777)
    done = _run(packed, tmp_path)
    assert done.returncode == staged.UNHEALTHY
    assert "is not a folder of this user alone; this node is left" in done.stderr


def test_its_codes_are_the_launchers() -> None:
    assert (staged.UNHEALTHY, staged.DO_NOT_RESTART) == (verdicts.UNHEALTHY, verdicts.DO_NOT_RESTART)


def test_a_node_without_the_folder_is_left(packed: Environment, tmp_path: Path) -> None:
    done = _run(packed, tmp_path / "absent")
    assert done.returncode == staged.UNHEALTHY
    assert f"{tmp_path}/absent" in done.stderr


def test_what_cannot_be_packed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cluster.python: /bin/true does not say"):
        pack_environment(tmp_path, "/bin/true")
    if Path("/usr/bin/python3").exists():
        with pytest.raises(UserError, match="belongs to the system"):
            pack_environment(tmp_path, "/usr/bin/python3")
