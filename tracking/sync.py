"""Uploading a run to Weights & Biases from a machine with internet: one history, no step twice, nothing missing.

What is uploaded comes from the metrics files and not from W&B's offline fragments: they lose nothing at SIGKILL, and
reading them gives each step once, by the latest attempt. W&B's client says which step its server has last, and only
later ones are sent, so that a second upload adds nothing. The fragments stay as they are.
"""

import json
import logging
import os
import secrets
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from ..config.errors import UserError
from ..config.run import RunConfig
from ..config.rundir import RunDir
from .recorder import history, read_attempts, read_metrics
from .wandb_log import end_process, stable_wandb_id
from .wandb_run import CheckpointReference, log_checkpoint, open_run

_REACH_S = 10.0
_CONFIRM_S = 60.0
_PATIENCE: dict[str, Any] = {  # W&B's client would try for hours; whoever runs this can do so again
    "init_timeout": 30.0,
    "x_graphql_retry_max": 5,
    "x_graphql_retry_wait_max_seconds": 5.0,
    "x_file_stream_retry_max": 8,
    "x_file_stream_retry_wait_min_seconds": 1.0,
    "x_file_stream_retry_wait_max_seconds": 20.0,
}


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a run has recorded."""

    first: int
    last: int
    """First and last step."""
    steps: int
    """Different steps."""
    attempts: int
    """Attempts that recorded any."""
    repeated: int
    """Steps that a later attempt ran again."""


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """What an upload did."""

    url: str
    """The run's page."""
    before: int
    """Last step that the server had; 0: none."""
    steps: int
    """Steps that were added."""
    superseded: int
    """Steps that the server keeps from an attempt which was repeated after it was uploaded."""
    checkpoints: list[int]
    """Steps of the checkpoints that were added as references."""


@dataclass(frozen=True, kw_only=True)
class _Done:
    """What earlier uploads from this run directory did, kept in it."""

    url: str = ""
    last: int = 0
    attempt: int = 0
    checkpoints: tuple[str, ...] = ()


def recorded(run_dir: RunDir) -> Recorded:
    """Look at the metrics files. Raises UserError if there is no step in them."""
    lines = read_metrics(run_dir)
    if not lines:
        raise UserError("RUN", f"{run_dir.path} has recorded no step", "give a run that has trained")
    counts = [len({line["step"] for line in attempt}) for attempt in read_attempts(run_dir).values()]
    return Recorded(
        first=lines[0]["step"],
        last=lines[-1]["step"],
        steps=len(lines),
        attempts=sum(count > 0 for count in counts),
        repeated=sum(counts) - len(lines),
    )


def upload(
    run: RunConfig,
    run_dir: RunDir,
    checkpoints: Sequence[CheckpointReference],
    ended_well: bool | None,
    say: Callable[[str], None],
) -> Uploaded:
    """Upload what the server lacks. `ended_well`: whether the run finished; None while it goes on.

    The key comes from WANDB_API_KEY or netrc. Raises UserError without a key, network or permission, and if W&B does
    not confirm that it has the last step.
    """
    base_url = ""
    try:
        wandb = _client()
        base_url = str(wandb.setup().settings.base_url)
        _check_network(base_url)
        with tempfile.TemporaryDirectory(prefix="trainwright-sync-") as folder:
            how = {"mode": "online", "folder": folder, "wandb_id": stable_wandb_id(run_dir)}
            handle = open_run(wandb, run, run_dir, **how, x_update_finish_state=ended_well is not None, **_PATIENCE)
            uploaded, done = _send(wandb, handle, run_dir, checkpoints, say)
            say("waiting until W&B has it")
            handle.finish(exit_code=1 if ended_well is False else 0)
            if uploaded.steps:
                _confirm(wandb, handle, done.last)
        _remember(run_dir, done)
    except Exception as error:
        end_process()
        raise _as_user_error(error, base_url) from None
    except BaseException:  # Ctrl-C: W&B's hook at our exit would wait for the upload
        end_process()
        raise
    return uploaded


def _send(
    wandb: Any,
    handle: Any,
    run_dir: RunDir,
    checkpoints: Sequence[CheckpointReference],
    say: Callable[[str], None],
) -> tuple[Uploaded, _Done]:
    """Hand over what is new; what came of it, and what is to be remembered if it arrives."""
    lines = read_metrics(run_dir)
    before = _known(run_dir, handle)
    last = max(int(handle.step) - 1, before.last)
    new = [line for line in lines if line["step"] > last]
    for number, (step, values) in enumerate(history(new), 1):
        handle.log(values, step=step)
        if number % 1000 == 0:
            say(f"step {step}, {number} of {len(new)}")
    kept = [
        line for line in lines if before.attempt and line["step"] <= before.last and line["attempt"] > before.attempt
    ]
    added = [each for each in checkpoints if _mark(each) not in before.checkpoints]
    for checkpoint in added:
        log_checkpoint(wandb, handle, checkpoint)
    uploaded = Uploaded(
        url=str(handle.url),
        before=last,
        steps=len(new),
        superseded=len(kept),
        checkpoints=[each.step for each in added],
    )
    after = _Done(
        url=str(handle.url),
        last=max([last, *(line["step"] for line in new)]),
        attempt=lines[-1]["attempt"] if new else before.attempt,
        checkpoints=(*before.checkpoints, *map(_mark, added)),
    )
    return uploaded, after


def _confirm(wandb: Any, handle: Any, last: int) -> None:
    """Wait until the server shows the last step. W&B's client ends without a word when its uploads are refused."""
    run = wandb.Api(timeout=int(_REACH_S)).run(f"{handle.entity}/{handle.project}/{handle.id}")
    until = time.monotonic() + _CONFIRM_S
    while run.lastHistoryStep < last:
        if time.monotonic() > until:
            raise TimeoutError(f"it shows steps up to {run.lastHistoryStep}, not {last}")
        time.sleep(1.0)


def _known(run_dir: RunDir, handle: Any) -> _Done:
    """Earlier uploads, as far as W&B still has the run: its count of steps may lag behind, ours does not."""
    try:
        record = json.loads(run_dir.wandb_sync.read_text(encoding="utf-8"))
        done = _Done(**{**record, "checkpoints": tuple(record["checkpoints"])})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return _Done()
    return done if handle.resumed and done.url == handle.url else _Done()


def _remember(run_dir: RunDir, done: _Done) -> None:
    beside = run_dir.wandb_sync.with_name(f".{run_dir.wandb_sync.name}-{secrets.token_hex(4)}")
    beside.write_text(json.dumps(asdict(done)) + "\n", encoding="utf-8")
    beside.rename(run_dir.wandb_sync)


def _mark(checkpoint: CheckpointReference) -> str:
    return f"{checkpoint.step}-{checkpoint.digest}"


def _client() -> Any:
    """W&B's client with a key; UserError without."""
    os.environ["WANDB_MODE"] = "online"
    import wandb

    logging.getLogger("wandb").setLevel(logging.CRITICAL)
    setup = wandb.setup(wandb.Settings(silent=True))
    try:
        found, problem = wandb.login(prompt=False, verify=False), ""
    except Exception as error:  # a key that cannot be one; its words do not hold it
        found, problem = False, f": {error}"
    if not found:
        host = urlsplit(str(setup.settings.base_url)).netloc
        remedy = "set it, or run `wandb login` once"
        raise UserError("WANDB_API_KEY", f"there is no usable key for {host}, nor in netrc{problem}", remedy)
    return wandb


def _check_network(base_url: str) -> None:
    """W&B itself would try for a long time. Proxies are taken from the environment."""
    try:
        urllib.request.urlopen(base_url, timeout=_REACH_S).close()
    except urllib.error.HTTPError:
        return  # it answers
    except OSError as error:
        reason = getattr(error, "reason", error)
        remedy = "run this where there is internet, such as a login node"
        raise UserError("W&B", f"{base_url} cannot be reached ({reason})", remedy) from None


def _as_user_error(error: Exception, base_url: str) -> Exception:
    """W&B's own errors and a lost network are no fault of ours; anything else stays what it is."""
    ours = not (type(error).__module__.startswith("wandb") or isinstance(error, TimeoutError | ConnectionError))
    if isinstance(error, UserError) or ours:
        return error
    if "401" in str(error) or "403" in str(error):
        return UserError("WANDB_API_KEY", f"{base_url} refuses the key ({error})", "give one that may write there")
    words = f"{type(error).__name__}: {error}"
    return UserError("W&B", f"{base_url} did not take the whole run ({words})", "nothing is lost: try again later")
