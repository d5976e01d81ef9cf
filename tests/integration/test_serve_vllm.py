"""The whole endpoint with a real vLLM: start, ask, keys kept, KV cache as computed, parity, stop without a trace."""

import json
import os
import random
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from trainwright.launchers.processes import start_time

from .real_runs import IN_MATRIX
from .tiny_llama import write_tiny_llama
from .vllm_parity import Target, compare_greedy

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

KV_GIB = 0.0625
MAX_LEN = 256


@dataclass(frozen=True)
class Endpoint:
    """What `serve --json` printed, and where its records are."""

    record: dict[str, Any]
    model: Path
    environment: dict[str, str]

    @property
    def key(self) -> str:
        return Path(self.record["key_file"]).read_text().strip()

    @property
    def target(self) -> Target:
        return Target(self.record["url"], self.key, "tiny")


def trainwright(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "trainwright.cli.main", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A random tiny Llama, served."""
    folder = tmp_path_factory.mktemp("serve")
    write_tiny_llama(folder / "tiny")
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "VLLM_SERVER_DEV_MODE": "1"}
    size = ["--kv-cache-gib", str(KV_GIB), "--max-model-len", str(MAX_LEN)]
    done = trainwright(environment, "serve", str(folder / "tiny"), "--dtype", "float32", *size, "--json")
    try:
        assert done.returncode == 0, done.stderr
        yield Endpoint(json.loads(done.stdout), folder / "tiny", environment)
    finally:
        trainwright(environment, "serve", "--stop", "tiny")


def ask(endpoint: Endpoint, path: str, body: dict[str, Any] | None, key: str | None) -> tuple[int, str]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    base = endpoint.record["url"].removesuffix("/v1")
    try:
        with urllib.request.urlopen(urllib.request.Request(base + path, data, headers), timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def processes_of(endpoint: Endpoint) -> list[int]:
    """Living processes in the session of the endpoint's replica."""
    started = json.loads((Path(endpoint.record["key_file"]).parent / "started.json").read_text())
    return session_members(started["pid"])


def session_members(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and start_time(int(entry.name)) is not None:
            try:
                if os.getsid(int(entry.name)) == session:
                    found.append(int(entry.name))
            except ProcessLookupError:
                continue
    return found


def test_completion_with_the_key_and_401_without(endpoint: Endpoint) -> None:
    body = {"model": "tiny", "prompt": "def ", "max_tokens": 8, "ignore_eos": True}
    status, text = ask(endpoint, "/v1/completions", body, endpoint.key)
    assert status == 200, text
    assert json.loads(text)["usage"]["completion_tokens"] == 8
    assert endpoint.record["reached"] is True
    for key in (None, endpoint.key[:-1]):
        assert ask(endpoint, "/v1/completions", body, key)[0] == 401
    assert ask(endpoint, "/health", None, None) == (200, '{"status": "ready"}')


def test_stream_ends_with_done(endpoint: Endpoint) -> None:
    body = {"model": "tiny", "prompt": "def ", "max_tokens": 8, "stream": True, "ignore_eos": True}
    status, text = ask(endpoint, "/v1/completions", body, endpoint.key)
    assert status == 200
    assert text.count("data: ") == 9
    assert text.rstrip().endswith("data: [DONE]")


def test_administration_is_out_of_reach_even_in_dev_mode(endpoint: Endpoint) -> None:
    for path in ("/reset_prefix_cache", "/collective_rpc", "/sleep", "/server_info", "/invocations", "/tokenize"):
        assert ask(endpoint, path, {}, endpoint.key)[0] == 404, path


def test_the_key_is_in_its_file_alone(endpoint: Endpoint) -> None:
    key, folder = endpoint.key, Path(endpoint.record["key_file"]).parent
    assert {path.name for path in folder.iterdir() if key in path.read_text(errors="replace")} == {"key", "curl-header"}
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("key", "curl-header"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    members = processes_of(endpoint)
    assert len(members) >= 3
    for pid in members:
        assert key.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert key.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


def test_vllm_listens_on_no_tcp_port(endpoint: Endpoint) -> None:
    """Only the front's own port, on loopback, among the listeners of the endpoint's processes."""
    listeners = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                listeners[fields[9]] = fields[1]
    mine = set()
    for pid in processes_of(endpoint):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(link)
            except FileNotFoundError:
                continue
            inode = target.removeprefix("socket:[").removesuffix("]")
            if target.startswith("socket:[") and inode in listeners:
                mine.add(listeners[inode])
    port = int(endpoint.record["url"].removesuffix("/v1").rpartition(":")[2])
    assert f"0100007F:{port:04X}" in mine
    assert all(place.startswith(("0100007F:", "0000000000000000FFFF00000100007F:")) for place in mine), mine


def test_kv_cache_is_what_arithmetic_says(endpoint: Endpoint) -> None:
    cache = endpoint.record["kv_cache"]
    layers, kv_heads, head_dim, item_bytes = 3, 2, 32, 4  # of the tiny Llama, in float32
    block_bytes = 2 * layers * kv_heads * head_dim * item_bytes * cache["block_size"]
    assert cache["num_blocks"] == int(KV_GIB * 2**30) // block_bytes
    assert cache["num_tokens"] == cache["num_blocks"] * cache["block_size"]
    assert cache["max_model_len"] == MAX_LEN
    assert cache["num_full_requests"] == pytest.approx(cache["num_tokens"] / MAX_LEN)


def test_greedy_tokens_equal_transformers(endpoint: Endpoint) -> None:
    generator = random.Random(0)
    prompts = [[generator.randrange(1, 257) for _ in range(generator.randrange(1, 40))] for _ in range(8)]
    parity = compare_greedy(endpoint.model, endpoint.target, prompts, num_tokens=16)
    assert parity.wrong == []
    assert parity.num_prompts == 8
    assert parity.num_tokens >= 100


def test_parity_sees_another_model(endpoint: Endpoint, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(endpoint.model)
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.mul_(1.5)
    model.save_pretrained(tmp_path)
    prompts = [[5, 6, 7], [8, 9]]
    assert compare_greedy(tmp_path, endpoint.target, prompts, num_tokens=16).wrong


def test_list_names_it_and_a_second_of_that_name_is_refused(endpoint: Endpoint) -> None:
    listed = json.loads(trainwright(endpoint.environment, "serve", "--list", "--json").stdout)["endpoints"]
    assert [(row["name"], row["state"]) for row in listed] == [("tiny", "ready")]
    second = trainwright(endpoint.environment, "serve", str(endpoint.model))
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "served already" in second.stderr


def test_the_printed_curl_line_works(endpoint: Endpoint) -> None:
    from trainwright.serving.endpoint import EndpointFolder
    from trainwright.serving.service import Served

    folder = EndpointFolder(Path(endpoint.record["key_file"]).parent)
    status = folder.read_status()
    assert status is not None
    text = Served(folder=folder, spec=folder.read_spec(), status=status, reached=True).text()
    line = next(line for line in text.splitlines() if line.strip().startswith("try "))
    command = line.strip().removeprefix("try").strip()
    assert endpoint.key not in command
    done = subprocess.run(
        ["bash", "-c", f"{command} --silent"], capture_output=True, text=True, timeout=120, check=True
    )
    assert json.loads(done.stdout)["choices"]


def test_stop_leaves_nothing(endpoint: Endpoint) -> None:
    """Ends the endpoint that the tests above use."""
    folder = Path(endpoint.record["key_file"]).parent
    session = json.loads((folder / "started.json").read_text())["pid"]
    assert session_members(session)
    done = trainwright(endpoint.environment, "serve", "--stop", "tiny")
    assert done.returncode == 0, done.stderr
    assert session_members(session) == []
    assert not folder.exists()
    again = trainwright(endpoint.environment, "serve", "--stop", "tiny")
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1


@IN_MATRIX
def test_vllm_that_refuses_to_start_is_one_line(tmp_path: Path) -> None:
    """vLLM's own words are the cause, and nothing runs on."""
    write_tiny_llama(tmp_path / "odd")
    config = json.loads((tmp_path / "odd" / "config.json").read_text())
    (tmp_path / "odd" / "config.json").write_text(json.dumps({**config, "model_type": "cheese"}))
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    done = trainwright(environment, "serve", str(tmp_path / "odd"))
    assert done.returncode == 2
    assert "model type `cheese`" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    folder = tmp_path / "state" / "trainwright" / "endpoints" / "odd"
    assert session_members(json.loads((folder / "started.json").read_text())["pid"]) == []
    assert not (folder / "key").exists()
