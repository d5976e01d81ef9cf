"""The snapshot: the code as it is now, its digest, model and tokenizer."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from trainwright.config.rundir import RunDir
from trainwright.launchers.snapshot import digest_files, take_snapshot


def test_the_snapshot_runs_by_itself_and_its_digest_names_every_file(tmp_path: Path) -> None:
    model, tokenizer = tmp_path / "config.json", tmp_path / "tokenizer"
    model.write_text('{"model_type": "llama"}')
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text("{}")
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    digest = take_snapshot(run, model, tokenizer)
    assert run.model_config.read_text() == model.read_text()
    assert (run.tokenizer / "tokenizer.json").read_text() == "{}"
    record = json.loads(run.code_digest.read_text())
    assert record["sha256"] == digest
    assert record["files"] == digest_files(run.code)
    one = "trainwright/launchers/rank.py"
    assert record["files"][one] == hashlib.sha256((run.code / one).read_bytes()).hexdigest()
    assert "trainwright/sbatch_templates/train.sbatch" in record["files"]
    modules = ["launchers.rank", "config.run", "storage.tokens._gather", "storage.loading._order"]  # compiled ones too
    ask = "import importlib as i; " + "; ".join(
        f"print(i.import_module('trainwright.{name}').__file__)" for name in modules
    )
    environment = {"PYTHONPATH": str(run.code), "PYTHONSAFEPATH": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True)
    assert len(done.stdout.split()) == 4
    assert all(path.startswith(str(run.code)) for path in done.stdout.split())
