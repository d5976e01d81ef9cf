"""What is known of an endpoint: one folder (0700) with its order, key, state and logs, found again by name.

An endpoint that serves a run lives in the run directory and has a link in the user's state folder; any other lives in
the state folder itself.
"""

import json
import os
import re
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..config.errors import UserError
from ..config.rundir import RunDir
from ..launchers.keys import drop_keys

State = Literal["starting", "ready", "draining", "stopped", "failed"]

DRAIN_S = 30.0  # a replica told to stop lets requests in flight go on so long
ENGINE_GRACE_S = 15.0  # then vLLM gets SIGTERM, and SIGKILL after so long

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")


@dataclass(frozen=True, kw_only=True)
class ReplicaSpec:
    """What a replica is to serve and where; nothing secret."""

    name: str
    """Name of the endpoint, and of the model in requests."""
    model: str
    """Exported folder, absolute."""
    dtype: str
    """float32, bfloat16 or float16: what vLLM computes in."""
    max_model_len: int | None
    """Longest request in tokens, prompt and answer; the model's own limit if None."""
    kv_cache_bytes: int | None
    """Size of the KV cache; if None, small on CPU and vLLM's own choice on a GPU."""
    vllm_python: str
    """Interpreter that has vLLM."""
    bind: Literal["loopback", "node"]
    """Where the front listens: on this machine only, or on the node's address."""
    network_interface: str | None
    """Interface whose address `node` means; found if None."""
    port: int
    """TCP port of the front; 0 takes a free one."""


@dataclass(frozen=True, kw_only=True)
class KVCache:
    """What vLLM's key-value cache holds."""

    num_blocks: int
    block_size: int
    """Tokens per block."""
    num_tokens: int
    max_model_len: int
    """Longest request in tokens."""
    num_full_requests: float
    """Requests of the longest length that fit at once."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """What the replica last said of itself."""

    state: State
    url: str | None = None
    """Base of the public API, ending in /v1."""
    node: str | None = None
    pid: int | None = None
    engine_pid: int | None = None
    socket: str | None = None
    """vLLM's Unix socket, alone in a private folder of the node."""
    kv_cache: KVCache | None = None
    weights_digest: str | None = None
    cause: str | None = None
    """Why it failed, in one line."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """Who runs the replica: a process of this machine (id and start in clock ticks), or a Slurm job."""

    host: str
    pid: int | None = None
    started: int | None = None
    job_id: str | None = None
    slurm_conf: str | None = None


@dataclass(frozen=True)
class EndpointFolder:
    """Paths and records of one endpoint."""

    path: Path

    @property
    def key(self) -> Path:
        """The API key, 0600."""
        return self.path / "key"

    @property
    def curl_header(self) -> Path:
        """The key as a header, for `curl -H @FILE`: so it is on no command line. 0600."""
        return self.path / "curl-header"

    @property
    def job(self) -> Path:
        """Submitit's folder, where the replica is a Slurm job."""
        return self.path / "job"

    @property
    def replica_log(self) -> Path:
        return self.path / "replica.log"

    @property
    def stop_request(self) -> Path:
        """While this file is there, the replica finishes its requests and ends."""
        return self.path / "stop"

    @property
    def engine_log(self) -> Path:
        return self.path / "vllm.log"

    def write_order(self, spec: ReplicaSpec) -> None:
        """Put down the order for a replica and a fresh key."""
        _write_json(self.path / "replica.json", asdict(spec))
        key = secrets.token_urlsafe(32)
        _write_private(self.key, key + "\n")
        _write_private(self.curl_header, f"Authorization: Bearer {key}\n")

    def read_spec(self) -> ReplicaSpec:
        return ReplicaSpec(**_read_json(self.path / "replica.json"))

    def read_key(self) -> str:
        return self.key.read_text(encoding="ascii").strip()

    def drop_key(self) -> None:
        """Remove the key once nothing is served any more."""
        self.key.unlink(missing_ok=True)
        self.curl_header.unlink(missing_ok=True)
        drop_keys(self.job)

    def write_status(self, status: Status) -> None:
        """Only the replica writes this, whole and by rename."""
        _write_json(self.path / "endpoint.json", asdict(status))

    def read_status(self) -> Status | None:
        """None until the replica has spoken."""
        record = _read_json(self.path / "endpoint.json", missing_ok=True)
        if record.get("kv_cache"):
            record["kv_cache"] = KVCache(**record["kv_cache"])
        return Status(**record) if record else None

    def write_started(self, started: Started) -> None:
        _write_json(self.path / "started.json", asdict(started))

    def read_started(self) -> Started | None:
        record = _read_json(self.path / "started.json", missing_ok=True)
        return Started(**record) if record else None


def endpoints_home() -> Path:
    """The user's folder of endpoints: $XDG_STATE_HOME or ~/.local/state."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "trainwright" / "endpoints"


def check_name(name: str) -> None:
    """UserError unless `name` may name an endpoint."""
    if not _NAME.match(name):
        raise UserError("--name", f"{name!r} is not a name", "use letters, digits, dot, dash, underscore")


def claim(name: str, run: RunDir | None) -> EndpointFolder:
    """Make the empty folder of endpoint `name`; the caller has seen that no living endpoint uses it."""
    home = endpoints_home()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    forget(name)
    folder = home / name if run is None else run.endpoint
    if run is not None:
        shutil.rmtree(run.endpoint, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700)
        if run is not None:
            (home / name).symlink_to(run.endpoint)
    except FileExistsError:
        raise UserError("--name", f"{name!r} is being started by someone else", "wait, or give another name") from None
    return EndpointFolder(folder)


def forget(name: str) -> None:
    """Remove the endpoint's place in the state folder, and its key; the logs of a run's endpoint stay with the run."""
    place = endpoints_home() / name
    if place.is_symlink():
        EndpointFolder(place.resolve()).drop_key()
        place.unlink()
    elif place.is_dir():
        shutil.rmtree(place)


def find_endpoint(name: str) -> EndpointFolder:
    """The endpoint of that name; UserError names those there are."""
    names = endpoint_names()
    if name not in names:
        known = f"there are {', '.join(names)}" if names else "none is being served"
        raise UserError("NAME", f"no endpoint {name!r}", known)
    return EndpointFolder((endpoints_home() / name).resolve())


def endpoint_names() -> list[str]:
    """Names of the endpoints in the user's state folder; links to run directories that are gone are dropped."""
    home = endpoints_home()
    if not home.is_dir():
        return []
    return sorted(entry.name for entry in home.iterdir() if entry.is_dir())


def _write_private(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text)


def _write_json(path: Path, record: dict[str, Any]) -> None:
    beside = path.with_name(f".{path.name}.partial-{os.getpid()}")
    beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    beside.rename(path)


def _read_json(path: Path, missing_ok: bool = False) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if missing_ok:
            return {}
        raise
    return record
