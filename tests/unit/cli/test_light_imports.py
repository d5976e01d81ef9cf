"""`--help` imports next to nothing, and no command that only reads files imports torch. Each has a process."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainwright.cli.main import COMMANDS, main

from ..serving.small_run import LLAMA, make_run

HEAVY = {"torch", "megatron", "deepspeed", "vllm", "transformers", "wandb", "matplotlib"}
TOO_MUCH_FOR_HELP = HEAVY | {"pydantic", "numpy", "rich", "yaml", "zarr", "submitit", "tokenizers", "jinja2"}

_SPY = """
import sys
from trainwright.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print("\\nIMPORTED", code, *{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run file, a store and a run with a checkpoint."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "text.py").write_text("def add(first, second):\n    return first + second\n" * 100)
    assert main(["data", "build", str(folder / "text.py"), str(folder / "store.zarr"), "--vocab-size", "300"]) == 0
    (folder / "values.jsonl").write_text('{"text": "a", "event_time": "2026-01-01", "quality": 1}\n')
    features = ["--store", str(folder / "store.zarr"), str(folder / "values.jsonl"), str(folder / "old.db")]
    assert main(["data", "features", "import", *features]) == 0
    (folder / "config.json").write_text(json.dumps(LLAMA))
    (folder / "run.yaml").write_text(
        "schema_version: 1\nname: tiny\nmodel: config.json\n"
        "data: {train: [{store: store.zarr}], sequence_length: 32}\ntrain: {steps: 4, global_batch_size: 4}\n"
    )
    run_dir = make_run(folder / "runs")
    shutil.copy(folder / "run.yaml", run_dir.run_yaml)
    run_dir.ledger_file(1, "submit").parent.mkdir(parents=True)
    run_dir.attempt_logs(1).mkdir(parents=True)
    return folder


def imported(command: list[str], folder: Path) -> tuple[int, set[str]]:
    """Exit code of a command, and the packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-c", _SPY, *command], cwd=folder, capture_output=True, text=True, timeout=60
    )
    code, *names = done.stderr.rpartition("IMPORTED ")[2].split()
    return int(code), set(names)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_next_to_nothing(command: str, tmp_path: Path) -> None:
    code, names = imported([*command.split(), "--help"], tmp_path)
    assert code == 0
    assert not names & TOO_MUCH_FOR_HELP


@pytest.mark.parametrize(
    "command",
    [
        "plan run.yaml",
        "plan run.yaml --json train.steps=9",
        "data inspect store.zarr",
        "data verify store.zarr",
        "data build text.py other.zarr --vocab-size 280",
        "data features import --store store.zarr values.jsonl features.db",
        "data features select store.zarr old.db out.npz --as-of 2026-02-01 --where True --into taken.zarr",
        "data features lookup old.db 00112233445566778899aabbccddeeff",
        "status runs/small",
        "logs runs/small",
        "export runs/small exported",
        "serve --list",
        "cluster dev status",
    ],
)
def test_no_torch_where_files_are_read(command: str, project: Path) -> None:
    code, names = imported(command.split(), project)
    assert code == 0
    assert not names & HEAVY


def test_a_mistake_imports_no_torch_either(project: Path) -> None:
    for command in (["submit", "run.yaml", "parallelism.tensor=3"], ["cancel", "absent"], ["serve", "absent"]):
        code, names = imported(command, project)
        assert code == 2
        assert not names & HEAVY
