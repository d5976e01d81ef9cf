"""Runs of the toy engine on a real Slurm, what can happen to them, and what must be true when they have ended."""

import json
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainwright.config.rundir import RunDir
from trainwright.launchers.processes import wait_until
from trainwright.tracking.ledger import Event, read_ledger
from trainwright.tracking.recorder import read_attempts, read_metrics

from ..conftest import MODEL

if TYPE_CHECKING:
    from .conftest import User

TOY = Path(__file__).with_name("toy")
_LOOK_S = 4.0  # a command takes half a second of a core
EVERY = 40
"""Steps between checkpoints."""
_RUN = """\
schema_version: 1
name: toy
model: model/config.json
data: {train: [{store: store.zarr}], sequence_length: 32}
train: {steps: 200, global_batch_size: 4, precision: fp32}
checkpoint: {every_steps: 40, keep: 100}
tracking: {wandb: {mode: disabled}}
cluster:
  profile: dev
  nodes: 2
  ranks_per_node: 2
  time_limit: "00:10:00"
  environment: [TOY_FAULTS, TOY_STEP_S]
"""


def toy_files(folder: Path, store: Path) -> Path:
    """The folder with a copy of a token store and a model beside it."""
    shutil.copytree(store, folder / "store.zarr")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps(MODEL))
    return folder


@dataclass
class ToyProject:
    """A folder of an ordinary user: run file, model, store, faults, and an interpreter that has the toy engine."""

    user: "User"
    folder: Path
    conf: Path

    @staticmethod
    def make(user: "User", files: Path, cluster: Path, engine: str = "toy") -> "ToyProject":
        """From a folder with model/ and store.zarr, which is copied. Engine toy, or megatron with the same faults."""
        folder = user.home / f"toy-{secrets.token_hex(4)}"
        shutil.copytree(files, folder)
        shutil.copytree(TOY, folder / "toy", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "faults").mkdir()
        (folder / "faults" / "hold").touch()
        python = folder / "python"
        variables = f'TOY_ENGINE={engine} PYTHONPATH="{folder}/toy:$PYTHONPATH"'
        python.write_text(f'#!/bin/sh\n{variables} exec {sys.executable} "$@"\n')
        python.chmod(0o755)
        (folder / "run.yaml").write_text(_RUN)
        user.own(folder)
        return ToyProject(user, folder, cluster / "slurm.conf")

    def submit(self, *overrides: str, step_s: float = 0.05, variables: Mapping[str, str] | None = None) -> "ToyRun":
        """Submit a run, from a shell with these variables beside its own."""
        own = {"TOY_FAULTS": str(self.folder / "faults"), "TOY_STEP_S": str(step_s), **(variables or {})}
        python = f"cluster.python={self.folder / 'python'}"
        done = self.user.trainwright("submit", self.folder / "run.yaml", python, *overrides, "--json", variables=own)
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout)
        return ToyRun(self, RunDir(Path(record["run"])), record["job_id"])


@dataclass
class ToyRun:
    """One run, as its user and the cluster's admin see it."""

    project: ToyProject
    run: RunDir
    job_id: str

    def slurm(self, *command: str) -> str:
        """Run one of Slurm's commands as the run's user; what it prints."""
        return self.project.user.run(command, {"SLURM_CONF": str(self.project.conf)}).stdout

    def status(self) -> dict[str, Any]:
        """What `trainwright status` says."""
        done = self.project.user.trainwright("status", self.run.path, "--json")
        assert done.returncode == 0, done.stderr
        record: dict[str, Any] = json.loads(done.stdout)
        return record

    def events(self, name: str) -> list[Event]:
        """Events of one kind, by time."""
        return [event for event in read_ledger(self.run) if event.event == name]

    def attempts(self) -> int:
        """Attempts that have begun."""
        return len(self.events("nodes"))

    def pids(self, attempt: int) -> dict[int, int]:
        """Process id of each rank of an attempt."""
        starts = [event for event in self.events("start") if event.attempt == attempt]
        return {event.fields["rank"]: event.fields["pid"] for event in starts}

    def hosts(self, attempt: int) -> dict[int, str]:
        """Host of each rank of an attempt."""
        starts = [event for event in self.events("start") if event.attempt == attempt]
        return {event.fields["rank"]: event.fields["host"] for event in starts}

    def step(self) -> int:
        """Last step of any attempt."""
        records = read_metrics(self.run)
        return records[-1]["step"] if records else 0

    def steps_of(self, attempt: int) -> list[int]:
        """Steps that an attempt has done."""
        return [record["step"] for record in read_attempts(self.run).get(attempt, [])]

    def reach(self, step: int, timeout_s: float = 120) -> None:
        """Wait until a step is done."""
        assert wait_until(lambda: self.step() >= step, timeout_s, every_s=0.1), self.explain()

    def fault(self, rank: int, words: str) -> None:
        """Order a fault of the toy engine."""
        order = self.project.folder / "faults" / f"fault-{rank}"
        beside = order.with_suffix(".new")
        beside.write_text(words)
        self.project.user.own(beside)
        beside.rename(order)

    def release(self) -> None:
        """Let the ranks go on after their fiftieth step."""
        (self.project.folder / "faults" / "hold").unlink(missing_ok=True)

    def finish(self, timeout_s: float = 240) -> dict[str, Any]:
        """Wait until the run is over; its status, which is known at every moment until then."""
        deadline = time.monotonic() + timeout_s
        while True:
            now = self.status()
            assert now["state"] != "unknown", self.explain()
            if now["state"] in ("finished", "failed", "cancelled"):
                return now
            assert time.monotonic() < deadline, self.explain()
            time.sleep(_LOOK_S)

    def causes(self) -> list[str]:
        """Cause of the end of each attempt, in order."""
        return [event.fields["cause"] for event in sorted(self.events("cause"), key=lambda event: event.attempt)]

    def explain(self) -> str:
        """What a reader of a failed test needs."""
        parts = [self.slurm("squeue", "--noheader", "--format=%i %T %r %N %S")]
        for path in sorted(self.run.path.glob("logs/*/*.log")):
            parts.append(f"--- {path}\n{path.read_text(errors='replace')[-1500:]}")
        parts += [f"{event.attempt} {event.writer} {event.event} {event.fields}" for event in read_ledger(self.run)]
        return "\n".join(parts)


def curve(run: RunDir) -> dict[int, float]:
    """Loss of every step, by the newest attempt that did it; to be compared bitwise."""
    return {record["step"]: record["loss"] for record in read_metrics(run)}


def repeated(run: RunDir) -> list[int]:
    """Steps that more than one attempt did, in order."""
    counts = Counter(record["step"] for records in read_attempts(run).values() for record in records)
    return sorted(step for step, count in counts.items() if count > 1)
