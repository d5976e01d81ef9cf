"""`serve` as one call: claim a name, start a replica, wait for its first token, say what there is."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ..config.cluster import ClusterConfig
from ..config.errors import UserError
from ..config.loading import load_cluster, load_run
from .endpoint import (
    EndpointFolder,
    ReplicaSpec,
    Status,
    check_name,
    claim,
    endpoint_names,
    find_endpoint,
    forget,
)
from .jobs import JobWatch, start_job
from .launch import (
    ProcessWatch,
    ServeOptions,
    Watch,
    check_answer,
    check_port,
    local_vllm_python,
    make_spec,
    start_local,
    wait_ready,
)
from .models import ServedModel
from .stop import lives, stop

_TRY_PROMPT = "def "


@dataclass(frozen=True, kw_only=True)
class Served:
    """A ready endpoint."""

    folder: EndpointFolder
    spec: ReplicaSpec
    status: Status
    reached: bool
    """Whether this host itself got an answer through the front."""

    def record(self) -> dict[str, Any]:
        """For --json; holds the key's file, never the key."""
        return {
            "name": self.spec.name,
            "url": self.status.url,
            "key_file": str(self.folder.key),
            "curl_header_file": str(self.folder.curl_header),
            "model": self.spec.model,
            "weights_digest": self.status.weights_digest,
            "node": self.status.node,
            "kv_cache": asdict(self.status.kv_cache) if self.status.kv_cache else None,
            "reached": self.reached,
            "log": str(self.folder.engine_log),
        }

    def text(self) -> str:
        """For people."""
        body = json.dumps({"model": self.spec.name, "prompt": _TRY_PROMPT, "max_tokens": 32})
        header = f"-H @{self.folder.curl_header} -H 'Content-Type: application/json'"
        lines = [
            f"serving {self.spec.name} at {self.status.url}",
            f"  model      {self.spec.model}",
            f"  key        {self.folder.key}",
            f"  KV cache   {self._cache()}",
            f"  try        curl {header} -d '{body}' {self.status.url}/completions",
            f"  stop       trainwright serve --stop {self.spec.name}",
        ]
        if not self.reached:
            lines.append(f"  note       {self.status.node} cannot be reached from this host; call it from the cluster")
        return "\n".join(lines)

    def _cache(self) -> str:
        cache = self.status.kv_cache
        if cache is None:
            return "vLLM does not say"
        return (
            f"{cache.num_blocks} blocks x {cache.block_size} tokens = {cache.num_tokens} tokens: "
            f"{int(cache.num_full_requests)} requests at full length ({cache.max_model_len} tokens)"
        )


def serve(model: ServedModel, options: ServeOptions, say: Callable[[str], None]) -> Served:
    """Start an endpoint for `model` and return it once it has generated a token; if it fails, nothing runs on."""
    cluster = _cluster(model, options.profile)
    name = options.name or model.name
    check_name(name)
    refuse_living(name, model)
    slurm = cluster.scheduler == "slurm"
    if slurm:
        spec = make_spec(model, options, "node", cluster.network_interface, job_python(cluster))
    else:
        check_port(options.port)
        spec = make_spec(model, options, "loopback", None, local_vllm_python())
    folder = claim(name, model.run)
    watch: Watch
    try:
        folder.write_order(spec)
        watch = JobWatch(start_job(folder, name, cluster)) if slurm else ProcessWatch(start_local(folder))
        status = wait_ready(folder, watch, options.wait_s, say)
        reached = check_answer(status, folder, spec)
    except KeyboardInterrupt:
        stop(folder)
        forget(name)
        raise
    except BaseException:
        stop(folder)
        folder.drop_key()  # the logs stay, for whoever looks why
        raise
    return Served(folder=folder, spec=spec, status=status, reached=reached)


def list_endpoints() -> list[dict[str, Any]]:
    """Name, state, URL and model of each of the user's endpoints. What cannot be known from here is "unknown"."""
    rows = []
    for name in endpoint_names():
        folder = find_endpoint(name)
        status, spec, alive = folder.read_status(), folder.read_spec(), lives(folder.read_started())
        said = status.state if status is not None else "starting"
        if alive is None:
            state = "unknown"
        elif alive:
            state = said
        else:
            state = said if said in ("failed", "stopped") else "dead"
        url = status.url if status is not None else None
        rows.append({"name": name, "state": state, "url": url, "model": spec.model, "folder": str(folder.path)})
    return rows


def job_python(cluster: ClusterConfig) -> str:
    """The interpreter that has vLLM, in a job."""
    return os.environ.get("TRAINWRIGHT_VLLM_PYTHON") or cluster.python or sys.executable


def _cluster(model: ServedModel, profile: str | None) -> ClusterConfig:
    """Where it runs: the profile asked for, else the run's own section, else this machine."""
    if profile is not None:
        return load_cluster(profile)
    if model.run is not None:
        return load_run(model.run.run_yaml).cluster
    return ClusterConfig()


def refuse_living(name: str, model: ServedModel) -> None:
    """One endpoint per name, and one per run."""
    for other in endpoint_names():
        folder = find_endpoint(other)
        same_run = model.run is not None and folder.path == model.run.endpoint.resolve()
        if other != name and not same_run:
            continue
        if lives(folder.read_started()) is False:
            stop(folder)  # a killed replica may have left processes
            forget(other)
            continue
        status = folder.read_status()
        where = f" at {status.url}" if status is not None and status.url else ""
        remedy = f"`trainwright serve --stop {other}` first, or serve the exported folder under another --name"
        raise UserError("--name", f"{other!r} is being served already{where}", remedy)
