"""`trainwright sync RUN`: a run's history to Weights & Biases, from a machine with internet."""

import argparse
from typing import TYPE_CHECKING, Any

from .output import add_json_option, emit

if TYPE_CHECKING:
    from ..config.rundir import RunDir
    from ..tracking.sync import Recorded, Uploaded
    from ..tracking.wandb_run import CheckpointReference


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`sync RUN [--dry-run]`."""
    text = "upload what Weights & Biases lacks of a run: every step once, and where its checkpoints are"
    more = "The key comes from WANDB_API_KEY or ~/.netrc. Repeating it adds nothing. RUN may still be running."
    parser = commands.add_parser("sync", help=text, description=f"{text}. {more}")
    parser.add_argument("run_name", metavar="RUN", help="a run's folder or name")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what is recorded; needs no network and sends nothing"
    )
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look, upload, tell."""
    from dataclasses import asdict

    from ..config.loading import load_frozen
    from ..config.rundir import find_run
    from ..tracking.sync import recorded, upload
    from .progress import Waiting

    run_dir = find_run(arguments.run_name)
    config = load_frozen(run_dir.run_yaml)
    about = config.tracking.wandb
    there = recorded(run_dir)
    checkpoints = _checkpoints(run_dir)
    record: dict[str, Any] = {"run": str(run_dir.path), "project": about.project, "entity": about.entity}
    record |= {"recorded": asdict(there), "checkpoints": [each.step for each in checkpoints]}
    if arguments.dry_run:
        emit(arguments, {**record, "uploaded": None}, _recorded_text(record, there))
        return 0
    ended_well = _ended_well(run_dir, about.mode)
    with Waiting("sync") as waiting:
        uploaded = upload(config, run_dir, checkpoints, ended_well, waiting.say)
    text = f"{_recorded_text(record, there)}\n{_uploaded_text(uploaded)}"
    emit(arguments, {**record, "uploaded": asdict(uploaded)}, text)
    return 0


def _checkpoints(run_dir: "RunDir") -> "list[CheckpointReference]":
    """The committed checkpoints that the run still has, the oldest first."""
    from ..config.rundir import step_of
    from ..storage.checkpoints.manifest import FILE_NAME, manifest_digest
    from ..tracking.wandb_run import CheckpointReference

    folders = {step_of(path.parent): path.parent for path in run_dir.checkpoints.glob(f"*/{FILE_NAME}")}
    steps = sorted(step for step in folders if step is not None)
    return [
        CheckpointReference(step=step, folder=folders[step].absolute(), digest=manifest_digest(folders[step]))
        for step in steps
    ]


def _ended_well(run_dir: "RunDir", mode: str) -> bool | None:
    """Whether the run finished; None while it goes on. UserError if it is uploading by itself."""
    from ..config.errors import UserError
    from ..launchers.status import read_status

    state = read_status(run_dir).state
    if state == "running" and mode == "online":
        raise UserError("RUN", f"{run_dir.name} is running and uploads by itself", "sync it when it has ended")
    return {"finished": True, "failed": False, "cancelled": False}.get(state)


def _recorded_text(record: dict[str, Any], there: "Recorded") -> str:
    attempts = f"{there.attempts} attempt{'s' if there.attempts > 1 else ''}"
    again = f"; {there.repeated} that a later attempt ran again count once" if there.repeated else ""
    lines = [f"run          {record['run']}", f"recorded     steps {there.first} to {there.last}, {attempts}{again}"]
    if record["checkpoints"]:
        lines.append(f"checkpoints  {', '.join(map(str, record['checkpoints']))}, as references")
    place = f"{record['entity']}/{record['project']}" if record["entity"] else record["project"]
    return "\n".join([*lines, f"project      {place}"])


def _uploaded_text(uploaded: "Uploaded") -> str:
    had = f"W&B had steps up to {uploaded.before}" if uploaded.before else "W&B had nothing of it"
    added = [f"{uploaded.steps} steps"] if uploaded.steps else []
    added += [f"the checkpoint of step {step}" for step in uploaded.checkpoints]
    lines = [f"uploaded     {', '.join(added) or 'nothing new'}; {had}"]
    if uploaded.superseded:
        lines.append(f"kept         {uploaded.superseded} steps as uploaded before a later attempt ran them again")
    return "\n".join([*lines, f"see          {uploaded.url}"])
