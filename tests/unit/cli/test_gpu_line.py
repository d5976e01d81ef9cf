"""The GPU's line in what people read at the end: numbers, or that nothing was measured; never 0 for nothing."""

import json
from pathlib import Path

import pytest
import yaml

from trainwright.cli.main import main
from trainwright.cli.quickstart_path import Closing
from trainwright.config.loading import load_run
from trainwright.config.rundir import RunDir, create_run_dir

_WINDOW = {
    "time": 10.0,
    "seconds": 10.0,
    "util_percent": [87.0],
    "memory_used_bytes": [round(61.2 * 2**30)],
    "memory_total_bytes": [80 * 2**30],
    "power_w": [512.0],
    "temperature_c": [None],
}


@pytest.fixture
def run_dir(run_file: Path, tmp_path: Path) -> RunDir:
    """A run with one attempt that took a step."""
    made = create_run_dir(tmp_path / "runs", "tiny")
    made.run_yaml.write_text(yaml.safe_dump(load_run(run_file).model_dump(mode="json")))
    made.next_attempt()
    made.telemetry.mkdir()
    made.metrics(1).write_text(json.dumps({"step": 1, "loss": 2.0, "tokens_per_s": 3.0}) + "\n")
    return made


def test_status_with_numbers(run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir.gpus(1, 0).write_text(json.dumps(_WINDOW) + "\n")
    assert main(["status", str(run_dir.path)]) == 0
    assert "GPU      util 87 %, 61.2 GiB, 512 W" in capsys.readouterr().out
    assert main(["status", str(run_dir.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gpus"]["power_w"] == [512.0]


def test_status_without(run_dir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(run_dir.path)]) == 0
    assert "GPU      not measured" in capsys.readouterr().out
    assert main(["status", str(run_dir.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gpus"] is None


def test_the_closing_table() -> None:
    closing = Closing(rows=[("train", "loss 6 -> 3", 61.0)], facts={"gpu": "util 87 %, 61.2 GiB, 512 W"})
    assert "GPU                   util 87 %, 61.2 GiB, 512 W" in closing.table()
    assert "GPU                   not measured" in Closing().table()
