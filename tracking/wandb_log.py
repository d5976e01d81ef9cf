"""Weights & Biases: a mirror of the metrics file that may fail, hang or be absent without training noticing.

A thread of its own talks to W&B through a bounded queue. The run's id is made once and kept in the run directory,
so that the attempts of one run are one W&B run. Offline, each attempt leaves a fragment; `trainwright sync` uploads.
"""

import contextlib
import os
import queue
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..config.run import RunConfig
from ..config.rundir import RunDir
from .console import say
from .wandb_run import CheckpointReference, log_checkpoint, open_run

_WAITING = 10_000  # steps that may wait for W&B before we drop them
_CLOSE_S = 15.0  # how long the end of a run waits for W&B to write its last records
_INIT_S = 60.0  # how long going online may take before the attempt is recorded offline
Values = tuple[int, dict[str, Any]]  # a step and what W&B is told of it
Earlier = Callable[[], Iterable[Values]]  # the steps of earlier attempts, in order
_Item = Values | CheckpointReference | bool  # bool: how the run ended


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
    """One attempt in W&B: online, or a fragment in `RunDir.wandb`. No method raises; only `close` waits, up to 15 s."""

    def __init__(self, run: RunConfig, run_dir: RunDir, earlier: Earlier) -> None:
        """Start. `earlier` is asked, from another thread, when W&B online lacks steps of earlier attempts."""
        self._queue: queue.Queue[_Item] = queue.Queue(_WAITING)
        self._broken = False
        self._dropped = 0
        self._run, self._run_dir, self._earlier = run, run_dir, earlier
        self._online = run.tracking.wandb.mode == "online"
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
        self._put((step, dict(values)))

    def checkpoint(self, checkpoint: CheckpointReference) -> None:
        """Hand over where a committed checkpoint lies."""
        self._put(checkpoint)

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
            say(f"{self._dropped} steps are missing in W&B (it was too slow); {self._remedy}")

    def _put(self, item: _Item) -> None:
        if self._broken:
            return
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self._dropped += 1

    def _serve(self, wandb: Any) -> None:
        try:
            handle = self._open(wandb)
            next_step = int(handle.step) if self._online else 0  # what W&B has already must not be told again
            first = True
            while not isinstance(item := self._queue.get(), bool):
                if isinstance(item, CheckpointReference):
                    self._log_checkpoint(wandb, handle, item)
                    continue
                missing = self._missing(next_step, item[0]) if first and self._online else ()
                for step, values in [*missing, item]:
                    if step >= next_step:  # after a rollback steps come again, and W&B's only rise
                        handle.log(values, step=step)
                        next_step = step + 1
                first = False
            handle.finish(exit_code=0 if item else 1)
            wandb.teardown()  # here, where `close` bounds it: at exit a rank has ended W&B's process by then
        except Exception as error:
            self._give_up(error)

    def _open(self, wandb: Any) -> Any:
        """The W&B run; an offline one where online does not work, said in one line."""
        how = {"wandb_id": stable_wandb_id(self._run_dir), "folder": self._run_dir.wandb.parent}
        if self._online:
            try:
                wandb.setup(wandb.Settings(silent=True))
                if not wandb.login(prompt=False, verify=False):  # else W&B would ask for a key, on a terminal
                    raise LookupError("no key in WANDB_API_KEY or netrc")
                return open_run(wandb, self._run, self._run_dir, mode="online", init_timeout=_INIT_S, **how)
            except Exception as error:
                self._online = False
                end_process()  # it holds the run's id, and may go on trying for ever
                say(f"W&B is not to be reached ({_words(error)}); recording offline, {self._remedy}")
        return open_run(wandb, self._run, self._run_dir, mode="offline", **how)

    def _missing(self, next_step: int, first_step: int) -> list[Values]:
        """Steps before this attempt's first that W&B has not got, since an earlier attempt was killed or offline."""
        return [(step, values) for step, values in self._earlier() if next_step <= step < first_step]

    def _log_checkpoint(self, wandb: Any, handle: Any, checkpoint: CheckpointReference) -> None:
        try:
            log_checkpoint(wandb, handle, checkpoint)
        except Exception as error:  # the history matters more
            say(f"W&B was not told of the checkpoint of step {checkpoint.step} ({_words(error)})")

    @property
    def _remedy(self) -> str:
        return f"the metrics file has every step, and `trainwright sync {self._run_dir.name}` uploads them"

    def _give_up(self, error: Exception) -> None:
        self._broken = True
        end_process()
        say(f"W&B failed ({_words(error)}); going on without it, {self._remedy}")


def end_process() -> None:
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


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
