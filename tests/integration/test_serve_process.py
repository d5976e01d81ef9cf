"""The processes of an endpoint: drain, stop, kill -9, a death at start or later, Ctrl-C. Nothing may be left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from trainwright.launchers.processes import start_time, wait_until

from ..unit.serving.small_run import make_run
from .real_runs import IN_MATRIX

TIMEOUT_S = 60


@dataclass
class Shell:
    """Runs `trainwright serve` with a state folder of its own and the stand-in for vLLM."""

    folder: Path
    environment: dict[str, str]
    sessions: set[int] = field(default_factory=set)

    def serve(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-m", "trainwright.cli.main", "serve", *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=2 * TIMEOUT_S,
            check=False,
        )
        self.note()
        return done

    def start(self, *arguments: str, **environment: str) -> dict[str, Any]:
        done = self.serve(str(self.folder / "model"), "--json", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        record: dict[str, Any] = json.loads(done.stdout)
        return record

    @property
    def endpoint(self) -> Path:
        return self.folder / "state" / "trainwright" / "endpoints" / "model"

    def note(self) -> None:
        """Remember the replica's session, to look for leftovers."""
        if (self.endpoint / "started.json").is_file():
            self.sessions.add(json.loads((self.endpoint / "started.json").read_text())["pid"])

    def left(self) -> list[int]:
        return [pid for session in self.sessions for pid in members(session)]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"dtype": "float32", "max_position_embeddings": 256}')
    (tmp_path / "model" / "model.safetensors").touch()
    engine = tmp_path / "engine"
    engine.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("stand_in_engine.py")} "$@"\n')
    engine.chmod(0o700)
    sockets = tempfile.mkdtemp(dir="/tmp")  # tmp_path is too long for a Unix socket
    mine = {"TMPDIR": sockets, "XDG_STATE_HOME": str(tmp_path / "state"), "TRAINWRIGHT_VLLM_PYTHON": str(engine)}
    shell = Shell(tmp_path, {**os.environ, **mine})
    yield shell
    for pid in shell.left():
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(sockets)


def members(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == session:
                found.append(int(entry.name))
        except ProcessLookupError:
            continue
    return [pid for pid in found if start_time(pid) is not None]


def complete(record: dict[str, Any], prompt: str, seconds: float = 0.0) -> int:
    """Ask for a completion; the HTTP status."""
    key = Path(record["key_file"]).read_text().strip()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    body = json.dumps({"prompt": prompt, "seconds": seconds}).encode()
    request = urllib.request.Request(f"{record['url']}/completions", body, headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        return int(answer.status)


def test_stop_lets_requests_finish_and_leaves_nothing(shell: Shell) -> None:
    record = shell.start()
    assert record["kv_cache"] == {
        "num_blocks": 32, "block_size": 16, "num_tokens": 512, "max_model_len": 256, "num_full_requests": 2.0
    }  # fmt: skip
    assert len(shell.left()) == 3  # replica, engine, its child
    answers: list[int] = []
    slow = threading.Thread(target=lambda: answers.append(complete(record, "a", seconds=3.0)))
    slow.start()
    time.sleep(0.5)
    done = shell.serve("--stop", "model")
    slow.join(TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert answers == [200]
    assert shell.left() == []
    assert not shell.endpoint.exists()
    assert os.listdir(shell.environment["TMPDIR"]) == []


def test_kill_9_is_seen_and_cleaned_up(shell: Shell) -> None:
    shell.start()
    (replica,) = shell.sessions
    os.kill(replica, signal.SIGKILL)
    assert wait_until(lambda: len(shell.left()) == 1, TIMEOUT_S)  # the engine went; its stuck child did not
    listed = json.loads(shell.serve("--list", "--json").stdout)["endpoints"]
    assert [row["state"] for row in listed] == ["dead"]
    assert shell.serve("--stop", "model").returncode == 0
    assert shell.left() == []
    assert os.listdir(shell.environment["TMPDIR"]) == []


@IN_MATRIX
def test_a_dead_endpoint_does_not_block_its_name(shell: Shell) -> None:
    first = shell.start()
    (replica,) = shell.sessions
    os.kill(replica, signal.SIGKILL)
    assert wait_until(lambda: start_time(replica) is None, TIMEOUT_S)
    second = shell.start()
    assert second["url"] != first["url"]
    assert complete(second, "a") == 200
    assert shell.serve("--stop", "model").returncode == 0
    assert shell.left() == []


def test_death_at_start_is_one_line_with_the_cause(shell: Shell) -> None:
    done = shell.serve(str(shell.folder / "model"), STAND_IN="die")
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith("serve: loading")]
    assert len(lines) == 1
    assert "ValueError: the model is made of cheese" in lines[0]
    assert str(shell.endpoint) in lines[0]
    assert (shell.endpoint / "vllm.log").read_text()
    assert not (shell.endpoint / "key").exists()
    assert shell.left() == []


@IN_MATRIX
def test_never_ready_is_given_up(shell: Shell) -> None:
    done = shell.serve(str(shell.folder / "model"), "--wait-s", "4", STAND_IN="hang")
    assert done.returncode == 2
    assert "not ready after 4 s" in done.stderr
    assert shell.left() == []


def test_ctrl_c_while_waiting_leaves_nothing(shell: Shell) -> None:
    command = [sys.executable, "-m", "trainwright.cli.main", "serve", str(shell.folder / "model")]
    with subprocess.Popen(command, env={**shell.environment, "STAND_IN": "hang"}, stderr=subprocess.PIPE) as process:
        assert wait_until(lambda: (shell.endpoint / "endpoint.json").is_file(), TIMEOUT_S)
        shell.note()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert shell.left() == []
    assert not shell.endpoint.exists()


def test_a_crash_later_is_recorded_and_ends_the_replica(shell: Shell) -> None:
    record = shell.start()
    with pytest.raises(OSError):
        complete(record, "crash")
    assert wait_until(lambda: shell.left() == [], TIMEOUT_S)
    listed = json.loads(shell.serve("--list", "--json").stdout)["endpoints"]
    assert [row["state"] for row in listed] == ["failed"]
    assert "code 9" in json.loads((shell.endpoint / "endpoint.json").read_text())["cause"]


def test_a_run_is_exported_and_served_from_its_folder(shell: Shell) -> None:
    run = make_run(shell.folder / "runs")
    done = shell.serve("small@5", "--runs", str(shell.folder / "runs"), "--json")
    assert done.returncode == 0, done.stderr
    shell.sessions.add(json.loads((run.endpoint / "started.json").read_text())["pid"])
    record = json.loads(done.stdout)
    assert record["model"] == str(run.export / "step-00000005")
    assert record["key_file"] == str(run.endpoint / "key")
    assert (
        record["weights_digest"]
        == json.loads((Path(record["model"]) / "trainwright.json").read_text())["weights_digest"]
    )
    other = shell.serve(str(run.path), "--name", "other")
    assert other.returncode == 2
    assert "'small' is being served already" in other.stderr
    assert shell.serve("--stop", "small").returncode == 0
    assert shell.left() == []
    assert (run.endpoint / "vllm.log").is_file()
    assert not (run.endpoint / "key").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--list", "--port", "5"], "--port: 5 means nothing"),
        (["--stop", "nothing"], "NAME: no endpoint 'nothing'"),
        (["MODEL", "--name", "a/b"], "--name: 'a/b'"),
        (["MODEL", "--port", "99999"], "--port: 99999"),
        (["MODEL", "--profile", "nope"], "cluster.profile: no profile 'nope'"),
        (["MODEL", "--max-model-len", "257"], "--max-model-len: 257"),
        ([], "MODEL"),
    ],
)
def test_mistakes_are_one_line(shell: Shell, arguments: list[str], said: str) -> None:
    done = shell.serve(*[str(shell.folder / "model") if word == "MODEL" else word for word in arguments])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert shell.left() == []
