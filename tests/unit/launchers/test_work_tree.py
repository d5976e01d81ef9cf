"""A git work tree as a commit and a patch: complete, and without what git ignores or what looks like a key."""

import subprocess
from pathlib import Path

import pytest

from trainwright.launchers.work_tree import MAX_UNTRACKED_BYTES, read_work_tree

_TOKEN = "seeded-0123456789abcdef"


def _git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with a commit."""
    folder = tmp_path / "project"
    folder.mkdir()
    _git(folder, "init", "--quiet", "--initial-branch=trunk")
    (folder / ".gitignore").write_text("local.txt\n")
    for name in ("kept.py", "edited.py", "staged.py", "removed.py", "with space é.py"):
        (folder / name).write_text("one\n")
    _git(folder, "add", ".")
    _git(folder, "commit", "--quiet", "-m", "first")
    return folder


def test_the_patch_makes_the_work_tree_out_of_the_commit(tree: Path, tmp_path: Path) -> None:
    (tree / "edited.py").write_text("two\n")
    (tree / "staged.py").write_text("two\n")
    _git(tree, "add", "staged.py")
    (tree / "removed.py").unlink()
    (tree / "with space é.py").write_bytes(b"\0\1binary")
    (tree / "sub").mkdir()
    (tree / "sub" / "new.py").write_text("new\n")
    before = _git(tree, "status", "--porcelain")
    found = read_work_tree(tree / "sub", tree / "runs")
    assert found is not None
    assert (found.root, found.branch, found.left_out) == (str(tree), "trunk", [])
    assert found.commit == _git(tree, "rev-parse", "HEAD").strip()
    assert set(found.changed) == {"edited.py", "staged.py", "removed.py", "sub/new.py", "with space é.py"}
    assert _git(tree, "status", "--porcelain") == before, "the repository is as it was"
    copy = tmp_path / "copy"
    _git(tmp_path, "clone", "--quiet", str(tree), str(copy))
    (tmp_path / "p.patch").write_bytes(found.patch)
    _git(copy, "apply", str(tmp_path / "p.patch"))
    for folder in (tree, copy):
        files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        contents = {path: data for path, data in files.items() if path.parts[0] != ".git"}
        assert contents == {
            Path(".gitignore"): b"local.txt\n",
            Path("kept.py"): b"one\n",
            Path("edited.py"): b"two\n",
            Path("staged.py"): b"two\n",
            Path("with space é.py"): b"\0\1binary",
            Path("sub", "new.py"): b"new\n",
        }


def test_keys_and_large_files_are_left_out(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", _TOKEN)
    for name in ("local.txt", ".env", "server.key"):
        (tree / name).write_text(_TOKEN)
    (tree / "notes.md").write_text(f"my key is {_TOKEN}\n")
    (tree / "runs" / "one").mkdir(parents=True)
    (tree / "runs" / "one" / "batch.log").write_text("of a run")
    (tree / "large.bin").write_bytes(bytes(MAX_UNTRACKED_BYTES + 1))
    found = read_work_tree(tree, tree / "runs")
    assert found is not None
    assert found.left_out == [".env", "large.bin", "server.key"]
    assert found.changed == ["notes.md"]
    assert b"my key is ***" in found.patch
    assert _TOKEN not in repr(found) + str(found.record())


def test_no_work_tree_and_no_commit(tmp_path: Path) -> None:
    assert read_work_tree(tmp_path, tmp_path / "runs") is None
    _git(tmp_path, "init", "--quiet")
    (tmp_path / "new.py").write_text("new")
    found = read_work_tree(tmp_path, tmp_path / "runs")
    assert found is not None
    assert (found.commit, found.changed, found.patch) == (None, ["new.py"], b"")
    assert found.record()["patch"] is None
