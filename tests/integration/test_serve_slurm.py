"""An endpoint as a Slurm job of an ordinary user: reached from another node through its front, drained, ended."""

import json
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainwright.launchers import dev_cluster as cluster

from .conftest import Done, User
from .secret_search import commands_seen, files_with

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]


@pytest.fixture
def folder(dev_cluster: Path, ordinary_user: User) -> Iterator[Path]:
    """The user's folder with a model and the stand-in for vLLM, which is quick; vLLM itself has its own tests."""
    folder = ordinary_user.home / f"serve-{secrets.token_hex(4)}"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text('{"dtype": "float32", "max_position_embeddings": 256}')
    (folder / "model" / "model.safetensors").touch()
    engine = folder / "engine"
    engine.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("stand_in_engine.py")} "$@"\n')
    engine.chmod(0o755)
    ordinary_user.own(folder)
    yield folder
    serve(ordinary_user, folder, "--stop", "model")
    shutil.rmtree(folder, ignore_errors=True)


def serve(user: User, folder: Path, *arguments: str) -> Done:
    return user.trainwright("serve", *arguments, variables={"TRAINWRIGHT_VLLM_PYTHON": str(folder / "engine")})


def complete(user: User, node: str, record: dict[str, Any], seconds: float = 0.0) -> Done:
    """From `node`, with curl, the key from its file."""
    conf = {"SLURM_CONF": str(Path(str(_conf())))}
    body = json.dumps({"prompt": "a", "seconds": seconds})
    headers = ["-H", f"@{record['curl_header_file']}", "-H", "Content-Type: application/json"]
    request = ["curl", "-sS", "--fail", "--max-time", "60", *headers, "-d", body, f"{record['url']}/completions"]
    return user.run(["srun", f"--nodelist={node}", *request], conf)


def _conf() -> Path:
    from trainwright.config.profiles import dev_cluster_folder

    return dev_cluster_folder() / "slurm.conf"


def queue(user: User) -> str:
    done = user.run(["squeue", "--noheader", "--format=%j %T %u"], {"SLURM_CONF": str(_conf())})
    return done.stdout


def test_served_from_a_job_and_reached_from_another_node(dev_cluster: Path, ordinary_user: User, folder: Path) -> None:
    with commands_seen() as commands:
        done = serve(ordinary_user, folder, str(folder / "model"), "--profile", "dev", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert f"serve-model RUNNING {ordinary_user.name}" in queue(ordinary_user)
    others = [node for node in cluster.status(dev_cluster).nodes if node != record["node"]]
    assert len(others) == 1
    answer = complete(ordinary_user, others[0], record)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["choices"]
    without = complete(ordinary_user, others[0], {**record, "curl_header_file": "/dev/null"})
    assert "401" in without.stderr

    key = Path(record["key_file"]).read_text().strip()
    endpoint = Path(record["key_file"]).parent
    holders = {path.name for path in endpoint.rglob("*") if path.is_file() and key.encode() in path.read_bytes()}
    assert holders == {"key", "curl-header"}  # not in the script, the pickle or a log
    assert key not in "".join([done.stdout, done.stderr, *commands])
    assert files_with([dev_cluster], [key]) == [], "neither in what Slurm keeps of the job"

    slow: list[Done] = []
    asking = threading.Thread(target=lambda: slow.append(complete(ordinary_user, others[0], record, seconds=5.0)))
    asking.start()
    time.sleep(2.0)
    stopped = serve(ordinary_user, folder, "--stop", "model")
    asking.join(60)
    assert stopped.returncode == 0, stopped.stderr
    assert slow[0].returncode == 0, slow[0].stderr  # drained, not cut off
    assert "serve-model" not in queue(ordinary_user)
    left = ordinary_user.run(["pgrep", "-u", ordinary_user.name, "-f", "stand_in_engine|serving.replica|SIG_IGN"])
    assert left.stdout == ""


def test_a_death_in_the_job_is_one_line(dev_cluster: Path, ordinary_user: User, folder: Path) -> None:
    (folder / "engine").write_text("#!/bin/sh\necho 'ValueError: no such card' >&2\nexit 1\n")
    done = serve(ordinary_user, folder, str(folder / "model"), "--profile", "dev")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "ValueError: no such card" in last
    assert "Traceback" not in done.stderr
    assert "serve-model" not in queue(ordinary_user)
