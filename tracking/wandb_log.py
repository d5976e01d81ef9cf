"""Weights & Biases, offline: a mirror of the metrics file that may fail, hang or be absent without training noticing.

A thread of its own talks to W&B through a bounded queue. The run's id is made once and kept in the run directory,
so that the attempts of one run are fragments of one W&B run (`wandb sync` joins them by id).
"""

import contextlib
import os
import queue
import secrets
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from ..config.run import RunConfig
from ..config.rundir import RunDir

_WAITING = 10_000  # steps that may wait for W&B before we drop them
_CLOSE_S = 15.0  # how long the end of a run waits for W&B to write its last records
_Item = tuple[int, dict[str, Any]] | bool  # a step's values, or how the run ended


def stable_wandb_id(run_dir: RunDir) -> str:
    """The W&B id of this run: made at the first call, the same ever after, whoever asks and in whichever attempt."""
    path = run_dir.wandb_id
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        beside = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        beside.write_text(secrets.token_hex(6) + "\n", encoding="ascii")
        try:
            os.link(beside, path)  # of two callers one wins, and no reader sees half an id
        except FileExistsError:
            pass
        finally:
            beside.unlink()
    return path.read_text(encoding="ascii").strip()


class WandbLog:
    """One attempt's W&B fragment in `RunDir.wandb`. No method raises; only `close` waits, 15 s at most."""

    def __init__(self, run: RunConfig, run_dir: RunDir, wandb_id: str) -> None:
        self._queue: queue.Queue[_Item] = queue.Queue(_WAITING)
        self._broken = False
        self._dropped = 0
        self._init = {
            "project": run.tracking.wandb.project,
            "mode": run.tracking.wandb.mode,
            "name": run_dir.name,
            "id": wandb_id,
            "resume": "allow",
            "dir": str(run_dir.wandb.parent),  # W&B makes its `wandb/` in here
            "config": run.model_dump(mode="json"),
        }
        try:
            # Here and not in the thread: two threads importing big packages at once can see them half made.
            import wandb
        except Exception as error:
            self._give_up(error)
            return
        self._thread = threading.Thread(target=self._serve, args=(wandb,), name="wandb", daemon=True)
        self._thread.start()

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Hand over one step's values; dropped (and counted) when W&B lags ten thousand steps behind."""
        if self._broken:
            return
        try:
            self._queue.put_nowait((step, dict(values)))
        except queue.Full:
            self._dropped += 1

    def close(self, ok: bool) -> None:
        """Mark the end and let W&B write what it has."""
        if self._broken:
            return
        deadline = time.monotonic() + _CLOSE_S
        try:
            self._queue.put(ok, timeout=_CLOSE_S)
        except queue.Full:
            self._dropped += self._queue.qsize()
        self._thread.join(max(deadline - time.monotonic(), 0.0))
        if self._thread.is_alive():
            self._give_up(TimeoutError(f"did not end in {_CLOSE_S:.0f} s"))
        elif self._dropped:
            _say(f"{self._dropped} steps are missing in W&B (it was too slow); the metrics file has them all")

    def _serve(self, wandb: Any) -> None:
        try:
            run = wandb.init(**self._init, settings=_settings(wandb))
            while not isinstance(item := self._queue.get(), bool):
                step, values = item
                run.log(values, step=step)
            run.finish(exit_code=0 if item else 1)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._broken = True
        _end_process()
        _say(f"W&B failed ({type(error).__name__}: {error}); going on without it, the metrics file has every step")


def _end_process() -> None:
    """End W&B's own process: its hook at our exit waits for it without limit, and a hung one would hang us there."""
    if not sys.modules.get("wandb"):
        return
    with contextlib.suppress(Exception, SystemExit):
        from wandb.sdk import wandb_setup

        connection = wandb_setup.singleton()._connection
        if connection and connection._proc:
            connection._proc._process.kill()
    with contextlib.suppress(Exception, SystemExit):
        sys.modules["wandb"].teardown()


def _settings(wandb: Any) -> Any:
    """No console capture, no look at git, code, packages or machine, no network; SIGKILL loses 1 s at most."""
    return wandb.Settings(
        console="off",
        silent=True,
        save_code=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_save_requirements=False,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_disable_viewer=True,
        x_transaction_log_flush_interval=1,  # the default, 15 s, leaves an empty file of a run killed earlier
    )


def _say(text: str) -> None:
    print("trainwright: " + " ".join(text.split()), file=sys.stderr, flush=True)
