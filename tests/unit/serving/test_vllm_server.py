"""vLLM's command line and environment, and what its log and metrics say."""

import os
from pathlib import Path

import pytest

from trainwright.serving.endpoint import KVCache, ReplicaSpec
from trainwright.serving.vllm_server import cause_of_death, read_kv_cache, vllm_command, vllm_environment

SPEC = ReplicaSpec(
    name="tiny",
    model="/models/tiny",
    dtype="float32",
    max_model_len=128,
    kv_cache_bytes=None,
    vllm_python="/usr/bin/python3",
    bind="loopback",
    network_interface=None,
    port=0,
)


def test_vllm_gets_no_secret_and_no_leftovers() -> None:
    base = {
        "PATH": "/bin",
        "WANDB_API_KEY": "w",
        "HF_TOKEN": "h",
        "VLLM_API_KEY": "old",
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "40",
        "RANK": "3",
        "MASTER_ADDR": "x",
        "OMP_NUM_THREADS": "1",
        "VLLM_CACHE_ROOT": "/cache",
    }
    got = vllm_environment(base, "new", cpu=False)
    assert {name for name in base if name in got} == {"PATH", "VLLM_API_KEY", "VLLM_CACHE_ROOT"}
    assert got["VLLM_API_KEY"] == "new"
    assert got["HF_HUB_OFFLINE"] == got["VLLM_NO_USAGE_STATS"] == got["DO_NOT_TRACK"] == "1"


def test_on_cpu_the_worker_shares_the_engines_process_and_leaves_the_server_a_core() -> None:
    cores = len(os.sched_getaffinity(0))
    got = vllm_environment({"OMP_NUM_THREADS": "77"}, "key", cpu=True)
    assert (got["VLLM_ENABLE_V1_MULTIPROCESSING"], got["OMP_NUM_THREADS"]) == ("0", str(max(1, cores - 1)))
    assert got["TORCH_COMPILE_DISABLE"] == "1"
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in vllm_environment({}, "key", cpu=False)


def test_cpu_gets_a_small_cache_and_a_gpu_its_own_choice() -> None:
    cpu, gpu = (vllm_command(SPEC, Path("/s"), cpu) for cpu in (True, False))
    assert cpu[cpu.index("--kv-cache-memory-bytes") + 1] == str(1 << 29)
    assert "--enforce-eager" in cpu
    assert not {"--kv-cache-memory-bytes", "--enforce-eager", "--api-key", "--host", "--port"} & set(gpu)
    assert gpu[gpu.index("--uds") + 1] == "/s"


LOG = """\
(APIServer pid=7) INFO 11-24 05:55:17 [api_utils.py:347] version 0.32
\x1b[0;36m(EngineCore pid=8)\x1b[0;0m ERROR 11-24 05:56:00 [core.py:900] ValueError: 0.1 GiB KV cache is needed
(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
(APIServer pid=7) INFO bye
"""


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (
            LOG,
            "ValueError: 0.1 GiB KV cache is needed",
        ),
        (
            "x\napi_server.py: error: unrecognized arguments: --uds\n",
            "api_server.py: error: unrecognized arguments: --uds",
        ),
        ("/usr/bin/python3: No module named vllm\n", "/usr/bin/python3: No module named vllm"),
        ("Killed\n", "Killed"),
        (
            "pydantic_core.ValidationError: 1 validation error for ModelConfig\n  Value error, no cheese\n\nx\n",
            "ValidationError: 1 validation error for ModelConfig Value error, no cheese",
        ),
        ("", "it said nothing"),
    ],
)
def test_the_cause_is_found_in_the_log(tmp_path: Path, log: str, cause: str) -> None:
    (tmp_path / "vllm.log").write_text(log)
    assert cause_of_death(tmp_path / "vllm.log") == cause


def test_kv_cache_from_metrics() -> None:
    labels = 'block_size="128",cache_dtype="auto",num_gpu_blocks="16384",kv_cache_size_tokens="2097152"'
    text = "# HELP x\nvllm:cache_config_info{" + labels + ',kv_cache_max_concurrency="4096.0"} 1.0\n'
    assert read_kv_cache(text, 512) == KVCache(
        num_blocks=16384, block_size=128, num_tokens=2097152, max_model_len=512, num_full_requests=4096.0
    )
    older = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0'
    assert read_kv_cache(older, 400) == KVCache(
        num_blocks=100, block_size=16, num_tokens=1600, max_model_len=400, num_full_requests=4.0
    )
    assert read_kv_cache('vllm:cache_config_info{num_gpu_blocks="None"} 1.0', 400) is None
    assert read_kv_cache("", 400) is None
