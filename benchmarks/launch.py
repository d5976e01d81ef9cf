"""Seconds from submitting a job to its first step: `trainwright submit` against the same job written by hand.

Run: make bench-launch (as root, with Slurm). A dev cluster of four nodes, megatron-core, eight ranks (TP2 x PP2 x DP2);
ten of each, alternating. The job by hand is sbatch with a script that calls srun on the same ranks in a folder made
before; ours starts with the command line. Slurm looks for jobs to start every few seconds: each is submitted at a
moment of its own. Wanted: a median ratio of at most 1.10, and `submit` itself in at most 1.5 s.
"""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.integration.real_runs import Model, make_project
from trainwright.config.loading import dump_run, load_run
from trainwright.config.rundir import RunDir, create_run_dir
from trainwright.launchers import dev_cluster
from trainwright.launchers.snapshot import take_snapshot
from trainwright.storage.loading.training_data import TrainingData

from .storage.report import machine

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "launch.txt"
ROUNDS, RATIO, SUBMIT_S = 10, 1.10, 1.5
_OVERRIDES = ["cluster.profile=dev", "cluster.nodes=4", "cluster.ranks_per_node=2", "train.steps=2"]
_OVERRIDES += ["parallelism.tensor=2", "parallelism.pipeline=2"]
_SCRIPT = """\
#!/bin/bash
#SBATCH --nodes=4 --ntasks-per-node=2 --cpus-per-task=1 --partition=main --time=01:00:00
#SBATCH --output={folder}/hand.log
export PYTHONPATH={code} SUBMITIT_EXECUTOR=slurm
srun {python} -c "from trainwright.launchers.rank import run_attempt; run_attempt('{folder}', 1)"
"""


def main() -> int:
    """Measure, print and keep; 1 if a figure was missed."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's Python keeps what it has compiled
    with tempfile.TemporaryDirectory(prefix="trainwright-launch-") as scratch:
        folder = Path(scratch)
        run_file = make_project(folder / "project", Model("llama", False))
        cluster = Path(f"/tmp/trainwright-launch-cluster-{os.getpid()}")  # munge's own user has to get there
        os.environ["TRAINWRIGHT_DEV_CLUSTER"] = str(cluster)
        try:
            dev_cluster.up(cluster, num_nodes=4)
            measured = [(_ours(run_file, number), _by_hand(run_file, number)) for number in range(-1, ROUNDS)][1:]
        finally:
            dev_cluster.down(cluster)
    submits, ours, hands = zip(*((submit, first, hand) for (submit, first), hand in measured), strict=True)
    ratio = statistics.median(mine / hand for mine, hand in zip(ours, hands, strict=True))
    lines = [
        "Seconds from submitting a job to its first step; run by `make bench-launch`.",
        *machine().splitlines()[:3],
        "",
        _line("submit by hand", hands),
        _line("trainwright submit", ours),
        _line("of which the command itself", submits),
        f"median ratio {ratio:.2f}, wanted at most {RATIO:.2f}",
        f"median submit {statistics.median(submits):.2f} s, wanted at most {SUBMIT_S} s",
    ]
    print("\n".join(lines))
    RESULTS.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return int(ratio > RATIO or statistics.median(submits) > SUBMIT_S)


def _line(what: str, seconds: tuple[float, ...]) -> str:
    spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
    return f"{what:<28} median {statistics.median(seconds):.2f} s, {len(seconds)} times, {spread}"


def _ours(run_file: Path, number: int) -> tuple[float, float]:
    """Seconds of the command, and to the first step from when it was started."""
    name = f"ours-{number}"
    _any_moment()
    began = time.monotonic()
    command = [sys.executable, "-m", "trainwright.cli.main", "submit", str(run_file), f"name={name}", *_OVERRIDES]
    subprocess.run(command, check=True, capture_output=True)
    submitted = time.monotonic() - began
    return submitted, _first_step(RunDir(run_file.parent / "runs" / name), began)


def _by_hand(run_file: Path, number: int) -> float:
    """Seconds to the first step from when sbatch was started."""
    run = load_run(run_file, [f"name=hand-{number}", *_OVERRIDES])
    folder = create_run_dir(Path(run.runs), run.name)
    for path in (folder.run_yaml, folder.attempt_yaml(folder.next_attempt())):
        path.write_text(dump_run(run), encoding="utf-8")
    with TrainingData.open(run.data).tokenizer_at_hand() as tokenizer:
        take_snapshot(folder, Path(run.model), tokenizer)
    script = folder.path / "by-hand.sbatch"
    script.write_text(_SCRIPT.format(folder=folder.path, code=folder.code, python=sys.executable), encoding="utf-8")
    environment = {**os.environ, "SLURM_CONF": str(run.cluster.slurm_conf)}
    _any_moment()
    began = time.monotonic()
    subprocess.run(["sbatch", str(script)], env=environment, cwd=folder.path, check=True, capture_output=True)
    return _first_step(folder, began)


def _any_moment() -> None:
    """Some seconds after the last job has ended: neither kind always meets Slurm's scheduler at the same point."""
    time.sleep(random.uniform(4, 8))


def _first_step(run: RunDir, began: float) -> float:
    """Seconds until the first step is recorded; then waits until the job has left the nodes."""
    path = run.telemetry / "metrics-0001.jsonl"
    while not path.exists() or not path.stat().st_size:
        if time.monotonic() - began > 120:
            raise RuntimeError(f"no step in 120 s: {[log.read_text() for log in run.path.rglob('*.log')]}")
        time.sleep(0.01)
    taken = time.monotonic() - began
    environment = {**os.environ, "SLURM_CONF": str(Path(os.environ["TRAINWRIGHT_DEV_CLUSTER"]) / "slurm.conf")}
    while subprocess.run(["squeue", "--noheader"], env=environment, capture_output=True, check=True).stdout.strip():
        time.sleep(0.2)
    return taken


if __name__ == "__main__":
    sys.exit(main())
