"""Following the logs of all ranks from attempt to attempt, and what is said of the ends."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainwright.config.loading import dump_run, load_run
from trainwright.config.rundir import RunDir, create_run_dir
from trainwright.launchers.history import ends_in_words
from trainwright.launchers.streams import Followed, follow_run
from trainwright.tracking.ledger import LedgerWriter, read_ledger


@pytest.fixture
def run(run_file: Path) -> RunDir:
    """A run of twelve ranks that was never started."""
    config = load_run(run_file, ["cluster.ranks_per_node=12"])
    run = create_run_dir(run_file.parent / "runs", "tiny")
    run.run_yaml.write_text(dump_run(config))
    return run


def _begin(run: RunDir) -> int:
    attempt = run.next_attempt()
    run.attempt_yaml(attempt).write_text(run.run_yaml.read_text())
    for rank in (0, 11):
        LedgerWriter(run, attempt, f"rank-{rank:05d}").write("start", rank=rank, host=f"node{rank}")
    return attempt


def _write(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_ranks_and_attempts_in_one_stream(run: RunDir) -> None:
    first, over = _begin(run), threading.Event()
    _write(run.rank_log(first, 0), "a\nto")
    _write(run.rank_log(first, 11), "b\n")
    lines: list[str] = []
    following = follow_run(run, Followed(), over.is_set)

    def follow(stream: Iterator[str]) -> None:
        lines.extend(stream)

    thread = threading.Thread(target=follow, args=(following,))
    thread.start()
    while len(lines) < 3:
        time.sleep(0.01)
    _write(run.rank_log(first, 0), "rn\nlast words")
    second = _begin(run)
    _write(run.rank_log(second, 11), "c\n")
    _write(run.batch_log(second), "srun: done\n")
    over.set()
    thread.join(30)
    assert lines == [
        "=== attempt 1 on node0, node11 ===\n",
        "[ 0] a\n",
        "[11] b\n",
        "[ 0] torn\n",
        "[ 0] last words\n",
        "=== attempt 2 on node0, node11 ===\n",
        "[11] c\n",
        "[batch] srun: done\n",
    ]


def test_one_rank_or_one_attempt(run: RunDir) -> None:
    for attempt in (_begin(run), _begin(run)):
        _write(run.rank_log(attempt, 0), f"zero {attempt}\n")
        _write(run.rank_log(attempt, 11), f"eleven {attempt}\n")
    assert list(follow_run(run, Followed(rank=11, attempt=1), lambda: False)) == ["eleven 1\n"]
    assert list(follow_run(run, Followed(attempt=1), lambda: False))[1:] == ["[ 0] zero 1\n", "[11] eleven 1\n"]
    assert list(follow_run(run, Followed(rank=0), lambda: True))[-1] == "zero 2\n"


def test_ends_in_words(run: RunDir) -> None:
    first = LedgerWriter(run, _begin(run), "supervisor")
    first.write("commit", step=40)
    LedgerWriter(run, 1, "rank-00000").write("verdict", rank=0, code=1, message="connection closed by peer")
    first.write("cause", cause="crash")
    first.write("exit", code=1, failure={"rank": 11, "host": "node11", "how": "Killed"}, message="")
    first.write("requeue", why="crash: goes on from the last checkpoint", trouble="")
    second = LedgerWriter(run, _begin(run), "supervisor")
    second.write("cause", cause="node failure", nodes=["node11"])
    second.write("exclude", host="node11", reason="node failure", until=0.0)
    LedgerWriter(run, _begin(run), "supervisor").write("cause", cause="finished")
    assert ends_in_words(read_ledger(run)) == {
        1: "a rank failed or was killed, rank 11 on node11: Killed, saved step 40, goes on from the last checkpoint",
        2: "a node failed, without node11",
        3: "finished",
    }
