"""Every path in a run directory, and how a run is found by name. Nobody else joins these names."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError

_STEP = re.compile(r"^step-(\d{8})$")


BEST = "best"
"""`RUN@best`: the checkpoint with the lowest held-out loss."""


@dataclass(frozen=True)
class RunDir:
    """A run directory (0700). Properties give paths; only `create` and `next_attempt` touch the disk."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def run_yaml(self) -> Path:
        return self.path / "run.yaml"

    def attempt_yaml(self, attempt: int) -> Path:
        """The run file as frozen for one attempt; `run_yaml` is the newest attempt's."""
        return self.path / f"run-{attempt:04d}.yaml"

    @property
    def snapshot(self) -> Path:
        """What the run was made of: code/, model/, tokenizer/, git.json, uncommitted.patch, digest.json."""
        return self.path / "snapshot"

    @property
    def code(self) -> Path:
        """Folder to put on PYTHONPATH: holds trainwright/<folder>/ as submitted. A link into `shared_code`."""
        return self.snapshot / "code"

    @property
    def code_digest(self) -> Path:
        return self.snapshot / "digest.json"

    @property
    def git_record(self) -> Path:
        """Commit and state of the work tree from which the run was submitted; missing if there was none."""
        return self.snapshot / "git.json"

    @property
    def model_config(self) -> Path:
        return self.snapshot / "model" / "config.json"

    @property
    def tokenizer(self) -> Path:
        """Folder with the store's tokenizer files."""
        return self.snapshot / "tokenizer"

    @property
    def jobs(self) -> Path:
        """Submitit's folder: rendered scripts, pickles, results."""
        return self.path / "jobs"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:08d}"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger"

    def ledger_file(self, attempt: int, writer: str) -> Path:
        return self.ledger / f"{attempt:04d}" / f"{writer}.jsonl"

    def attempt_logs(self, attempt: int) -> Path:
        return self.path / "logs" / f"{attempt:04d}"

    def rank_log(self, attempt: int, rank: int) -> Path:
        return self.attempt_logs(attempt) / f"{rank:05d}.log"

    def batch_log(self, attempt: int) -> Path:
        """What the batch script and srun (or the local controller) said."""
        return self.attempt_logs(attempt) / "batch.log"

    def hang_report(self, attempt: int, rank: int) -> Path:
        """What a rank says when it has made no progress for too long."""
        return self.attempt_logs(attempt) / f"hang-{rank:05d}.json"

    def stacks(self, attempt: int, rank: int) -> Path:
        """The stacks of all threads of a rank that has made no progress."""
        return self.attempt_logs(attempt) / f"stacks-{rank:05d}.txt"

    def flight_record(self, attempt: int, rank: int) -> Path:
        """torch's own record of the collectives of a rank that has made no progress."""
        return self.attempt_logs(attempt) / f"flight-{rank:05d}.json"

    def preflight_probe(self, attempt: int, rank: int) -> Path:
        """What a node writes, reads and removes before the first step, to see that it can."""
        return self.attempt_logs(attempt) / f"preflight-{rank:05d}.probe"

    def rendezvous(self, attempt: int) -> Path:
        """Where rank 0 of an attempt leaves the port that it found free."""
        return self.ledger / f"{attempt:04d}" / "rendezvous.json"

    def lost_nodes(self, attempt: int) -> Path:
        """Which nodes of the attempt's job are dead, once somebody knows; its ranks leave then."""
        return self.ledger / f"{attempt:04d}" / "lost-nodes"

    @property
    def telemetry(self) -> Path:
        return self.path / "telemetry"

    def metrics(self, attempt: int) -> Path:
        """One JSON object per step, written by the rank that has the loss."""
        return self.telemetry / f"metrics-{attempt:04d}.jsonl"

    def heartbeat(self, attempt: int) -> Path:
        """Touched by rank 0 every quarter of a minute, whatever it is doing."""
        return self.telemetry / f"heartbeat-{attempt:04d}"

    def rank_times(self, attempt: int) -> Path:
        """How long each rank computed and waited, now and then, written by rank 0."""
        return self.telemetry / f"ranks-{attempt:04d}.jsonl"

    def gpus(self, attempt: int, rank: int) -> Path:
        """GPU numbers of one node, written by its first rank."""
        return self.telemetry / f"gpus-{attempt:04d}-{rank:05d}.jsonl"

    @property
    def loss_plot(self) -> Path:
        return self.path / "loss.png"

    @property
    def wandb(self) -> Path:
        return self.path / "wandb"

    @property
    def wandb_id(self) -> Path:
        """Text file with the W&B id that all attempts share."""
        return self.telemetry / "wandb-id"

    @property
    def wandb_sync(self) -> Path:
        """What `sync` has uploaded so far."""
        return self.telemetry / "wandb-sync.json"

    @property
    def export(self) -> Path:
        return self.path / "export"

    @property
    def endpoint(self) -> Path:
        """URL, key file and process or job of the endpoint that serves this run."""
        return self.path / "endpoint"

    def attempts(self) -> list[int]:
        """Numbers of the attempts so far, in order."""
        if not self.ledger.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.ledger.iterdir() if entry.name.isdigit())

    def next_attempt(self) -> int:
        """Claim a new attempt number by making its folders; two callers never get the same."""
        number = (self.attempts() or [0])[-1] + 1
        self.ledger.mkdir(mode=0o700, exist_ok=True)
        while True:
            try:
                (self.ledger / f"{number:04d}").mkdir(mode=0o700)
            except FileExistsError:
                number += 1
                continue
            self.attempt_logs(number).mkdir(mode=0o700, parents=True, exist_ok=True)
            return number


def shared_code(runs: Path) -> Path:
    """Where the code of our runs below `runs` lies, once for all that have the same; another user's is not used."""
    return _shared(runs, ".snapshots")


def shared_environments(runs: Path) -> Path:
    """Where archives of Python environments lie, once for all of our runs below `runs`."""
    return _shared(runs, ".environments")


def _shared(runs: Path, name: str) -> Path:
    place = runs / name
    if place.is_dir() and place.stat().st_uid != os.geteuid():
        return runs / f"{name}-{os.geteuid()}"
    return place


def step_of(folder: Path) -> int | None:
    """Step of a checkpoint folder by its name, or None."""
    match = _STEP.match(folder.name)
    return int(match.group(1)) if match else None


def create_run_dir(runs: Path, name: str) -> RunDir:
    """Make `runs/name`, or `runs/name-2`, `-3` and so on if it is taken; 0700."""
    return RunDir(_make_folder(runs, name))


def create_array_folder(runs: Path, name: str) -> Path:
    """Make a folder (0700) for links to the run directories of an array's tasks, named by the task's number."""
    return _make_folder(runs / ".arrays", name)


def _make_folder(runs: Path, name: str) -> Path:
    try:
        runs.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = runs / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir(mode=0o700)
                return path
            except FileExistsError:
                number += 1
    except (NotADirectoryError, FileExistsError):
        raise UserError("runs", f"{runs} is not a folder", "give a folder for run directories") from None


def find_run(run: str) -> RunDir:
    """The run directory that RUN (a folder, or a run's name) means.

    A name is looked up in ./runs and in $TRAINWRIGHT_RUNS. Raises UserError if there is none.
    """
    places = [Path(run), Path("runs") / run]
    if os.environ.get("TRAINWRIGHT_RUNS"):
        places.append(Path(os.environ["TRAINWRIGHT_RUNS"]) / run)
    for place in places:
        if (place / "run.yaml").is_file():
            return RunDir(place.absolute())
    looked = ", ".join(str(place) for place in places)
    raise UserError("RUN", f"no run {run!r} (looked for run.yaml in {looked})", "give a run's folder or name")


def all_runs() -> list[RunDir]:
    """Every run directory in ./runs and $TRAINWRIGHT_RUNS, the one submitted first at the front."""
    places = [Path("runs"), *([Path(os.environ["TRAINWRIGHT_RUNS"])] if os.environ.get("TRAINWRIGHT_RUNS") else [])]
    files = {path.resolve(): path for place in places for path in place.glob("*/run.yaml")}
    runs = [RunDir(path.parent.absolute()) for path in files.values()]
    return sorted(runs, key=_submitted)


def _submitted(run: RunDir) -> float:
    first = run.attempt_yaml(1)
    return (first if first.is_file() else run.run_yaml).stat().st_mtime


def split_step(text: str) -> tuple[str, int | str | None]:
    """`RUN@STEP` as (RUN, step); without `@`, the step is None, with `@best` it is BEST."""
    run, at, step = text.rpartition("@")
    if not at:
        return text, None
    if step == BEST:
        return run, BEST
    if not step.isdigit():
        raise UserError("RUN@STEP", f"{step!r} is not a step", "write a number, such as myrun@1000, or myrun@best")
    return run, int(step)
