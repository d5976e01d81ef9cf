"""The checks as one rank makes them, on real gloo groups and real files."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from trainwright.config.errors import CannotWrite, UnhealthyNode, UserError
from trainwright.config.loading import load_run
from trainwright.config.model_reader import read_model
from trainwright.config.rundir import RunDir, create_run_dir
from trainwright.parallelism.preflight import preflight
from trainwright.parallelism.preflight_measures import matrix_product, write_and_read
from trainwright.parallelism.ranks import Rank
from trainwright.tracking.ledger import read_ledger

_BIG = {"hidden_size": 1 << 17, "intermediate_size": 1 << 19, "num_attention_heads": 1024, "num_hidden_layers": 30}

_TWO = """
import os, socket, sys, time
import torch.distributed as dist
from trainwright.parallelism import preflight_measures
from trainwright.parallelism.ranks import texts_at_rank_zero
os.environ.update(RANK=sys.argv[1], WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[2])
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
dist.init_process_group("gloo")
if sys.argv[1] == "1":
    real = time.time
    time.time = lambda: real() + 3600
least, most = preflight_measures.clock_ahead()
assert preflight_measures.all_reduce() > 0
texts = texts_at_rank_zero("x" * 1000 if sys.argv[1] == "1" else "é")
print([least, most], texts)
dist.destroy_process_group()
"""


@pytest.fixture
def alone() -> Iterator[Rank]:
    """The only rank of a group."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    yield Rank(0, 1, 0)
    dist.destroy_process_group()


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    place = create_run_dir(tmp_path / "runs", "tiny")
    assert place.next_attempt() == 1
    return place


def check(run_file: Path, place: RunDir, me: Rank, *overrides: str, **model: Any) -> dict[str, Any] | None:
    """Make the checks; what the ledger has of them."""
    config = run_file.parent / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | model))
    preflight(load_run(run_file, overrides), place, 1, me, read_model(config))
    return next((event.fields for event in read_ledger(place) if event.event == "preflight"), None)


def test_what_the_ledger_has(run_file: Path, run_dir: RunDir, alone: Rank) -> None:
    found = check(run_file, run_dir, alone)
    assert found is not None
    assert (found["nodes"], found["ranks"], found["findings"]) == (1, 1, [])
    assert found["seconds"] > 0
    assert found["tflops"]["slowest"] > 0
    assert found["all_reduce_gb_per_s"] > 0
    assert found["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    if not torch.cuda.is_available():
        assert found["gpus"] is None
    assert list(run_dir.attempt_logs(1).iterdir()) == [], "the probe is removed"


def test_nothing_is_checked_unless_wanted(run_file: Path, run_dir: RunDir) -> None:
    assert check(run_file, run_dir, Rank(0, 1, 0), "preflight.enabled=false") is None  # there is no group to ask


def test_no_room_for_a_checkpoint(run_file: Path, run_dir: RunDir, alone: Rank) -> None:
    with pytest.raises(CannotWrite, match=r"runs/tiny: .* are free, and a checkpoint takes \S+ TB; free some space"):
        check(run_file, run_dir, alone, **_BIG)
    [event] = read_ledger(run_dir)
    assert event.fields["findings"][0]["check"] == "file system"


def test_a_node_that_is_slower_than_expected(run_file: Path, run_dir: RunDir, alone: Rank) -> None:
    with pytest.raises(UnhealthyNode, match=r"preflight: \S+: it computes \S+ Tflop/s, and 1e\+06 is expected") as bad:
        check(run_file, run_dir, alone, "cluster.expected_tflops=1e6")
    assert bad.value.here


@pytest.mark.skipif(torch.cuda.is_available(), reason="it is about a machine without GPUs")
def test_gpus_that_torch_cannot_use(run_file: Path, run_dir: RunDir, alone: Rank) -> None:
    with pytest.raises(UserError, match=r"^cluster.gpus_per_node: 4, but torch can use no GPU on any node; install"):
        check(run_file, run_dir, alone, "cluster.gpus_per_node=4")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    assert write_and_read(tmp_path / "probe") is None
    error = write_and_read(tmp_path / "missing" / "probe")
    assert error is not None
    assert error.errno == errno.ENOENT


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "probe").symlink_to("/dev/full")
    error = write_and_read(tmp_path / "probe")
    assert error is not None
    assert error.errno == errno.ENOSPC


def test_the_product_is_always_the_same() -> None:
    first, second = matrix_product(), matrix_product()
    assert first[1] == second[1]
    if not torch.cuda.is_available():
        numbers = range(192)
        rows = [[(row * 7 + column * 13) % 5 - 2 for column in numbers] for row in numbers]
        sums = [sum(row) for row in rows]
        products = [sum(value * total for value, total in zip(row, sums, strict=True)) for row in rows]
        assert first[1] == sum(total * (row + 1) for row, total in enumerate(products))


def test_a_clock_that_is_an_hour_ahead_and_texts_of_two_ranks() -> None:
    from trainwright.launchers.rendezvous import free_port

    port = str(free_port())
    command = [sys.executable, "-c", _TWO]
    ranks = [
        subprocess.Popen([*command, str(rank), port], stdout=subprocess.PIPE, text=True, env={**os.environ})
        for rank in (0, 1)
    ]
    zero, one = (rank.communicate(timeout=120)[0] for rank in ranks)
    assert [rank.returncode for rank in ranks] == [0, 0]
    bounds, texts = zero.split("] ", 1)
    assert json.loads(bounds + "]")[0] <= 0 <= json.loads(bounds + "]")[1]
    assert texts.strip() == str(["é", "x" * 1000])
    least, most = json.loads(one.split("] ", 1)[0] + "]")
    assert least <= 3600 <= most
    assert one.strip().endswith("[]")
