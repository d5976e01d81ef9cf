"""One canary job: submitting it, waiting for its processes, and reading what they wrote down."""

import json
import shlex
import shutil
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ...config.cluster import ClusterConfig
from ...config.errors import UserError
from ..environment import passed_values
from ..job import TaskSpec, script_facts
from ..processes import wait_until
from ..script import ScriptFacts, render
from ..slurm import JobInfo, Slurm
from . import recorder

RANKS = 2
LEAD_S = 70
"""--signal=B:USR2@LEAD of a job of two minutes: Slurm sends it 20 to 50 s after the start."""
_NAMES = ("batch", *(f"rank{rank}{end}" for rank in range(RANKS) for end in ("", "-child", "-detached")))


@dataclass(frozen=True, kw_only=True)
class CanaryFacts(ScriptFacts):
    """What canary.sbatch shows beside what every script does."""

    signal: str
    """The value of --signal; empty: none."""
    exclusive: bool
    """Whether it has its node alone."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one process wrote down: (time, signal) in order, and its last beat, all in its node's clock."""

    signals: tuple[tuple[float, str], ...]
    last_beat: float


def kind_of(name: str) -> str:
    """Which kind of process `rank0-child` is."""
    return "batch" if name == "batch" else name.partition("-")[2] or "rank"


class CanaryJob:
    """A job of one node and two ranks, of about the shape that runs have."""

    def __init__(self, cluster: ClusterConfig, folder: Path, *, minutes: int, lead_s: int, exclusive: bool) -> None:
        """Submit it; `folder` is new, and on a filesystem that the nodes share."""
        self.folder, self._slurm = folder, Slurm(cluster)
        folder.mkdir(mode=0o700)
        shutil.copy(recorder.__file__, folder / "recorder.py")  # so that the nodes need no installed code of ours
        gpus = min(cluster.gpus_per_node, 1)  # partitions of GPU nodes may refuse jobs without
        shape: dict[str, object] = {"nodes": 1, "ranks_per_node": RANKS, "gpus_per_node": gpus, "cpus_per_rank": 1}
        shape |= {"memory_per_node": None, "time_limit": str(minutes)}
        small = cluster.model_copy(update=shape)
        python = shlex.quote(cluster.python or sys.executable)
        spec = TaskSpec(
            name="trainwright-canary",
            title="Trainwright doctor: a canary",
            function=recorder.main,
            cluster=small,
            directory=folder,
            folder=folder,
            logs=folder,
        )
        own = {
            "command": f"{python} -u {shlex.quote(str(folder / 'recorder.py'))} {shlex.quote(str(folder))}",
            "signal": f"B:USR2@{lead_s}",
            "exclusive": exclusive,
        }
        facts = CanaryFacts(**{**vars(script_facts(spec)), **own})
        script = folder / "canary.sh"
        script.write_text(render("canary.sbatch", facts), encoding="utf-8")
        self.job_id = self._slurm.sbatch(script, passed_values(small))

    def wait_ready(self, patience_s: float) -> str:
        """Wait until all processes record; the job's node. UserError if the job does not start, or is not seen."""
        running_since = None
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            if set(self.records()) == set(_NAMES):
                return self._slurm.jobs([self.job_id]).get(self.job_id, JobInfo(state="")).nodes
            now = self._slurm.jobs([self.job_id]).get(self.job_id)
            if now is None or now.state not in ("PENDING", "CONFIGURING", "RUNNING"):
                raise UserError(
                    "--canary", f"job {self.job_id} ended at once ({self._last_words()})", "mend this first"
                )
            if now.state == "RUNNING":
                running_since = running_since or time.monotonic()
                if time.monotonic() - running_since > 60 and not self.records():
                    raise UserError(
                        str(self.folder.parent),
                        f"job {self.job_id} runs on {now.nodes} and is not seen from here",
                        "run doctor in a folder that the nodes share",
                    )
            time.sleep(0.5)
        reason = f"{now.state}, {now.reason}" if now else "unknown"
        raise UserError(
            "--canary", f"job {self.job_id} did not start ({reason})", "try again when the queue is shorter"
        )

    def records(self) -> dict[str, Record]:
        """What each process has written so far."""
        found = {}
        for name in _NAMES:
            try:
                beat = float((self.folder / f"{name}.alive").read_text() or 0)
                lines = (self.folder / f"{name}.jsonl").read_text().splitlines()
            except FileNotFoundError:
                continue
            signals = [json.loads(line) for line in lines]
            found[name] = Record(signals=tuple((line["time"], line["signal"]) for line in signals), last_beat=beat)
        return found

    def wait_dead(self, patience_s: float, survivors: Collection[str] = ()) -> set[str]:
        """Wait until none but processes of these kinds has beaten for 2 s, at most `patience_s`; who still beats."""
        beats: dict[str, tuple[float, float]] = {}

        def living() -> set[str]:
            now = time.monotonic()
            for name, record in self.records().items():
                if name not in beats or beats[name][0] != record.last_beat:
                    beats[name] = (record.last_beat, now)
            return {name for name, (_, seen) in beats.items() if now - seen < 2}

        living()
        time.sleep(2)
        wait_until(lambda: all(kind_of(name) in survivors for name in living()), patience_s, every_s=0.3)
        return living()

    def send(self, signal: str) -> None:
        """A signal to the ranks' step, as `scancel --signal` does."""
        self._slurm.answer(["scancel", f"--signal={signal}", f"{self.job_id}.0"])

    def cancel(self) -> None:
        self._slurm.cancel(self.job_id)

    def close(self) -> None:
        """End whatever is left."""
        if self.folder.exists():
            (self.folder / "stop").touch()
        self.cancel()

    def _last_words(self) -> str:
        try:
            said = (self.folder / "batch.log").read_text(errors="replace").strip()
        except FileNotFoundError:
            said = ""
        return (said.splitlines() or ["it said nothing"])[-1]
