"""Endpoints: names, folders, records; which model is meant; what goes wrong before anything starts."""

import json
import os
import socket
import sys
from pathlib import Path

import pytest

from trainwright.config.errors import UserError
from trainwright.serving import endpoint as endpoint_module
from trainwright.serving.address import node_address
from trainwright.serving.endpoint import (
    KVCache,
    ReplicaSpec,
    Started,
    Status,
    check_name,
    claim,
    endpoint_names,
    find_endpoint,
    forget,
)
from trainwright.serving.launch import ServeOptions, check_port, local_vllm_python, make_spec
from trainwright.serving.models import find_model, model_config
from trainwright.serving.service import list_endpoints
from trainwright.storage.checkpoints.checkpoint import find_checkpoint

from .small_run import make_run, write_checkpoint

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


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_records_come_back_and_the_key_is_private(tmp_path: Path) -> None:
    folder = claim("tiny", None)
    folder.write_order(SPEC)
    cache = KVCache(num_blocks=4, block_size=16, num_tokens=64, max_model_len=32, num_full_requests=2.0)
    status = Status(state="ready", url="http://127.0.0.1:1/v1", kv_cache=cache)
    assert folder.read_status() is None
    folder.write_status(status)
    folder.write_started(Started(host="h", pid=1, started=2))
    assert folder.read_spec() == SPEC
    assert folder.read_status() == status
    assert folder.read_started() == Started(host="h", pid=1, started=2)
    assert len(folder.read_key()) >= 32
    assert folder.curl_header.read_text() == f"Authorization: Bearer {folder.read_key()}\n"
    for path in (folder.key, folder.curl_header):
        assert path.stat().st_mode & 0o777 == 0o600
    assert folder.path.stat().st_mode & 0o777 == 0o700
    others = [path for path in folder.path.iterdir() if path not in (folder.key, folder.curl_header)]
    assert not any(folder.read_key() in path.read_text() for path in others)


def test_a_runs_endpoint_is_in_the_run_and_found_by_name(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs")
    folder = claim("mine", run)
    folder.write_order(SPEC)
    assert folder.path == run.endpoint
    assert find_endpoint("mine").path == run.endpoint
    assert endpoint_names() == ["mine"]
    first = folder.read_key()
    claim("mine", run).write_order(SPEC)
    assert find_endpoint("mine").read_key() != first
    forget("mine")
    assert endpoint_names() == []
    assert not folder.key.exists()
    with pytest.raises(UserError, match=r"no endpoint 'mine'; none"):
        find_endpoint("mine")


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a b", "x" * 65, "-x"])
def test_bad_names(name: str) -> None:
    with pytest.raises(UserError, match="--name"):
        check_name(name)


def test_list_knows_the_dead_and_does_not_guess(tmp_path: Path) -> None:
    for name, started in (
        ("alive", Started(host=socket.gethostname(), pid=os.getpid(), started=_start_of(os.getpid()))),
        ("dead", Started(host=socket.gethostname(), pid=os.getpid(), started=1)),
        ("far", Started(host="elsewhere", pid=1, started=1)),
    ):
        folder = claim(name, None)
        folder.write_order(SPEC)
        folder.write_status(Status(state="ready"))
        folder.write_started(started)
    assert {row["name"]: row["state"] for row in list_endpoints()} == {
        "alive": "ready",
        "dead": "dead",
        "far": "unknown",
    }


def _start_of(pid: int) -> int | None:
    from trainwright.launchers.processes import start_time

    return start_time(pid)


def test_model_is_exported_once_and_again_when_the_step_changes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs")
    model = find_model(str(run.path))
    assert model.folder == run.export / "step-00000005"
    assert (model.run, model.name) == (run, "small")
    before = (model.folder / "model.safetensors").stat().st_mtime_ns
    find_model(f"{run.path}@5")
    assert (model.folder / "model.safetensors").stat().st_mtime_ns == before
    write_checkpoint(run, 5, num_ranks=2)  # the same step, written anew
    find_model(str(run.path))
    assert (model.folder / "model.safetensors").stat().st_mtime_ns != before
    record = json.loads((model.folder / "trainwright.json").read_text())
    assert record["checkpoint"] == str(run.checkpoint(5))


def test_an_export_outlives_its_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs")
    folder = find_model(str(run.path)).folder
    (run.checkpoint(5) / "manifest.json").unlink()
    assert find_model(f"{run.path}@5").folder == folder
    with pytest.raises(UserError, match=r"no checkpoint of step 6|has no checkpoint yet"):
        find_model(f"{run.path}@6")


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        find_model(str(tmp_path / "empty"))
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no safetensors"):
        find_model(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="no run 'nothing'"):
        find_model("nothing")
    assert find_checkpoint(str(make_run(tmp_path / "runs").checkpoint(5))).manifest.step == 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (ServeOptions(max_model_len=10_000), "--max-model-len: 10000"),
        (ServeOptions(max_model_len=0), "--max-model-len: 0"),
        (ServeOptions(kv_cache_gib=0.0), "--kv-cache-gib: 0.0"),
        (ServeOptions(kv_cache_gib=float("nan")), "--kv-cache-gib: nan"),
        (ServeOptions(port=70_000), "--port: 70000"),
        (ServeOptions(port=-1), "--port: -1"),
    ],
)
def test_mistakes_are_named_before_anything_starts(tmp_path: Path, options: ServeOptions, said: str) -> None:
    model = find_model(str(make_run(tmp_path / "runs").path))
    with pytest.raises(UserError) as caught:
        make_spec(model, options, "loopback", None, "python3")
    assert str(caught.value).startswith(said)


def test_float32_weights_are_served_in_float32(tmp_path: Path) -> None:
    model = find_model(str(make_run(tmp_path / "runs").path))
    assert make_spec(model, ServeOptions(), "loopback", None, "python3").dtype == "float32"
    assert make_spec(model, ServeOptions(dtype="bfloat16"), "loopback", None, "python3").dtype == "bfloat16"


def test_a_taken_port_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"--port: {port} cannot be used"):
            check_port(port)
    check_port(port)


def test_an_interpreter_without_vllm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINWRIGHT_VLLM_PYTHON", "/nonexistent/python")
    with pytest.raises(UserError, match="/nonexistent/python has no vllm"):
        local_vllm_python()
    monkeypatch.delenv("TRAINWRIGHT_VLLM_PYTHON")
    assert local_vllm_python() == sys.executable


def test_the_nodes_address() -> None:
    assert node_address("lo") == "127.0.0.1"
    assert socket.inet_aton(node_address(None))
    with pytest.raises(UserError, match=r"cluster\.network_interface: 'nope0'"):
        node_address("nope0")


def test_a_models_config_by_its_folder_or_by_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"dtype": "float32"}')
    assert model_config(tmp_path) == model_config(tmp_path / "config.json") == {"dtype": "float32"}
    assert endpoint_module.endpoints_home() == Path(os.environ["XDG_STATE_HOME"]) / "trainwright" / "endpoints"
