"""The product as a newcomer meets it: `trainwright quickstart`, and the same run file on a real Slurm.

These are the slowest tests: a whole quickstart, one with experts (a fifth of its steps but in `make test-matrix`), and
one real vLLM in a Slurm job.
"""

import json
import random
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from trainwright.launchers import dev_cluster as cluster
from trainwright.launchers.processes import wait_until
from trainwright.serving.endpoint import EndpointFolder

from .conftest import CLI, User
from .real_runs import IN_MATRIX, WHOLE
from .vllm_parity import Target, compare_greedy

pytestmark = [pytest.mark.vllm, pytest.mark.ranks, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module", params=["dense", *(["moe"] if WHOLE else [])])
def quickstart(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """One quickstart, whole, its endpoint left running; its closing record, and its `folder`."""
    folder = tmp_path_factory.mktemp("quickstart") / "quickstart"
    kind = [] if request.param == "dense" else ["--moe"]
    command = [*CLI, "quickstart", *kind, "--folder", str(folder), "--keep-serving", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads(done.stdout)
    yield {**record, "folder": str(folder)}
    stop = [*CLI, "serve", "--stop", record["endpoint"]["name"]]
    stopped = subprocess.run(stop, capture_output=True, text=True, check=False)
    assert stopped.returncode == 0, stopped.stderr


def test_loss_falls_and_a_completion_is_shown(quickstart: dict[str, Any]) -> None:
    assert quickstart["last_loss"] <= 0.6 * quickstart["first_loss"]
    assert quickstart["completion"].strip()
    assert quickstart["logits_max_rel"] <= 1e-5
    assert Path(quickstart["loss_plot"]).read_bytes().startswith(b"\x89PNG")
    assert quickstart["next"]


def test_vllm_says_what_transformers_says(quickstart: dict[str, Any]) -> None:
    """50 prompts of real text x 32 greedy tokens, float32 on both sides."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    export = Path(quickstart["export"])
    tokenizer = Tokenizer.from_file(str(export / "tokenizer.json"))
    text = "\n".join(path.read_text() for path in sorted(Path(random.__file__).parent.glob("*.py"))[:20])
    ids = tokenizer.encode(text).ids
    starts = [draw.randrange(len(ids) - 64) for _ in range(50)]
    prompts = [ids[start : start + draw.randint(4, 48)] for start in starts]
    parity = compare_greedy(export, Target.of(quickstart["endpoint"]), prompts)
    print(parity)
    assert parity.num_prompts == 50
    assert parity.wrong == []


def _follower(user: User, run: Path) -> dict[str, Any]:
    """The endpoint that follows a run, once it is ready: what `serve --json` would have said."""
    folder, last = EndpointFolder(run / "endpoint"), dict[str, Any]()

    def is_ready() -> bool:
        listed = json.loads(user.trainwright("serve", "--list", "--json").stdout)["endpoints"]
        last.update(next(row for row in listed if row["folder"] == str(run / "endpoint")))
        assert last["state"] in ("starting", "ready"), folder.read_status()
        return bool(last["state"] == "ready")

    assert wait_until(is_ready, 300, every_s=2), last
    status = folder.read_status()
    assert status is not None
    assert status.kv_cache is not None
    cache = {"num_blocks": status.kv_cache.num_blocks}
    return {**last, "node": status.node, "kv_cache": cache, "curl_header_file": str(folder.curl_header)}


@IN_MATRIX
@pytest.mark.slurm
@pytest.mark.parametrize("quickstart", ["dense"], indirect=True)
@pytest.mark.parametrize("by_command", [False, True])
def test_the_quickstarts_file_on_slurm(
    quickstart: dict[str, Any], by_command: bool, dev_cluster: Path, ordinary_user: User
) -> None:
    """Two nodes of two ranks, as an ordinary user; then served from a job and reached from another node.

    The job of the endpoint follows the run by itself, or is submitted by `serve`.
    """
    home = ordinary_user.home / f"quickstart-{secrets.token_hex(4)}"
    shutil.copytree(quickstart["folder"], home, ignore=shutil.ignore_patterns("runs"))
    ordinary_user.own(home)
    changes = ["cluster.profile=dev", "cluster.nodes=2", "parallelism.pipeline=2"]
    short = ["train.steps=10", "--wait", "--json"]  # the whole length is trained in the other tests
    then = [] if by_command else ["--then", "serve --kv-cache-gib 0.25"]
    done = ordinary_user.trainwright("submit", home / "quickstart.yaml", *changes, *short, *then)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads(done.stdout)
    assert record["state"] == "finished"
    assert len(record["nodes"]) == 2
    if by_command:
        served = ordinary_user.trainwright("serve", record["run"], "--json", "--kv-cache-gib", "0.25")
        assert served.returncode == 0, served.stderr[-3000:]
        endpoint = json.loads(served.stdout)
    else:
        endpoint = _follower(ordinary_user, Path(record["run"]))
    try:
        assert endpoint["kv_cache"]["num_blocks"] > 0
        (other,) = [node for node in cluster.status(dev_cluster).nodes if node != endpoint["node"]]
        body = json.dumps({"model": endpoint["name"], "prompt": "def ", "max_tokens": 8})
        headers = ["-H", f"@{endpoint['curl_header_file']}", "-H", "Content-Type: application/json"]
        curl = ["curl", "-sS", "--fail", "--max-time", "60", *headers, "-d", body, f"{endpoint['url']}/completions"]
        slurm = {"SLURM_CONF": str(dev_cluster / "slurm.conf")}
        answer = ordinary_user.run(["srun", f"--nodelist={other}", *curl], slurm)
        assert answer.returncode == 0, answer.stderr
        assert json.loads(answer.stdout)["usage"]["completion_tokens"] == 8
    finally:
        stopped = ordinary_user.trainwright("serve", "--stop", endpoint["name"])
        assert stopped.returncode == 0, stopped.stderr
