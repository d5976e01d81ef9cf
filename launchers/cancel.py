"""Ending a run: scancel, or the process group that the ledger names, after making sure that it is still the same."""

import os
import signal
import socket
from typing import Any

from ..config.errors import UserError
from ..config.loading import load_frozen
from ..config.rundir import RunDir
from ..tracking.ledger import Event, LedgerWriter, read_ledger
from .keys import drop_keys
from .pack_cancel import cancel_in_pack
from .processes import end_group, is_alive, wait_until
from .slurm import Slurm, SlurmUnreachable
from .status import RunStatus, events_of, read_status

PATIENCE_S = 90.0
"""Slurm ends a job's processes within KillWait (30 s unless the site changed it) and then cleans up."""


SAVE_PATIENCE_S = 3600.0
"""For a step and a save of every rank."""


def cancel_run(run: RunDir, save: bool = False) -> RunStatus:
    """End the run's newest attempt if it is queued or running; its status afterwards.

    With `save`, ranks that run save first, however long it takes; without, they may if they get there in time.
    Records `cancel` first, so that the end is told from a failure. Raises UserError if it cannot be ended from here.
    """
    before = read_status(run)
    if before.state == "unknown":
        raise UserError(str(run.path), f"its state is unknown: {before.why}", "try again where and when it can be seen")
    if before.state not in ("queued", "running"):
        return before
    events = events_of(read_ledger(run), before.attempt)
    submit = next(event.fields for event in events if event.event == "submit")
    writer = f"cancel-{socket.gethostname()}-{os.getpid()}"  # two people may cancel at once: a file for each
    LedgerWriter(run, before.attempt, writer).write("cancel", user=os.geteuid())
    try:
        _end(run, submit, events, save and before.state == "running")
    except SlurmUnreachable as silent:
        remedy = "ask again: what runs is as it was, and will not start again"
        raise UserError(str(run.path), f"Slurm does not answer ({silent})", remedy) from None
    after = read_status(run)
    if after.state in ("queued", "running"):
        raise UserError(
            str(run.path), f"is still {after.state} after {PATIENCE_S:.0f} s", "ask again, or Slurm's admins"
        )
    drop_keys(run.jobs)
    return after


def _end(run: RunDir, submit: dict[str, Any], events: list[Event], save: bool) -> None:
    """Have it ended by whoever started it, and wait until it is over, or for as long as that should take."""
    if submit.get("pack"):
        cancel_in_pack(run, submit, "USR2" if save else "")
    elif save:
        _ask_to_save(run, submit)
    elif submit["scheduler"] == "slurm":
        Slurm(load_frozen(run.run_yaml).cluster).cancel(str(submit["job_id"]))
    else:
        _end_groups(events)
        return
    wait_until(lambda: _is_over(run), SAVE_PATIENCE_S if save else PATIENCE_S, every_s=1.0)


def _is_over(run: RunDir) -> bool:
    return read_status(run).state not in ("queued", "running")


def _ask_to_save(run: RunDir, submit: dict[str, Any]) -> None:
    """Tell the batch script, or the controller, which tells every rank."""
    if submit["scheduler"] == "slurm":
        Slurm(load_frozen(run.run_yaml).cluster).signal_script(str(submit["job_id"]), "USR2")
    elif is_alive(submit["pid"], submit["pid_start_time"]):
        os.kill(submit["pid"], signal.SIGUSR2)


def _end_groups(events: list[Event]) -> None:
    """End the controller's group, and that of any rank which outlived it."""
    for event in events:
        if event.event not in ("submit", "start"):
            continue
        who = event.fields
        if is_alive(who["pid"], who["pid_start_time"]) and not end_group(who["pgid"]):
            raise UserError(f"process group {who['pgid']}", "does not end", "end it as its owner")
    # The controller records the end after its ranks are gone; that takes an interpreter's start.
