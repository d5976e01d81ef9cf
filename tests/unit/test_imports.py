"""Arrows between folders point one way, and heavy packages stay where they belong. Read from the source, not run."""

import ast
import configparser
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainwright.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
ARROWS: dict[str, set[str]] = {
    "config": set(),
    "presets": set(),
    "sbatch_templates": set(),
    "tracking": {"config"},
    "storage": {"config"},
    "parallelism": {"config", "storage", "tracking"},
    "launchers": {"config", "storage", "tracking", "sbatch_templates"},
    "serving": {"config", "storage", "tracking", "launchers"},
    "cli": {"config", "storage", "tracking", "launchers", "serving", "presets", "parallelism", "sbatch_templates"},
}
# Package: folders or files whose modules may import it; elsewhere nobody may, at the top or inside a function.
HEAVY = {
    "torch": (
        *("parallelism", "storage/foreign"),
        *("serving/logits_check.py", "serving/perplexity.py"),
    ),
    "megatron": ("parallelism",),
    "deepspeed": ("parallelism",),
    "transformers": (
        *("serving/logits_check.py", "serving/perplexity.py"),
        *("parallelism/verify/reference.py", "parallelism/deepspeed"),
    ),
    "lm_eval": ("serving/tasks.py",),
    "vllm": (),
    "wandb": ("tracking/wandb_log.py", "tracking/sync.py"),
    "matplotlib": ("tracking/plot.py",),
    "submitit": ("launchers",),
    "pyarrow": ("storage/building/inputs", "storage/features"),
    "obstore": ("storage/tokens/objects.py",),
    "zstandard": ("storage/building/inputs",),
}
_LIGHT_CONFIG = {"pydantic", "yaml", "packaging"}  # all that config may take from others
Import = tuple[str, bool, int]  # dotted name, whether it runs when its module is imported, line


def modules() -> Iterator[tuple[Path, str]]:
    """Every library module and its folder."""
    for folder in ARROWS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, folder


def imports_of(path: Path) -> list[Import]:
    """What a module imports; a relative import as `trainwright.folder...`; `TYPE_CHECKING` counts for arrows only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_top = {id(node) for node in _at_top(tree)}
    package = ["trainwright", *path.relative_to(ROOT).parent.parts]
    found: list[Import] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in at_top, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            deeper = [f"{name}.{alias.name}" for alias in node.names] if name == "trainwright" else [name]
            found += [(each, id(node) in at_top, node.lineno) for each in deeper]
    return found


def _at_top(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported: not those in functions, nor for type checkers alone."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
            for handler in getattr(node, "handlers", []):
                waiting += handler.body


def every_import() -> Iterator[tuple[str, str, Import]]:
    """(place such as `storage/loading/order.py:7`, folder, import) of the whole library."""
    for path, folder in modules():
        for found in imports_of(path):
            yield f"{path.relative_to(ROOT).as_posix()}:{found[2]}", folder, found


def test_arrows_point_one_way() -> None:
    wrong = []
    for place, folder, (name, _, _) in every_import():
        top, *rest = name.split(".")
        if top in ARROWS:
            wrong.append(f"{place}: {name}: write a relative import")
        if top == "trainwright" and rest[0] != folder and rest[0] not in ARROWS[folder]:
            wrong.append(f"{place}: {folder} must not import {rest[0]}")
    assert wrong == []


def test_heavy_packages_stay_where_they_belong() -> None:
    wrong = []
    for place, folder, (name, at_top, _) in every_import():
        package = name.split(".")[0]
        if package not in HEAVY:
            continue
        if not place.startswith(tuple(f"{home}:" if home.endswith(".py") else f"{home}/" for home in HEAVY[package])):
            wrong.append(f"{place}: {package} may be imported in {HEAVY[package]} only")
        if at_top and folder not in ("parallelism", "launchers"):
            wrong.append(f"{place}: import {package} where it is used")
    assert wrong == []


def test_config_and_the_command_line_stay_light() -> None:
    wrong = []
    for place, folder, (name, at_top, _) in every_import():
        package = name.split(".")[0]
        known = package in sys.stdlib_module_names or package == "trainwright"
        if folder == "config" and not known and package not in _LIGHT_CONFIG:
            wrong.append(f"{place}: config must not import {package}")
        command = folder == "cli" and Path(place.split(":")[0]).stem in (*COMMANDS, "main", "output")
        ours = name.startswith("trainwright.cli") or package in sys.stdlib_module_names
        if command and at_top and not ours:
            wrong.append(f"{place}: import {name} inside `run`")
    assert wrong == []


def test_every_folder_is_in_the_table_and_on_the_map() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = setup["options"]["packages"].split()
    on_disk = {path.parent.relative_to(ROOT).as_posix() for folder in ARROWS for path in (ROOT / folder).rglob("*.py")}
    assert {name.removeprefix("trainwright.").replace(".", "/") for name in packages} == on_disk
    homes = dict(line.split(" = ") for line in setup["options"]["package_dir"].strip().splitlines())
    assert homes == {f"trainwright.{folder}": folder for folder in ARROWS}
    for folder in ARROWS:
        assert (ROOT / folder / "py.typed").is_file()
        assert (ROOT / "typings" / "trainwright" / folder).resolve() == ROOT / folder


def test_the_reader_of_imports_sees_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "storage").mkdir()
    path = tmp_path / "storage" / "x.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nimport torch.nn\nfrom ..config.run import R\nfrom .. import serving\n"
        "from .reader import Y\nif TYPE_CHECKING:\n    import numpy\n"
        "class C:\n    try:\n        import wandb\n    except ImportError:\n        import zlib\n"
        "def f():\n    from ..cli.main import main\n"
    )
    assert {(name, at_top) for name, at_top, _ in imports_of(path)} == {
        ("typing", True),
        ("torch.nn", True),
        ("trainwright.config.run", True),
        ("trainwright.serving", True),
        ("trainwright.storage.reader", True),
        ("numpy", False),
        ("wandb", True),
        ("zlib", True),
        ("trainwright.cli.main", False),
    }
