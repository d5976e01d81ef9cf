"""`trainwright sync` as a process, with W&B's real client, against a server on loopback."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from trainwright.config.run import RunConfig
from trainwright.config.rundir import RunDir
from trainwright.tracking.recorder import Recorder, StepRecord, read_metrics
from trainwright.tracking.wandb_log import stable_wandb_id

from .wandb_server import KEY, ServedRun, WandbServer

Make = Callable[..., StepRecord]
Sync = Callable[..., subprocess.CompletedProcess[str]]

_SYNC = """
import sys
from trainwright.cli.main import main
from trainwright.tracking import sync
sync._CONFIRM_S, sync._REACH_S = 2.0, 1.5
sys.exit(main(sys.argv[1:]))
"""


def record(run: RunConfig, run_dir: RunDir, attempt: int, records: list[StepRecord]) -> None:
    run_dir.next_attempt()
    recorder = Recorder(run, run_dir, attempt, console=False)
    for each in records:
        recorder.step(each)
    recorder.close(True)


@pytest.fixture
def sync(frozen: RunDir, server: WandbServer, tmp_path: Path) -> Sync:
    """Runs `sync RUN` with the words given; `variables` replace or, as None, remove some."""
    home = tmp_path / "home"
    home.mkdir()
    base = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    base |= {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "HOME": str(home)}

    def call(*words: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
        given = {name: value for name, value in {**base, **variables}.items() if value is not None}
        command = [sys.executable, "-c", _SYNC, "sync", str(frozen.path), *words]
        return subprocess.run(command, env=given, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    return call


def told(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)["uploaded"]
    return answer


def only(server: WandbServer) -> ServedRun:
    [run] = server.runs.values()
    return run


def test_attempts_become_one_history_and_a_second_sync_adds_nothing(
    silent_run: RunConfig, frozen: RunDir, make_record: Make, server: WandbServer, sync: Sync
) -> None:
    record(silent_run, frozen, 1, [make_record(step, 1.0 + step) for step in range(1, 13)])
    record(silent_run, frozen, 2, [make_record(step, 2.0 + step) for step in range(9, 21)])
    first = told(sync("--json"))
    run = only(server)
    assert first["steps"] == 20
    assert first["before"] == 0
    assert list(server.runs) == [stable_wandb_id(frozen)]
    assert run.steps() == list(range(1, 21))
    lines = read_metrics(frozen)
    for key in ("loss", "grad_norm", "lr", "tokens_per_s", "step"):
        assert run.values(key) == pytest.approx([line[key] for line in lines], abs=0)
    assert run.values("_timestamp") == pytest.approx([line["time"] for line in lines], abs=1e-3)
    assert json.loads(run.summary)["loss"] == {"last": lines[-1]["loss"], "min": min(line["loss"] for line in lines)}
    assert run.upserts[0]["displayName"] == "tiny"
    assert json.loads(run.upserts[0]["config"])["train"]["value"]["optimizer"]["lr"] == 1e-3

    again = told(sync("--json"))
    assert again["steps"] == 0
    assert again["before"] == 20
    assert run.steps() == list(range(1, 21))

    record(silent_run, frozen, 3, [make_record(step, 3.0) for step in range(16, 26)])
    more = told(sync("--json"))
    assert (more["steps"], more["before"], more["superseded"]) == (5, 20, 5)
    assert run.steps() == list(range(1, 26))
    assert server.unknown == []


def test_a_run_that_w_and_b_no_longer_has_is_uploaded_whole_again(
    silent_run: RunConfig, frozen: RunDir, make_record: Make, server: WandbServer, sync: Sync
) -> None:
    record(silent_run, frozen, 1, [make_record(step) for step in range(1, 6)])
    told(sync("--json"))
    server.runs.clear()
    assert told(sync("--json"))["steps"] == 5
    assert only(server).steps() == [1, 2, 3, 4, 5]


def test_what_the_server_shows_late_is_not_sent_twice(
    silent_run: RunConfig, frozen: RunDir, make_record: Make, server: WandbServer, sync: Sync
) -> None:
    record(silent_run, frozen, 1, [make_record(step) for step in range(1, 6)])
    told(sync("--json"))
    kept = only(server).history[2:]
    del only(server).history[2:]  # as a server that has not yet counted the newest lines
    assert told(sync("--json"))["steps"] == 0
    assert only(server).steps() == [1, 2]
    only(server).history += kept


def test_checkpoints_go_as_references(
    silent_run: RunConfig, frozen: RunDir, make_record: Make, server: WandbServer, sync: Sync, tmp_path: Path
) -> None:
    record(silent_run, frozen, 1, [make_record(step) for step in range(1, 6)])
    for step in (2, 4):
        frozen.checkpoint(step).mkdir(parents=True)
        (frozen.checkpoint(step) / "manifest.json").write_text(json.dumps({"step": step}))
        (frozen.checkpoint(step) / "rank-00000.safetensors").write_bytes(b"weights" * 1000)
    frozen.checkpoint(5).mkdir()  # not committed
    assert told(sync("--json"))["checkpoints"] == [2, 4]
    told_of = [json.loads(each["metadata"]) for each in only(server).artifacts]
    assert [each["step"] for each in told_of] == [2, 4]
    assert all(len(each["manifest_sha256"]) == 64 for each in told_of)
    aliases = [{each["alias"] for each in artifact["aliases"]} for artifact in only(server).artifacts]
    assert [f"step-{step}" in names for step, names in zip((2, 4), aliases, strict=True)] == [True, True]
    entries = [entry for manifest in server.manifests for entry in manifest["contents"].values()]
    files = ("manifest.json", "rank-00000.safetensors")
    assert {entry["ref"] for entry in entries} == {
        (frozen.checkpoint(step) / file).as_uri() for step in (2, 4) for file in files
    }
    assert [path for path in tmp_path.rglob("*.safetensors") if not path.is_relative_to(frozen.path)] == []  # no copy
    assert told(sync("--json"))["checkpoints"] == []
    assert len(only(server).artifacts) == 2


def test_how_a_run_ended_is_told(
    silent_run: RunConfig, frozen: RunDir, make_record: Make, server: WandbServer, sync: Sync
) -> None:
    record(silent_run, frozen, 1, [make_record(1)])
    path = frozen.ledger_file(1, "supervisor")
    path.write_text(json.dumps({"time": 1.0, "event": "exit", "code": 1, "message": "boom"}) + "\n")
    told(sync("--json"))
    path.write_text(json.dumps({"time": 1.0, "event": "exit", "code": 0}) + "\n")
    told(sync("--json"))
    assert only(server).exit_codes == [1, 0]


def test_the_key_is_kept_nowhere(
    silent_run: RunConfig, frozen: RunDir, make_record: Make, server: WandbServer, sync: Sync, tmp_path: Path
) -> None:
    record(silent_run, frozen, 1, [make_record(1)])
    before = set(frozen.path.rglob("*"))
    told(sync("--json"))
    assert server.keys  # it was used
    files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    assert {path.name for path in frozen.path.rglob("*")} - {path.name for path in before} == {
        "wandb-id",
        "wandb-sync.json",
    }


def test_the_key_may_be_in_netrc(
    silent_run: RunConfig, frozen: RunDir, make_record: Make, server: WandbServer, sync: Sync, tmp_path: Path
) -> None:
    record(silent_run, frozen, 1, [make_record(1)])
    (tmp_path / "home" / ".netrc").write_text(
        f"machine {urlsplit(server.url).netloc}\n  login user\n  password {KEY}\n"
    )
    (tmp_path / "home" / ".netrc").chmod(0o600)
    assert told(sync("--json", WANDB_API_KEY=None))["steps"] == 1


def test_a_dry_run_needs_neither_key_nor_network(
    silent_run: RunConfig, frozen: RunDir, make_record: Make, server: WandbServer, sync: Sync
) -> None:
    record(silent_run, frozen, 1, [make_record(step) for step in (1, 2, 3)])
    record(silent_run, frozen, 2, [make_record(step) for step in (3, 4)])
    done = sync("--dry-run", WANDB_API_KEY=None, WANDB_BASE_URL="http://127.0.0.1:9")
    assert done.returncode == 0
    assert "steps 1 to 4, 2 attempts; 1 that a later attempt ran again count once" in done.stdout
    assert server.runs == {}
    assert not frozen.wandb_sync.exists()


def one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """The command ended with 2 and one line with these words (besides progress)."""
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("sync: ")]
    assert len(said) == 1, done.stderr
    assert all(word in said[0] for word in words), said


class TestMistakes:
    """One line, exit code 2, and nothing that a later sync would trust."""

    @pytest.fixture(autouse=True)
    def _some_steps(self, silent_run: RunConfig, frozen: RunDir, make_record: Make) -> Iterator[None]:
        record(silent_run, frozen, 1, [make_record(step) for step in (1, 2, 3)])
        yield
        assert not frozen.wandb_sync.exists()

    def test_no_key(self, sync: Sync) -> None:
        one_line(sync(WANDB_API_KEY=None), "WANDB_API_KEY", "no usable key for 127.0.0.1:", "wandb login")

    def test_a_key_that_cannot_be_one(self, sync: Sync) -> None:
        done = sync(WANDB_API_KEY="sesame-open")
        one_line(done, "WANDB_API_KEY", "40+ characters")
        assert "sesame-open" not in done.stderr

    def test_a_key_that_is_refused(self, sync: Sync, server: WandbServer) -> None:
        server.accepts = False
        one_line(sync(), "WANDB_API_KEY", "refuses the key")

    def test_no_network(self, sync: Sync) -> None:
        one_line(sync(WANDB_BASE_URL="http://127.0.0.1:9"), "http://127.0.0.1:9 cannot be reached", "login node")

    def test_a_network_that_hangs(self, sync: Sync) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            one_line(sync(WANDB_BASE_URL=url), f"{url} cannot be reached", "timed out")

    def test_uploads_that_are_refused(self, sync: Sync, server: WandbServer) -> None:
        server.broken = 409
        one_line(sync(), "it shows steps up to -1, not 3", "nothing is lost")


def test_uploads_go_on_after_a_refusal(
    silent_run: RunConfig, frozen: RunDir, make_record: Make, server: WandbServer, sync: Sync
) -> None:
    record(silent_run, frozen, 1, [make_record(step) for step in (1, 2, 3)])
    server.broken = 409
    assert sync().returncode == 2
    server.broken = None
    assert told(sync("--json"))["steps"] == 3
    assert only(server).steps() == [1, 2, 3]


def test_a_run_without_a_step(frozen: RunDir, sync: Sync) -> None:
    one_line(sync(), "has recorded no step")
