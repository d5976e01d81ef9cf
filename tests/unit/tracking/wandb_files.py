"""W&B's offline files of a run, read with W&B's own reader."""

import json
import subprocess
from pathlib import Path
from typing import Any

import wandb

from trainwright.config.rundir import RunDir


def fragments(run_dir: RunDir) -> list[Path]:
    """The W&B files of a run, one per attempt, in order of time."""
    return sorted(run_dir.wandb.glob("offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime)


def read_back(fragment: Path, cwd: Path) -> list[dict[str, Any]]:
    """Records of one W&B file, as `wandb leet inspect` reads them."""
    command = [
        str(Path(wandb.__file__).parent / "bin" / "wandb-core"),
        "leet",
        "inspect",
        "--no-observability",
        "--json",
    ]
    command += ["--run-file", str(fragment), str(fragment.parent.parent)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def of_kind(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in records if record["type"] == kind]
